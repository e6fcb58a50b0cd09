"""Which faults were tried how often, on which storage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

__all__ = ["FAULTS", "Counts", "Record", "Tally", "add_up", "as_table"]

#: A fault, a storage, and how often it was tried there.
Record = tuple[str, str, int]
#: By fault, and then by storage.
Counts = dict[str, dict[str, int]]

#: Each fault, and what is counted of it.
FAULTS: Final[Mapping[str, str]] = {
    "writer killed": "kills",
    "server killed": "kills",
    "power cut": "crash images",
    "server stopped": "calls",
    "network": "faults",
    "disk full": "fills",
    "cancellation": "cancelled awaits",
    "many writers": "writes",
    "clock": "jumps",
    "fork, second loop": "calls",
    "upgrade under load": "appends",
    "limits": "refusals and retries",
    "hostile input": "inputs",
    "corrupt data": "damages",
}


class Tally:
    """Of one test: `add` what it has tried."""

    def __init__(self, storage: str, record: Callable[[str, object], None]) -> None:
        self._storage, self._record = storage, record

    def add(self, fault: str, times: int = 1) -> None:
        """`fault` is one of `FAULTS`."""
        if fault not in FAULTS:
            raise ValueError(f"there is no fault {fault!r}: it is one of {', '.join(FAULTS)}")
        self._record("fault", (fault, self._storage, times))


def add_up(records: Iterable[Record]) -> Counts:
    counts: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for fault, storage, times in records:
        counts[fault][storage] += times
    return {fault: dict(counts[fault]) for fault in FAULTS if fault in counts}


def as_table(counts: Counts) -> str:
    """In Markdown: a row for each fault, a column for each storage."""
    storages = sorted({storage for found in counts.values() for storage in found})
    lines = [["fault", "counted", *storages], ["---"] * (len(storages) + 2)]
    for fault, what in FAULTS.items():
        found = counts.get(fault, {})
        lines.append([fault, what, *(f"{found[name]:,}" if name in found else "—" for name in storages)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
