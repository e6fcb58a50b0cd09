"""The driver: its options, its life, and which call goes where."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, TypeVar

from sessionledger.drivers.redis.erasing import Eraser
from sessionledger.drivers.redis.errors import Mapped
from sessionledger.drivers.redis.guesses import Guesses
from sessionledger.drivers.redis.keys import Keys
from sessionledger.drivers.redis.lists import Lists
from sessionledger.drivers.redis.opening import RANKS, inspect, make_schema, schema_version
from sessionledger.drivers.redis.options import TLS, Target, durability_of
from sessionledger.drivers.redis.reader import Reader
from sessionledger.drivers.redis.replication import Replication
from sessionledger.drivers.redis.servers import Servers
from sessionledger.drivers.redis.writer import Writer
from sessionledger.errors import DecodeError, DriverError, InvalidRecordError
from sessionledger.protocol.driver import PROTOCOL_VERSION, DriverInfo, StoreURL
from sessionledger.protocol.options import count_of, flag_of, seconds_of
from sessionledger.protocol.rows import (
    Commit,
    FoundRuns,
    HiddenPage,
    HiddenQuery,
    MessagePage,
    MessageQuery,
    Outcome,
    RunPage,
    RunQuery,
    RunSearch,
    SessionKey,
    SessionPage,
    SessionQuery,
    SessionRow,
    SwitchPage,
    SwitchQuery,
)
from sessionledger.records import Durability

__all__ = ["RedisDriver"]

T = TypeVar("T")

_WRITERS = 2  #: groups under way: one is written while the next one is on its way
_MAX_GROUP = 64
_MAX_RUN_BYTES = 250_000_000  #: Redis takes 512 MB in a value, and a gigabyte from a client at once


class RedisDriver:
    info: ClassVar[DriverInfo] = DriverInfo(
        name="redis",
        schemes=tuple(
            f"{base}{kind}" for base in ("redis", "rediss", "valkey", "valkeys") for kind in ("", "+cluster")
        ),
        protocol_version=PROTOCOL_VERSION,
        durabilities=tuple(reversed(RANKS)),
        writers=_WRITERS,
        max_group=_MAX_GROUP,
        reads_ahead=True,
        max_run_bytes=_MAX_RUN_BYTES,
        options=(
            "cluster",
            "durability",
            "pool_size",
            "pool_timeout",
            "prefix",
            "socket_connect_timeout",
            "socket_timeout",
            *TLS,
            "wait_aof",
            "wait_replicas",
            "wait_timeout",
        ),
    )

    def __init__(
        self,
        url: StoreURL,
        *,
        prefix: str = "sessionledger:",
        cluster: bool | str = False,
        pool_size: int | str = 10,
        pool_timeout: float | str = 20.0,
        durability: Durability | str | None = None,
        wait_replicas: int | str = 0,
        wait_aof: bool | str = False,
        wait_timeout: float | str = 5.0,
        socket_timeout: float | str | None = None,
        socket_connect_timeout: float | str = 10.0,
        **tls: str,
    ) -> None:
        self._keys = Keys(prefix)
        self._target = Target(
            url,
            cluster=flag_of("cluster", cluster),
            socket_timeout=None if socket_timeout is None else seconds_of("socket_timeout", socket_timeout),
            socket_connect_timeout=seconds_of("socket_connect_timeout", socket_connect_timeout),
            tls=tls,
        )
        self._pool_size = count_of("pool_size", pool_size, least=2)
        self._pool_timeout = seconds_of("pool_timeout", pool_timeout)
        self._asked = durability_of(durability)
        self._wait_aof = flag_of("wait_aof", wait_aof)
        replication = Replication(
            self._keys,
            replicas=count_of("wait_replicas", wait_replicas, least=0),
            aof=self._wait_aof,
            timeout=seconds_of("wait_timeout", wait_timeout),
        )
        guesses = Guesses()
        self._reader = Reader(self._keys, guesses, straight=not self._target.cluster)
        self._lists = Lists(self._keys, self._reader)
        self._writer = Writer(self._keys, guesses, replication, indexed=not self._target.cluster)
        self._eraser = Eraser(self._keys)
        self._servers: Servers | None = None
        self._durability = Durability.MEMORY

    # life

    async def open(self) -> None:
        servers = self._servers = self._target.servers(self._pool_size, self._pool_timeout)
        try:
            with Mapped():
                self._durability = await inspect(servers, cluster=self._target.cluster, wait_aof=self._wait_aof)
            self._check_durability()
            with Mapped():
                await make_schema(servers, self._keys)
        except BaseException:
            await self.close()
            raise

    def _check_durability(self) -> None:
        if self._asked is not None and RANKS.index(self._durability) < RANKS.index(self._asked):
            raise InvalidRecordError(
                f"durability is {self._asked.value!r}, and the Redis server keeps {self._durability.value!r}: set its "
                "appendonly and appendfsync, or ask for less",
                path="durability",
            )

    async def close(self) -> None:
        servers, self._servers = self._servers, None
        if servers is not None:
            await servers.close()

    @property
    def durability(self) -> Durability:
        return self._durability

    async def ping(self) -> None:
        await self._call(lambda servers: servers.ask_all(("PING",)))

    async def schema_version(self) -> int:
        return await self._call(lambda servers: schema_version(servers, self._keys))

    async def upgrade_schema(self) -> int:
        await self._call(lambda servers: make_schema(servers, self._keys), writing=True)
        return await self.schema_version()

    # calls

    async def _call(self, call: Callable[[Servers], Awaitable[T]], *, writing: bool = False) -> T:
        servers = self._opened()
        with Mapped(writing=writing):
            return await call(servers)

    def _opened(self) -> Servers:
        if self._servers is None:
            raise DriverError("the Redis driver is not open: open it first", driver="redis")
        return self._servers

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Outcome | DriverError | DecodeError]:
        servers = self._opened()
        with Mapped(writing=True):
            return await self._writer.commit(servers, commits)

    async def erase(self, key: SessionKey, *, limit: int) -> bool:
        return await self._call(lambda servers: self._eraser.erase(servers, key, limit), writing=True)

    async def session(self, key: SessionKey, *, state: bool) -> SessionRow | None:
        return await self._call(lambda servers: self._reader.session(servers, key, state=state))

    async def sessions(self, query: SessionQuery) -> SessionPage:
        return await self._call(lambda servers: self._lists.sessions(servers, query))

    async def runs(self, query: RunQuery) -> RunPage:
        return await self._call(lambda servers: self._reader.runs(servers, query))

    async def find_runs(self, search: RunSearch) -> FoundRuns:
        return await self._call(lambda servers: self._lists.find_runs(servers, search))

    async def messages(self, query: MessageQuery) -> MessagePage:
        return await self._call(lambda servers: self._reader.messages(servers, query))

    async def hidden(self, query: HiddenQuery) -> HiddenPage:
        return await self._call(lambda servers: self._reader.hidden(servers, query))

    async def switches(self, query: SwitchQuery) -> SwitchPage:
        return await self._call(lambda servers: self._reader.switches(servers, query))
