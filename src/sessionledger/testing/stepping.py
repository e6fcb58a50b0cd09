"""Cancelling a call at its n-th await: both where the caller waits and where the driver does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from inspect import iscoroutinefunction
from types import coroutine
from typing import Any

import anyio

from sessionledger.protocol.driver import Driver

__all__ = ["SteppedDriver", "Steps"]


class Steps:
    """Counts the awaits of what it drives, and acts once, at the n-th."""

    def __init__(self) -> None:
        self.count = 0
        self._at = 0
        self._act: Callable[[], object] | None = None

    @coroutine
    def drive(self, work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        value, error = None, None
        while True:
            try:
                waits_for = work.send(value) if error is None else work.throw(error)
            except StopIteration as stop:
                return stop.value
            self._step()
            value, error = None, None
            try:
                value = yield waits_for
            except BaseException as thrown:
                error = thrown

    def _step(self) -> None:
        self.count += 1
        if self.count == self._at and self._act is not None:
            self._act()

    async def counted(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> int:
        """How many awaits a call has; it is done."""
        self.count, self._act = 0, None
        await self.drive(call())
        return self.count

    async def cancelled(self, call: Callable[[], Coroutine[Any, Any, Any]], at: int) -> bool:
        """Whether a call ended by cancellation, when its cancel scope is cancelled at that await."""
        with anyio.CancelScope() as scope:
            self.count, self._at, self._act = 0, at, scope.cancel
            await self.drive(call())
        self._act = None
        return scope.cancelled_caught

    async def cancelled_by_task(self, call: Callable[[], Coroutine[Any, Any, Any]], at: int) -> bool:
        """The same by `asyncio.Task.cancel`, which reaches into every cancel scope."""

        async def work() -> None:
            await self.drive(call())

        task = asyncio.get_running_loop().create_task(work())
        self.count, self._at, self._act = 0, at, task.cancel
        try:
            await task
        except asyncio.CancelledError:
            return True
        finally:
            self._act = None
        return False

    def ways(self, backend: str) -> list[Callable[[Callable[[], Coroutine[Any, Any, Any]], int], Awaitable[bool]]]:
        return [self.cancelled, self.cancelled_by_task] if backend == "asyncio" else [self.cancelled]


class SteppedDriver:
    """A driver whose awaits count too."""

    def __init__(self, driver: Driver, steps: Steps) -> None:
        self._driver, self._steps = driver, steps

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._driver, name)
        if not iscoroutinefunction(value):
            return value

        async def stepped(*arguments: Any, **keywords: Any) -> Any:
            return await self._steps.drive(value(*arguments, **keywords))

        return stepped
