"""A process that forks while its store is open; prints what the child learns from the parent's store."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from sessionledger import Run, SessionStore, open_store


def calls(store: SessionStore) -> list[Callable[[], Awaitable[Any]]]:
    return [
        lambda: store.append(Run(run_id="child", session_id="s")),
        lambda: store.get_session("s"),
        lambda: store.messages("s").collect(),
        lambda: store.update_session("s", change={"name": "child"}),
        store.health,
        store.open,
        store.close,
    ]


async def learned(store: SessionStore) -> list[str]:
    names = []
    for call in calls(store):
        try:
            await call()
            names.append("nothing")
        except Exception as error:
            names.append(type(error).__name__)
    return names


async def own(url: str) -> str:
    async with open_store(url) as store:
        receipt = await store.append(Run(run_id="own", session_id="s"))
    return f"own {receipt.run_seq}"


def end(lines: list[str]) -> None:
    """The child's: nothing of the parent's is run at its exit."""
    os.write(1, "".join(f"{line}\n" for line in lines).encode())
    os._exit(0)


async def in_the_loop(url: str) -> None:
    """The child goes on inside the parent's running loop."""
    async with open_store(url) as store:
        await store.append(Run(run_id="parent", session_id="s"))
        child = os.fork()
        if not child:
            end(await learned(store))
        os.waitpid(child, 0)
        receipt = await store.append(Run(run_id="after", session_id="s"))
    print(f"parent {receipt.run_seq}")


def outside_the_loop(url: str) -> None:
    """The child has a loop of its own, and then a store of its own."""
    with asyncio.Runner() as runner:
        store = runner.run(open_store(url).open())
        runner.run(store.append(Run(run_id="parent", session_id="s")))
        child = os.fork()
        if not child:
            # as far as asyncio knows, the parent's loop is not running here
            end([*asyncio.run(learned(store)), asyncio.run(own(url))])
        os.waitpid(child, 0)
        receipt = runner.run(store.append(Run(run_id="after", session_id="s")))
        runner.run(store.close())
    print(f"parent {receipt.run_seq}")


if __name__ == "__main__":
    if sys.argv[1] == "inside":
        asyncio.run(in_the_loop(sys.argv[2]))
    else:
        outside_the_loop(sys.argv[2])
