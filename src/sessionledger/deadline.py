"""Bounds in time for a block of awaits."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

import anyio

from sessionledger.errors import DriverTimeoutError

__all__ = ["SETTLE", "Deadline", "late"]

#: The hint for a write.
SETTLE: Final = "repeat it with the same run_id or operation_id to settle it, it may be stored"


class Deadline:
    """A `DriverTimeoutError` when the block takes longer than `timeout` seconds (None: no bound).

    On asyncio it does what `asyncio.timeout` does, by the same rules, at a fifth of the cost: every page of a cursor
    has one.
    """

    __slots__ = ("_cancelling", "_expired", "_hint", "_scope", "_task", "_timeout", "_timer")

    def __init__(self, timeout: float | None, hint: str) -> None:
        self._timeout, self._hint = timeout, hint
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._scope: anyio.CancelScope | None = None

    def __enter__(self) -> None:
        if self._timeout is None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._scope = anyio.move_on_after(self._timeout)
            self._scope.__enter__()
            return
        self._task = asyncio.current_task()
        if self._task is not None:
            self._cancelling = self._task.cancelling()
            self._timer = loop.call_later(self._timeout, self._expire)

    def _expire(self) -> None:
        self._expired = True
        assert self._task is not None
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if self._scope is not None:
            handled = self._scope.__exit__(kind, error, traceback)
            if self._scope.cancelled_caught:
                raise late(self._timeout, self._hint)
            return handled
        if self._timer is not None:
            self._timer.cancel()
        if self._expired and self._task is not None:
            # a cancellation that came from elsewhere as well goes on
            ours = self._task.uncancel() <= self._cancelling
            if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise late(self._timeout, self._hint) from error
        return None


def late(timeout: float | None, hint: str) -> DriverTimeoutError:
    return DriverTimeoutError(f"the call took longer than the timeout of {timeout} s: {hint}")
