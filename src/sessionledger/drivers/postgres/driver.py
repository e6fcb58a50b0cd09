"""The driver: a pool of connections, and which statement goes where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar
from urllib.parse import urlencode, urlsplit, urlunsplit

import asyncpg

from sessionledger.drivers.postgres.pool import Connections
from sessionledger.drivers.postgres.reader import Reader
from sessionledger.drivers.postgres.tables import Tables
from sessionledger.drivers.postgres.writer import Writer
from sessionledger.errors import DecodeError, DriverError, InvalidRecordError
from sessionledger.protocol.driver import PROTOCOL_VERSION, DriverInfo, StoreURL
from sessionledger.protocol.options import count_of, seconds_of
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
        reads_ahead=True,
        max_run_bytes=_MAX_RUN_BYTES,
        options=(
            "durability",
            "partitions",
            "pool_size",
            "pool_timeout",
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
        pool_timeout: float | str = 10.0,
        statement_cache_size: int | str = 100,
        durability: Durability | str | None = None,
        **connection: str,
    ) -> None:
        self._tables = Tables(schema, prefix, count_of("partitions", partitions, least=0))
        if durability not in (None, Durability.DISK, Durability.INTERVAL):
            raise InvalidRecordError(
                f"durability is {durability!r}: PostgreSQL has 'disk' or 'interval'", path="durability"
            )
        cached = count_of("statement_cache_size", statement_cache_size, least=0)
        # PgBouncer, which takes neither prepared statements nor settings, is told from others by that
        self._settings = dict(_SETTINGS) if cached else {}
        if durability is not None:
            self._settings["synchronous_commit"] = _SYNCHRONOUS[Durability(durability)]
        self._connections = Connections(
            _dsn_of(url, connection),
            size=count_of("pool_size", pool_size, least=1),
            timeout=seconds_of("pool_timeout", pool_timeout),
            statement_cache_size=cached,
        )
        self._reader, self._writer = Reader(self._tables), Writer(self._tables)
        self._durability = Durability.DISK

    # life

    async def open(self) -> None:
        try:
            await self._connections.open(self._settings)
            await self._connections.write(self._tables.make)
            self._durability = await self._connections.read(_durability_of)
        except asyncpg.ClientConfigurationError as error:
            await self.close()
            raise InvalidRecordError(f"the PostgreSQL URL is malformed ({error}): mend it", path="url") from error
        except ValueError:
            await self.close()
            # the error may show a part of the password
            raise InvalidRecordError(
                "the PostgreSQL URL is malformed: write : / ? and @ in a password as %3A %2F %3F and %40", path="url"
            ) from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._connections.close()

    @property
    def durability(self) -> Durability:
        return self._durability

    async def ping(self) -> None:
        await self._connections.read(lambda db: db.fetchval("SELECT 1"))

    async def schema_version(self) -> int:
        return await self._connections.read(self._tables.version)

    async def upgrade_schema(self) -> int:
        await self._connections.read(self._tables.make)
        return await self.schema_version()

    # calls

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Outcome | DriverError | DecodeError]:
        return await self._connections.write(lambda db: self._writer.commit(db, commits))

    async def erase(self, key: SessionKey, *, limit: int) -> bool:
        return await self._connections.write(lambda db: self._writer.erase(db, key, limit))

    async def session(self, key: SessionKey, *, state: bool) -> SessionRow | None:
        return await self._connections.read(lambda db: self._reader.session(db, key, state))

    async def sessions(self, query: SessionQuery) -> SessionPage:
        return await self._connections.read(lambda db: self._reader.sessions(db, query))

    async def runs(self, query: RunQuery) -> RunPage:
        return await self._connections.read(lambda db: self._reader.runs(db, query))

    async def find_runs(self, search: RunSearch) -> FoundRuns:
        return await self._connections.read(lambda db: self._reader.find_runs(db, search))

    async def messages(self, query: MessageQuery) -> MessagePage:
        return await self._connections.read(lambda db: self._reader.messages(db, query))

    async def hidden(self, query: HiddenQuery) -> HiddenPage:
        return await self._connections.read(lambda db: self._reader.hidden(db, query))

    async def switches(self, query: SwitchQuery) -> SwitchPage:
        return await self._connections.read(lambda db: self._reader.switches(db, query))


#: Each statement finds its rows by a whole key: there is nothing for a planner to gain by seeing the values.
_SETTINGS = {"enable_seqscan": "off", "jit": "off", "plan_cache_mode": "force_generic_plan"}
_SYNCHRONOUS = {Durability.DISK: "on", Durability.INTERVAL: "off"}


async def _durability_of(db: asyncpg.Connection) -> Durability:
    """What the server does for a commit, as it says itself."""
    synchronous, fsync = await db.fetchrow("SELECT current_setting('synchronous_commit'), current_setting('fsync')")
    if fsync == "off":
        return Durability.PROCESS
    return Durability.INTERVAL if synchronous == "off" else Durability.DISK


def _dsn_of(url: StoreURL, connection: dict[str, str]) -> str:
    """The URL as asyncpg takes it: its own scheme, and its own parameters."""
    parts = urlsplit(url.text)
    return urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(connection), ""))
