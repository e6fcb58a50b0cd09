"""Answers of a server, read as they come in: asyncio's streams would copy each twice and wake up for each piece."""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import ConnectionError, InvalidResponse

from sessionledger.drivers.redis.errors import UnsentError

__all__ = ["Answers"]

_MISSING = object()


class Answers(asyncio.Protocol):
    """Takes over a connection that redis-py has made ready; who closes that one ends this too."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=_MISSING
        )
        self._found: list[Any] = []
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._transport: asyncio.WriteTransport

    @classmethod
    def of(cls, connection: AbstractConnection) -> Answers | None:
        """None where each read has a timeout of its own, which redis-py keeps."""
        writer = connection._writer
        if writer is None or connection.socket_timeout:
            return None
        answers = cls()
        answers._transport = writer.transport
        writer.transport.set_protocol(answers)
        return answers

    async def to(self, packed: bytes, count: int) -> list[Any]:
        """Of so many commands, in order; errors are among them. `UnsentError`: the connection was lost before."""
        if not count:
            return []
        if self._failure is not None:
            raise UnsentError from self._failure
        if self._reader.has_data():
            # an answer to nothing: what comes next would be taken for another's
            self.abort()
            raise UnsentError
        self._found, self._wanted = [], count
        self._transport.write(packed)
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        await waiter
        # a page that was handed out is nobody's here
        found, self._found, self._wanted = self._found, [], 0
        for answer in found:
            if isinstance(answer, ConnectionError):
                raise answer
        return found

    def abort(self) -> None:
        """Without waiting for what is not sent yet; whoever waits for an answer is told."""
        self._transport.abort()

    # what the transport calls

    def data_received(self, data: bytes) -> None:
        found, reader = self._found, self._reader
        try:
            reader.feed(data)
            while len(found) < self._wanted and (answer := reader.gets()) is not _MISSING:
                found.append(answer)
        except Exception as error:
            # whatever the parser stumbles over, there is no telling any more which answer is whose
            self._end(error)
            self._transport.abort()
            return
        if len(found) == self._wanted and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        failure = ConnectionError("Connection closed by server.")
        failure.__cause__ = error
        self._end(failure)

    def _end(self, failure: Exception) -> None:
        self._failure = self._failure or failure
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._failure)
