"""The two client libraries, and all in which they differ: motor's threads and PyMongo's coroutines."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pymongo import AsyncMongoClient

from sessionledger.errors import InvalidRecordError, MissingDependencyError

__all__ = ["CLIENTS", "aggregate", "close", "is_client", "make", "named"]

CLIENTS: Final = ("motor", "pymongo")


def make(name: str, url: str, **options: Any) -> Any:
    """A client that has not connected yet. It needs the event loop that it will be used on."""
    if name == "pymongo":
        return AsyncMongoClient(url, **options)
    try:
        from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415 - PyMongo does without it
    except ImportError as error:
        raise MissingDependencyError(
            'motor is not installed: python -m pip install "sessionledger[mongodb]", or ask for client="pymongo"',
            extra="mongodb",
        ) from error
    return AsyncIOMotorClient(url, **options)


def is_client(client: Any) -> bool:
    """Whether it is one of the two, not a client that blocks."""
    return type(client).__name__ in ("AsyncIOMotorClient", "AsyncMongoClient")


def named(client: Any) -> str:
    """Which library a value of the option `client` asks for."""
    if client not in CLIENTS:
        raise InvalidRecordError(
            f"client is {client!r}: give 'motor', 'pymongo', or a client of one of them", path="client"
        )
    return str(client)


async def close(client: Any) -> None:
    closing = client.close()
    if inspect.isawaitable(closing):
        await closing


async def aggregate(collection: Any, pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All that it brings: motor gives a cursor at once, PyMongo when it is awaited."""
    cursor = collection.aggregate(pipeline)
    if inspect.isawaitable(cursor):
        cursor = await cursor
    found: list[dict[str, Any]] = await cursor.to_list(None)
    return found
