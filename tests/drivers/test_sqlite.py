"""The SQLite driver. A power cut has tests of its own: here a commit need not wait for the disk."""

from __future__ import annotations

import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from sessionledger.drivers.sqlite import SQLiteDriver, reader
from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import RunQuery, RunSearch
from sessionledger.testing import DriverSuite
from sessionledger.testing.histories import HistorySuite
from sessionledger.testing.rows import key, put, send


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
