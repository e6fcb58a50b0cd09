"""When and how often a call to a driver is repeated.

Every call may be: reads change nothing, and a commit is recognised by its ids, so that a copy of it stores nothing
twice.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from sessionledger.errors import OutcomeUnknownError, UnavailableError

__all__ = ["ATTEMPTS", "backoff", "retried"]

T = TypeVar("T")

ATTEMPTS: Final = 6
_FIRST_PAUSE: Final = 0.02  #: seconds; each pause is twice the one before, so that all of them take about 0.6 s


def backoff(attempt: int) -> float:
    """Seconds to wait before attempt 1, 2 …; half of it is random, so that many waiters don't come back at once."""
    return _FIRST_PAUSE * 2.0 ** min(attempt - 1, 6) * (0.5 + random.random() / 2)


async def retried(call: Callable[[], Awaitable[T]], *, wanted: Callable[[], bool] = lambda: True) -> T:
    """Call until it answers, at most `ATTEMPTS` times, as long as somebody wants the answer; then the last error."""
    for attempt in range(1, ATTEMPTS):
        try:
            return await call()
        except (UnavailableError, OutcomeUnknownError):
            if not wanted():
                raise
        await anyio.sleep(backoff(attempt))
    return await call()
