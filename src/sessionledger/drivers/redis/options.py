"""What a URL and its options ask for, and the connections that follow from it."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from sessionledger.drivers.redis.opening import RANKS
from sessionledger.drivers.redis.servers import Address, Cluster, Connect, Servers, Single
from sessionledger.errors import InvalidRecordError
from sessionledger.protocol.driver import StoreURL
from sessionledger.protocol.options import flag_of
from sessionledger.records import Durability

__all__ = ["TLS", "Target", "durability_of"]

#: Options of a connection by TLS, by redis-py's names.
TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_cert_reqs", "ssl_check_hostname", "ssl_keyfile")

_PORT = 6379


class Target:
    """Where the servers are, and how one speaks to them."""

    def __init__(
        self,
        url: StoreURL,
        *,
        cluster: bool,
        socket_timeout: float | None,
        socket_connect_timeout: float,
        tls: dict[str, str],
    ) -> None:
        base, _, kind = url.scheme.partition("+")
        self.cluster = cluster or kind == "cluster"
        self._tls = tls if base in ("rediss", "valkeys") else None
        if tls and self._tls is None:
            raise InvalidRecordError(
                f"{min(tls)} is an option of TLS: use a URL of scheme rediss or valkeys", path=min(tls)
            )
        parts = urlsplit(url.text)
        self._addresses = _addresses(parts)
        self._options: dict[str, Any] = {
            "db": _database(url.path, cluster=self.cluster),
            "username": unquote(parts.username) if parts.username else None,
            "password": unquote(parts.password) if parts.password else None,
            "socket_timeout": socket_timeout,
            "socket_connect_timeout": socket_connect_timeout,
            # RESP 2: a connection is ready without a greeting, and nothing comes that was not asked for
            "protocol": 2,
            "driver_info": None,
            # the store repeats what may be repeated, and knows how
            "retry": Retry(NoBackoff(), 0),
        }

    def connect(self, address: Address) -> AbstractConnection:
        """Not connected yet."""
        if self._tls is None:
            return Connection(host=address.host, port=address.port, **self._options)
        tls: dict[str, Any] = dict(self._tls)
        if "ssl_check_hostname" in tls:
            tls["ssl_check_hostname"] = flag_of("ssl_check_hostname", tls["ssl_check_hostname"])
        return SSLConnection(host=address.host, port=address.port, **self._options, **tls)

    def servers(self, size: int, patience: float) -> Servers:
        connect: Connect = self.connect
        if self.cluster:
            return Cluster(connect, self._addresses, size, patience)
        return Single(connect, self._addresses[0], size, patience)


def _addresses(parts: SplitResult) -> list[Address]:
    """One, or of a cluster several with commas between."""
    hosts = parts.netloc.rpartition("@")[2] or "localhost"
    found = []
    for host in hosts.split(","):
        name, port = _host_of(host)
        found.append(Address(name or "localhost", port))
    return found


def _host_of(text: str) -> tuple[str, int]:
    try:
        one = urlsplit(f"//{text}")
        return one.hostname or "", one.port or _PORT
    except ValueError as error:
        raise InvalidRecordError(
            f"the Redis URL names the host {text!r}: give a name and a port between 1 and 65535", path="url"
        ) from error


def _database(path: str, *, cluster: bool) -> int:
    text = path.strip("/")
    if not (text.isdecimal() or not text):
        raise InvalidRecordError(f"the Redis database is {text!r}: give its number", path="url")
    number = int(text or 0)
    if cluster and number:
        raise InvalidRecordError(f"the Redis database is {number}: a cluster has 0 alone", path="url")
    return number


def durability_of(value: Durability | str | None) -> Durability | None:
    if value is not None and value not in RANKS:
        names = ", ".join(repr(rank.value) for rank in RANKS)
        raise InvalidRecordError(f"durability is {value!r}: Redis has one of {names}", path="durability")
    return None if value is None else Durability(value)
