"""The two client libraries, and all in which they differ: motor's threads and PyMongo's coroutines."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from pymongo import AsyncMongoClient, monitoring

from sessionledger.errors import InvalidRecordError, MissingDependencyError

__all__ = ["CLIENTS", "aggregate", "close", "connect", "goes_on", "is_client", "named", "to_its_end"]

T = TypeVar("T")

CLIENTS: Final = ("motor", "pymongo")
_CONNECTED: Final = 0.25  #: seconds, within which a server is connected to, or has refused


async def connect(name: str, url: str, **options: Any) -> Any:
    """A client that has a connection. When its caller is cancelled, it is closed as soon as it has."""
    connecting = asyncio.ensure_future(_connect(_make(name, url, **options)))
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        _working.add(connecting)
        connecting.add_done_callback(_discard)
        raise


async def _connect(client: Any) -> Any:
    try:
        await client.admin.command("ping")
    except BaseException:
        await close(client)
        raise
    return client


def _discard(connecting: asyncio.Future[Any]) -> None:
    _working.discard(connecting)
    if not connecting.cancelled() and connecting.exception() is None:
        task = asyncio.ensure_future(close(connecting.result()))
        _working.add(task)
        task.add_done_callback(_forget)


def _make(name: str, url: str, **options: Any) -> Any:
    if name == "pymongo":
        return AsyncMongoClient(url, event_listeners=[_Monitors()], **options)
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


def goes_on(client: Any) -> bool:
    """Whether what was sent goes on when its caller is cancelled, as motor's threads do."""
    return type(client).__name__ == "AsyncIOMotorClient"


def named(client: Any) -> str:
    """Which library a value of the option `client` asks for."""
    if client not in CLIENTS:
        raise InvalidRecordError(
            f"client is {client!r}: give 'motor', 'pymongo', or a client of one of them", path="client"
        )
    return str(client)


async def close(client: Any) -> None:
    if goes_on(client):
        client.close()
    else:
        await _between_connections(client)
        await client.close()


class _Monitors(monitoring.ServerHeartbeatListener):
    """Those of a client that may be connecting. PyMongo 4.20 leaves the socket open that one is connecting when the
    client is closed, and one connects just when the wait for a server has come to its end.
    """

    def __init__(self) -> None:
        self._connecting: set[Any] = set()
        self.idle = asyncio.Event()
        self.idle.set()

    def started(self, event: monitoring.ServerHeartbeatStartedEvent) -> None:
        # one that awaits news has its connection
        if not event.awaited:
            self._connecting.add(event.connection_id)
            self.idle.clear()

    def succeeded(self, event: monitoring.ServerHeartbeatSucceededEvent) -> None:
        self._ended(event.connection_id)

    def failed(self, event: monitoring.ServerHeartbeatFailedEvent) -> None:
        self._ended(event.connection_id)

    def _ended(self, server: Any) -> None:
        self._connecting.discard(server)
        if not self._connecting:
            self.idle.set()


async def _between_connections(client: Any) -> None:
    for monitors in client.options.event_listeners:
        if isinstance(monitors, _Monitors):
            with suppress(TimeoutError):
                await asyncio.wait_for(monitors.idle.wait(), _CONNECTED)


async def to_its_end(work: Awaitable[T]) -> T:
    """Also when the caller is cancelled, because PyMongo leaves open what it was connecting or closing then."""
    task = asyncio.ensure_future(work)
    _working.add(task)
    task.add_done_callback(_forget)
    return await asyncio.shield(task)


_working: Final[set[asyncio.Future[Any]]] = set()  #: the event loop itself holds no task


def _forget(task: asyncio.Future[Any]) -> None:
    _working.discard(task)
    if not task.cancelled():
        task.exception()


async def aggregate(collection: Any, pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All that it brings: motor gives a cursor at once, PyMongo when it is awaited."""
    cursor = collection.aggregate(pipeline)
    if inspect.isawaitable(cursor):
        cursor = await cursor
    found: list[dict[str, Any]] = await cursor.to_list(None)
    return found
