"""`sessionledger demo`: twice in one folder, without being told where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sessionledger.cli import demo as demo_module
from sessionledger.cli.app import app
from sessionledger.cli.growth import Growth, measure_growth

FORGETFUL = "You have not asked me anything yet."
RIGHT = 'Your last question was: "What was my last question?"'


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_module, "_GROWTH_RUNS", 40)


def demo(*options: str) -> Result:
    result = CliRunner().invoke(app, ["demo", *options])
    assert result.exit_code == 0, result.output
    return result


def test_first_run_imports_shows_and_learns() -> None:
    shown = demo().stdout
    assert "5 sessions, 32 runs, 92 messages, 14 tool calls stored" in shown
    assert "airline-20-0" in shown
    assert shown.index(FORGETFUL) < shown.index(RIGHT)
    assert Path("sessionledger-demo.db").exists()


def test_second_run_finds_everything_there() -> None:
    demo()
    shown = demo().stdout
    assert "nothing new: 5 sessions" in shown
    assert FORGETFUL not in shown
    assert shown.count(RIGHT) == 2


def test_another_store_can_be_named(tmp_path: Path) -> None:
    demo("--store", f"sqlite:///{tmp_path}/other.db")
    assert Path("other.db").exists()
    assert not Path("sessionledger-demo.db").exists()


def test_a_store_of_the_environment_is_left_alone(tmp_path: Path) -> None:
    CliRunner().invoke(app, ["demo"], env={"SESSIONLEDGER_URL": f"sqlite:///{tmp_path}/production.db"})
    assert not Path("production.db").exists()
    assert Path("sessionledger-demo.db").exists()


def test_demo_as_json() -> None:
    records = [json.loads(line) for line in demo("--json").stdout.splitlines()]
    assert records[0]["import"]["new"]["sessions"] == 5
    assert [record["answer"] for record in records if "answer" in record] == [FORGETFUL, RIGHT]
    growth = records[-1]["growth"]
    assert growth["blob"]["bytes"] > 10 * growth["sessionledger"]["bytes"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_blob_store_writes_the_square_of_what_ours_writes() -> None:
    growth: Growth = await measure_growth(40)
    ours, blob = growth.ours.bytes_per_run, growth.blob.bytes_per_run
    assert max(ours) - min(ours) < 20
    assert blob[-1] > 35 * blob[0]
    assert growth.ours.total == sum(ours)


def test_the_samples_carry_their_licence() -> None:
    folder = Path(demo_module.__file__).parent / "samples"
    assert "Sierra" in (folder / "LICENSE.airline").read_text()
    assert len((folder / "airline.jsonl").read_bytes().splitlines()) == 5
