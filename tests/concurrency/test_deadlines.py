"""No public call waits for ever, and none that waited too long leaves the store unusable."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from sessionledger import (
    DriverTimeoutError,
    OutcomeUnknownError,
    Run,
    RunStatus,
    Session,
    SessionLedgerError,
    SessionStore,
    StoreClosedError,
    open_store,
)
from sessionledger.drivers.memory import MemoryDriver
from sessionledger.protocol.driver import Driver
from sessionledger.registry import parse_url
from sessionledger.store import Store

from .ends import ended
from .log import run_of
from .worker import one_more

pytestmark = pytest.mark.anyio

TIMEOUT = 0.25


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


class Hanging:
    """A driver on another one, of which some calls never answer."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.info = driver, driver.info
        self.hangs: set[str] = set()
        self.hangs_once = False
        self.hung = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.driver, name)
        if not callable(method):
            return method

        async def call(*arguments: Any, **options: Any) -> Any:
            if name in self.hangs:
                await self.hang(name, method(*arguments, **options))
            return await method(*arguments, **options)

        return call

    async def hang(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        work.close()
        self.hung += 1
        self.hangs -= {name} if self.hangs_once else set()
        await anyio.sleep_forever()


class Silent(Hanging):
    """It does what it is asked for, and does not tell; once."""

    async def hang(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        await work
        self.hangs -= {name}
        await anyio.sleep_forever()


@pytest.fixture
def driver() -> Hanging:
    return Hanging(MemoryDriver(parse_url("memory://")))


def store_on(driver: Hanging, timeout: float) -> Store:
    return Store.on(cast("Driver", driver), timeout=timeout)


async def record(store: SessionStore) -> None:
    async with store.recording(Run(run_id="recorded", session_id="s")) as recorder:
        await recorder.update(status="completed")


#: Each call of a store, with the driver's call that it waits for. A cursor is bounded page by page.
CALLS: dict[tuple[str, str], Callable[[SessionStore], Awaitable[Any]]] = {
    ("create_session", "commit"): lambda store: store.create_session(Session(session_id="new")),
    ("upsert_session", "session"): lambda store: store.upsert_session(Session(session_id="s")),
    ("upsert_session", "commit"): lambda store: store.upsert_session(Session(session_id="s")),
    ("get_session", "session"): lambda store: store.get_session("s"),
    ("sessions", "sessions"): lambda store: store.sessions().collect(),
    ("update_session", "session"): lambda store: store.update_session("s", change=one_more),
    ("update_session", "commit"): lambda store: store.update_session("s", change={"name": "n"}),
    ("delete_session", "commit"): lambda store: store.delete_session("s"),
    ("delete_session for good", "erase"): lambda store: store.delete_session("s", soft=False),
    ("restore_session", "session"): lambda store: store.restore_session("s"),
    ("fork", "commit"): lambda store: store.fork("s"),
    ("append", "commit"): lambda store: store.append(run_of(1, 1)),
    ("append with state", "commit"): lambda store: store.append(run_of(1, 2), state={"k": 1}),
    ("append a revision", "runs"): lambda store: store.append(run_of(0, 0), revise=True),
    ("update_run", "runs"): lambda store: store.update_run("s", run_id="open", metadata={"k": 1}),
    ("update_run", "commit"): lambda store: store.update_run("s", run_id="open", metadata={"k": 2}),
    ("recording", "commit"): record,
    ("retract", "commit"): lambda store: store.retract("s", run_id="0-0"),
    ("unretract", "commit"): lambda store: store.unretract("s", retract_id="h"),
    ("get_run", "find_runs"): lambda store: store.get_run("0-0"),
    ("runs", "runs"): lambda store: store.runs("s").collect(),
    ("messages", "messages"): lambda store: store.messages("s").page(),
    ("messages", "hidden"): lambda store: store.messages("s").first(),
    ("history", "runs"): lambda store: store.history("s").collect(),
    ("get_message", "messages"): lambda store: store.get_message("s", message_id="0-0#0"),
    ("switches", "switches"): lambda store: store.switches("s").collect(),
    ("stats", "session"): lambda store: store.stats("s"),
    ("health", "ping"): lambda store: store.health(),
    ("schema_version", "schema_version"): lambda store: store.schema_version(),
    ("upgrade_schema", "upgrade_schema"): lambda store: store.upgrade_schema(),
}


@pytest.mark.parametrize(("name", "hangs"), CALLS)
async def test_a_call_that_hangs_ends_in_time_and_the_store_goes_on(name: str, hangs: str, driver: Hanging) -> None:
    call = CALLS[name, hangs]
    async with store_on(driver, TIMEOUT) as store:
        await store.append(run_of(0, 0))
        await store.append(Run(run_id="open", session_id="s", status=RunStatus.RUNNING))
        await store.retract("s", run_id="open", operation_id="h")
        driver.hangs = {hangs}
        with anyio.fail_after(10), pytest.raises(DriverTimeoutError, match=f"timeout of {TIMEOUT} s"):
            await call(store)
        assert driver.hung
        driver.hangs = set()
        # what hung goes on hanging; whoever comes next is served all the same
        with anyio.fail_after(10):
            assert (await store.append(run_of(2, 0, session_id="other"))).run_seq == 1
            await call(store)


async def test_a_session_is_usable_after_its_commit_hung(driver: Hanging) -> None:
    async with store_on(driver, TIMEOUT) as store:
        driver.hangs = {"commit"}
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(expect_timeout, store, run_of(0, number))
        driver.hangs = set()
        for number in range(5):
            assert (await store.append(run_of(0, number))).run_seq == number + 1


async def expect_timeout(store: SessionStore, run: Run) -> None:
    with pytest.raises(DriverTimeoutError):
        await store.append(run)


@pytest.mark.parametrize("run_id", ["given", None])
async def test_a_recording_whose_beginning_was_stored_in_silence_is_finished(run_id: str | None) -> None:
    driver = Silent(MemoryDriver(parse_url("memory://")))
    async with store_on(driver, TIMEOUT) as store:
        driver.hangs = {"commit"}
        with anyio.fail_after(10), pytest.raises(DriverTimeoutError):
            async with store.recording(Run(run_id=run_id, session_id="s")):
                raise AssertionError("the block must not run")
        (run,) = await store.runs("s").collect()
        assert run_id in (None, run.run_id)
        assert (run.status, run.error["type"]) == (RunStatus.FAILED, "DriverTimeoutError")


async def test_a_recording_that_is_cancelled_while_its_beginning_hangs_is_finished() -> None:
    driver = Silent(MemoryDriver(parse_url("memory://")))
    async with store_on(driver, TIMEOUT) as store:
        driver.hangs = {"commit"}
        with anyio.fail_after(10), anyio.move_on_after(TIMEOUT / 5) as scope:
            async with store.recording(Run(session_id="s")):
                raise AssertionError("the block must not run")
        assert scope.cancelled_caught
        assert [run.status async for run in store.runs("s")] == [RunStatus.CANCELLED]


async def test_a_recording_whose_beginning_was_not_stored_leaves_nothing(driver: Hanging) -> None:
    driver.hangs_once = True
    async with store_on(driver, TIMEOUT) as store:
        driver.hangs = {"commit"}
        with anyio.fail_after(10), pytest.raises(DriverTimeoutError):
            await record(store)
        assert await store.get_session("s") is None
        await record(store)
        assert [run.status async for run in store.runs("s")] == [RunStatus.COMPLETED]


async def test_a_recording_that_cannot_be_settled_tells_its_id(driver: Hanging) -> None:
    async with store_on(driver, TIMEOUT) as store:
        driver.hangs = {"commit"}
        with anyio.fail_after(10), pytest.raises(DriverTimeoutError) as raised:
            await record(store)
        assert any("'recorded'" in note for note in raised.value.__notes__)


async def test_a_timeout_inside_a_scope_of_the_caller_is_not_taken_for_its_own(driver: Hanging) -> None:
    async with store_on(driver, 1.0) as store:
        driver.hangs = {"commit", "session"}
        for call in (store.append(run_of(0, 0)), store.get_session("s")):
            with anyio.move_on_after(0.05) as scope:
                await call
            assert scope.cancelled_caught
        driver.hangs = set()


async def test_opening_ends_in_time(driver: Hanging) -> None:
    driver.hangs = {"open"}
    store = store_on(driver, TIMEOUT)
    with anyio.fail_after(10), pytest.raises(DriverTimeoutError):
        await store.__aenter__()
    driver.hangs = set()
    async with store:
        assert (await store.append(run_of(0, 0))).run_seq == 1


@pytest.mark.parametrize("hangs", ["close", "commit"])
async def test_closing_ends_in_time(hangs: str, driver: Hanging) -> None:
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks, store_on(driver, TIMEOUT) as store:
            driver.hangs = {hangs}
            if hangs == "commit":
                tasks.start_soon(expect_timeout, store, run_of(0, 0))
                await anyio.wait_all_tasks_blocked()


async def outcome(work: Awaitable[Any], outcomes: list[str]) -> None:
    try:
        outcomes.append(repr(await work))
    except SessionLedgerError as error:
        outcomes.append(type(error).__name__)


@pytest.mark.parametrize("hangs", [{"commit"}, {"commit", "close"}], ids=["commit", "close too"])
async def test_a_close_that_is_cancelled_settles_what_waits(hangs: set[str], driver: Hanging) -> None:
    """The commit that the driver has may be stored; those that wait for their turn are not."""
    outcomes: list[str] = []
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(TIMEOUT) as scope:
                async with store_on(driver, 1.0) as store:
                    driver.hangs = hangs
                    for number in range(4):
                        tasks.start_soon(outcome, store.append(run_of(0, number)), outcomes)
                        await anyio.wait_all_tasks_blocked()
            assert scope.cancelled_caught
    sent = set(outcomes) - {"StoreClosedError"}
    # where closing takes its time, the deadline of the commit itself may end first
    assert sent == {"OutcomeUnknownError"} or (sent == {"DriverTimeoutError"} and "close" in hangs)
    assert outcomes.count("StoreClosedError") == 3
    driver.hangs = set()
    async with store_on(driver, TIMEOUT) as store:
        assert (await store.append(run_of(0, 0))).run_seq == 1


async def test_a_cancelled_close_ends_a_recording_with_an_error_of_its_own(driver: Hanging) -> None:
    outcomes: list[str] = []
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(TIMEOUT):
                async with store_on(driver, 2.0) as store:
                    driver.hangs = {"commit"}
                    tasks.start_soon(outcome, record(store), outcomes)
                    await anyio.wait_all_tasks_blocked()
    assert outcomes == ["OutcomeUnknownError"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_store_is_usable_after_its_close_was_cancelled(driver: Hanging) -> None:
    store = await store_on(driver, 2.0).open()
    driver.hangs = {"commit"}
    appends = [asyncio.create_task(store.append(run_of(0, number))) for number in range(3)]
    closing = asyncio.create_task(store.close())
    # before the task that writes has begun
    await asyncio.sleep(0)
    closing.cancel()
    with anyio.fail_after(10):
        await asyncio.wait([closing, *appends])
    assert all(isinstance(one.exception(), StoreClosedError | OutcomeUnknownError) for one in appends)
    driver.hangs = set()
    await store.open()
    with anyio.fail_after(10):
        assert (await store.append(run_of(0, 0))).run_seq == 1
        await store.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_file_that_another_program_has_locked(url: str, tmp_path: Path) -> None:
    """SQLite waits on its thread, which nothing can cancel: the call ends in time, and a repetition settles it."""
    async with open_store(url, timeout=1.0) as store:
        await store.append(run_of(0, 0))
        with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(DriverTimeoutError):
                await store.append(run_of(0, 1))
            # reads wait for nobody
            assert len(await store.messages("s").collect()) == 3
            other.execute("ROLLBACK")
        async with open_store(url) as patient:
            assert (await patient.append(run_of(0, 1))).run_seq == 2
        assert (await store.append(run_of(0, 1))).run_seq == 2
        assert (await store.append(run_of(0, 2))).run_seq == 3


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_closing_beside_a_lock_ends_in_time(url: str, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    store = await open_store(url, timeout=TIMEOUT).open()
    with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DriverTimeoutError):
            await store.append(run_of(0, 0))
        with anyio.fail_after(5):
            await store.close()
    # its threads end as soon as they get the lock
    await ended(before)
