"""The driver: a pool of connections, and which statement goes where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlencode, urlsplit, urlunsplit

import asyncpg

from sessionledger.drivers.postgres.errors import mapped
from sessionledger.drivers.postgres.reader import Reader
from sessionledger.drivers.postgres.tables import Tables
from sessionledger.drivers.postgres.writer import Writer
from sessionledger.errors import DecodeError, DriverError, InvalidRecordError
from sessionledger.protocol.driver import PROTOCOL_VERSION, DriverInfo, StoreURL
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

__all__ = ["PostgresDriver"]

T = TypeVar("T")

_WRITERS = 2  #: groups under way: one is written while the next one is on its way
_MAX_GROUP = 64
_MAX_RUN_BYTES = 250_000_000  #: under PostgreSQL's gigabyte for one message, in which a run's values travel

#: Parameters of a connection, that libpq's URLs have and asyncpg takes.
_CONNECTION_OPTIONS = (
    "application_name",
    "host",
    "passfile",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "user",
)


class PostgresDriver:
    info: ClassVar[DriverInfo] = DriverInfo(
        name="postgres",
        schemes=("postgresql", "postgresql+asyncpg", "postgres"),
        protocol_version=PROTOCOL_VERSION,
        durabilities=(Durability.DISK, Durability.INTERVAL),
        writers=_WRITERS,
        max_group=_MAX_GROUP,
        max_run_bytes=_MAX_RUN_BYTES,
        options=(
            "durability",
            "partitions",
            "pool_size",
            "prefix",
            "schema",
            "statement_cache_size",
            *_CONNECTION_OPTIONS,
        ),
    )

    def __init__(
        self,
        url: StoreURL,
        *,
        schema: str = "public",
        prefix: str = "sessionledger_",
        partitions: int | str = 0,
        pool_size: int | str = 10,
        statement_cache_size: int | str = 100,
        durability: Durability | str | None = None,
        **connection: str,
    ) -> None:
        self._tables = Tables(schema, prefix, _count("partitions", partitions, least=0))
        self._pool_size = _count("pool_size", pool_size, least=2)
        self._statement_cache_size = _count("statement_cache_size", statement_cache_size, least=0)
        if durability not in (None, Durability.DISK, Durability.INTERVAL):
            raise InvalidRecordError(
                f"durability is {durability!r}: PostgreSQL has 'disk' or 'interval'", path="durability"
            )
        self._asked = None if durability is None else Durability(durability)
        self._dsn = _dsn_of(url, connection)
        self._reader, self._writer = Reader(self._tables), Writer(self._tables)
        self._pool: asyncpg.Pool | None = None
        self._durability = Durability.DISK

    # life

    async def open(self) -> None:
        settings = (
            {"plan_cache_mode": "force_generic_plan"}
            if self._asked is None
            else {"synchronous_commit": _SYNCHRONOUS[self._asked]}
        )
        try:
            with mapped():
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=1,
                    max_size=self._pool_size,
                    statement_cache_size=self._statement_cache_size,
                    server_settings=settings,
                    connect=_connect,
                    # a round trip for each use, to undo what nothing here does
                    reset=_leave_as_it_is,
                )
            async with self._connection() as db:
                await self._tables.make(db)
                self._durability = await _durability_of(db)
        except ValueError as error:
            await self.close()
            raise InvalidRecordError(f"the PostgreSQL URL is malformed ({error}): see the docs", path="url") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            # `close` waits for connections whose peer is gone; every call has ended by now
            pool.terminate()
            with suppress(Exception):
                await asyncio.sleep(0)

    @property
    def durability(self) -> Durability:
        return self._durability

    async def ping(self) -> None:
        await self._run(lambda db: db.fetchval("SELECT 1"))

    async def schema_version(self) -> int:
        return await self._run(self._tables.version)

    async def upgrade_schema(self) -> int:
        await self._run(self._tables.make)
        return await self.schema_version()

    # calls

    @asynccontextmanager
    async def _connection(self, *, writing: bool = False) -> AsyncIterator[asyncpg.Connection]:
        """One of the pool. After a failure of the connection, or a cancellation, it does not go back."""
        pool = self._pool
        if pool is None:
            raise DriverError("the PostgreSQL driver is not open: open it first", driver="postgres")
        with mapped():
            connection = await pool.acquire()
        try:
            with mapped(writing=writing):
                yield connection
        except BaseException as error:
            if not isinstance(error, Exception) or connection.is_closed() or connection.is_in_transaction():
                # neither its release nor its end would return while its peer is silent
                connection.terminate()
            raise
        finally:
            with mapped(), suppress(asyncpg.InterfaceError):
                await pool.release(connection)

    async def _run(self, call: Callable[[asyncpg.Connection], Awaitable[T]], *, writing: bool = False) -> T:
        async with self._connection(writing=writing) as db:
            return await call(db)

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Outcome | DriverError | DecodeError]:
        return await self._run(lambda db: self._writer.commit(db, commits), writing=True)

    async def erase(self, key: SessionKey, *, limit: int) -> bool:
        return await self._run(lambda db: self._writer.erase(db, key, limit), writing=True)

    async def session(self, key: SessionKey, *, state: bool) -> SessionRow | None:
        return await self._run(lambda db: self._reader.session(db, key, state))

    async def sessions(self, query: SessionQuery) -> SessionPage:
        return await self._run(lambda db: self._reader.sessions(db, query))

    async def runs(self, query: RunQuery) -> RunPage:
        return await self._run(lambda db: self._reader.runs(db, query))

    async def find_runs(self, search: RunSearch) -> FoundRuns:
        return await self._run(lambda db: self._reader.find_runs(db, search))

    async def messages(self, query: MessageQuery) -> MessagePage:
        return await self._run(lambda db: self._reader.messages(db, query))

    async def hidden(self, query: HiddenQuery) -> HiddenPage:
        return await self._run(lambda db: self._reader.hidden(db, query))

    async def switches(self, query: SwitchQuery) -> SwitchPage:
        return await self._run(lambda db: self._reader.switches(db, query))


_SYNCHRONOUS = {Durability.DISK: "on", Durability.INTERVAL: "off"}


async def _connect(*arguments: Any, **options: Any) -> asyncpg.Connection:
    """As asyncpg does. When it is cancelled half-way, asyncpg leaves exceptions behind that nobody takes: it is brought
    to its end instead, and then closed.
    """
    connecting = asyncio.ensure_future(asyncpg.connect(*arguments, **options))
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_discard)
        raise


def _discard(connecting: asyncio.Future[asyncpg.Connection]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().terminate()


async def _leave_as_it_is(_: asyncpg.Connection) -> None:
    pass


async def _durability_of(db: asyncpg.Connection) -> Durability:
    """What the server does for a commit, as it says itself."""
    synchronous, fsync = await db.fetchrow("SELECT current_setting('synchronous_commit'), current_setting('fsync')")
    if fsync == "off":
        return Durability.PROCESS
    return Durability.INTERVAL if synchronous == "off" else Durability.DISK


def _count(name: str, value: int | str, *, least: int) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if number < least or isinstance(value, bool):
        raise InvalidRecordError(f"{name} is {value!r}: give an integer of at least {least}", path=name)
    return number


def _dsn_of(url: StoreURL, connection: dict[str, str]) -> str:
    """The URL as asyncpg takes it: its own scheme, and its own parameters."""
    parts = urlsplit(url.text)
    return urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(connection), ""))
