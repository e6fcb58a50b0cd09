"""Cancels a call at its n-th await, and looks at what it has left behind."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import closing
from pathlib import Path
from types import coroutine
from typing import Any

import anyio
import msgspec

from sessionledger import Run, SessionStore

from .snapshot import Snapshot, snapshot, without_version

__all__ = ["WAYS", "Call", "Case", "Way", "cancelled_at", "check_file", "examine"]

Call = Callable[[SessionStore], Coroutine[Any, Any, Any]]

_MOST_AWAITS = 500


class Way(msgspec.Struct, frozen=True):
    """How a call is cancelled at an await."""

    scope: bool  #: by an anyio cancel scope, else by `Task.cancel`
    late: bool  #: when what it waits for is there, but has not been taken yet; else before
    often: bool = False  #: and at every later await as well, as people who press Ctrl-C twice do

    def __str__(self) -> str:
        return " ".join(
            ["scope" if self.scope else "task", "late" if self.late else "early", *(["often"] if self.often else [])]
        )


WAYS = [
    Way(scope=False, late=False),
    Way(scope=False, late=True),
    Way(scope=False, late=False, often=True),
    Way(scope=True, late=False),
    Way(scope=True, late=True),
]


class Case(msgspec.Struct, frozen=True):
    """A write that can be repeated. Its sessions are there in a store that was prepared."""

    call: Call
    session_ids: Sequence[str] = ("s",)


async def cancelled_at(nth: int, way: Way, call: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
    """Whether the call has an n-th await. Raises what it raises, and when it swallows its cancellation."""
    reached = False

    def cancelling() -> None:
        nonlocal reached
        reached = True
        (scope or task).cancel()

    async def run() -> None:
        if scope is None:
            await _stepped(call(), nth, way, cancelling)
            return
        with scope:
            await _stepped(call(), nth, way, cancelling)

    scope = anyio.CancelScope() if way.scope else None
    task = asyncio.get_running_loop().create_task(run())
    await asyncio.wait([task])
    if not task.cancelled():
        # a scope that comes too late is no cancellation; a task's is, always
        task.result()
        assert way.scope or not reached, "a cancellation was swallowed"
    else:
        assert not way.scope and reached
    return reached


@coroutine
def _stepped(
    work: Coroutine[Any, Any, Any], nth: int, way: Way, cancel: Callable[[], None]
) -> Generator[Any, Any, Any]:
    awaits, step = 0, _sending(work, None)
    while True:
        try:
            future = step()
        except StopIteration as stop:
            return stop.value
        awaits += 1
        if awaits == nth or (awaits > nth and way.often):
            if way.late and asyncio.isfuture(future):
                future.add_done_callback(lambda _: cancel())
            else:
                cancel()
        try:
            value = yield future
        except BaseException as error:
            step = _throwing(work, error)
        else:
            step = _sending(work, value)


def _throwing(work: Coroutine[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: work.throw(error)


def _sending(work: Coroutine[Any, Any, Any], value: Any) -> Callable[[], Any]:
    return lambda: work.send(value)


async def examine(
    case: Case,
    way: Way,
    store: SessionStore,
    model: SessionStore,
    path: Path,
    prepare: Callable[[SessionStore], Awaitable[None]],
) -> int:
    """Cancel the call at its first await, at its second one, and so on to its end: how many it has."""
    await prepare(model)
    before = await _snapshots(model, case)
    await case.call(model)
    after = await _snapshots(model, case)
    assert before != after, "the call changes nothing"
    for nth in range(1, _MOST_AWAITS):
        # each time anew, in a namespace where nothing else is
        view = store.scoped(namespace=str(nth))
        await prepare(view)
        cancelled = await cancelled_at(nth, way, lambda: case.call(view))  # noqa: B023
        # whoever comes next is served, behind all that was sent for writing or for reading
        await view.append(Run(session_id="next"))
        assert await view.get_session("next") is not None
        check_file(path)
        found = await _snapshots(view, case)
        for session_id in case.session_ids:
            choices = [without_version(before[session_id]), without_version(after[session_id])]
            assert without_version(found[session_id]) in choices, f"at await {nth}"
        await case.call(view)
        assert await _snapshots(view, case) == after, f"repeated after await {nth}"
        if not cancelled:
            return nth - 1
    raise AssertionError("the call does not end")


async def _snapshots(store: SessionStore, case: Case) -> dict[str, Snapshot]:
    found = {session_id: await snapshot(store, session_id) for session_id in case.session_ids}
    for each in found.values():
        if isinstance(each["session"], dict):
            each["session"].pop("namespace", None)
    return found


def check_file(path: Path) -> None:
    """Nobody has a transaction open: not for writing, nor for reading an old state."""
    with closing(sqlite3.connect(path, timeout=0)) as db:
        busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not busy, "a transaction was left open"
