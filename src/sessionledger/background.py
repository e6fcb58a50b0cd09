"""Work that must not end with the task that asked for it.

A commit that was sent, and the end of a recording, go on when their caller is cancelled. On asyncio they are tasks of
the event loop, because a plain `task.cancel()` reaches into every cancel scope; on trio they are children of a task
group that is open as long as the store's ``async with`` block.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from sessionledger.errors import UnsupportedError
from sessionledger.waiting import Waiter, running_loop

__all__ = ["Background"]

T = TypeVar("T")


class Background:
    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._group: TaskGroup | None = None
        self._running = 0  #: works of `run`
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

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run it to its end. It handles its own exceptions."""
        if self._group is not None:
            self._group.start_soon(work)
            return
        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run it to its end, even when the caller is cancelled while it waits; its exception is the caller's."""
        waiter: Waiter[T] = Waiter()

        async def settle() -> None:
            try:
                waiter.set(await work())
            except BaseException as error:
                waiter.set(error)
                if not isinstance(error, Exception):
                    raise
            finally:
                self._running -= 1
                if not self._running and self._idle is not None:
                    self._idle.set(None)
                    self._idle = None

        self._running += 1
        self.spawn(settle)
        return await waiter.wait()

    async def drain(self) -> None:
        """Wait for what `run` was called with, also where its caller no longer does."""
        if self._running:
            self._idle = self._idle or Waiter()
            await self._idle.wait()

    async def close(self) -> None:
        """What still runs has been waited for by its owner, or has had its time."""
        for task in list(self._tasks):
            task.cancel()
        if self._group is not None:
            self._group.cancel_scope.cancel()
            await self._group.__aexit__(None, None, None)
            self._group = None
