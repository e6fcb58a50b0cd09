"""A process of a crowd: `append` or `increment`, URL, which one it is, how often."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from sessionledger import Session, SessionStore, open_store

from .log import run_of


async def append(store: SessionStore, writer: int, count: int) -> None:
    for number in range(count):
        receipt = await store.append(run_of(writer, number))
        print(msgspec.json.encode(receipt).decode())


async def increment(store: SessionStore, _: int, count: int) -> None:
    for _ in range(count):
        session = await store.update_session("s", change=one_more)
        print(session.state_version)


def one_more(session: Session) -> Session:
    state = {**session.state, "count": session.state.get("count", 0) + 1}
    return msgspec.structs.replace(session, state=state)


async def main(what: str, url: str, writer: str, count: str) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    async with open_store(url) as store:
        await {"append": append, "increment": increment}[what](store, int(writer), int(count))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
