"""The adapter that every contender implements; the harness knows nothing else about a contender."""

from __future__ import annotations

import contextlib
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.workload import Run

__all__ = ["DATABASE", "Contender", "sqlite_bytes"]

DATABASE = "bench.db"


class Contender(ABC):
    """One store under measure. `append` takes what `prepare` made: making native objects is not timed, encoding is."""

    name: str
    #: Scenario kinds that this contender leaves out (variants of one store that differ only in how they append).
    skip: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, directory: Path) -> None:
        """`directory` is this process's own; a contender with a server finds it in the environment instead."""
        self.directory = directory

    @abstractmethod
    async def open(self, *, fresh: bool = True) -> None:
        """Connect: to an empty store with its schema made, or, not `fresh`, to what an earlier process has left."""

    @abstractmethod
    async def close(self) -> None: ...

    def prepare(self, run: Run) -> Any:
        """The contender's own object for a run."""
        return run

    @abstractmethod
    async def seed(self, session_id: str, user_id: str, items: Sequence[Any]) -> None:
        """Add these runs to a session by the quickest way that leaves the same data as appends would."""

    async def seed_many(self, user_id: str, items: Mapping[str, Sequence[Any]]) -> None:
        """`seed` for several sessions."""
        for session_id, runs in items.items():
            await self.seed(session_id, user_id, runs)

    @abstractmethod
    async def append(self, session_id: str, user_id: str, item: Any) -> None:
        """Durably append one run, creating the session where it is new."""

    async def turn(self, session_id: str, user_id: str, item: Any) -> None:
        """One turn of an agent: load the context of the last three runs, then append."""
        await self.last(session_id, user_id, 12)
        await self.append(session_id, user_id, item)

    @abstractmethod
    async def last(self, session_id: str, user_id: str, count: int) -> int:
        """Read and decode the last `count` messages (or the runs that hold them); return how many came."""

    @abstractmethod
    async def history(self, session_id: str, user_id: str) -> int:
        """Read and decode what goes into a model's context, here all messages; return how many came."""

    async def messages(self, session_id: str, user_id: str) -> int:
        """Read and decode the log of messages, where that is another call than `history`; return how many came."""
        return await self.history(session_id, user_id)

    @abstractmethod
    async def page(self, session_id: str, user_id: str, offset: int, limit: int) -> int:
        """Read and decode the `limit` messages behind the first `offset`; return how many came."""

    @abstractmethod
    async def walk(self, session_id: str, user_id: str) -> int:
        """Pass over all messages by the least memory-hungry way on offer; return how many came."""

    async def walk_history(self, session_id: str, user_id: str) -> int:
        """As `walk`, over the `history`."""
        return await self.walk(session_id, user_id)

    @abstractmethod
    async def header(self, session_id: str, user_id: str) -> Any:
        """Open one session's metadata, without messages where that is possible."""

    @abstractmethod
    async def list_sessions(self, user_id: str, limit: int) -> int:
        """List a user's newest sessions; return how many came."""

    @abstractmethod
    async def storage_bytes(self) -> int:
        """Bytes that the store now takes."""


def sqlite_bytes(directory: Path) -> int:
    """Size of the directory's database in bytes once its write-ahead log is folded in."""
    with contextlib.closing(sqlite3.connect(directory / DATABASE, timeout=5)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
