"""The driver: its options, its client, and which call goes where."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import unquote, urlencode, urlsplit, urlunsplit

from pymongo import WriteConcern
from pymongo.errors import ConfigurationError, InvalidURI

from sessionledger.drivers.mongodb import client as clients
from sessionledger.drivers.mongodb.blobs import Blobs
from sessionledger.drivers.mongodb.erasing import Eraser
from sessionledger.drivers.mongodb.errors import mapped
from sessionledger.drivers.mongodb.heads import Heads
from sessionledger.drivers.mongodb.lasting import Lasting
from sessionledger.drivers.mongodb.layout import Layout
from sessionledger.drivers.mongodb.pages import MessageReader
from sessionledger.drivers.mongodb.reader import Reader
from sessionledger.drivers.mongodb.register import Register
from sessionledger.drivers.mongodb.runs import RunReader
from sessionledger.drivers.mongodb.search import Search
from sessionledger.drivers.mongodb.writer import Writer
from sessionledger.errors import DecodeError, DriverError, InvalidRecordError
from sessionledger.protocol.driver import PROTOCOL_VERSION, DriverInfo, StoreURL
from sessionledger.protocol.options import count_of
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

__all__ = ["MongoDriver"]

T = TypeVar("T")

_WRITERS: Final = 2  #: groups under way: one is written while the next one is on its way
_MAX_GROUP: Final = 256
_MAX_RUN_BYTES: Final = 200_000_000  #: it is held in memory some times over while it is written and read
_DATABASE: Final = "sessionledger"  #: of a URL without one
_WAIT_FOR_MAJORITY: Final = 20_000  #: milliseconds

#: What the URL may say otherwise. All end before a call's deadline, so that it is told what was amiss.
_DEFAULTS: Final = {
    "serverSelectionTimeoutMS": 10_000,
    "connectTimeoutMS": 5_000,
    "socketTimeoutMS": 25_000,
    "waitQueueTimeoutMS": 10_000,
    "appname": "sessionledger",
}
#: Options of MongoDB's own connection strings, passed on as they are. Those of reads and writes are the driver's.
_CONNECTION_OPTIONS: Final = (
    "appname",
    "authMechanism",
    "authMechanismProperties",
    "authSource",
    "compressors",
    "connectTimeoutMS",
    "directConnection",
    "heartbeatFrequencyMS",
    "loadBalanced",
    "localThresholdMS",
    "maxConnecting",
    "maxIdleTimeMS",
    "minPoolSize",
    "proxyHost",
    "proxyPort",
    "replicaSet",
    "retryReads",
    "retryWrites",
    "serverMonitoringMode",
    "serverSelectionTimeoutMS",
    "socketTimeoutMS",
    "srvMaxHosts",
    "srvServiceName",
    "ssl",
    "tls",
    "tlsAllowInvalidCertificates",
    "tlsAllowInvalidHostnames",
    "tlsCAFile",
    "tlsCRLFile",
    "tlsCertificateKeyFile",
    "tlsCertificateKeyFilePassword",
    "tlsDisableOCSPEndpointCheck",
    "tlsInsecure",
    "waitQueueTimeoutMS",
    "zlibCompressionLevel",
)


class MongoDriver:
    info: ClassVar[DriverInfo] = DriverInfo(
        name="mongodb",
        schemes=("mongodb", "mongodb+srv", "mongodb+motor", "mongodb+pymongo"),
        protocol_version=PROTOCOL_VERSION,
        durabilities=(Durability.DISK, Durability.MAJORITY, Durability.INTERVAL),
        writers=_WRITERS,
        max_group=_MAX_GROUP,
        reads_ahead=True,
        max_run_bytes=_MAX_RUN_BYTES,
        options=("client", "database", "durability", "pool_size", "prefix", *_CONNECTION_OPTIONS),
    )

    def __init__(
        self,
        url: StoreURL,
        *,
        client: Any = None,
        database: str | None = None,
        prefix: str = "sessionledger_",
        pool_size: int | str = 50,
        durability: Durability | str | None = None,
        **connection: str,
    ) -> None:
        self._given = client if clients.is_client(client) else None
        self._client_name = clients.named(client or _client_of(url)) if self._given is None else ""
        self._pool_size = count_of("pool_size", pool_size, least=1)
        if durability not in (None, Durability.DISK, Durability.MAJORITY, Durability.INTERVAL):
            raise InvalidRecordError(
                f"durability is {durability!r}: MongoDB has 'disk', 'majority' or 'interval'", path="durability"
            )
        self._asked = Durability(durability or Durability.DISK)
        self._database = database or unquote(url.path.strip("/")) or _DATABASE
        if set(self._database) & set('/\\. "$*<>:|?'):
            raise InvalidRecordError(
                f"database is {self._database!r}: give a name without dots, slashes, spaces and quotes", path="database"
            )
        self._dsn = _dsn_of(url, connection)
        self._layout = Layout(prefix)
        heads = Heads(self._layout)
        blobs = Blobs(self._layout)
        lasting = Lasting(self._layout)
        register = Register(self._layout, heads, blobs)
        self._reader = Reader(self._layout, heads, blobs)
        self._messages = MessageReader(self._layout, heads, blobs)
        self._runs = RunReader(self._layout, heads, blobs)
        self._search = Search(self._layout, heads, register, lasting, self._runs)
        self._eraser = Eraser(self._layout, heads, register)
        lossy = self._asked is Durability.INTERVAL
        self._writer = Writer(self._layout, heads, blobs, register, lasting, lossy=lossy)
        self._client: Any = None
        self._durability = Durability.DISK
        self._goes_on = False

    # life

    async def open(self) -> None:
        concern = WriteConcern("majority", wtimeout=_WAIT_FOR_MAJORITY, j=self._asked is not Durability.INTERVAL)
        try:
            with mapped():
                self._client = self._given if self._given is not None else await self._connect()
                self._goes_on = clients.goes_on(self._client)
                self._layout.bind(self._client, self._database, concern)
                self._durability = await self._find_durability()
                await self._layout.make()
        except BaseException:
            await self.close()
            raise

    async def _connect(self) -> Any:
        try:
            return await clients.connect(self._client_name, self._dsn, maxPoolSize=self._pool_size)
        except (ConfigurationError, InvalidURI, ValueError) as error:
            raise InvalidRecordError(
                "the MongoDB URL is malformed, or an option of it does not fit: see the docs", path="url"
            ) from error

    async def _find_durability(self) -> Durability:
        """What the server does for a commit."""
        hello = await self._client.admin.command("hello")
        members = len(hello.get("hosts", ())) or (2 if hello.get("msg") == "isdbgrid" else 1)
        if self._asked is Durability.MAJORITY and members < 2:
            raise DriverError(
                "the durability 'majority' needs a replica set of several members: ask for 'disk'", driver="mongodb"
            )
        return self._asked

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await clients.to_its_end(self._close(client))

    async def _close(self, client: Any) -> None:
        await self._writer.close()
        if client is not self._given:
            with mapped():
                await clients.close(client)

    @property
    def durability(self) -> Durability:
        return self._durability

    async def ping(self) -> None:
        await self._read(self._opened().admin.command("ping"))

    async def schema_version(self) -> int:
        self._opened()
        return await self._read(self._layout.version())

    async def upgrade_schema(self) -> int:
        self._opened()
        await self._read(self._layout.make())
        return await self.schema_version()

    # calls

    def _opened(self) -> Any:
        if self._client is None:
            raise DriverError("the MongoDB driver is not open: open it first", driver="mongodb")
        return self._client

    async def _read(self, call: Awaitable[T]) -> T:
        with mapped():
            return await self._whole(call)

    def _whole(self, call: Awaitable[T]) -> Awaitable[T]:
        """A cancellation leaves open a socket that PyMongo was just connecting: the call goes on, nobody waits."""
        return call if self._goes_on else clients.to_its_end(call)

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Outcome | DriverError | DecodeError]:
        self._opened()
        return await self._whole(self._writer.commit(commits))

    async def erase(self, key: SessionKey, *, limit: int) -> bool:
        self._opened()
        with mapped(writing=True):
            return await self._whole(self._eraser.erase(key, limit))

    async def session(self, key: SessionKey, *, state: bool) -> SessionRow | None:
        self._opened()
        return await self._read(self._reader.session(key, state=state))

    async def sessions(self, query: SessionQuery) -> SessionPage:
        self._opened()
        return await self._read(self._search.sessions(query))

    async def runs(self, query: RunQuery) -> RunPage:
        self._opened()
        return await self._read(self._runs.runs(query))

    async def find_runs(self, search: RunSearch) -> FoundRuns:
        self._opened()
        return await self._read(self._search.find_runs(search))

    async def messages(self, query: MessageQuery) -> MessagePage:
        self._opened()
        return await self._read(self._messages.messages(query))

    async def hidden(self, query: HiddenQuery) -> HiddenPage:
        self._opened()
        return await self._read(self._reader.hidden(query))

    async def switches(self, query: SwitchQuery) -> SwitchPage:
        self._opened()
        return await self._read(self._reader.switches(query))


def _client_of(url: StoreURL) -> str:
    """The client that a scheme names."""
    return "pymongo" if url.scheme == "mongodb+pymongo" else "motor"


def _dsn_of(url: StoreURL, connection: dict[str, str]) -> str:
    """The URL as the client takes it: MongoDB's own schemes, and its own options."""
    parts = urlsplit(url.text)
    scheme = "mongodb+srv" if url.scheme == "mongodb+srv" else "mongodb"
    return urlunsplit((scheme, parts.netloc, parts.path, urlencode({**_DEFAULTS, **connection}), ""))
