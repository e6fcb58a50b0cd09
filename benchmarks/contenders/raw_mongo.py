"""MongoDB ceilings: a counter bumped on the session, and the run inserted with its messages; as durable as ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from benchmarks.contenders import codec
from benchmarks.contenders.contender import Contender
from benchmarks.servers import place, server_url
from benchmarks.workload import Run

DURABLE: dict[str, Any] = {"w": "majority", "journal": True}
MESSAGES_PER_RUN = 4
PAGE = 500


class PyMongoMajority(Contender):
    """PyMongo's own asyncio client."""

    def client(self) -> Any:
        return AsyncMongoClient(server_url("mongodb"), **DURABLE)

    async def open(self, *, fresh: bool = True) -> None:
        self.mongo = self.client()
        self.database = self.mongo[place(self.directory)]
        if fresh:
            await self.mongo.drop_database(self.database.name)
            await self.database.session.create_index([("user_id", 1), ("updated_at", -1)])
            await self.database.run.create_index([("session_id", 1), ("seq", 1)], unique=True)

    async def close(self) -> None:
        closing = self.mongo.close()
        if closing is not None:
            await closing

    def prepare(self, run: Run) -> codec.StoredRun:
        return codec.to_struct(run)

    async def seed(self, session_id: str, user_id: str, items: Sequence[Any]) -> None:
        first = await self._bump(session_id, user_id, len(items), items[-1].created_at) - len(items) + 1
        await self.database.run.insert_many(
            [self._document(session_id, seq, item) for seq, item in enumerate(items, first)]
        )

    async def append(self, session_id: str, user_id: str, item: Any) -> None:
        seq = await self._bump(session_id, user_id, 1, item.created_at)
        await self.database.run.insert_one(self._document(session_id, seq, item))

    async def _bump(self, session_id: str, user_id: str, runs: int, updated_at: int) -> int:
        change = {
            "$inc": {"runs": runs, "messages": MESSAGES_PER_RUN * runs},
            "$set": {"updated_at": updated_at, "user_id": user_id},
        }
        found = await self.database.session.find_one_and_update(
            {"_id": session_id}, change, projection={"runs": 1}, upsert=True, return_document=True
        )
        count: int = found["runs"]
        return count

    def _document(self, session_id: str, seq: int, item: codec.StoredRun) -> dict[str, Any]:
        head, messages = codec.split(item)
        return {"_id": item.run_id, "session_id": session_id, "seq": seq, "head": head, "messages": messages}

    def _find(self, session_id: str, order: int = 1, **bounds: int) -> Any:
        which = {"session_id": session_id, **({"seq": {"$gte": bounds["first"]}} if "first" in bounds else {})}
        cursor = self.database.run.find(which, {"messages": 1}).sort("seq", order)
        return cursor.limit(bounds["limit"]) if "limit" in bounds else cursor

    async def last(self, session_id: str, user_id: str, count: int) -> int:
        runs = -(-count // MESSAGES_PER_RUN)
        return min(count, _decoded(await self._find(session_id, -1, limit=runs).to_list(None)))

    async def history(self, session_id: str, user_id: str) -> int:
        return _decoded(await self._find(session_id).to_list(None))

    async def page(self, session_id: str, user_id: str, offset: int, limit: int) -> int:
        first, runs = offset // MESSAGES_PER_RUN + 1, -(-limit // MESSAGES_PER_RUN) + 1
        return min(limit, _decoded(await self._find(session_id, first=first, limit=runs).to_list(None)))

    async def walk(self, session_id: str, user_id: str) -> int:
        total = 0
        async for document in self._find(session_id).batch_size(PAGE // MESSAGES_PER_RUN):
            total += _decoded([document])
        return total

    async def header(self, session_id: str, user_id: str) -> Any:
        return await self.database.session.find_one({"_id": session_id})

    async def list_sessions(self, user_id: str, limit: int) -> int:
        cursor = self.database.session.find({"user_id": user_id}).sort("updated_at", -1).limit(limit)
        return len(await cursor.to_list(None))

    async def storage_bytes(self) -> int:
        return await database_bytes(self.database)


class MotorMajority(PyMongoMajority):
    """The same calls through motor."""

    def client(self) -> Any:
        return AsyncIOMotorClient(server_url("mongodb"), **DURABLE)


def _decoded(documents: Sequence[Any]) -> int:
    return sum(len([codec.decode_message(data) for data in document["messages"]]) for document in documents)


async def database_bytes(database: Any) -> int:
    """Of its files, once what is in memory is written."""
    await database.client.admin.command("fsync")
    stats = await database.command("dbStats")
    return int(stats["storageSize"] + stats["indexSize"])
