"""The driver: one writing connection, one that reads beside it, and the file's schema."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import aiosqlite
import anyio

from sessionledger.drivers.sqlite import reader, writer
from sessionledger.drivers.sqlite.connection import Command, LedgerConnection, connect, mapped, roll_back, run
from sessionledger.drivers.statements import load_text
from sessionledger.errors import DecodeError, DriverError, InvalidRecordError, SchemaTooNewError
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

__all__ = ["SCHEMA_VERSION", "SQLiteDriver"]

SCHEMA_VERSION = 1

_SCHEMA = load_text("sql/sqlite_schema.sql")
_SYNCHRONOUS = {Durability.DISK: "FULL", Durability.PROCESS: "NORMAL"}
_FULL = 2  #: `synchronous`, as SQLite tells it
_BUSY_TIMEOUT = 10.0  #: seconds that a statement waits for other processes
_RESUMED_ROWS = 10_000  #: of interrupted erasures, erased at open; it takes some hundredths of a second
_MAX_RUN_BYTES = 1_000_000_000  #: SQLite's limit on one value

#: The first release whose write-ahead log cannot lose a commit when several processes reset it at once.
_SOUND_VERSION = (3, 51, 3)

logger = logging.getLogger("sessionledger.sqlite")


class SQLiteDriver:
    info: ClassVar[DriverInfo] = DriverInfo(
        name="sqlite",
        schemes=("sqlite", "sqlite+aiosqlite"),
        protocol_version=PROTOCOL_VERSION,
        durabilities=(Durability.DISK, Durability.PROCESS),
        writers=1,
        max_run_bytes=_MAX_RUN_BYTES,
        options=("durability",),
    )

    def __init__(self, url: StoreURL, *, durability: Durability | str = Durability.DISK) -> None:
        if durability not in _SYNCHRONOUS:
            known = " or ".join(map(repr, map(str, _SYNCHRONOUS)))
            raise InvalidRecordError(f"durability is {durability!r}: SQLite has {known}", path="durability")
        self._path = _path_of(url)
        self._synchronous = _SYNCHRONOUS[Durability(durability)]
        self._durability = Durability(durability)  #: once it is open, as it is, and not as it was asked for
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None

    # life

    async def open(self) -> None:
        self._warn_of_old_library()
        try:
            self._writer = await self._connect()
            await run(self._writer, _BEGIN)
            self._durability = await run(self._writer, _DURABILITY)
            # an in-memory database is its connection's own
            self._reader = self._writer if self._path == ":memory:" else await self._connect()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.close()
            raise

    async def _connect(self) -> aiosqlite.Connection:
        connection = await connect(self._path, busy_timeout=_BUSY_TIMEOUT)
        try:
            await run(connection, _CONFIGURE, self._synchronous)
        except BaseException:
            await connection.close()
            raise
        return connection

    def _warn_of_old_library(self) -> None:
        if sqlite3.sqlite_version_info < _SOUND_VERSION and Path(f"{self._path}-shm").exists():
            logger.warning(
                "SQLite %s can lose a commit in a rare race when several processes write to it: use 3.51.3 or later",
                sqlite3.sqlite_version,
            )

    async def close(self) -> None:
        reader_, writer_ = self._reader, self._writer
        self._reader = self._writer = None
        # an aiosqlite connection that is not closed keeps the interpreter from exiting
        try:
            if reader_ is not None and reader_ is not writer_:
                with mapped():
                    await reader_.close()
        finally:
            if writer_ is not None:
                with mapped():
                    await writer_.close()

    @property
    def durability(self) -> Durability:
        return self._durability

    async def ping(self) -> None:
        await self._read(_PING)

    async def schema_version(self) -> int:
        version: int = await self._read(_VERSION)
        return version

    async def upgrade_schema(self) -> int:
        await self._write(_UPGRADE)
        return await self.schema_version()

    # calls

    async def _read(self, command: Command, *arguments: Any) -> Any:
        if self._reader is None:
            raise DriverError("the SQLite driver is not open: open it first", driver="sqlite")
        return await run(self._reader, command, *arguments)

    async def _write(self, command: Command, *arguments: Any) -> Any:
        if self._writer is None:
            raise DriverError("the SQLite driver is not open: open it first", driver="sqlite")
        return await run(self._writer, command, *arguments)

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Outcome | DriverError | DecodeError]:
        outcomes: Sequence[Outcome | DriverError | DecodeError] = await self._write(_COMMIT, commits)
        return outcomes

    async def erase(self, key: SessionKey, *, limit: int) -> bool:
        more: bool = await self._write(_ERASE, key, limit)
        return more

    async def session(self, key: SessionKey, *, state: bool) -> SessionRow | None:
        row: SessionRow | None = await self._read(_SESSION, key, state)
        return row

    async def sessions(self, query: SessionQuery) -> SessionPage:
        page: SessionPage = await self._read(_SESSIONS, query)
        return page

    async def runs(self, query: RunQuery) -> RunPage:
        page: RunPage = await self._read(_RUNS, query)
        return page

    async def find_runs(self, search: RunSearch) -> FoundRuns:
        found: FoundRuns = await self._read(_FIND_RUNS, search)
        return found

    async def messages(self, query: MessageQuery) -> MessagePage:
        page: MessagePage = await self._read(_MESSAGES, query)
        return page

    async def hidden(self, query: HiddenQuery) -> HiddenPage:
        page: HiddenPage = await self._read(_HIDDEN, query)
        return page

    async def switches(self, query: SwitchQuery) -> SwitchPage:
        page: SwitchPage = await self._read(_SWITCHES, query)
        return page


def _path_of(url: StoreURL) -> str:
    """`sqlite:///name` is beside the working directory, `sqlite:////name` absolute, as SQLAlchemy has it."""
    path = url.path.removeprefix("/")
    if url.authority:
        raise InvalidRecordError(
            "an SQLite URL has three slashes: sqlite:///agents.db, or four for an absolute path", path="url"
        )
    if path.startswith("file:"):
        raise InvalidRecordError(
            "an SQLite URL names a path, and not a URI of SQLite's: write sqlite:///agents.db, or sqlite:// for a "
            "database in memory",
            path="url",
        )
    return path or ":memory:"


def _configure(db: sqlite3.Connection, synchronous: str) -> None:
    db.execute(f"PRAGMA synchronous = {synchronous}")
    # macOS answers an fsync before the data is on the disk
    db.execute("PRAGMA fullfsync = ON")
    db.execute("PRAGMA checkpoint_fullfsync = ON")
    if db.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
        db.execute("PRAGMA journal_mode = WAL")


def _durability(db: sqlite3.Connection) -> Durability:
    """What SQLite says that it does, whatever it was told."""
    synchronous = db.execute("PRAGMA synchronous").fetchone()[0]
    if db.execute("PRAGMA journal_mode").fetchone()[0] in ("memory", "off"):
        return Durability.MEMORY
    return Durability.DISK if synchronous >= _FULL else Durability.PROCESS


def _begin(db: LedgerConnection) -> None:
    _upgrade(db)
    # others may be writing, or the file may not be written: what is left can wait
    with suppress(sqlite3.Error):
        writer.resume_erasures(db, _RESUMED_ROWS)


def _upgrade(db: sqlite3.Connection) -> None:
    """Make or upgrade the schema, once among all processes: the write lock is held from the look on."""
    with suppress(sqlite3.OperationalError):
        if _stored_version(db) == SCHEMA_VERSION:
            return
    try:
        db.execute("BEGIN IMMEDIATE")
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            for statement in _statements(_SCHEMA):
                db.execute(statement)
            values = [("schema_version", SCHEMA_VERSION), ("min_reader", 1), ("min_writer", 1)]
            db.executemany("INSERT INTO meta VALUES (?, ?)", values)
        _own_version(db)
        db.execute("COMMIT")
    except BaseException:
        roll_back(db)
        raise


def _stored_version(db: sqlite3.Connection) -> int:
    meta = dict(db.execute("SELECT name, value FROM meta").fetchall())
    version, reads, writes = meta.get("schema_version"), meta.get("min_reader", 0), meta.get("min_writer", 0)
    if not (isinstance(version, int) and isinstance(reads, int) and isinstance(writes, int)):
        raise _foreign()
    least = max(reads, writes)
    if least > SCHEMA_VERSION:
        raise SchemaTooNewError(
            f"the SQLite file asks for schema {least}, this release knows {SCHEMA_VERSION}: upgrade sessionledger",
            found=least,
            known=SCHEMA_VERSION,
        )
    return version


def _own_version(db: sqlite3.Connection) -> int:
    """Of a file that has a table `meta`, whoever made it."""
    try:
        return _stored_version(db)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            raise _foreign() from error
        raise


def _foreign() -> DriverError:
    return DriverError(
        "the SQLite file has a table 'meta' of another program's: give the store a file of its own", driver="sqlite"
    )


def _statements(script: str) -> list[str]:
    """`executescript` would end the transaction, so each statement goes by itself."""
    found, text = [], ""
    for line in script.splitlines():
        text += line + "\n"
        if sqlite3.complete_statement(text):
            found.append(text)
            text = ""
    return found


def _ping(db: sqlite3.Connection) -> None:
    db.execute("SELECT 1").fetchone()


_CONFIGURE = Command(_configure)
_UPGRADE = Command(_upgrade)
_BEGIN = Command(_begin)
_DURABILITY = Command(_durability)
_VERSION = Command(_stored_version)
_PING = Command(_ping)
_COMMIT = Command(writer.commit_group)
_ERASE = Command(writer.erase)
_SESSION = Command(reader.session)
_SESSIONS = Command(reader.sessions)
_RUNS = Command(reader.runs)
_FIND_RUNS = Command(reader.find_runs)
_MESSAGES = Command(reader.messages)
_HIDDEN = Command(reader.hidden)
_SWITCHES = Command(reader.switches)
