"""A store in a file, a sample of real conversations, and the command line as a function."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
from click.testing import CliRunner, Result

from sessionledger import SessionStore, open_store
from sessionledger.cli.app import app

T = TypeVar("T")

SAMPLE = Path(__file__).parent.parent / "data" / "airline.jsonl"


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store from the environment, and the same terminal and time zone everywhere."""
    for name in ("SESSIONLEDGER_URL", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def sample() -> Path:
    """Three conversations of tau-bench's airline domain: 17 runs, 44 messages, 5 tool calls (see LICENSE.airline)."""
    return SAMPLE


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/sessions.db"


@pytest.fixture
def invoke(url: str) -> Callable[..., Result]:
    """Runs `sessionledger` on the store, by the environment."""

    def run(*arguments: str | Path, **options: Any) -> Result:
        texts = [str(argument) for argument in arguments]
        result = CliRunner().invoke(app, texts, env={"SESSIONLEDGER_URL": url}, **options)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def on_store(url: str) -> Callable[[Callable[[SessionStore], Awaitable[Any]]], Any]:
    """Does something on the store past the command line."""

    def run(work: Callable[[SessionStore], Awaitable[T]]) -> T:
        async def main() -> T:
            async with open_store(url) as store:
                return await work(store)

        return anyio.run(main)

    return run


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    """Writes a JSON Lines file; text and bytes are taken as they are."""

    def write(*lines: Any) -> Path:
        path = tmp_path / "conversations.jsonl"
        path.write_bytes(b"".join(_as_line(line) + b"\n" for line in lines))
        return path

    return write


def _as_line(line: Any) -> bytes:
    if isinstance(line, bytes):
        return line
    return line.encode() if isinstance(line, str) else json.dumps(line).encode()
