"""The Redis ceiling: head and messages pushed to lists, the session counted up and listed, by one script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.contenders import codec
from benchmarks.contenders.contender import Contender
from benchmarks.servers import place, server_url
from benchmarks.workload import Run

APPEND = """
local runs = redis.call('RPUSH', KEYS[2], ARGV[4])
local messages = redis.call('RPUSH', KEYS[3], unpack(ARGV, 5))
redis.call('HSET', KEYS[1], 'user_id', ARGV[1], 'updated_at', ARGV[2], 'runs', runs, 'messages', messages)
redis.call('ZADD', KEYS[4], ARGV[2], ARGV[3])
return {runs, messages}
"""
PAGE = 500


class Lua(Contender):
    """One EVALSHA an append."""

    async def open(self, *, fresh: bool = True) -> None:
        pool = BlockingConnectionPool.from_url(server_url("redis"), max_connections=16, timeout=None)
        self.client: Any = Redis(connection_pool=pool)
        self.script = self.client.register_script(APPEND)
        self.prefix = f"{place(self.directory)}:"
        if fresh:
            await forget(self.client, self.prefix)

    async def close(self) -> None:
        await self.client.aclose()

    def prepare(self, run: Run) -> codec.StoredRun:
        return codec.to_struct(run)

    async def seed(self, session_id: str, user_id: str, items: Sequence[Any]) -> None:
        for item in items:
            await self.append(session_id, user_id, item)

    async def append(self, session_id: str, user_id: str, item: Any) -> None:
        head, messages = codec.split(item)
        keys = [self.prefix + key for key in (f"s:{session_id}", f"r:{session_id}", f"m:{session_id}", f"u:{user_id}")]
        await self.script(keys=keys, args=[user_id, item.created_at, session_id, head, *messages])

    async def last(self, session_id: str, user_id: str, count: int) -> int:
        return await self._range(session_id, -count, -1)

    async def history(self, session_id: str, user_id: str) -> int:
        return await self._range(session_id, 0, -1)

    async def page(self, session_id: str, user_id: str, offset: int, limit: int) -> int:
        return await self._range(session_id, offset, offset + limit - 1)

    async def _range(self, session_id: str, first: int, last: int) -> int:
        found = await self.client.lrange(f"{self.prefix}m:{session_id}", first, last)
        return len([codec.decode_message(data) for data in found])

    async def walk(self, session_id: str, user_id: str) -> int:
        total = 0
        while count := await self.page(session_id, user_id, total, PAGE):
            total += count
        return total

    async def header(self, session_id: str, user_id: str) -> Any:
        return await self.client.hgetall(f"{self.prefix}s:{session_id}")

    async def list_sessions(self, user_id: str, limit: int) -> int:
        ids = await self.client.zrevrange(f"{self.prefix}u:{user_id}", 0, limit - 1)
        async with self.client.pipeline(transaction=False) as pipeline:
            for session_id in ids:
                pipeline.hgetall(f"{self.prefix}s:".encode() + session_id)
            return len(await pipeline.execute())

    async def storage_bytes(self) -> int:
        return await memory_bytes(self.client, self.prefix)


async def forget(client: Any, prefix: str) -> None:
    """What an earlier contender of that place has left; others' stays, because some of it is still to be read."""
    keys = [key async for key in client.scan_iter(f"{prefix}*", count=1000)]
    for start in range(0, len(keys), 1000):
        await client.delete(*keys[start : start + 1000])


async def memory_bytes(client: Any, prefix: str) -> int:
    """Of all keys that begin so, as MEMORY USAGE counts them in full."""
    size = 0
    async for key in client.scan_iter(f"{prefix}*", count=1000):
        size += await client.memory_usage(key, samples=0) or 0
    return size
