"""A call that is cancelled at its n-th await, for every n: all or nothing, and the store goes on."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from sessionledger import (
    AgentSwitch,
    Message,
    OutcomeUnknownError,
    Run,
    Session,
    SessionStore,
    StoreClosedError,
    open_store,
)
from sessionledger.protocol.store import SessionStore as Protocol

from .cancelling import WAYS, Call, Case, Way, cancelled_at, check_file, examine

pytestmark = pytest.mark.anyio


def messages(*texts: str) -> list[Message]:
    return [Message(role="user", content=text) for text in texts]


def run(run_id: str, *texts: str, session_id: str = "s") -> Run:
    return Run(run_id=run_id, session_id=session_id, messages=messages(*texts))


def one_more(session: Session) -> Session:
    return msgspec.structs.replace(session, state={**session.state, "n": session.state["n"] + 1})


async def prepare(store: SessionStore) -> None:
    await store.create_session(Session(session_id="s", name="n", state={"n": 1}))
    await store.append(run("first", "a", "b", "c"))
    await store.append(msgspec.structs.replace(run("open", "d"), status="running"))
    await store.append(run("last", "e", "f"))
    await store.retract("s", run_id="last", operation_id="hidden")
    await store.fork("s", at="first", new_session_id="fork")
    await store.append(run("own", "g", session_id="fork"))
    await store.append(run("first", "h", session_id="gone"))
    await store.delete_session("gone")


CASES: dict[str, Case] = {
    "create_session": Case(
        lambda store: store.create_session(Session(session_id="new", state={"n": 1}), operation_id="o"), ["new"]
    ),
    "upsert_session, new": Case(
        lambda store: store.upsert_session(Session(session_id="new", name="m"), operation_id="o"), ["new"]
    ),
    "upsert_session": Case(lambda store: store.upsert_session(Session(session_id="s", name="m"), operation_id="o")),
    "update_session": Case(lambda store: store.update_session("s", change={"name": "m"}, operation_id="o")),
    "update_session, function": Case(lambda store: store.update_session("s", change=one_more, operation_id="o")),
    "delete_session": Case(lambda store: store.delete_session("s", operation_id="o")),
    "delete_session, hard": Case(
        lambda store: store.delete_session("fork", soft=False, operation_id="o"), ["fork", "s"]
    ),
    "delete_session, forks": Case(
        lambda store: store.delete_session("s", soft=False, forks=True, operation_id="o"), ["s", "fork"]
    ),
    "restore_session": Case(lambda store: store.restore_session("gone", operation_id="o"), ["gone"]),
    "fork": Case(lambda store: store.fork("s", at=2, new_session_id="new", operation_id="o"), ["s", "new"]),
    "fork, run": Case(
        lambda store: store.fork("fork", at="own", new_session_id="new", operation_id="o"), ["fork", "new"]
    ),
    "append": Case(lambda store: store.append(run("new", "x", "y"))),
    "append, first": Case(lambda store: store.append(run("new", "x", "y", session_id="new")), ["new"]),
    "append, several": Case(lambda store: store.append([run("new", "x"), run("newer", "y")])),
    "append, state": Case(
        lambda store: store.append(
            run("new", "x"), state={"m": 1}, switch=AgentSwitch(switch_id="w", to_agent="b"), operation_id="o"
        )
    ),
    "append, revise": Case(lambda store: store.append(run("first", "x", "y"), revise=True)),
    "update_run": Case(
        lambda store: store.update_run("s", run_id="open", messages=messages("x", "y"), operation_id="o")
    ),
    "update_run, metadata": Case(
        lambda store: store.update_run("s", run_id="open", metadata={"k": 1}, status="completed", operation_id="o")
    ),
    "retract": Case(lambda store: store.retract("s", last_runs=1, operation_id="o")),
    "retract, messages": Case(lambda store: store.retract("s", last_messages=2, operation_id="o")),
    "retract, run": Case(lambda store: store.retract("fork", run_id="first", operation_id="o"), ["fork", "s"]),
    "retract, from run": Case(lambda store: store.retract("s", from_run_id="open", operation_id="o")),
    "retract, from position": Case(lambda store: store.retract("s", from_position=2, operation_id="o")),
    "unretract": Case(lambda store: store.unretract("s", retract_id="hidden", operation_id="o")),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SessionStore]:
    async with open_store(f"sqlite:///{path}") as store:
        yield store


@pytest.fixture
async def model() -> AsyncIterator[SessionStore]:
    async with open_store("memory://") as store:
        yield store


@pytest.fixture
async def nothing_left() -> AsyncIterator[None]:
    """No thread is there that was not there before."""
    threads = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - threads:
        if not thread.daemon:
            await anyio.to_thread.run_sync(partial(thread.join, timeout=10))
            assert not thread.is_alive(), "a connection was left open"


def test_every_write_is_cancelled() -> None:
    functions = {name: function for name, function in vars(Protocol).items() if inspect.isfunction(function)}
    writes = {name for name, function in functions.items() if "operation_id" in inspect.signature(function).parameters}
    assert writes == {name.partition(",")[0] for name in CASES}


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", CASES)
async def test_a_cancelled_write_is_all_or_nothing(
    name: str, way: Way, store: SessionStore, model: SessionStore, path: Path
) -> None:
    assert await examine(CASES[name], way, store, model, path, prepare) > 0


async def record(store: SessionStore) -> None:
    async with store.recording(run("recorded", "x")) as recorder:
        await recorder.add(*messages("y"))
        recorder.partial(Message(role="assistant", content="z"))
        await recorder.update(metadata={"k": 1})
        await anyio.lowlevel.checkpoint()
        await recorder.add(*messages("z"))


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_cancelled_recording_leaves_a_finished_run(way: Way, path: Path) -> None:
    """Once the store is closed, nothing runs any more. The run has its partial message, or what took its place."""
    statuses, cancelled, nth = set(), True, 0
    while cancelled:
        nth += 1
        async with open_store(f"sqlite:///{path}") as store:
            view = store.scoped(namespace=str(nth))
            cancelled = await cancelled_at(nth, way, lambda: record(view))  # noqa: B023
        check_file(path)
        async with open_store(f"sqlite:///{path}") as store:
            found = await store.scoped(namespace=str(nth)).get_run("recorded", session_id="s")
        statuses.add(None if found is None else found.status)
        if found is not None:
            assert found.status in ("completed", "cancelled"), f"at await {nth}"
            texts = [message.content for message in found.messages]
            assert texts == ["x", "y", "z"][: len(texts)]
    assert {"cancelled", "completed"} <= statuses


async def test_a_recording_in_a_generator_that_is_closed_is_cancelled(store: SessionStore) -> None:
    async def stream() -> AsyncGenerator[str, None]:
        async with store.recording(run("recorded", "x")) as recorder:
            recorder.partial(Message(role="assistant", content="y"))
            yield "y"

    generator = stream()
    assert await anext(generator) == "y"
    await generator.aclose()
    found = await store.get_run("recorded", session_id="s")
    assert found is not None and found.status == "cancelled" and found.error is None
    assert [message.content for message in found.messages] == ["x", "y"]


@pytest.mark.parametrize("soft", [True, False])
async def test_a_cancellation_stays_itself_when_the_session_was_deleted(soft: bool, store: SessionStore) -> None:
    begun = asyncio.Event()

    async def stream() -> None:
        async with store.recording(run("recorded", "x")):
            begun.set()
            await anyio.sleep_forever()

    task = asyncio.create_task(stream())
    async with asyncio.timeout(10):
        await begun.wait()
    await store.delete_session("s", soft=soft)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def ended(tasks: set[asyncio.Task[Any]]) -> None:
    """What nobody waits for any more, as a file that a thread is just opening, comes to its end by itself."""
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=10)
        assert not pending


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_cancelled_open_leaves_nothing_open(way: Way, tmp_path: Path) -> None:
    tasks, cancelled, nth = asyncio.all_tasks(), True, 0
    while cancelled:
        nth += 1
        path = tmp_path / f"{nth}.db"
        store = open_store(f"sqlite:///{path}")
        cancelled = await cancelled_at(nth, way, store.open)
        async with store:
            assert (await store.append(run("first", "a"))).run_seq == 1
        with pytest.raises(StoreClosedError):
            await store.get_session("s")
        await ended(asyncio.all_tasks() - tasks)
    assert nth > 2


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_cancelled_close_leaves_nothing_open(way: Way, path: Path) -> None:
    before, cancelled, nth = asyncio.all_tasks(), True, 0
    while cancelled:
        nth += 1
        store = await open_store(f"sqlite:///{path}").open()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_meanwhile, store, nth)
            await anyio.lowlevel.checkpoint()
            cancelled = await cancelled_at(nth, way, store.close)
        with pytest.raises(StoreClosedError):
            await store.get_session("s")
        await ended(asyncio.all_tasks() - before)
    assert nth > 2


async def write_meanwhile(store: SessionStore, nth: int) -> None:
    # a close that is cancelled again and again waits for nothing
    with suppress(OutcomeUnknownError, StoreClosedError):
        await store.append(run(str(nth), "a"))


# each promise, broken


async def in_two_steps(store: SessionStore) -> None:
    await store.append(msgspec.structs.replace(run("new", "x"), status="running"))
    await store.update_run("s", run_id="new", messages=messages("y"), status="completed", operation_id="o")


async def swallowing(store: SessionStore) -> None:
    try:
        await store.append(run("new", "x"))
    except asyncio.CancelledError:
        return


async def renaming(store: SessionStore) -> None:
    try:
        await store.append(run("new", "x"))
    except asyncio.CancelledError as error:
        raise StoreClosedError("cancelled") from error


@pytest.mark.parametrize("way", [way for way in WAYS if not way.scope], ids=str)
@pytest.mark.parametrize(
    ("call", "problem"),
    [(in_two_steps, "at await"), (swallowing, "swallowed"), (renaming, "cancelled")],
)
async def test_a_broken_promise_is_noticed(
    call: Call, problem: str, way: Way, store: SessionStore, model: SessionStore, path: Path
) -> None:
    with pytest.raises((AssertionError, StoreClosedError), match=problem):
        await examine(Case(call), way, store, model, path, prepare)


@pytest.mark.parametrize("kind", ["DEFERRED", "IMMEDIATE"])
async def test_a_transaction_that_is_left_open_is_noticed(kind: str, store: SessionStore, path: Path) -> None:
    await store.append(run("first", "a"))
    check_file(path)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"BEGIN {kind}")
    db.execute("SELECT * FROM sessions").fetchall()
    if kind == "DEFERRED":
        await store.append(run("last", "a"))
    with pytest.raises((AssertionError, sqlite3.OperationalError)):
        check_file(path)
    db.close()
