"""How many bytes a store that rewrites a session writes, beside one that appends to it: both write while this runs.

What is counted is what each store is handed to write: for the blob the JSON text of the whole session, run after run,
as the `UPDATE` gets it; for ours the JSON text of the run that `append` gets. Where the system counts what a process
hands to its write calls (Linux), that is taken too, with all that SQLite adds: pages, its log, moving the log into the
file.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sessionledger import Message, Run, open_store

__all__ = ["Growth", "Tally", "measure_growth"]

MESSAGES_PER_RUN = 4
CHARACTERS_PER_MESSAGE = 500
_SENTENCE = "The flight to Seattle leaves at 13:00, with one stop, and a checked bag is free of charge. "
_SESSION = "growing"


@dataclass
class Tally:
    """What one store was handed, run after run."""

    bytes_per_run: list[int] = field(default_factory=list)
    seconds: float = 0.0
    system_bytes: int | None = None  #: handed to the system's write calls; None where it does not count them

    @property
    def total(self) -> int:
        return sum(self.bytes_per_run)

    def totals(self) -> list[int]:
        """The total after each run."""
        total, totals = 0, []
        for size in self.bytes_per_run:
            total += size
            totals.append(total)
        return totals


@dataclass
class Growth:
    runs: int
    blob: Tally
    ours: Tally


async def measure_growth(runs: int) -> Growth:
    """Write the same runs into both stores, each in a SQLite file of its own, on disk after each run."""
    growth = Growth(runs, Tally(), Tally())
    with tempfile.TemporaryDirectory(prefix="sessionledger-demo-") as folder:
        with _watched(growth.blob):
            _fill_blob_store(Path(folder, "blob.db"), runs, growth.blob)
        with _watched(growth.ours):
            await _fill_ours(Path(folder, "ours.db"), runs, growth.ours)
    return growth


async def _fill_ours(path: Path, runs: int, tally: Tally) -> None:
    async with open_store(f"sqlite:///{path.as_posix()}") as store:
        for number in range(1, runs + 1):
            run = Run(run_id=f"run-{number}", session_id=_SESSION, messages=_messages(number))
            await store.append(run)
            tally.bytes_per_run.append(len(msgspec.json.encode(run)))


def _fill_blob_store(path: Path, runs: int, tally: Tally) -> None:
    """As agent frameworks keep a session: one row, one JSON text, rewritten on every run."""
    blob: list[dict[str, Any]] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE sessions (session_id TEXT PRIMARY KEY, runs TEXT NOT NULL)")
        connection.execute("INSERT INTO sessions VALUES (?, ?)", (_SESSION, "[]"))
        for number in range(1, runs + 1):
            messages = [{"role": message.role, "content": message.content} for message in _messages(number)]
            blob.append({"run_id": f"run-{number}", "messages": messages})
            text = json.dumps(blob)
            connection.execute("UPDATE sessions SET runs = ? WHERE session_id = ?", (text, _SESSION))
            tally.bytes_per_run.append(len(text))


def _messages(number: int) -> list[Message]:
    text = (f"{number}: " + _SENTENCE * (CHARACTERS_PER_MESSAGE // len(_SENTENCE) + 1))[:CHARACTERS_PER_MESSAGE]
    return [Message(role=role, content=text) for role in ("user", "assistant") * (MESSAGES_PER_RUN // 2)]


@contextmanager
def _watched(tally: Tally) -> Iterator[None]:
    """Adds the time, and the bytes of the system's write calls, of its block to a tally."""
    written, begun = _bytes_written(), time.perf_counter()
    yield
    tally.seconds = time.perf_counter() - begun
    now = _bytes_written()
    tally.system_bytes = None if now is None or written is None else now - written


def _bytes_written() -> int | None:
    """What this process has handed to write calls so far, as Linux counts it."""
    try:
        for line in Path("/proc/self/io").read_text().splitlines():
            if line.startswith("wchar:"):
                return int(line.split()[1])
    except (OSError, ValueError):
        return None
    return None
