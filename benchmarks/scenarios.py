"""The scenarios. Each opens nothing itself, seeds what it needs, measures, and reads back what it has written.

A scenario's name is its kind and its size: ``append-1000`` appends to a session of 1,000 runs. Sizes are runs in the
session (append, turn, growth, reads, storage), sessions (concurrent, list), or messages (walk, walk-history).
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders.contender import Contender
from benchmarks.timing import alternate, clock, peak_memory, repeat, reset_peak_memory, summary
from benchmarks.workload import MESSAGES_PER_RUN, Generator

__all__ = ["DEFAULT", "QUICK", "SCENARIOS", "STORED", "Bench", "Parts", "generate", "parse"]

USER = "user-1"
STORED = "walked"  #: the session of a stored database
PAGE = 50  #: messages, or sessions
Parts = dict[str, dict[str, float]]  #: part of a scenario → statistic → value

DEFAULT = [
    "append-0",
    "append-100",
    "append-1000",
    "append-10000",
    "growth-1000",
    "turn-1000",
    "concurrent-32",
    "reads-1000",
    "list-2000",
    "storage-1000",
    "walk",
    "walk-history",
]
QUICK = [
    "append-0",
    "append-100",
    "growth-200",
    "turn-100",
    "concurrent-8",
    "reads-100",
    "list-100",
    "storage-100",
    "walk",
    "walk-history",
]


@dataclass(slots=True)
class Bench:
    """One measurement under way."""

    store: Contender
    source: Generator
    size: int
    budget: float  #: seconds of timed work for each part

    def session(self) -> str:
        return self.source.id("s-")

    def items(self, session: str, count: int) -> Iterator[Any]:
        return map(self.store.prepare, self.source.runs(session, USER, count))

    async def seed(self, session: str, runs: int) -> None:
        if runs:
            await self.store.seed(session, USER, list(self.items(session, runs)))

    async def check(self, session: str, runs: int) -> None:
        """A store that is quick because it loses messages is no contender."""
        count = await self.store.history(session, USER)
        if count != runs * MESSAGES_PER_RUN:
            raise AssertionError(f"{self.store.name} holds {count} messages of {runs} runs")


def parse(name: str) -> tuple[str, int]:
    """Kind and size of a scenario; the size is 0 where the name has none."""
    kind, _, size = name.rpartition("-")
    return (kind, int(size)) if size.isdigit() else (name, 0)


async def append(bench: Bench) -> Parts:
    return await _append(bench, bench.store.append)


async def turn(bench: Bench) -> Parts:
    """What an agent does a turn: load the last 3 runs, then append."""
    return await _append(bench, bench.store.turn)


async def _append(bench: Bench, act: Callable[[str, str, Any], Awaitable[None]], samples: int = 300) -> Parts:
    for session in [bench.session() for _ in range(3)]:
        await bench.store.append(session, USER, next(bench.items(session, 1)))
    sessions = [bench.session()] * samples if bench.size else [bench.session() for _ in range(samples)]
    await bench.seed(sessions[0], bench.size)
    items = [next(bench.items(session, 1)) for session in sessions]
    timed = await repeat(bench.budget, samples, lambda number: act(sessions[number], USER, items[number]))
    await bench.check(sessions[0], bench.size + int(timed["n"]) if bench.size else 1)
    return {"": timed}


async def growth(bench: Bench, small: int = 100, samples: int = 150) -> Parts:
    """Append to sessions of 100 runs and to a large one, in turn, in one store: does the cost grow with the session?"""
    shorts, long = [bench.session() for _ in range(3)], bench.session()
    for session in shorts:
        await bench.seed(session, small)
    await bench.seed(long, bench.size)
    targets = {"small": [shorts[number % 3] for number in range(samples)], "large": [long] * samples}
    items = {name: [next(bench.items(session, 1)) for session in found] for name, found in targets.items()}

    def appending(name: str) -> Callable[[int], Awaitable[None]]:
        return lambda number: bench.store.append(targets[name][number], USER, items[name][number])

    timed = await alternate(bench.budget * 2, samples, {name: appending(name) for name in targets})
    await bench.check(long, bench.size + int(timed["large"]["n"]))
    return timed


async def concurrent(bench: Bench, small: int = 100) -> Parts:
    """Sessions of 100 runs that are appended to at once, each one run after the other; runs per second over all."""
    sessions = [bench.session() for _ in range(bench.size)]
    for session in sessions:
        await bench.seed(session, small)
    items = {session: list(bench.items(session, 100)) for session in sessions}
    latencies: list[float] = []
    gc.collect()
    processor, begin = time.process_time(), clock()

    async def client(session: str) -> None:
        for item in items[session]:
            start = clock()
            await bench.store.append(session, USER, item)
            latencies.append((clock() - start) * 1e3)
            if clock() - begin > bench.budget:
                break

    await asyncio.gather(*[client(session) for session in sessions])
    elapsed, processor = clock() - begin, time.process_time() - processor
    count = len(latencies)
    held = sum([await bench.store.history(session, USER) for session in sessions])
    if held != (count + small * bench.size) * MESSAGES_PER_RUN:
        raise AssertionError(f"{bench.store.name} holds {held} messages after {count} concurrent appends")
    return {"": {"runs_per_s": count / elapsed, "cpu_ms": processor / count * 1e3, **summary(latencies)}}


async def reads(bench: Bench) -> Parts:
    """Reads of one session: the last messages, all of them, its header, and a page of 50 by offset."""
    store, session, other = bench.store, bench.session(), bench.session()
    await bench.seed(session, bench.size)
    await bench.seed(other, 1)
    await bench.check(session, bench.size)
    last = bench.size * MESSAGES_PER_RUN - PAGE
    for read, count in ((store.last(session, USER, 10), 10), (store.page(session, USER, last, PAGE), PAGE)):
        if (got := await read) < count:
            raise AssertionError(f"{store.name} read back {got} of {count} messages")
    return {
        "last10": await repeat(bench.budget, 200, lambda _: store.last(session, USER, 10)),
        "history": await repeat(bench.budget, 30, lambda _: store.history(session, USER)),
        "messages": await repeat(bench.budget, 30, lambda _: store.messages(session, USER)),
        "header": await repeat(bench.budget, 200, lambda _: store.header(session, USER)),
        **await pages(bench, session, last),
    }


async def pages(bench: Bench, session: str, last: int) -> Parts:
    def page(offset: int) -> Callable[[int], Awaitable[int]]:
        return lambda _: bench.store.page(session, USER, offset, PAGE)

    offsets = {"page_first": 0, "page_middle": last // 2, "page_last": last}
    return await alternate(bench.budget, 200, {name: page(offset) for name, offset in offsets.items()})


async def list_sessions(bench: Bench) -> Parts:
    """The newest 50 sessions of a user who has many, of 5 runs each."""
    sessions = [bench.session() for _ in range(bench.size)]
    await bench.store.seed_many(USER, {session: list(bench.items(session, 5)) for session in sessions})
    if (count := await bench.store.list_sessions(USER, PAGE)) < PAGE:
        raise AssertionError(f"{bench.store.name} listed {count}")
    return {"": await repeat(bench.budget, 100, lambda _: bench.store.list_sessions(USER, PAGE))}


async def storage(bench: Bench) -> Parts:
    before = await bench.store.storage_bytes()
    await bench.seed(bench.session(), bench.size)
    return {"": {"bytes_per_run": (await bench.store.storage_bytes() - before) / bench.size}}


async def generate(bench: Bench) -> Parts:
    """Store the session that another process walks; the memory of this one does not count."""
    runs = -(-bench.size // MESSAGES_PER_RUN)
    for start in range(0, runs, 500):
        await bench.seed(STORED, min(500, runs - start))
    return {}


async def walk(bench: Bench) -> Parts:
    return await _walk(bench, bench.store.walk) | await pages(bench, STORED, bench.size - PAGE)


async def walk_history(bench: Bench) -> Parts:
    return await _walk(bench, bench.store.walk_history)


async def _walk(bench: Bench, act: Callable[[str, str], Awaitable[int]]) -> Parts:
    """Growth of the peak of this fresh process's resident memory while it passes over all messages."""
    before = reset_peak_memory()
    start = clock()
    count = await act(STORED, USER)
    seconds, grew = clock() - start, peak_memory() - before
    if count < bench.size:
        raise AssertionError(f"{bench.store.name} walked {count} of {bench.size} messages")
    return {"": {"grew_mb": grew / 1e6, "seconds": seconds}}


SCENARIOS: dict[str, Callable[[Bench], Awaitable[Parts]]] = {
    "append": append,
    "growth": growth,
    "turn": turn,
    "concurrent": concurrent,
    "reads": reads,
    "list": list_sessions,
    "storage": storage,
    "walk": walk,
    "walk-history": walk_history,
}
