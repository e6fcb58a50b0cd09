"""sessionledger through its public API."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from pymongo import AsyncMongoClient
from redis.asyncio import Redis

import sessionledger
from benchmarks.contenders.contender import DATABASE, Contender, sqlite_bytes
from benchmarks.contenders.raw_mongo import database_bytes
from benchmarks.contenders.raw_postgres import schema_bytes
from benchmarks.contenders.raw_redis import forget, memory_bytes
from benchmarks.servers import place, server_url
from benchmarks.workload import AGENT_ID, MODEL, Message, Run

RUNS_PER_COMMIT = 100  #: while seeding
SESSIONS_AT_ONCE = 64  #: while seeding


def record(message: Message) -> sessionledger.Message:
    asked = message.role == "assistant"
    call = sessionledger.ToolCall(
        tool_call_id=message.tool_call_id or "", name=message.tool_name or "", arguments=message.tool_args
    )
    usage = sessionledger.Usage(input_tokens=message.input_tokens, output_tokens=message.output_tokens)
    return sessionledger.Message(
        message_id=message.id,
        role=message.role,
        content=message.content,
        created_at=datetime.fromtimestamp(message.created_at, UTC),
        tool_calls=[call] if asked and message.tool_call_id else (),
        tool_call_id=None if asked else message.tool_call_id,
        name=None if asked else message.tool_name,
        usage=usage if asked else None,
    )


class SessionledgerStore(Contender):
    """Any driver: a subclass says the URL and the bytes that are stored."""

    store: sessionledger.SessionStore

    def url(self) -> str:
        raise NotImplementedError

    async def open(self, *, fresh: bool = True) -> None:
        self.store = await sessionledger.open_store(self.url()).open()

    async def close(self) -> None:
        await self.store.close()

    def prepare(self, run: Run) -> sessionledger.Run:
        began = datetime.fromtimestamp(run.created_at, UTC)
        return sessionledger.Run(
            run_id=run.run_id,
            session_id=run.session_id,
            user_id=run.user_id,
            agent_id=AGENT_ID,
            model=MODEL,
            provider="OpenAI",
            messages=[record(message) for message in run.messages],
            created_at=began,
            finished_at=began + timedelta(seconds=run.duration),
        )

    async def seed(self, session_id: str, user_id: str, items: Sequence[Any]) -> None:
        for start in range(0, len(items), RUNS_PER_COMMIT):
            await self.store.append(items[start : start + RUNS_PER_COMMIT])

    async def seed_many(self, user_id: str, items: Mapping[str, Sequence[Any]]) -> None:
        pairs = list(items.items())
        for start in range(0, len(pairs), SESSIONS_AT_ONCE):
            some = pairs[start : start + SESSIONS_AT_ONCE]
            await asyncio.gather(*[self.seed(session_id, user_id, runs) for session_id, runs in some])

    async def append(self, session_id: str, user_id: str, item: Any) -> None:
        await self.store.append(item)

    async def turn(self, session_id: str, user_id: str, item: Any) -> None:
        await self.store.history(session_id, last_runs=3).collect()
        await self.store.append(item)

    async def last(self, session_id: str, user_id: str, count: int) -> int:
        return len(await self.store.messages(session_id, last=count).collect())

    async def history(self, session_id: str, user_id: str) -> int:
        return len(await self.store.history(session_id).collect())

    async def messages(self, session_id: str, user_id: str) -> int:
        return len(await self.store.messages(session_id).collect())

    async def page(self, session_id: str, user_id: str, offset: int, limit: int) -> int:
        return len(await self.store.messages(session_id, offset=offset, limit=limit).collect())

    async def walk(self, session_id: str, user_id: str) -> int:
        count = 0
        async for _ in self.store.messages(session_id):
            count += 1
        return count

    async def walk_history(self, session_id: str, user_id: str) -> int:
        count = 0
        async for _ in self.store.history(session_id):
            count += 1
        return count

    async def header(self, session_id: str, user_id: str) -> sessionledger.Session | None:
        return await self.store.get_session(session_id)

    async def list_sessions(self, user_id: str, limit: int) -> int:
        return len((await self.store.sessions(user_id=user_id, page_size=limit).page()).items)


class Sqlite(SessionledgerStore):
    def url(self) -> str:
        return f"sqlite:///{self.directory / DATABASE}"

    async def storage_bytes(self) -> int:
        return sqlite_bytes(self.directory)


class Postgres(SessionledgerStore):
    def url(self) -> str:
        return f"{server_url('postgres')}?schema={place(self.directory)}"

    async def open(self, *, fresh: bool = True) -> None:
        if fresh:
            connection = await asyncpg.connect(server_url("postgres"))
            await connection.execute(f"DROP SCHEMA IF EXISTS {place(self.directory)} CASCADE")
            await connection.close()
        await super().open(fresh=fresh)

    async def storage_bytes(self) -> int:
        async with asyncpg.create_pool(server_url("postgres"), min_size=1) as pool:
            return await schema_bytes(pool, place(self.directory))


class Motor(SessionledgerStore):
    options = ""

    async def seed(self, session_id: str, user_id: str, items: Sequence[Any]) -> None:
        # a commit is a document: of many runs, it would not be what appends leave
        for start in range(0, len(items), RUNS_PER_COMMIT):
            await asyncio.gather(*[self.store.append(item) for item in items[start : start + RUNS_PER_COMMIT]])

    def url(self) -> str:
        parts = urlsplit(server_url("mongodb"))
        query = "&".join(part for part in (parts.query, self.options) if part)
        return urlunsplit(parts._replace(path=f"/{place(self.directory)}", query=query))

    async def open(self, *, fresh: bool = True) -> None:
        if fresh:
            client: AsyncMongoClient[Any]
            async with AsyncMongoClient(server_url("mongodb")) as client:
                await client.drop_database(place(self.directory))
        await super().open(fresh=fresh)

    async def storage_bytes(self) -> int:
        client: AsyncMongoClient[Any]
        async with AsyncMongoClient(server_url("mongodb")) as client:
            return await database_bytes(client[place(self.directory)])


class PyMongo(Motor):
    options = "client=pymongo"


class OnRedis(SessionledgerStore):
    def url(self) -> str:
        return f"{server_url('redis')}?prefix={place(self.directory)}:"

    async def open(self, *, fresh: bool = True) -> None:
        if fresh:
            async with Redis.from_url(server_url("redis")) as client:
                await forget(client, f"{place(self.directory)}:")
        await super().open(fresh=fresh)

    async def storage_bytes(self) -> int:
        async with Redis.from_url(server_url("redis")) as client:
            return await memory_bytes(client, f"{place(self.directory)}:")


class Files(SessionledgerStore):
    def url(self) -> str:
        return f"file://{self.directory}"

    async def storage_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.directory.rglob("*") if file.is_file())


class Memory(SessionledgerStore):
    """What the layers above a driver cost."""

    skip = frozenset({"storage", "walk", "walk-history"})

    def url(self) -> str:
        return "memory://"

    async def storage_bytes(self) -> int:
        raise NotImplementedError("the memory driver keeps no files")
