"""Waiting for a value that another task will bring, at the least cost."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Generic, TypeVar

import anyio

__all__ = ["Patience", "Waiter", "running_loop"]

T = TypeVar("T")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """asyncio's, if it is what runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Waiter(Generic[T]):
    """A value to come. Waiting for it costs one future on asyncio, an event elsewhere."""

    __slots__ = ("_event", "_future", "_value")

    def __init__(self) -> None:
        loop = running_loop()
        self._future = None if loop is None else loop.create_future()
        self._event = anyio.Event() if loop is None else None
        self._value: T | BaseException | None = None

    @property
    def settled(self) -> bool:
        """Whether it has its value, or whoever waited for it was cancelled."""
        return self._future.done() if self._future is not None else self._event is not None and self._event.is_set()

    def set(self, value: T | BaseException) -> None:
        """The first value counts; an exception is raised where it is waited for."""
        if self.settled:
            return
        self._value = value
        if self._future is not None:
            self._future.set_result(None)
        elif self._event is not None:
            self._event.set()

    async def wait(self) -> T:
        if self._future is not None:
            await self._future
        elif self._event is not None:
            await self._event.wait()
        if isinstance(self._value, BaseException):
            raise self._value
        return self._value  # type: ignore[return-value]


class Patience:
    """Waits for many values, for each as long.

    They run out of time in the order in which they came, so that on asyncio one timer does for all: one each costs more
    than the wait itself.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._waiters: deque[tuple[float, Waiter[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, waiter: Waiter[T]) -> T:
        """`TimeoutError` when it takes longer than the timeout."""
        loop = running_loop()
        if self._timeout is None:
            return await waiter.wait()
        if loop is None:
            with anyio.fail_after(self._timeout):
                return await waiter.wait()
        self._waiters.append((loop.time() + self._timeout, waiter))
        if self._timer is None:
            self._timer = loop.call_later(self._timeout, self._expire, loop)
        try:
            return await waiter.wait()
        finally:
            self._forget_settled()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _forget_settled(self) -> None:
        waiters = self._waiters
        while waiters and waiters[0][1].settled:
            waiters.popleft()

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._forget_settled()
        while self._waiters:
            at, waiter = self._waiters[0]
            if at > loop.time():
                self._timer = loop.call_at(at, self._expire, loop)
                return
            waiter.set(TimeoutError())
            self._forget_settled()
