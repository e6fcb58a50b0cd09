"""Bounds in time for a block of awaits."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

import anyio

from sessionledger.errors import DriverTimeoutError

__all__ = ["SETTLE", "Deadline", "Deadlines", "late"]

#: The hint for a write.
SETTLE: Final = "repeat it with the same run_id or operation_id to settle it, it may be stored"


class Deadlines:
    """Those of one store. They run out in the order in which they began, so that on asyncio one timer does for all."""

    def __init__(self, timeout: float | None) -> None:
        """`timeout`: seconds; None: no bound."""
        self.timeout = timeout
        self._open: dict[Deadline, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, deadline: Deadline, loop: asyncio.AbstractEventLoop) -> None:
        assert self.timeout is not None
        if loop is not self._loop:
            # a store that was closed may be opened in another loop
            self._open, self._timer, self._loop = {}, None, loop
        self._open[deadline] = at = loop.time() + self.timeout
        if self._timer is None:
            self._timer = loop.call_at(at, self._expire)

    def end(self, deadline: Deadline) -> None:
        self._open.pop(deadline, None)

    def _expire(self) -> None:
        self._timer = None
        assert self._loop is not None
        now = self._loop.time()
        for deadline, at in list(self._open.items()):
            if at > now:
                self._timer = self._loop.call_at(at, self._expire)
                return
            del self._open[deadline]
            deadline.expire()

    def close(self) -> None:
        """A block that is still open keeps its bound."""
        if self._timer is not None and not self._open:
            self._timer.cancel()
            self._timer = None


class Deadline:
    """A `DriverTimeoutError` when the block takes longer than the timeout.

    On asyncio it does what `asyncio.timeout` does, by the same rules, at a fraction of the cost: every page of a cursor
    has one.
    """

    __slots__ = ("_all", "_cancelling", "_expired", "_hint", "_scope", "_task", "_timeout")

    def __init__(self, all_of_them: Deadlines, hint: str) -> None:
        self._all, self._timeout, self._hint = all_of_them, all_of_them.timeout, hint
        self._expired = False
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
        self._task = asyncio.current_task(loop)
        if self._task is not None:
            self._cancelling = self._task.cancelling()
            self._all.begin(self, loop)

    def expire(self) -> None:
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
        if self._task is None:
            return None
        self._all.end(self)
        if self._expired:
            # a cancellation that came from elsewhere as well goes on
            ours = self._task.uncancel() <= self._cancelling
            if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise late(self._timeout, self._hint) from error
        return None


def late(timeout: float | None, hint: str) -> DriverTimeoutError:
    return DriverTimeoutError(f"the call took longer than the timeout of {timeout} s: {hint}")
