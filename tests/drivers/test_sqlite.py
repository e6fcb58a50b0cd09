"""The SQLite driver. A power cut has tests of its own: here a commit need not wait for the disk."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sessionledger.drivers.sqlite import SQLiteDriver
from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import Seal
from sessionledger.testing import DriverSuite
from sessionledger.testing.histories import HistorySuite
from sessionledger.testing.rows import key, put, send
from sessionledger.testing.suite.bench import Storage


class TestSQLite(DriverSuite, HistorySuite):
    factory = SQLiteDriver
    slower = 4

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/sessions.db?durability=process"

    async def test_what_was_left_of_an_erasure_goes_when_the_file_is_opened(
        self, driver: Driver, storage: Storage, tmp_path: Path
    ) -> None:
        for name in ("a", "b"):
            await send(driver, put("r1", 3000), session_id=name)
            await send(driver, Seal(), session_id=name)
        assert await driver.erase(key("a"), limit=100)
        assert rows(tmp_path) == 5900
        other = storage.driver()
        await other.open()
        await other.close()
        assert rows(tmp_path) == 0

    async def test_an_open_waits_for_no_writer_to_erase_what_was_left(
        self, driver: Driver, storage: Storage, tmp_path: Path
    ) -> None:
        await send(driver, put("r1", 10))
        await send(driver, Seal())
        with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            other = storage.driver()
            await other.open()
            db.execute("ROLLBACK")
            # what it writes itself waits as ever
            await send(other, put("r2"), session_id="t")
            await other.close()
        assert rows(tmp_path) == 11

    async def test_what_is_left_of_earlier_incarnations_goes_first(self, driver: Driver, tmp_path: Path) -> None:
        for name in ("a", "s", "z"):
            await send(driver, put("r1", 200), session_id=name)
            await send(driver, Seal(), session_id=name)
        await send(driver, put("r2", 5), must_create=True)
        while await driver.erase(key(), limit=100):
            assert rows(tmp_path) >= 405
        # the last step had room for some of the others'
        assert 205 < rows(tmp_path) <= 405
        await driver.erase(key(), limit=1000)
        assert rows(tmp_path) == 5


def rows(folder: Path) -> int:
    """All messages of the file, whosever they are."""
    with closing(sqlite3.connect(folder / "sessions.db")) as db:
        count: int = db.execute("SELECT count(*) FROM message_rows").fetchone()[0]
        return count
