"""SQLite ceilings: the least code that stores a run row, four message rows and the session's counters atomically."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from benchmarks.contenders import codec
from benchmarks.contenders.contender import DATABASE, Contender, sqlite_bytes
from benchmarks.workload import Run

SCHEMA = """
CREATE TABLE session (id TEXT PRIMARY KEY, user_id TEXT NOT NULL, updated_at INTEGER NOT NULL, runs INTEGER NOT NULL,
  messages INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX session_by_user ON session (user_id, updated_at DESC);
CREATE TABLE run (session_id TEXT NOT NULL, seq INTEGER NOT NULL, run_id TEXT NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (session_id, seq)) WITHOUT ROWID;
CREATE UNIQUE INDEX run_by_id ON run (run_id);
CREATE TABLE message (session_id TEXT NOT NULL, seq INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (session_id, seq));
"""
UPSERT_SESSION = """INSERT INTO session VALUES (?, ?, ?, 1, ?) ON CONFLICT (id) DO UPDATE SET
  updated_at = excluded.updated_at, runs = runs + 1, messages = messages + excluded.messages RETURNING runs, messages"""
INSERT_RUN = "INSERT INTO run VALUES (?, ?, ?, ?)"
INSERT_MESSAGE = "INSERT INTO message VALUES (?, ?, ?)"
LAST = "SELECT data FROM message WHERE session_id = ? ORDER BY seq DESC LIMIT ?"
ALL = "SELECT data FROM message WHERE session_id = ? ORDER BY seq"
SLICE = "SELECT data FROM message WHERE session_id = ? AND seq >= ? ORDER BY seq LIMIT ?"
PAGE = "SELECT seq, data FROM message WHERE session_id = ? AND seq >= ? ORDER BY seq LIMIT 500"
META = "SELECT * FROM session WHERE id = ?"
LIST = "SELECT * FROM session WHERE user_id = ? ORDER BY updated_at DESC LIMIT ?"
T = TypeVar("T")
APPENDS_ONLY = frozenset({"reads", "list", "storage", "walk", "walk-history"})


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};")
    return connection


def append(db: sqlite3.Connection, session_id: str, user_id: str, run: codec.StoredRun) -> None:
    """The statements of one append; the caller owns the transaction."""
    head, messages = codec.split(run)
    row = db.execute(UPSERT_SESSION, (session_id, user_id, run.created_at, len(messages))).fetchone()
    first = row[1] - len(messages)
    db.execute(INSERT_RUN, (session_id, row[0], run.run_id, head))
    db.executemany(INSERT_MESSAGE, [(session_id, first + index, data) for index, data in enumerate(messages)])


def append_committed(db: sqlite3.Connection, session_id: str, user_id: str, run: codec.StoredRun) -> None:
    db.execute("BEGIN IMMEDIATE")
    append(db, session_id, user_id, run)
    db.execute("COMMIT")


class SyncNormal(Contender):
    """Plain sqlite3 on the calling thread: no async cost at all."""

    synchronous = "NORMAL"

    async def open(self, *, fresh: bool = True) -> None:
        self.db = connect(self.directory / DATABASE, self.synchronous)
        if fresh:
            self.db.executescript(SCHEMA)

    async def close(self) -> None:
        self.db.close()

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        return function(*arguments)

    def prepare(self, run: Run) -> codec.StoredRun:
        return codec.to_struct(run)

    async def seed(self, session_id: str, user_id: str, items: Sequence[Any]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        for item in items:
            append(self.db, session_id, user_id, item)
        self.db.execute("COMMIT")

    async def append(self, session_id: str, user_id: str, item: Any) -> None:
        await self.call(append_committed, self.db, session_id, user_id, item)

    def _decode(self, sql: str, parameters: tuple[Any, ...]) -> int:
        return len([codec.decode_message(data) for (data,) in self.db.execute(sql, parameters).fetchall()])

    def _fetch(self, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        return self.db.execute(sql, parameters).fetchall()

    async def last(self, session_id: str, user_id: str, count: int) -> int:
        return await self.call(self._decode, LAST, (session_id, count))

    async def history(self, session_id: str, user_id: str) -> int:
        return await self.call(self._decode, ALL, (session_id,))

    async def page(self, session_id: str, user_id: str, offset: int, limit: int) -> int:
        return await self.call(self._decode, SLICE, (session_id, offset, limit))

    async def walk(self, session_id: str, user_id: str) -> int:
        total = start = 0
        while rows := await self.call(self._fetch, PAGE, (session_id, start)):
            for _, data in rows:
                codec.decode_message(data)
            total += len(rows)
            start = rows[-1][0] + 1
        return total

    async def header(self, session_id: str, user_id: str) -> Any:
        return await self.call(lambda: self.db.execute(META, (session_id,)).fetchone())

    async def list_sessions(self, user_id: str, limit: int) -> int:
        return len(await self.call(lambda: self.db.execute(LIST, (user_id, limit)).fetchall()))

    async def storage_bytes(self) -> int:
        return sqlite_bytes(self.directory)


class SyncFull(SyncNormal):
    synchronous = "FULL"
    skip = APPENDS_ONLY


class Thread(SyncNormal):
    """sqlite3 in one worker thread, one hop for each operation."""

    async def open(self, *, fresh: bool = True) -> None:
        await super().open(fresh=fresh)
        self.pool = ThreadPoolExecutor(1)

    async def close(self) -> None:
        self.pool.shutdown()
        await super().close()

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)


class AioNaive(SyncNormal):
    """aiosqlite as its README shows it: one thread hop for each statement."""

    async def open(self, *, fresh: bool = True) -> None:
        await super().open(fresh=fresh)
        self.aio = await aiosqlite.connect(self.directory / DATABASE, isolation_level=None)
        await self.aio.execute(f"PRAGMA synchronous = {self.synchronous}")
        self.lock = asyncio.Lock()

    async def close(self) -> None:
        await self.aio.close()
        await super().close()

    async def append(self, session_id: str, user_id: str, item: Any) -> None:
        head, messages = codec.split(item)
        async with self.lock:
            await self.aio.execute("BEGIN IMMEDIATE")
            values = (session_id, user_id, item.created_at, len(messages))
            async with self.aio.execute(UPSERT_SESSION, values) as cursor:
                row = await cursor.fetchone()
            first = row[1] - len(messages)  # type: ignore[index]
            await self.aio.execute(INSERT_RUN, (session_id, row[0], item.run_id, head))  # type: ignore[index]
            rows = [(session_id, first + index, data) for index, data in enumerate(messages)]
            await self.aio.executemany(INSERT_MESSAGE, rows)
            await self.aio.commit()

    async def last(self, session_id: str, user_id: str, count: int) -> int:
        rows = await self.aio.execute_fetchall(LAST, (session_id, count))
        return len([codec.decode_message(data) for (data,) in rows])

    async def history(self, session_id: str, user_id: str) -> int:
        rows = await self.aio.execute_fetchall(ALL, (session_id,))
        return len([codec.decode_message(data) for (data,) in rows])

    async def page(self, session_id: str, user_id: str, offset: int, limit: int) -> int:
        rows = await self.aio.execute_fetchall(SLICE, (session_id, offset, limit))
        return len([codec.decode_message(data) for (data,) in rows])

    async def walk(self, session_id: str, user_id: str) -> int:
        total = 0
        async with self.aio.execute(ALL, (session_id,)) as cursor:
            async for (data,) in cursor:
                codec.decode_message(data)
                total += 1
        return total

    async def header(self, session_id: str, user_id: str) -> Any:
        async with self.aio.execute(META, (session_id,)) as cursor:
            return await cursor.fetchone()

    async def list_sessions(self, user_id: str, limit: int) -> int:
        return len(list(await self.aio.execute_fetchall(LIST, (user_id, limit))))


class AioOneHop(AioNaive):
    """aiosqlite, but the whole transaction runs as one function on its thread."""

    skip = APPENDS_ONLY

    async def append(self, session_id: str, user_id: str, item: Any) -> None:
        await self.aio._execute(append_committed, self.aio._conn, session_id, user_id, item)  # type: ignore[no-untyped-call]


class GroupNormal(SyncNormal):
    """A writer thread commits everything that is waiting as one transaction and wakes all waiters at once."""

    skip = APPENDS_ONLY

    async def open(self, *, fresh: bool = True) -> None:
        await super().open(fresh=fresh)
        self.queue: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self.loop = asyncio.get_running_loop()
        self.writer = threading.Thread(target=self._write, daemon=True)
        self.writer.start()

    async def close(self) -> None:
        self.queue.put(None)
        self.writer.join()
        await super().close()

    async def append(self, session_id: str, user_id: str, item: Any) -> None:
        done = self.loop.create_future()
        self.queue.put((done, session_id, user_id, item))
        await done

    def _write(self) -> None:
        while (job := self.queue.get()) is not None:
            batch = [job]
            while len(batch) < 256 and not self.queue.empty():
                batch.append(self.queue.get())  # type: ignore[arg-type]
            self.db.execute("BEGIN IMMEDIATE")
            for _, session_id, user_id, item in batch:
                append(self.db, session_id, user_id, item)
            self.db.execute("COMMIT")
            self.loop.call_soon_threadsafe(self._wake, [job[0] for job in batch])

    @staticmethod
    def _wake(futures: list[asyncio.Future[None]]) -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)


class GroupFull(GroupNormal):
    synchronous = "FULL"
