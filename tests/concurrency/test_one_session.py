"""Many writers at one session: nothing is lost, and nobody is told that the database is locked."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from sessionledger import AppendReceipt, Session, SessionStore, open_store

from .crowd import together
from .log import check_log, check_whole_runs, run_of
from .worker import one_more

pytestmark = pytest.mark.anyio

TASKS, PROCESSES = 64, 16


async def test_64_tasks_append_to_one_session_at_once(url: str) -> None:
    receipts: list[AppendReceipt] = []

    async def write(store: SessionStore, writer: int) -> None:
        for number in range(4):
            receipts.append(await store.append(run_of(writer, number)))

    async with open_store(url) as store:
        async with anyio.create_task_group() as tasks:
            for writer in range(TASKS):
                tasks.start_soon(write, store, writer)
        assert len(receipts) == TASKS * 4
        await check_log(store, receipts)


async def test_readers_see_whole_runs_while_tasks_append(url: str) -> None:
    lengths: list[int] = []

    async def read(store: SessionStore) -> None:
        while not lengths or lengths[-1] < TASKS * 3:
            messages = await store.messages("s", page_size=7).collect()
            check_whole_runs(messages)
            lengths.append(len(messages))

    async with open_store(url) as store, open_store(url) as other, anyio.create_task_group() as tasks:
        tasks.start_soon(read, store)
        tasks.start_soon(read, other)
        for writer in range(TASKS):
            tasks.start_soon(store.append, run_of(writer, 0))
    assert max(lengths) == TASKS * 3


def test_16_processes_append_to_one_session_at_once(url: str) -> None:
    answers = together("worker", [("append", url, str(writer), "6") for writer in range(PROCESSES)])
    receipts = [msgspec.json.decode(line, type=AppendReceipt) for lines in answers for line in lines]
    assert len(receipts) == PROCESSES * 6

    async def check() -> None:
        async with open_store(url) as store:
            await check_log(store, receipts)

    anyio.run(check)


async def test_64_tasks_increment_one_counter(url: str) -> None:
    async with open_store(url) as store:
        await store.create_session(Session(session_id="s", state={"kept": True}))
        async with anyio.create_task_group() as tasks:
            for _ in range(TASKS):
                tasks.start_soon(lambda: store.update_session("s", change=one_more))
        session = await store.get_session("s")
    assert session is not None and session.state == {"kept": True, "count": TASKS}


async def test_a_counter_that_is_read_and_then_written_loses_increments(url: str) -> None:
    """What the function form is for; and a proof that the counters of these tests can fail."""

    async def read_then_write(store: SessionStore) -> None:
        session = await store.get_session("s")
        assert session is not None
        await store.update_session("s", change={"state": one_more(session).state})

    async with open_store(url) as store:
        await store.create_session(Session(session_id="s"))
        async with anyio.create_task_group() as tasks:
            for _ in range(TASKS):
                tasks.start_soon(read_then_write, store)
        session = await store.get_session("s")
    assert session is not None and session.state["count"] < TASKS


def test_16_processes_increment_one_counter(url: str) -> None:
    async def create() -> None:
        async with open_store(url) as store:
            await store.create_session(Session(session_id="s"))

    async def read() -> Session | None:
        async with open_store(url) as store:
            return await store.get_session("s")

    anyio.run(create)
    answers = together("worker", [("increment", url, str(writer), "5") for writer in range(PROCESSES)])
    versions = [int(line) for lines in answers for line in lines]
    assert sorted(versions) == list(range(2, PROCESSES * 5 + 2))
    session = anyio.run(read)
    assert session is not None and session.state == {"count": PROCESSES * 5}


async def test_stores_of_one_process_append_to_one_session(url: str) -> None:
    receipts: list[AppendReceipt] = []

    async def write(writer: int) -> None:
        async with open_store(url) as store:
            for number in range(4):
                receipts.append(await store.append(run_of(writer, number)))

    async with anyio.create_task_group() as tasks:
        for writer in range(8):
            tasks.start_soon(write, writer)
    async with open_store(url) as store:
        await check_log(store, receipts)
