"""What the report shows, what each figure is compared with, and how far it may be from it. All of that is here."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

__all__ = ["CEILINGS", "MEASURES", "TARGETS", "Against", "Measure", "Target", "serves", "target"]

#: "write", "crowd" (of writers), "read": the raw contender of `CEILINGS`; "own": another part of the same measurement;
#: "": nothing.
Against = Literal["write", "crowd", "read", "own", ""]

#: By backend: the raw contenders that ratios are taken to. They are as durable as ours, or cannot be less.
CEILINGS: dict[str, dict[str, str]] = {
    "sqlite": {"write": "raw-sqlite3-group-full", "crowd": "raw-sqlite3-group-full", "read": "raw-sqlite3-thread"},
    "postgres": {"write": "raw-asyncpg", "crowd": "raw-asyncpg-group", "read": "raw-asyncpg"},
    "mongodb": {"write": "raw-pymongo-majority", "crowd": "raw-pymongo-majority", "read": "raw-pymongo-majority"},
    "motor": {"write": "raw-motor-majority", "crowd": "raw-pymongo-majority", "read": "raw-motor-majority"},
    "redis": {"write": "raw-redis-lua", "crowd": "raw-redis-lua", "read": "raw-redis-lua"},
}


class Measure(NamedTuple):
    """A line of the report for each scenario of this kind."""

    kind: str
    part: str
    statistic: str
    title: str  #: with {size}, as the scenario's name has it
    unit: str
    against: Against
    own: str = ""  #: the other part, for "own"
    more_is_better: bool = False


MEASURES = [
    Measure("append", "", "p50", "append to {size} runs", "ms", "write"),
    Measure("append", "", "p99", "append to {size} runs, p99", "ms", "write"),
    Measure("append", "", "cpu_ms", "append to {size} runs, CPU", "ms", "write"),
    Measure("growth", "large", "p50", "append to {size} runs ÷ to 100", "ms", "own", "small"),
    Measure("turn", "", "p50", "turn at {size} runs", "ms", "write"),
    Measure("concurrent", "", "runs_per_s", "{size} sessions at once", "runs/s", "crowd", more_is_better=True),
    Measure("concurrent", "", "p99", "{size} sessions at once, p99", "ms", "crowd"),
    Measure("concurrent", "", "cpu_ms", "{size} sessions at once, CPU a run", "ms", "crowd"),
    Measure("reads", "last10", "p50", "last 10 messages of {size} runs", "ms", "read"),
    Measure("reads", "last10", "cpu_ms", "last 10 messages of {size} runs, CPU", "ms", "read"),
    Measure("reads", "history", "p50", "history of {size} runs", "ms", "read"),
    Measure("reads", "history", "cpu_ms", "history of {size} runs, CPU", "ms", "read"),
    Measure("reads", "messages", "p50", "all messages of {size} runs", "ms", "read"),
    Measure("reads", "header", "p50", "session header", "ms", "read"),
    Measure("reads", "header", "cpu_ms", "session header, CPU", "ms", "read"),
    Measure("reads", "page_first", "p50", "first page of {size} runs", "ms", "read"),
    Measure("reads", "page_middle", "p50", "page in the middle of {size} runs", "ms", "read"),
    Measure("reads", "page_last", "p50", "last page of {size} runs", "ms", "read"),
    Measure("reads", "page_middle", "p50", "page in the middle ÷ first", "ms", "own", "page_first"),
    Measure("reads", "page_last", "p50", "last page ÷ first", "ms", "own", "page_first"),
    Measure("list", "", "p50", "list 50 of {size} sessions", "ms", "read"),
    Measure("storage", "", "bytes_per_run", "bytes a run", "B", "read"),
    Measure("walk", "", "grew_mb", "walk of {size} messages: memory", "MB", ""),
    Measure("walk", "", "seconds", "walk of {size} messages", "s", "read"),
    Measure("walk", "page_last", "p50", "last page of {size} messages ÷ first", "ms", "own", "page_first"),
    Measure("walk-history", "", "grew_mb", "walk of the history, {size} messages: memory", "MB", ""),
    Measure("walk-history", "", "seconds", "walk of the history, {size} messages", "s", "read"),
]


class Target(NamedTuple):
    """A bound of the median ratio, or of the median itself where a measure is compared with nothing."""

    backend: str
    scenario: str  #: or a pattern of scenarios
    part: str
    statistic: str
    against: Against
    bound: float


TARGETS = [
    Target("sqlite", "append-1000", "", "p50", "write", 1.3),
    Target("sqlite", "growth-1000", "large", "p50", "own", 1.1),
    Target("sqlite", "concurrent-32", "", "runs_per_s", "crowd", 0.8),
    Target("sqlite", "reads-1000", "last10", "p50", "read", 1.5),
    Target("sqlite", "reads-1000", "header", "p50", "read", 1.5),
    Target("sqlite", "reads-1000", "history", "p50", "read", 2.2),
    Target("sqlite", "reads-1000", "messages", "p50", "read", 2.2),
    Target("sqlite", "reads-1000", "page_last", "p50", "own", 2.0),
    Target("sqlite", "storage-1000", "", "bytes_per_run", "read", 0.9),
    Target("sqlite", "walk-*", "", "grew_mb", "", 10.0),
    Target("sqlite", "walk-*", "page_last", "p50", "own", 2.0),
]

#: append, 32 sessions at once, last 10, header, history, bytes a run
_OF_SERVERS = {
    "postgres": (1.0, 0.7, 1.2, 1.2, 1.2, 0.9),
    "mongodb": (0.8, 3.0, 1.4, 2.0, 2.4, 1.2),
    "motor": (1.0, 3.0, 1.4, 2.0, 2.4, 1.2),
    "redis": (1.5, 1.0, 1.6, 1.6, 2.5, 1.2),
}
for _backend, (_append, _crowd, _last, _header, _history, _bytes) in _OF_SERVERS.items():
    TARGETS += [
        Target(_backend, "append-1000", "", "p50", "write", _append),
        Target(_backend, "concurrent-32", "", "runs_per_s", "crowd", _crowd),
        Target(_backend, "reads-1000", "last10", "p50", "read", _last),
        Target(_backend, "reads-1000", "header", "p50", "read", _header),
        Target(_backend, "reads-1000", "history", "p50", "read", _history),
        Target(_backend, "storage-1000", "", "bytes_per_run", "read", _bytes),
        Target(_backend, "walk-*", "", "grew_mb", "", 5.0),
    ]


def target(backend: str, scenario: str, measure: Measure) -> float | None:
    """The bound of this figure, if it has one."""
    wanted = (backend, measure.part, measure.statistic, measure.against)
    for found in TARGETS:
        if (found.backend, found.part, found.statistic, found.against) == wanted and fnmatchcase(
            scenario, found.scenario
        ):
            return found.bound
    return None


def serves(contender: str, kind: str) -> bool:
    """Whether another contender's figures of this kind of scenario are compared with this one's."""
    wanted = {measure.against for measure in MEASURES if measure.kind == kind}
    return any(
        name == contender and against in wanted for kinds in CEILINGS.values() for against, name in kinds.items()
    )
