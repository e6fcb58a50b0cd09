"""Servers of the kit that are paused: they stand still at once, all of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import bson
import pytest

from sessionledger.testing.servers import MongoServer, PostgresServer, Process

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextmanager
def paused(process: Process) -> Iterator[None]:
    process.pause()
    try:
        yield
    finally:
        process.resume()


def message(number: int) -> bytes:
    """An insert, as MongoDB's wire protocol has it."""
    body = bytes(5) + bson.encode({"insert": "c", "$db": "t", "documents": [{"number": number}]})
    return b"".join(part.to_bytes(4, "little") for part in (16 + len(body), number, 0, 2013)) + body


def test_a_server_of_many_threads_answers_nothing_from_the_moment_it_is_paused() -> None:
    with MongoServer() as server:
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            for number in range(1, 40):
                with paused(server.process):
                    connection.sendall(message(number))
                    connection.settimeout(0.02)
                    with pytest.raises(TimeoutError):
                        connection.recv(4096)
                connection.settimeout(10)
                assert connection.recv(4096)


async def test_a_server_of_many_processes_stands_still_with_all_of_them() -> None:
    with PostgresServer() as server:
        connection = await asyncpg.connect(server.url)
        with paused(server.process), pytest.raises(TimeoutError):
            await connection.execute("CREATE TABLE t (n int)", timeout=0.5)
        connection.terminate()
        connection = await asyncpg.connect(server.url)
        await connection.close()
        server.process.pause()
