"""Erasing what was sealed, in the order of its numbers."""

from __future__ import annotations

from typing import Any

from sessionledger.drivers.mongodb.heads import Heads, LogHead
from sessionledger.drivers.mongodb.layout import Layout, shard_key
from sessionledger.drivers.mongodb.register import Register
from sessionledger.protocol.rows import SessionKey

__all__ = ["Eraser"]


class Eraser:
    def __init__(self, layout: Layout, heads: Heads, register: Register) -> None:
        self._layout, self._heads, self._register = layout, heads, register

    async def erase(self, key: SessionKey, limit: int) -> bool:
        log = await self._heads.read(key)
        end = _end(log)
        if log is None or not end:
            return False
        if not await self._register.touch(log):
            # first of all: no append with an old head may pass
            await self._register.repair(key)
        sealed = {"s": shard_key(key), "i": {"$lt": log.head.incarnation + (1 if log.head.erased else 0)}}
        left = limit - await self._erase_log(shard_key(key), end, limit)
        for collection in (self._layout.chunks, self._layout.lasting):
            if left > 0:
                left -= await _erase_some(collection, sealed, left)
        return left <= 0

    async def _erase_log(self, shard: str, end: int, limit: int) -> int:
        """Documents with about that many rows, from the oldest on: what is read of a log has its head below it."""
        query = {"s": shard, "n": {"$gt": 0, "$lt": end}}
        found = await self._layout.commits.find(query, _SIZES).sort("n", 1).limit(limit).to_list(None)
        rows, last = 0, 0
        for document in found:
            rows += 1 + document.get("l", 0) - document.get("f", 1) + 1
            last = document["n"]
            if rows >= limit:
                break
        if last:
            await self._layout.commits.delete_many({"s": shard, "n": {"$gt": 0, "$lte": last}}, hint="by_number")
        return rows


_SIZES = {"_id": 0, "n": 1, "f": 1, "l": 1}


def _end(log: LogHead | None) -> int:
    """The number of the last seal, which stays."""
    if log is None:
        return 0
    return log.n if log.head.erased else log.base


async def _erase_some(collection: Any, query: dict[str, Any], limit: int) -> int:
    found = await collection.find(query, {"_id": 1}).limit(limit).to_list(None)
    if found:
        await collection.delete_many({"s": query["s"], "_id": {"$in": [row["_id"] for row in found]}})
    return len(found)
