"""Timed repetition, and the memory of this process."""

from __future__ import annotations

import ctypes
import gc
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Operation", "alternate", "peak_memory", "repeat", "reset_peak_memory", "summary"]

Operation = Callable[[int], Awaitable[Any]]
clock = time.perf_counter


async def repeat(budget: float, count: int, operation: Operation, least: int = 5) -> dict[str, float]:
    """Time up to `count` operations within the budget in seconds, `least` in any case; milliseconds.

    `cpu_ms`, of the process with all its threads, says more than the clock while others use the machine.
    """
    gc.collect()
    before = time.process_time()
    found = (await alternate(budget, count, {"": operation}, least))[""]
    return {**found, "cpu_ms": (time.process_time() - before) * 1e3 / found["n"]}


async def alternate(
    budget: float, count: int, operations: Mapping[str, Operation], least: int = 5
) -> dict[str, dict[str, float]]:
    """As `repeat`, without `cpu_ms`, for several operations in turn, there and back: drift hits all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in operations}
    there = list(operations.items())
    back = there[::-1]
    deadline = clock() + budget
    for number in range(count):
        for name, operation in back if number % 2 else there:
            start = clock()
            await operation(number)
            times[name].append((clock() - start) * 1e3)
        if clock() > deadline and number + 1 >= least:
            break
    return {name: summary(found) for name, found in times.items()}


def summary(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50": statistics.median(ordered), "p99": p99, "n": len(ordered)}


def reset_peak_memory() -> int:
    """Give freed heap back, so that growth cannot hide in it, and begin a new peak; resident bytes now."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def peak_memory() -> int:
    """The most resident bytes since the last reset (where there is no /proc: since the process began)."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
