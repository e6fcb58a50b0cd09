"""PostgreSQL ceilings: run row, message rows and counters of the session, atomically, in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg

from benchmarks.contenders import codec
from benchmarks.contenders.contender import Contender
from benchmarks.servers import place, server_url
from benchmarks.workload import Run

SCHEMA = """
CREATE TABLE session (id text PRIMARY KEY, user_id text NOT NULL, updated_at bigint NOT NULL, runs int NOT NULL,
  messages int NOT NULL) WITH (fillfactor = 80);
CREATE INDEX session_by_user ON session (user_id, updated_at DESC);
CREATE TABLE run (session_id text NOT NULL, seq int NOT NULL, run_id text NOT NULL UNIQUE, data bytea NOT NULL,
  PRIMARY KEY (session_id, seq));
CREATE TABLE message (session_id text NOT NULL, seq int NOT NULL, data bytea NOT NULL, PRIMARY KEY (session_id, seq));
"""
APPEND = """
WITH s AS (
  INSERT INTO session VALUES ($1, $2, $3, 1, $4) ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at,
    runs = session.runs + 1, messages = session.messages + excluded.messages RETURNING runs, messages),
r AS (INSERT INTO run SELECT $1, s.runs, $5, $6 FROM s)
INSERT INTO message SELECT $1, s.messages - $4 + m.place - 1, m.data
FROM s, unnest($7::bytea[]) WITH ORDINALITY AS m (data, place)
"""
GROUP = """
WITH incoming AS (
  SELECT *, row_number() OVER (PARTITION BY session_id ORDER BY n) AS nth
  FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bytea[]) WITH ORDINALITY
    AS i (session_id, user_id, updated_at, run_id, data, n)),
s AS (
  INSERT INTO session SELECT session_id, min(user_id), max(updated_at), count(*), 4 * count(*) FROM incoming
  GROUP BY session_id ORDER BY session_id
  ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at, runs = session.runs + excluded.runs,
    messages = session.messages + excluded.messages RETURNING id, runs),
placed AS (
  SELECT i.*, s.runs - count(*) OVER (PARTITION BY i.session_id) + i.nth AS seq
  FROM incoming i JOIN s ON s.id = i.session_id),
r AS (INSERT INTO run SELECT session_id, seq, run_id, data FROM placed)
INSERT INTO message SELECT p.session_id, 4 * (p.seq - 1) + m.place, m.data
FROM placed p JOIN unnest($6::bigint[], $7::int[], $8::bytea[]) AS m (n, place, data) USING (n)
"""
LAST = "SELECT data FROM message WHERE session_id = $1 ORDER BY seq DESC LIMIT $2"
ALL = "SELECT data FROM message WHERE session_id = $1 ORDER BY seq"
SLICE = "SELECT data FROM message WHERE session_id = $1 AND seq >= $2 ORDER BY seq LIMIT $3"
HEADER = "SELECT * FROM session WHERE id = $1"
LIST = "SELECT * FROM session WHERE user_id = $1 ORDER BY updated_at DESC LIMIT $2"
PAGE = 500
WRITERS = 2
GROUP_SIZE = 64


class OneStatement(Contender):
    """One prepared statement: one round trip, one commit."""

    async def open(self, *, fresh: bool = True) -> None:
        schema = place(self.directory)
        self.pool = await asyncpg.create_pool(
            server_url("postgres"), min_size=8, max_size=16, server_settings={"search_path": schema}
        )
        if fresh:
            await self.pool.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")
            await self.pool.execute(SCHEMA)

    async def close(self) -> None:
        await self.pool.close()

    def prepare(self, run: Run) -> codec.StoredRun:
        return codec.to_struct(run)

    async def seed(self, session_id: str, user_id: str, items: Sequence[Any]) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            for item in items:
                await self._append(connection, session_id, user_id, item)

    async def append(self, session_id: str, user_id: str, item: Any) -> None:
        await self._append(self.pool, session_id, user_id, item)

    async def _append(self, executor: Any, session_id: str, user_id: str, item: Any) -> None:
        head, messages = codec.split(item)
        session = (session_id, user_id, item.created_at, len(messages))
        await executor.execute(APPEND, *session, item.run_id, head, messages)

    async def last(self, session_id: str, user_id: str, count: int) -> int:
        return _decoded(await self.pool.fetch(LAST, session_id, count))

    async def history(self, session_id: str, user_id: str) -> int:
        return _decoded(await self.pool.fetch(ALL, session_id))

    async def page(self, session_id: str, user_id: str, offset: int, limit: int) -> int:
        return _decoded(await self.pool.fetch(SLICE, session_id, offset, limit))

    async def walk(self, session_id: str, user_id: str) -> int:
        total = 0
        while count := await self.page(session_id, user_id, total, PAGE):
            total += count
        return total

    async def header(self, session_id: str, user_id: str) -> Any:
        return await self.pool.fetchrow(HEADER, session_id)

    async def list_sessions(self, user_id: str, limit: int) -> int:
        return len(await self.pool.fetch(LIST, user_id, limit))

    async def storage_bytes(self) -> int:
        return await schema_bytes(self.pool, place(self.directory))


class Group(OneStatement):
    """Two writers; each sends everything that waits as one statement."""

    skip = frozenset({"reads", "list", "storage", "walk", "walk-history"})

    async def open(self, *, fresh: bool = True) -> None:
        await super().open(fresh=fresh)
        self.waiting: list[tuple[asyncio.Future[None], str, str, Any]] = []
        self.some = asyncio.Condition()
        self.writers = [asyncio.create_task(self._write()) for _ in range(WRITERS)]

    async def close(self) -> None:
        for writer in self.writers:
            writer.cancel()
        await asyncio.gather(*self.writers, return_exceptions=True)
        await super().close()

    async def append(self, session_id: str, user_id: str, item: Any) -> None:
        done = asyncio.get_running_loop().create_future()
        self.waiting.append((done, session_id, user_id, item))
        async with self.some:
            self.some.notify()
        await done

    async def _write(self) -> None:
        async with self.pool.acquire() as connection:
            while True:
                async with self.some:
                    await self.some.wait_for(lambda: self.waiting)
                group, self.waiting = self.waiting[:GROUP_SIZE], self.waiting[GROUP_SIZE:]
                await self._send(connection, group)

    async def _send(self, connection: asyncpg.Connection, group: list[tuple[Any, ...]]) -> None:
        split = [codec.split(item) for _, _, _, item in group]
        said = [(n, place, data) for n, (_, messages) in enumerate(split, 1) for place, data in enumerate(messages)]
        await connection.execute(
            GROUP,
            [session_id for _, session_id, _, _ in group],
            [user_id for _, _, user_id, _ in group],
            [item.created_at for _, _, _, item in group],
            [item.run_id for _, _, _, item in group],
            [head for head, _ in split],
            *map(list, zip(*said, strict=True)),
        )
        for done, *_ in group:
            done.set_result(None)


def _decoded(rows: Sequence[Any]) -> int:
    return len([codec.decode_message(data) for (data,) in rows])


async def schema_bytes(pool: Any, schema: str) -> int:
    """Of all tables and indexes of a schema."""
    size: int = await pool.fetchval(
        "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c WHERE c.relkind = 'r' "
        "AND c.relnamespace = $1::text::regnamespace",
        schema,
    )
    return size
