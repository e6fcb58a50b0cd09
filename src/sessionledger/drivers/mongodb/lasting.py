"""The collection `lasting_runs`: runs that were stored open, so that a search finds those that still are.

An entry is made before the run, and says only that there may be one; where it is in the log (`n`), how it ended and
that it is no longer `open` is written afterwards. So a search looks at the entries that are open or lack their place,
asks the log about each, and misses none, wherever a process was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any, Final

from sessionledger.drivers.mongodb.encoding import put_key
from sessionledger.drivers.mongodb.heads import LogHead
from sessionledger.drivers.mongodb.layout import Layout, shard_key
from sessionledger.protocol.decide import Decision
from sessionledger.protocol.rows import OPEN_STATUSES, Commit, PatchRun, PutRun

__all__ = ["Lasting"]


_LATEST: Final = 24 * 3600  #: seconds after which a run that was announced will not come any more


class Lasting:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    async def announce(self, commit: Commit, decision: Decision, after: LogHead) -> None:
        """Before the runs are written."""
        for change, receipt in decision.writes:
            if isinstance(change, PutRun) and receipt is not None and change.header.status in OPEN_STATUSES:
                shard, incarnation = shard_key(commit.key), after.head.incarnation
                fields = {"s": shard, "i": incarnation, "ns": commit.key.namespace, "id": change.run_id}
                fields |= {"v": change.revision, "k": 0, "st": change.header.status, "open": True, "at": int(time())}
                for name, value in (("a", change.agent_id), ("u", change.user_id), ("pa", change.parent_run_id)):
                    if value is not None:
                        fields[name] = value
                await self._layout.lasting.update_one(
                    {"_id": _name(after, change.run_id, change.revision), "s": shard},
                    {"$setOnInsert": {name: value for name, value in fields.items() if name != "s"}},
                    upsert=True,
                )

    async def follow(self, commit: Commit, decision: Decision, after: LogHead) -> None:
        """Once they are written."""
        for change, receipt in decision.writes:
            if receipt is None:
                continue
            if isinstance(change, PutRun):
                if change.header.status in OPEN_STATUSES:
                    await self._update(after, change.run_id, change.revision, {"$set": {"n": after.n}})
                if change.revision > 1:
                    query = {"_id": _name(after, change.run_id, change.revision - 1), "s": shard_key(commit.key)}
                    await self._layout.lasting.delete_one(query)
            elif isinstance(change, PatchRun):
                patch = change.expected_patch + 1
                await self._note(after, change.run_id, change.revision, patch, change.header.status)

    async def complete(self, commit: Commit, log: LogHead) -> None:
        """What a commit that is there already may have left undone."""
        for change in commit.changes:
            if isinstance(change, PatchRun) or (isinstance(change, PutRun) and change.header.status in OPEN_STATUSES):
                await self.repair(log, change.run_id, change.revision)

    async def repair(self, log: LogHead, run_id: str, revision: int) -> None:
        """Bring an entry to where the log is."""
        shard = shard_key(log.head.key)
        place = {"s": shard, "i": log.head.incarnation}
        query = {**place, "op": put_key(run_id, revision)}
        found = await self._layout.commits.find_one(query, {"n": 1, "r.id": 1, "r.v": 1, "r.q": 1})
        if found is None:
            await self.drop_unless_new(_name(log, run_id, revision), shard)
            return
        await self._update(log, run_id, revision, {"$set": {"n": found["n"]}})
        (seq,) = [entry["q"] for entry in found["r"] if (entry["id"], entry["v"]) == (run_id, revision)]
        last = await self._layout.commits.find_one({**place, "pq": seq}, {"p": 1}, sort=[("n", -1)])
        for entry in (last or {}).get("p", ()):
            if (entry["id"], entry["v"]) == (run_id, revision):
                await self._note(log, run_id, revision, entry["k"], entry["st"])

    async def drop_unless_new(self, name: str, shard: str) -> None:
        """An entry whose run nobody will store any more."""
        query = {"_id": name, "s": shard, "n": None, "at": {"$lt": int(time()) - _LATEST}}
        await self._layout.lasting.delete_one(query)

    async def _note(self, log: LogHead, run_id: str, revision: int, patch: int, status: str) -> None:
        values = {"k": patch, "st": status}
        change: dict[str, Any] = {"$set": {**values, "open": True}}
        if status not in OPEN_STATUSES:
            change = {"$set": values, "$unset": {"open": ""}}
        await self._update(log, run_id, revision, change, {"k": {"$lt": patch}})

    async def _update(
        self,
        log: LogHead,
        run_id: str,
        revision: int,
        change: Mapping[str, Any],
        more: Mapping[str, Any] | None = None,
    ) -> None:
        query = {"_id": _name(log, run_id, revision), "s": shard_key(log.head.key), **(more or {})}
        await self._layout.lasting.update_one(query, change)


def _name(log: LogHead, run_id: str, revision: int) -> str:
    return f"{shard_key(log.head.key)}\0{log.head.incarnation}\0{put_key(run_id, revision)}"
