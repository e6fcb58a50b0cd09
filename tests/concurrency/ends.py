"""Threads of a store that was closed."""

from __future__ import annotations

import threading
from collections.abc import Set
from functools import partial

import anyio.to_thread


async def ended(before: Set[threading.Thread]) -> None:
    """None is left of those that have been started since."""
    for thread in set(threading.enumerate()) - before:
        if not thread.daemon:
            await anyio.to_thread.run_sync(partial(thread.join, timeout=10))
            assert not thread.is_alive()
