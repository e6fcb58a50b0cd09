"""A process that ends without closing its store: `kept` by a global name, or `dropped`."""

from __future__ import annotations

import asyncio
import sys

from sessionledger import Run, SessionStore, open_store

kept: list[SessionStore] = []


async def main(how: str, url: str) -> None:
    store = await open_store(url).open()
    receipt = await store.append(Run(session_id="s"))
    print(f"appended {receipt.run_seq}", flush=True)
    if how == "kept":
        kept.append(store)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
