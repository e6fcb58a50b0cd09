"""Connections: one thread hop a call, whatever the number of statements, and errors of our own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar, cast
from weakref import WeakSet

import aiosqlite

from sessionledger.errors import DecodeError, DriverError, SchemaTooNewError, StorageFullError, UnavailableError
from sessionledger.protocol.rows import Head, SessionKey

__all__ = [
    "Command",
    "LedgerConnection",
    "Memory",
    "StoredSession",
    "connect",
    "error_of",
    "mapped",
    "roll_back",
    "run",
]

T = TypeVar("T")

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_OURS = (DecodeError, DriverError, SchemaTooNewError)
_CLOSED = {"Connection closed", "no active connection"}  #: aiosqlite's words for a connection that was closed


class Command(str):
    """A function that runs on the connection's thread, in the guise of a statement.

    aiosqlite runs statements on a thread of the connection's own, a hop each; this way one hop runs many.
    """

    function: Callable[..., Any]

    def __new__(cls, function: Callable[..., Any]) -> Command:
        self = super().__new__(cls, function.__name__)
        self.function = function
        return self


class _Result(list[Any]):
    """What a command returned, as the rows of a cursor."""

    def fetchall(self) -> _Result:
        return self


class StoredSession(NamedTuple):
    """A session's row, as far as a commit needs it."""

    key: int
    head: Head
    counters: Mapping[str, int]


class Memory:
    """What a writing connection need not read or write again. After a rollback nothing of it is sure."""

    def __init__(self) -> None:
        self.data_version: int | None = None  #: of the file, when `sessions` were last known to be so
        self.sessions: dict[SessionKey, StoredSession] = {}
        self.changed: dict[int, StoredSession] = {}  #: rows that this transaction has yet to write
        self.participants: set[tuple[str, str, int]] = set()  #: rows that are there

    def clear(self) -> None:
        self.data_version = None
        self.sessions.clear()
        self.changed.clear()
        self.participants.clear()


class LedgerConnection(sqlite3.Connection):
    """A connection that runs commands. The one that writes remembers what it has written."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.statements = self.cursor()  #: for all of them: a cursor each costs more than a short statement
        self.memory = Memory()

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        if type(sql) is Command:
            return _Result((sql.function(self, *parameters),))
        return super().execute(sql, parameters)


def roll_back(db: sqlite3.Connection) -> None:
    """After an error. SQLite may have ended the transaction itself, and what fails here would hide that error."""
    if db.in_transaction:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")


async def run(connection: aiosqlite.Connection, command: Command, *arguments: Any) -> Any:
    try:
        result = await connection.execute_fetchall(command, arguments)
    except _OURS:
        raise
    except Exception as error:
        raise error_of(error) from error
    return cast(list[Any], result)[0]


async def connect(path: str, *, busy_timeout: float) -> aiosqlite.Connection:
    """`busy_timeout` in seconds: how long a statement waits for other processes."""

    async def open_file() -> aiosqlite.Connection:
        return await aiosqlite.connect(
            path,
            isolation_level=None,
            cached_statements=256,
            timeout=busy_timeout,
            factory=LedgerConnection,
        )

    opening = asyncio.ensure_future(open_file())
    try:
        with mapped():
            connection = await asyncio.shield(opening)
    except asyncio.CancelledError:
        # the thread opens the file all the same, and has to close it
        opening.add_done_callback(_stop)
        raise
    _EXIT.watch(connection)
    return connection


def _stop(opening: asyncio.Future[aiosqlite.Connection]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().stop()


class _Exit:
    """Stops what nobody closed when the program ends: aiosqlite's threads would keep the interpreter from exiting for
    ever.
    """

    def __init__(self) -> None:
        self._connections: WeakSet[aiosqlite.Connection] = WeakSet()
        self._watcher: threading.Thread | None = None

    def watch(self, connection: aiosqlite.Connection) -> None:
        self._connections.add(connection)
        # a fork of the process has no threads but its own
        if self._watcher is None or not self._watcher.is_alive():
            self._watcher = threading.Thread(target=self._wait, name="sessionledger-exit", daemon=True)
            self._watcher.start()

    def _wait(self) -> None:
        threading.main_thread().join()
        for connection in list(self._connections):
            connection.stop()


_EXIT = _Exit()


@contextmanager
def mapped() -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except _OURS:
        raise
    except Exception as error:
        raise error_of(error) from error


def error_of(error: Exception) -> DriverError | DecodeError:
    if isinstance(error, DriverError | DecodeError):
        return error
    if isinstance(error, ValueError) and str(error) in _CLOSED:
        return DriverError("the SQLite connection is closed: open the store again", driver="sqlite")
    if not isinstance(error, sqlite3.Error):
        return DriverError(f"SQLite was given or gave what it should not ({error!r}): report it", driver="sqlite")
    return _sqlite_error(error)


def _sqlite_error(error: sqlite3.Error) -> DriverError | DecodeError:
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if primary in _BUSY:
        return UnavailableError(f"the SQLite file is in use by other processes ({error}): try again", driver="sqlite")
    if primary == sqlite3.SQLITE_FULL:
        return StorageFullError("the disk of the SQLite file is full: make room and repeat the call", driver="sqlite")
    if primary == sqlite3.SQLITE_CANTOPEN:
        return DriverError(
            f"the SQLite file cannot be opened ({error}): does its folder exist, and may it be written?",
            driver="sqlite",
        )
    if primary == sqlite3.SQLITE_READONLY:
        return DriverError("the SQLite file may not be written: mend its rights, or its folder's", driver="sqlite")
    if primary in _DAMAGED or (code is None and "decode to UTF-8" in str(error)):
        return DecodeError(f"the SQLite file is damaged ({error}): restore it from a backup")
    return DriverError(f"SQLite failed ({error}): look at the disk and the file's rights", driver="sqlite")
