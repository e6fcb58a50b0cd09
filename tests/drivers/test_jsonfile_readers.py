"""Readers wait for nobody: what they read stays whole while others write, and while the index is made again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessionledger import DecodeError
from sessionledger.drivers.jsonfile import JSONFileDriver, reader
from sessionledger.drivers.jsonfile.directory import Directory
from sessionledger.drivers.jsonfile.index import Index
from sessionledger.drivers.jsonfile.journal import Journal
from sessionledger.drivers.jsonfile.session import Session
from sessionledger.protocol.rows import RunPage, RunQuery, Seal
from sessionledger.registry import parse_url
from sessionledger.testing import rows
from sessionledger.testing.rows import all_messages, dump, new_session, patch, patch_session, put, send

pytestmark = pytest.mark.anyio

LARGE = '"' + "x" * 5000 + '"'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def opened(path: Path, runs: int = 3) -> JSONFileDriver:
    driver = JSONFileDriver(parse_url(f"file://{path}"), durability="process")
    await driver.open()
    for number in range(runs):
        await send(driver, put(f"r{number}", 1, status="running"))
    return driver


def run_page(directory: Directory, run_id: str | None = None) -> RunPage:
    query = RunQuery(rows.key(), 500, rows.MANY_BYTES, run_id=run_id)
    page = directory.read(rows.key(), lambda view: reader.runs(view, query))
    assert page is not None
    return page


def behind_each(monkeypatch: pytest.MonkeyPatch, kind: type, method: str, act: Callable[[], Any]) -> list[Any]:
    """What `act` returned behind each call of that method."""
    seen: list[Any] = []
    original = getattr(kind, method)

    def call(self: Any, *arguments: Any) -> Any:
        result = original(self, *arguments)
        seen.append(act())
        return result

    monkeypatch.setattr(kind, method, call)
    return seen


def before_each(monkeypatch: pytest.MonkeyPatch, method: str, act: Callable[[Session], None]) -> None:
    original = getattr(Session, method)

    def call(self: Session, *arguments: Any) -> Any:
        act(self)
        return original(self, *arguments)

    monkeypatch.setattr(Session, method, call)


async def test_a_run_is_read_whole_while_a_change_of_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer has the lock, so that a reader who believed the index to be damaged would wait for it."""
    driver = await opened(tmp_path)
    other = Directory(tmp_path, sync=False)
    before = run_page(other).rows
    seen = behind_each(monkeypatch, Index, "set_newest", lambda: run_page(other).rows)
    await send(driver, patch("r0", 1, start=1), patch("r1", 1, start=1))
    assert seen == [before, before]
    assert [row.patch for row in run_page(other).rows] == [1, 1, 0]
    await driver.close()


async def test_nothing_is_missed_while_the_index_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = await opened(tmp_path, runs=20)
    directory, other = Directory(tmp_path, sync=False), Directory(tmp_path, sync=False)
    before = run_page(other).rows

    def read() -> bool:
        return run_page(other, "r0").rows == before[:1] and run_page(other).rows == before

    seen = behind_each(monkeypatch, Journal, "add", read)
    session = directory.session(rows.key())
    view = session.view()
    assert view is not None
    session.rebuild(view.files)
    assert len(seen) > 60 and all(seen)
    assert run_page(other).rows == before
    await driver.close()


async def test_whoever_has_the_session_open_goes_on_behind_an_index_that_was_made_again(tmp_path: Path) -> None:
    one, other = await opened(tmp_path), await opened(tmp_path, runs=0)
    await send(other, patch("r0", 1, start=1))
    os.truncate(tmp_path / "sessions" / "s" / "index-1", 0)
    assert [row.patch for row in (await dump(one)).runs] == [1, 0, 0]
    await send(other, patch("r1", 1, start=1), put("new", 1))
    await send(one, patch("r0", 1, expected_patch=1, start=2), put("newer", 1))
    anew = await opened(tmp_path, runs=0)
    expected = [("r0", 2), ("r1", 1), ("r2", 0), ("new", 0), ("newer", 0)]
    for driver in (one, other, anew):
        assert [(row.run_id, row.patch) for row in (await dump(driver)).runs] == expected
        assert len(await all_messages(driver)) == 3 + 3 + 2
        assert (await send(driver, put("newer", 1))).replayed
        await driver.close()


async def test_two_who_find_the_same_damage_mend_it_once(tmp_path: Path) -> None:
    driver = await opened(tmp_path)
    session = Directory(tmp_path, sync=False).session(rows.key())
    view = session.view()
    assert view is not None
    index = view.files.index.file.path
    session.rebuild(view.files)
    mended = os.stat(index)
    session.rebuild(view.files)
    assert os.path.samestat(os.stat(index), mended)
    assert not list(index.parent.glob("*.tmp"))
    await driver.close()


async def test_a_damaged_log_is_told_however_often_it_is_read(tmp_path: Path) -> None:
    await (await opened(tmp_path)).close()
    directory = tmp_path / "sessions" / "s"
    log = directory / "log-1.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"type":"run"', b'"type":"nur"', 1))
    (directory / "head.json").unlink()
    other = Directory(tmp_path, sync=False)
    for _ in range(3):
        with pytest.raises(DecodeError, match="backup"):
            run_page(other)


async def test_a_reader_who_is_late_takes_no_state_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lets go of the files that it found replaced while a writer looks which of them are in use."""
    driver, other = await opened(tmp_path), await opened(tmp_path, runs=0)
    await send(driver, patch_session(state=LARGE))
    await send(other, put("x", 1))
    before_each(monkeypatch, "_sweep", Session.forget)
    await send(driver, put("y", 1))
    found = await driver.session(rows.key(), state=True)
    assert found is not None and found.state == LARGE
    await driver.close()
    await other.close()


async def test_a_reader_who_is_late_takes_no_session_away_that_was_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = await opened(tmp_path)
    await send(driver, Seal())
    sealed = Directory(tmp_path, sync=False).session(rows.key()).view()

    def remember_the_sealed(session: Session) -> None:
        session._view = sealed

    before_each(monkeypatch, "made_again", remember_the_sealed)
    await send(driver, put("again", 1), create=new_session(), must_create=True)
    assert [row.run_id for row in (await dump(driver)).runs] == ["again"]
    await driver.close()
