"""A lock among processes, stores and threads: one file, held by whoever has it open and locked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sessionledger.errors import DriverError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["BusyError", "locked"]

_SPIN: Final = 0.03  #: seconds that a thread waits before it asks the event loop whether anybody still wants it
_PAUSE: Final = 0.0005


class BusyError(Exception):
    """Somebody else has the lock; nothing was done."""


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """`BusyError` when it is not free soon. It goes with the process that has it, also by kill -9."""
    if fcntl is None:
        raise DriverError("the file driver needs POSIX's file locks: use sqlite:/// here", driver="jsonfile")
    # opened anew each time: two threads with one open file would both have the lock, and a fork would keep it
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(descriptor, _SPIN if wait else 0.0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise BusyError from None
            time.sleep(_PAUSE)
        else:
            return
