"""The SQLite driver. A power cut has tests of its own: here a commit need not wait for the disk."""

from __future__ import annotations

import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from sessionledger.drivers.sqlite import SQLiteDriver, reader
from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import RunQuery, RunSearch, Seal
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

    async def test_a_page_of_large_runs_reads_no_more_than_it_brings(self, driver: Driver) -> None:
        size, bound = 500_000, 1_000_000
        for number in range(20):
            await send(driver, put("r", revision=number + 1, body="x" * size, agent_id="a"))
            await send(driver, put(f"r{number}", body="x" * size, agent_id="a"))
        tracemalloc.start()
        try:
            for query in (
                RunQuery(key(), 500, bound),
                RunQuery(key(), 500, bound, reverse=True),
                RunQuery(key(), 500, bound, run_id="r"),
                RunQuery(key(), 500, bound, run_id="r", reverse=True),
            ):
                page = await driver.runs(query)
                assert len(page.rows) == 2 and page.more
            found = await driver.find_runs(RunSearch("", 500, bound, agent_id="a"))
            assert len(found.rows) == 2 and found.more
            assert tracemalloc.get_traced_memory()[1] < 4 * bound
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("run_id", [None, "r"])
    async def test_runs_are_read_in_the_order_of_an_index(
        self, driver: Driver, tmp_path: Path, run_id: str | None, reverse: bool
    ) -> None:
        """What is sorted is read as a whole before its first row comes, however small the page."""
        await send(driver, put("r"))
        statements: list[str] = []
        with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as db:
            db.set_trace_callback(statements.append)
            assert reader.runs(db, RunQuery(key(), 5, 100, run_id=run_id, reverse=reverse)).rows
            db.set_trace_callback(None)
            (sql,) = [text for text in statements if "FROM runs" in text]
            plan = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}"))
        assert "B-TREE" not in plan
        assert ("seq>?" in plan) == (run_id is None)

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
