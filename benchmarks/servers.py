"""The servers that contenders need: private ones, as durable as a server is by default, started for one run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sessionledger.testing.servers import MongoServer, PostgresServer, RedisServer

__all__ = ["place", "server_url", "serving"]

_VARIABLE = "SESSIONLEDGER_BENCH_{}"


#: A server's name, the backends that are on it, and how it is started.
_SERVERS: Sequence[tuple[str, set[str], Callable[[], Any]]] = [
    ("postgres", {"postgres"}, lambda: PostgresServer(durable=True)),
    ("mongodb", {"mongodb", "motor"}, lambda: MongoServer(replica_set=1, durable=True)),
    # as often as redis.conf has it
    ("redis", {"redis"}, lambda: RedisServer(durable=True, settings={"appendfsync": "everysec"})),
]


@contextmanager
def serving(backends: Collection[str]) -> Iterator[None]:
    """Start the servers of these backends, those that have one; processes that are started meanwhile know them."""
    with ExitStack() as servers:
        for name, backends_of, server in _SERVERS:
            if not set(backends).isdisjoint(backends_of):
                os.environ[_VARIABLE.format(name.upper())] = servers.enter_context(server()).url
        yield


def server_url(name: str) -> str:
    return os.environ[_VARIABLE.format(name.upper())]


def place(directory: Path) -> str:
    """A name on a server for what another contender would keep in that directory."""
    return "b" + hashlib.sha256(str(directory).encode()).hexdigest()[:20]
