"""A damaged row concerns its session alone, and what SQLite did not write is not remembered."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sessionledger import DecodeError, DriverError, SessionLedgerError, open_store
from sessionledger.drivers.sqlite import SQLiteDriver, connection, writer
from sessionledger.drivers.sqlite.driver import _SCHEMA, _statements
from sessionledger.protocol.rows import Committed, Outcome
from sessionledger.registry import parse_url
from sessionledger.testing.builders import run
from sessionledger.testing.rows import commit, key, patch_session, put, send

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
async def driver(path: Path) -> AsyncIterator[SQLiteDriver]:
    driver = SQLiteDriver(parse_url(f"sqlite:///{path}?durability=process"))
    await driver.open()
    yield driver
    await driver.close()


def damage(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as file:
        assert file.execute(statement).rowcount == 1
        file.commit()


@pytest.fixture(
    params=["counters = '{'", "counters = x'ff'", "counters = cast(x'ff' as text)", "run_count = 'many'"],
    ids=["json", "blob", "utf-8", "number"],
)
def broken(request: pytest.FixtureRequest) -> str:
    return f"UPDATE sessions SET {request.param} WHERE session_id = 'bad'"


async def test_a_damaged_session_fails_nobody_else(path: Path, broken: str) -> None:
    async with open_store(f"sqlite:///{path}") as store:
        for name in ("bad", "good"):
            await store.append(run("r0", "x", session_id=name))
        damage(path, broken)
        failed: list[str] = []

        async def append(name: str, number: int) -> None:
            try:
                await store.append(run(f"r{number}", "y", session_id=name))
            except (DecodeError, DriverError) as error:
                assert "closed" not in str(error)
                failed.append(name)

        async with anyio.create_task_group() as tasks:
            for number in range(1, 13):
                tasks.start_soon(append, ("good", "bad", "good")[number % 3], number)
        assert failed == ["bad"] * 4
        found = await store.runs("good").collect()
        assert [one.seq for one in found] == list(range(1, 10))


@pytest.mark.parametrize("call", ["append", "stats", "session"])
async def test_damaged_counters_name_their_session(path: Path, call: str) -> None:
    async with open_store(f"sqlite:///{path}") as store:
        await store.append(run("r1", "x", session_id="bad"))
        damage(path, "UPDATE sessions SET counters = '{'")
        with pytest.raises(DecodeError, match="'bad' is damaged") as raised:
            if call == "append":
                await store.append(run("r2", "x", session_id="bad"))
            elif call == "stats":
                await store.stats("bad")
            else:
                await store.get_session("bad")
        assert raised.value.session_id == "bad"


async def test_a_damaged_operation_names_its_session(driver: SQLiteDriver, path: Path) -> None:
    await send(driver, patch_session(), operation_id="o")
    damage(path, "UPDATE operations SET receipts = '{'")
    with pytest.raises(DecodeError) as raised:
        await send(driver, patch_session(), operation_id="o")
    assert raised.value.session_id == "s"


async def test_a_commit_that_cannot_be_judged_fails_alone(driver: SQLiteDriver) -> None:
    """Whatever goes wrong at one: here it has a text that SQLite cannot take."""
    group = [
        commit(put("r1"), session_id="a"),
        commit(put("\ud800", 0), session_id="b"),
        commit(put("r1"), session_id="c"),
    ]
    first, second, third = await driver.commit(group)
    assert isinstance(first, Committed) and isinstance(third, Committed)
    assert isinstance(second, DriverError) and "closed" not in str(second)
    assert isinstance(second.__cause__, UnicodeEncodeError)
    assert await driver.session(key("b"), state=False) is None


async def test_a_closed_connection_says_so(driver: SQLiteDriver) -> None:
    assert driver._reader is not None
    await driver._reader.close()
    with pytest.raises(DriverError, match="connection is closed"):
        await driver.ping()


class Unwilling(connection.LedgerConnection):
    """Fails at statements, as a disk would."""

    fails: tuple[str, ...] = ()

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        if sql in self.fails:
            raise sqlite3.OperationalError(f"{sql} failed")
        return super().execute(sql, parameters)


@contextmanager
def failing(*statements: str) -> Iterator[None]:
    Unwilling.fails = statements
    try:
        yield
    finally:
        Unwilling.fails = ()


@pytest.fixture
def unwilling(path: Path) -> Iterator[Unwilling]:
    with closing(sqlite3.connect(path, isolation_level=None, factory=Unwilling)) as file:
        for statement in _statements(_SCHEMA):
            file.execute(statement)
        yield file


def one(db: Unwilling, *arguments: Any, **fields: Any) -> Outcome | SessionLedgerError:
    (outcome,) = writer.commit_group(db, [commit(*arguments, **fields)])
    return outcome


async def test_what_was_rolled_back_is_not_remembered(unwilling: Unwilling) -> None:
    assert isinstance(one(unwilling, put("r1")), Committed)
    with failing("ROLLBACK"), pytest.raises(UnicodeEncodeError):
        one(unwilling, put("r2"), put("\ud800", 0))
    assert not unwilling.memory.sessions and not unwilling.memory.participants
    # the transaction that could not be ended is ended by the next call
    with pytest.raises(sqlite3.OperationalError, match="within a transaction"):
        one(unwilling, put("r2"))
    outcome = one(unwilling, put("r2"))
    assert isinstance(outcome, Committed) and outcome.receipts[0].run_seq == 2


async def test_the_error_that_ended_a_transaction_is_the_one_that_is_raised(unwilling: Unwilling) -> None:
    one(unwilling, put("r1"))
    with failing(writer.SQL["erasure"], "ROLLBACK"), pytest.raises(sqlite3.OperationalError, match="erasures"):
        writer.erase(unwilling, key(), 10)
    with failing("BEGIN IMMEDIATE"), pytest.raises(sqlite3.OperationalError, match="IMMEDIATE failed"):
        writer.erase(unwilling, key(), 10)
    assert not writer.erase(unwilling, key(), 10)
