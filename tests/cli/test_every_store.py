"""The command line does the same on every storage."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from sessionledger.cli import demo as demo_module
from sessionledger.cli.app import app

TIME = re.compile(r"2\d{3}-\d\d-\d\d[T ][\d:.]+Z?")

#: Storages, and the fixtures of their servers.
SERVERS = {"mongodb": "mongo_server", "postgres": "postgres_server", "redis": "redis_server"}


@pytest.fixture(params=["file", "sqlite", *SERVERS])
def other_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param in SERVERS:
        url: str = request.getfixturevalue(SERVERS[request.param]).fresh_url()
        return url
    return f"file://{tmp_path}/other" if request.param == "file" else f"sqlite:///{tmp_path}/other.db"


def run(url: str, *arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--store" if "import" not in arguments else "--to", url])
    assert result.exit_code == 0, result.output
    return result.stdout


def shown(url: str) -> list[str]:
    ids = ["airline-1-0", "airline-12-0", "airline-18-0"]
    texts = [run(url, "show", session_id, *options) for session_id in ids for options in ((), ("--json",))]
    # when they were imported
    return [TIME.sub("…", text) for text in texts]


def test_what_was_imported_is_shown_equally(other_url: str, sample: Path, url: str) -> None:
    assert "3 sessions, 17 runs, 44 messages, 5 tool calls" in run(other_url, "import", str(sample))
    assert "nothing new" in run(other_url, "import", str(sample))
    run(url, "import", str(sample))
    assert shown(other_url) == shown(url)


def test_the_demo_runs_on_it(other_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_module, "_GROWTH_RUNS", 40)
    first, second = run(other_url, "demo"), run(other_url, "demo")
    assert "5 sessions, 32 runs, 92 messages, 14 tool calls stored" in first
    assert "nothing new: 5 sessions" in second
