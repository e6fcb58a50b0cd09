"""Connections to one server. Each call has one to itself, and sends and reads all of its commands at once.

redis-py's own client repeats commands by itself, also writes whose answer was lost, and its pool waits for locks when
a connection comes back, where a cancellation leaves it behind: so its connections are used, and nothing around them.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import BusyLoadingError, ConnectionError, ResponseError, TimeoutError

from sessionledger.drivers.redis.answers import Answers
from sessionledger.drivers.redis.errors import UnsentError
from sessionledger.errors import PoolTimeoutError

__all__ = ["Command", "Pool"]

Command: TypeAlias = Sequence[str | bytes | int]


class Pool:
    """At most `size` connections; who comes when all are in use waits for `patience` seconds."""

    def __init__(self, make: Callable[[], AbstractConnection], size: int, patience: float) -> None:
        self._make, self._size, self._patience = make, size, patience
        self._idle: list[AbstractConnection] = []
        self._used: set[AbstractConnection] = set()
        self._reading: dict[AbstractConnection, Answers] = {}
        self._places = asyncio.Semaphore(size)
        self._closed = False

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, in order; one that is an error of this command alone is among them.

        `UnsentError` when there was no connection to be had.
        """
        if self._places.locked():
            await self._wait_for_place()
        else:
            await self._places.acquire()
        connection = self._idle.pop() if self._idle else self._make()
        self._used.add(connection)
        try:
            if not connection.is_connected:
                await self._connect(connection)
            reading = self._reading.get(connection)
            if reading is None:
                answers = await _ask(connection, commands)
            else:
                answers = await reading.to(_packed(commands), len(commands))
        except BusyLoadingError as error:
            await self._drop(connection)
            await self._drop_idle()
            raise UnsentError from error
        except BaseException as error:
            await self._drop(connection)
            if isinstance(error, ConnectionError | TimeoutError | OSError | UnsentError):
                # the others have most likely lost the same server: whoever tries again shall not meet them
                await self._drop_idle()
            raise
        finally:
            self._used.discard(connection)
            self._places.release()
        if self._closed:
            await self._drop(connection)
        else:
            self._idle.append(connection)
        return answers

    async def _wait_for_place(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except builtins.TimeoutError as error:
            raise PoolTimeoutError(
                f"all {self._size} connections to Redis were in use for {self._patience:g} s: raise pool_size",
                driver="redis",
            ) from error

    async def _connect(self, connection: AbstractConnection) -> None:
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except Exception as error:
            raise UnsentError from error
        answers = Answers.of(connection)
        if answers is not None:
            self._reading[connection] = answers

    async def _drop(self, connection: AbstractConnection) -> None:
        """At once: nothing that is waited for here could be cancelled half-way."""
        reading = self._reading.pop(connection, None)
        if reading is not None:
            reading.abort()
        with suppress(Exception):
            await connection.disconnect(nowait=True)

    async def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await self._drop(connection)

    async def close(self) -> None:
        self._closed = True
        await self._drop_idle()
        for connection in list(self._used):
            await self._drop(connection)


async def _ask(connection: AbstractConnection, commands: Sequence[Command]) -> list[Any]:
    await connection.send_packed_command(_packed(commands), check_health=False)
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(await connection.read_response())
        except ResponseError as error:
            answers.append(error)
    return answers


def _packed(commands: Sequence[Command]) -> bytes:
    # its stub takes one word alone
    pack: Callable[[tuple[str | bytes | int, ...]], bytes] = pack_command  # type: ignore[assignment]
    if len(commands) == 1:
        return pack(tuple(commands[0]))
    return b"".join([pack(tuple(command)) for command in commands])
