"""The process that is killed. Its orders are one line of JSON on its standard input; it acknowledges each step in a line."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sqlite3
import sys
from typing import Any

import anyio
import msgspec

from sessionledger import open_store
from sessionledger.drivers.sqlite import connection

from .script import Hands, Script

__all__ = ["Orders"]


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    begin: list[int]  #: the step that each task begins with
    last_statement: int | None = None  #: the process kills itself when it executes this one, counted from 1
    broken: str | None = None  #: how the writer is to break its promise


async def main(orders: Orders) -> None:
    async with open_store(orders.url) as store, anyio.create_task_group() as tasks:
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


def die_at(last: int) -> None:
    numbers = itertools.count(1)

    def count(_: str) -> None:
        if next(numbers) >= last:
            os.kill(os.getpid(), signal.SIGKILL)

    class Counting(connection._Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.set_trace_callback(count)

    connection._Connection = Counting  # type: ignore[misc]


def without_transactions() -> None:
    class Torn(connection._Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> Any:
            if sql in ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"):
                return sqlite3.Cursor(self)
            return super().execute(sql, parameters)

    connection._Connection = Torn  # type: ignore[misc]


if __name__ == "__main__":
    orders = msgspec.json.decode(sys.stdin.readline(), type=Orders)
    if orders.broken == "writes without transactions":
        without_transactions()
    if orders.last_statement is not None:
        die_at(orders.last_statement)
    asyncio.run(main(orders))
