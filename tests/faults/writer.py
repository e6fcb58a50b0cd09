"""The process that is killed: its orders are a line of JSON on its standard input, a line acknowledges each step."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiosqlite
import anyio
import msgspec

from sessionledger import SessionStore, open_store

from .script import Hands, Script

__all__ = ["CALLS", "Orders"]


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    begin: list[int]  #: the step that each task begins with
    last_statement: int | None = None  #: the process kills itself when it executes this one, counted from 1; of files:
    #: when it calls the system to write for the so-manyth time, half-way through where it can
    last_commit: int | None = None  #: or this many transactions after it began
    only: str | None = None  #: the name of the one call that it makes, instead of its script
    broken: str | None = None  #: how the writer is to break its promise


#: Calls of several transactions.
CALLS: dict[str, Callable[[SessionStore], Awaitable[Any]]] = {
    "erase": lambda store: store.delete_session("fork", soft=False, operation_id="o"),
    "erase with forks": lambda store: store.delete_session("parent", soft=False, forks=True, operation_id="o"),
    "fork": lambda store: store.fork("parent", new_session_id="new", operation_id="o"),
}


async def main(orders: Orders) -> None:
    async with open_store(orders.url) as store, anyio.create_task_group() as tasks:
        if orders.only is not None:
            await CALLS[orders.only](store)
            return
        hands = Hands(store, recording=True)
        for task, first in enumerate(orders.begin):
            tasks.start_soon(work, hands, task, first, orders.broken == "acknowledges first")


async def work(hands: Hands, task: int, first: int, early: bool) -> None:
    script = Script(task)
    for number in itertools.count(first):
        if early:
            acknowledge(task, number)
            await anyio.sleep_forever()
        await script[number].do(hands)
        acknowledge(task, number)


def acknowledge(task: int, number: int) -> None:
    os.write(1, f"{task} {number}\n".encode())


def die_at(orders: Orders) -> None:
    statements, commits = itertools.count(1), itertools.count(1)
    begun = 0

    def count(statement: str) -> None:
        nonlocal begun
        if next(statements) == orders.last_statement or (
            orders.last_commit is not None and begun >= orders.last_commit
        ):
            os.kill(os.getpid(), signal.SIGKILL)
        if statement == "COMMIT":
            begun = next(commits)

    class Counting(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.set_trace_callback(count)

    make_connections(Counting)


def die_at_write(orders: Orders) -> None:
    writes = itertools.count(1)

    def counted(name: str) -> None:
        call = getattr(os, name)

        def count(*arguments: Any, **options: Any) -> Any:
            if next(writes) == orders.last_statement:
                if name == "pwrite":
                    descriptor, data, offset = arguments
                    call(descriptor, data[: len(data) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        setattr(os, name, count)

    for name in ("pwrite", "fsync", "ftruncate", "mkdir", "replace", "unlink"):
        counted(name)


def without_transactions() -> None:
    class Forgetful(sqlite3.Cursor):
        def execute(self, sql: str, parameters: Any = (), /) -> Any:
            return self if sql in ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK") else super().execute(sql, parameters)

    class Torn(sqlite3.Connection):
        def cursor(self, *_: Any) -> Any:
            return super().cursor(Forgetful)

    make_connections(Torn)


def make_connections(kind: type[sqlite3.Connection]) -> None:
    """Of that kind too, beside what the driver wants of them."""
    connect = aiosqlite.connect

    def connect_so(path: str, *, factory: type[sqlite3.Connection], **options: Any) -> aiosqlite.Connection:
        return connect(path, factory=type(kind.__name__, (factory, kind), {}), **options)

    aiosqlite.connect = connect_so  # type: ignore[assignment]


if __name__ == "__main__":
    orders = msgspec.json.decode(sys.stdin.readline(), type=Orders)
    if orders.broken == "writes without transactions":
        without_transactions()
    if orders.last_statement is not None or orders.last_commit is not None:
        (die_at_write if orders.url.startswith("file:") else die_at)(orders)
    asyncio.run(main(orders))
