"""The storages on which faults are tried. Those of servers have one to themselves, which is killed and stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sessionledger.testing.servers import MongoServer, PostgresServer, Process, RedisServer

__all__ = ["OnCluster", "OnFiles", "OnMotor", "OnPostgres", "OnPyMongo", "OnRedis", "OnReplicaSet", "OnSQLite"]


class OnSQLite:
    storage: ClassVar[str] = "SQLite"

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/sessions.db"


class OnFiles:
    storage: ClassVar[str] = "files"

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"file://{tmp_path}/sessions"


@pytest.mark.one_python
class OnPostgres:
    storage: ClassVar[str] = "PostgreSQL"

    @pytest.fixture(scope="class")
    def server(self) -> Iterator[PostgresServer]:
        with PostgresServer(durable=True) as server:
            yield server

    @pytest.fixture
    def url(self, server: PostgresServer) -> str:
        return server.fresh_url()

    @pytest.fixture
    def processes(self, server: PostgresServer) -> Sequence[Process]:
        return [server.process]


@pytest.mark.one_python
class OnMotor:
    storage: ClassVar[str] = "MongoDB, Motor"

    @pytest.fixture(scope="class")
    def server(self) -> Iterator[MongoServer]:
        with MongoServer(durable=True) as server:
            yield server

    @pytest.fixture
    def url(self, server: MongoServer) -> Iterator[str]:
        url = server.fresh_url()
        yield url
        server.drop(url)

    @pytest.fixture
    def processes(self, server: MongoServer) -> Sequence[Process]:
        return [server.process]


class OnPyMongo(OnMotor):
    storage: ClassVar[str] = "MongoDB, PyMongo"
    options: ClassVar[dict[str, Any]] = {"client": "pymongo"}


class OnReplicaSet(OnMotor):
    storage: ClassVar[str] = "MongoDB, replica set"

    @pytest.fixture(scope="class")
    def server(self) -> Iterator[MongoServer]:
        with MongoServer(replica_set=3) as server:
            yield server

    @pytest.fixture
    def processes(self, server: MongoServer) -> Sequence[Process]:
        return server.members


@pytest.mark.one_python
class OnRedis:
    storage: ClassVar[str] = "Redis"

    @pytest.fixture(scope="class")
    def server(self) -> Iterator[RedisServer]:
        with RedisServer(durable=True) as server:
            yield server

    @pytest.fixture
    def url(self, server: RedisServer) -> str:
        return server.fresh_url()

    @pytest.fixture
    def processes(self, server: RedisServer) -> Sequence[Process]:
        return server.processes


class OnCluster(OnRedis):
    storage: ClassVar[str] = "Redis Cluster"

    @pytest.fixture(scope="class")
    def server(self) -> Iterator[RedisServer]:
        with RedisServer(cluster=True, durable=True) as server:
            yield server
