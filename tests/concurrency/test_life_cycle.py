"""A store that is not open, or used from a process or a loop that is not its own, says so at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from sessionledger import DriverError, Run, Session, SessionStore, StoreClosedError, WrongLoopError, open_store
from sessionledger.drivers.memory import MemoryDriver
from sessionledger.registry import parse_url
from sessionledger.store import Store

from .crowd import start
from .ends import ended

pytestmark = pytest.mark.anyio

#: Every coroutine of a store, and one cursor of each kind.
CALLS: dict[str, Callable[[SessionStore], Awaitable[Any]]] = {
    "create_session": lambda store: store.create_session(Session(session_id="s")),
    "upsert_session": lambda store: store.upsert_session(Session(session_id="s")),
    "get_session": lambda store: store.get_session("s"),
    "sessions": lambda store: store.sessions().collect(),
    "update_session": lambda store: store.update_session("s", change={"name": "n"}),
    "delete_session": lambda store: store.delete_session("s"),
    "restore_session": lambda store: store.restore_session("s"),
    "fork": lambda store: store.fork("s"),
    "append": lambda store: store.append(Run(session_id="s")),
    "update_run": lambda store: store.update_run("s", run_id="r", status="completed"),
    "recording": lambda store: store.recording(Run(session_id="s")).__aenter__(),
    "retract": lambda store: store.retract("s", last_runs=1),
    "unretract": lambda store: store.unretract("s", retract_id="h"),
    "get_run": lambda store: store.get_run("r"),
    "runs": lambda store: store.runs("s").first(),
    "messages": lambda store: store.messages("s").page(),
    "history": lambda store: store.history("s").count(),
    "get_message": lambda store: store.get_message("s", message_id="m"),
    "switches": lambda store: store.switches("s").collect(),
    "stats": lambda store: store.stats("s"),
    "health": lambda store: store.health(),
    "schema_version": lambda store: store.schema_version(),
    "upgrade_schema": lambda store: store.upgrade_schema(),
}


@pytest.fixture(params=["memory", "sqlite"])
def any_url(request: pytest.FixtureRequest, url: str) -> str:
    return "memory://" if request.param == "memory" else url


@pytest.mark.parametrize("name", CALLS)
async def test_a_store_that_was_not_opened_says_so(name: str, any_url: str) -> None:
    store = open_store(any_url)
    with pytest.raises(StoreClosedError):
        await CALLS[name](store)
    await store.close()


@pytest.mark.parametrize("name", CALLS)
async def test_a_closed_store_says_so(name: str, any_url: str) -> None:
    async with open_store(any_url) as store:
        view = store.scoped(user_id="u")
    for one in (store, view):
        with pytest.raises(StoreClosedError):
            await CALLS[name](one)


async def test_a_cursor_ends_with_its_store(any_url: str) -> None:
    async with open_store(any_url) as store:
        for number in range(3):
            await store.append(Run(run_id=str(number), session_id="s"))
        cursor = store.runs("s", page_size=1)
        assert await cursor.first() is not None
    with pytest.raises(StoreClosedError):
        await cursor.first()


async def test_closing_and_opening_twice_is_fine(url: str) -> None:
    before = set(threading.enumerate())
    store = open_store(url)
    assert await store.open() is await store.open() is store
    await store.append(Run(session_id="s"))
    await store.close()
    await store.close()
    await ended(before)


async def test_tasks_that_open_a_store_at_once_open_it_once(any_url: str) -> None:
    before = set(threading.enumerate())
    store = open_store(any_url)
    opened = await asyncio.gather(*(store.open() for _ in range(4)))
    assert all(one is store for one in opened)
    assert (await store.append(Run(session_id="s"))).run_seq == 1
    await store.close()
    await ended(before)


class Reluctant(MemoryDriver):
    """Cannot be opened at first."""

    attempts = 0

    async def open(self) -> None:
        self.attempts += 1
        attempt = self.attempts
        await anyio.sleep(0.01)
        if attempt == 1:
            raise DriverError("not yet")
        await super().open()


@pytest.mark.parametrize("fails", ["by an error", "by a cancellation"])
async def test_who_waits_for_an_open_that_fails_opens_the_store(fails: str) -> None:
    driver = Reluctant(parse_url("memory://"))
    store = Store.on(driver)
    first, second, third = (asyncio.create_task(store.open()) for _ in range(3))
    await asyncio.sleep(0)
    if fails == "by a cancellation":
        await asyncio.sleep(0)
        first.cancel()
    with anyio.fail_after(5):
        failed, *opened = await asyncio.gather(first, second, third, return_exceptions=True)
    assert isinstance(failed, DriverError if fails == "by an error" else asyncio.CancelledError)
    assert opened == [store, store]
    assert driver.attempts == 2
    assert (await store.append(Run(session_id="s"))).run_seq == 1
    await store.close()


async def test_a_store_is_closed_while_tasks_write(any_url: str, tmp_path: Path) -> None:
    """Each call that began is stored, or says that the store was closed: none hangs."""
    stored: list[int] = []
    refused: list[int] = []

    async def write(store: SessionStore, number: int) -> None:
        try:
            receipt = await store.append(Run(run_id=str(number), session_id="s"))
            stored.append(receipt.run_seq)
        except StoreClosedError:
            refused.append(number)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks, open_store(any_url) as store:
            for number in range(50):
                tasks.start_soon(write, store, number)
            await anyio.lowlevel.checkpoint()
    assert sorted(stored) == list(range(1, len(stored) + 1))
    assert len(stored) + len(refused) == 50


def test_another_loop_is_refused(any_url: str) -> None:
    with asyncio.Runner() as runner:
        store = runner.run(open_store(any_url).open())
        cursor = store.sessions()

        async def use() -> None:
            for name, call in CALLS.items():
                with pytest.raises(WrongLoopError):
                    await call(store)
                    pytest.fail(name)
            for method in (cursor.first, store.open, store.close):
                with pytest.raises(WrongLoopError):
                    await method()

        asyncio.run(use())
        # it is as it was where it belongs
        assert runner.run(store.append(Run(session_id="s"))).run_seq == 1
        runner.run(store.close())


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_a_fork_of_the_process_is_refused(where: str, url: str) -> None:
    with start("forks", where, url) as process:
        try:
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    own = ["own 2"] if where == "outside" else []
    assert output.splitlines() == ["WrongProcessError"] * 7 + own + [f"parent {2 + len(own)}"]


@pytest.mark.parametrize("how", ["kept", "dropped"])
def test_an_unclosed_store_lets_the_process_end(how: str, url: str) -> None:
    with start("unclosed", how, url) as process:
        try:
            output, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert output == "appended 1\n"
