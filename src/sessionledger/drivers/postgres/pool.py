"""The connections of a store: some that write, kept for it, and a pool for all else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg

from sessionledger.drivers.postgres.errors import LOST, mapped
from sessionledger.errors import DriverError, PoolTimeoutError, UnavailableError

__all__ = ["Connections"]

T = TypeVar("T")


_KEPT = 2  #: connections that stay with those who write, of a pool that has enough for readers


class Connections:
    """`size` connections at most. Taking one from asyncpg's pool and giving it back is a third of what a lone append
    costs in Python: some are kept.
    """

    def __init__(self, dsn: str, *, size: int, timeout: float, statement_cache_size: int) -> None:
        self._dsn, self._size, self._timeout, self._cached = dsn, size, timeout, statement_cache_size
        self._pool: asyncpg.Pool | None = None
        self._kept = _KEPT if size >= 2 * _KEPT else 0
        self._idle: list[asyncpg.Connection] = []

    async def open(self, settings: dict[str, str]) -> None:
        with mapped():
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=1,
                max_size=self._size,
                statement_cache_size=self._cached,
                server_settings=settings,
                connect=_connect,
                # a round trip for each use, to undo what nothing here does
                reset=_leave_as_it_is,
            )

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        self._idle.clear()
        if pool is not None:
            # `close` waits for connections whose peer is gone; every call has ended by now
            pool.terminate()

    async def read(self, call: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        connection = await self._acquire()
        try:
            return await _called(call, connection, writing=False)
        finally:
            await self._release(connection)

    async def write(self, call: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        connection = await self._take()
        try:
            return await _called(call, connection, writing=True)
        finally:
            if self._pool is not None and len(self._idle) < self._kept and not _is_closed(connection):
                self._idle.append(connection)
            else:
                await self._release(connection)

    async def _take(self) -> asyncpg.Connection:
        """One that was kept; its server may have ended it since."""
        while self._idle:
            connection = self._idle.pop()
            if not _is_closed(connection):
                return connection
            await self._release(connection)
        return await self._acquire()

    async def _acquire(self) -> asyncpg.Connection:
        """After a failure of the connection, or a cancellation, it is closed and does not go back."""
        pool = self._pool
        if pool is None:
            raise DriverError("the PostgreSQL driver is not open: open it first", driver="postgres")
        try:
            with mapped():
                return await pool.acquire(timeout=self._timeout)
        except UnavailableError as error:
            if isinstance(error.__cause__, TimeoutError) and pool.get_size() >= self._size:
                raise PoolTimeoutError(
                    f"all {self._size} connections to PostgreSQL were busy for {self._timeout} s: "
                    "raise pool_size, or do less at once",
                    driver="postgres",
                ) from error
            raise

    async def _release(self, connection: asyncpg.Connection) -> None:
        pool = self._pool
        if pool is not None:
            with mapped(), suppress(asyncpg.InterfaceError):
                await pool.release(connection)


async def _called(
    call: Callable[[asyncpg.Connection], Awaitable[T]], connection: asyncpg.Connection, *, writing: bool
) -> T:
    # no context managers: every call comes through here, and they would be a tenth of what it costs in Python
    try:
        return await call(connection)
    except BaseException as error:
        _end_if_broken(connection, error)
        with mapped(writing=writing):
            raise


def _end_if_broken(connection: asyncpg.Connection, error: BaseException) -> None:
    """Neither its release nor its end would return while its peer is silent."""
    if not _is_closed(connection) and (
        not isinstance(error, Exception) or isinstance(error, LOST) or connection.is_in_transaction()
    ):
        connection.terminate()


def _is_closed(connection: asyncpg.Connection) -> bool:
    try:
        closed: bool = connection.is_closed()
    except asyncpg.InterfaceError:
        return True  # its pool has let go of it
    return closed


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
