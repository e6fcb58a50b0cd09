"""Work that must not end with the task that asked for it.

A commit that was sent, and the end of a recording, go on when their caller is cancelled. On asyncio they are tasks of
the event loop, because a plain `task.cancel()` reaches into every cancel scope; on trio they are children of a task
group that is open as long as the store's ``async with`` block.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from sessionledger.errors import OutcomeUnknownError, StoreClosedError, UnsupportedError
from sessionledger.waiting import Waiter, running_loop

__all__ = ["Background"]

T = TypeVar("T")


class Background:
    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._reads: set[asyncio.Task[None]] = set()  #: those that were begun ahead
        self._group: TaskGroup | None = None
        self._awaited: set[Waiter[Any]] = set()  #: of the works of `run`
        self._idle: Waiter[None] | None = None

    async def open(self, *, scoped: bool, driver: str) -> None:
        """`scoped`: `close` will be called by the same task, as ``async with`` does."""
        if running_loop() is not None:
            return
        if not scoped:
            raise UnsupportedError(
                "a store on trio is opened with 'async with': open() has no task group for its work",
                driver=driver,
                ability="open",
            )
        self._group = anyio.create_task_group()
        await self._group.__aenter__()

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None] | None:
        """Run it to its end. It handles its own exceptions."""
        if self._group is not None:
            self._group.start_soon(work)
            return None
        loop = running_loop()
        if loop is None:
            raise StoreClosedError("the store was closed: open it and repeat the call")
        task = loop.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def ahead(self, read: Callable[[], Coroutine[Any, Any, T]]) -> Waiter[T]:
        """Begin a read that may be wanted. Nobody is told of its failure who does not wait for it."""
        waiter: Waiter[T] = Waiter()
        task = self.spawn(partial(_settle, waiter, read, _dropped))
        if task is not None:
            self._reads.add(task)
            task.add_done_callback(self._reads.discard)
        return waiter

    async def drop_reads(self) -> None:
        """End those that were begun ahead."""
        reads = list(self._reads)
        for task in reads:
            task.cancel()
        if reads:
            await asyncio.wait(reads)

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run it to its end, even when the caller is cancelled while it waits; its exception is the caller's."""
        waiter: Waiter[T] = Waiter()

        async def settle() -> None:
            try:
                await _settle(waiter, work, _closed)
            finally:
                self._forget(waiter)

        self._awaited.add(waiter)
        try:
            self.spawn(settle)
        except StoreClosedError:
            self._forget(waiter)
            raise
        return await waiter.wait()

    def _forget(self, waiter: Waiter[Any]) -> None:
        self._awaited.discard(waiter)
        if not self._awaited and self._idle is not None:
            self._idle.set(None)
            self._idle = None

    async def drain(self) -> None:
        """Wait for what `run` was called with, also where its caller no longer does."""
        if self._awaited:
            self._idle = self._idle or Waiter()
            await self._idle.wait()

    async def close(self) -> None:
        """What still runs has been waited for by its owner, or has had its time."""
        for task in list(self._tasks):
            task.cancel()
        # a task that is cancelled before it began does not settle anything itself
        for waiter in list(self._awaited):
            waiter.set(_closed())
            self._forget(waiter)
        group, self._group = self._group, None
        if group is not None:
            group.cancel_scope.cancel()
            await group.__aexit__(None, None, None)


async def _settle(
    waiter: Waiter[T], work: Callable[[], Coroutine[Any, Any, T]], cancelled: Callable[[], Exception]
) -> None:
    """Do it, and tell how it ended; `cancelled` is told when the work was, and not who waits for it."""
    try:
        waiter.set(await work())
    except Exception as error:
        # it is raised by who waits
        waiter.set(error)
    except BaseException:
        waiter.set(cancelled())
        raise


def _closed() -> OutcomeUnknownError:
    return OutcomeUnknownError("the store was closed while this was at work: open it and look at what was stored")


def _dropped() -> StoreClosedError:
    return StoreClosedError("the store was closed while this was read: open it and read again")
