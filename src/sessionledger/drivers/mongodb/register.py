"""The register: the document with number 0 of each log, for lists. It follows the log, which is the truth.

Two kinds of things stand in it.

*Facts*: whose session it is, its fields, whether it is deleted. They are written when the document of the log that
changed them is there, together with its number (`facts`), and only over facts of a smaller number. So they never lie:
they are those of the present, or older ones.

*Activity*: when the last run was put or patched, the order of lists. It only grows, and is written by the same command
as the document of the log, behind it. Only where appends of many sessions go by one command is it written also for one
that came to nothing; then it is taken back, and where the process ends in between, the list shows that session as
early as an append to it was tried.

An append names the number of the facts that it knows. When the register has others, its process knows an old log, or
somebody was stopped between log and register: both are put right before the append is acknowledged (`Register.touch`).
So a session whose append was acknowledged is listed, by the facts of its log. And this is what makes erasing sound: its
seal changes the facts before the first document is removed, so that an append which takes the number of a removed one
does not pass. A list asks the log for the heads of what it shows, and puts right what it finds behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from sessionledger.drivers.mongodb.blobs import Blobs, MissingPartError
from sessionledger.drivers.mongodb.decoding import session_header_of
from sessionledger.drivers.mongodb.heads import Heads, LogHead
from sessionledger.drivers.mongodb.layout import Layout, shard_key
from sessionledger.errors import UnavailableError
from sessionledger.protocol.rows import NewSession, SessionHeader, SessionKey

__all__ = ["Register", "listed_header", "touching"]

_ATTEMPTS: Final = 20
_LARGE_BODY: Final = 4096  #: which lists read from the log: an append would write it again


class Register:
    def __init__(self, layout: Layout, heads: Heads, blobs: Blobs) -> None:
        self._layout, self._heads, self._blobs = layout, heads, blobs

    async def reserve(self, key: SessionKey, new: NewSession, at: int) -> None:
        """Before a session is made: there may be one. Lists look whether there is."""
        fields = _fields_of(key, new.header, None)
        fields |= {"user_id": new.user_id, "created_at": new.created_at, "deleted": False, "facts": 0, "active": at}
        await self._layout.commits.update_one(
            _number_0(key), {"$set": {"erased": False}, "$setOnInsert": fields}, upsert=True
        )

    async def put(self, after: LogHead, header: SessionHeader) -> bool:
        """The facts, once the log has them; False when the register has these, or later ones."""
        key, head = after.head.key, after.head
        fields = _fields_of(key, header, after)
        fields["facts"] = after.facts
        # a session that is made again begins anew
        activity = "$set" if head.version == 1 else "$max"
        update: dict[str, Any] = {"$set": fields}
        update.setdefault(activity, {})["active"] = head.last_activity_at
        try:
            await self._layout.commits.update_one(
                {**_number_0(key), "facts": {"$lt": after.facts}}, update, upsert=True
            )
        except DuplicateKeyError:
            await self.touch(after)
            return False
        return True

    async def touch(self, after: LogHead) -> bool:
        """The activity; False when the register has other facts than the log had."""
        query, update = touching(after)
        done = await self._layout.commits.update_one(query, update)
        return bool(done.matched_count)

    async def knows(self, many: Sequence[LogHead]) -> list[bool]:
        """Of each, whether the register has the facts that its log had."""
        keys = [shard_key(after.head.key) for after in many]
        rows = await self._layout.commits.find({"s": {"$in": keys}, "n": 0}, {"s": 1, "facts": 1}).to_list(None)
        found = {row["s"]: row["facts"] for row in rows}
        return [found.get(key) == after.facts for key, after in zip(keys, many, strict=True)]

    async def take_back(self, key: SessionKey, at: int, log: LogHead | None) -> None:
        """An activity that came to nothing."""
        if log is not None and log.head.last_activity_at < at:
            await self._layout.commits.update_one(
                {**_number_0(key), "active": at}, {"$set": {"active": log.head.last_activity_at}}
            )

    async def repair(self, key: SessionKey) -> LogHead | None:
        """Bring it to where the log is, which is read."""
        for _ in range(_ATTEMPTS):
            log = await self._heads.read(key)
            if log is None:
                return None
            header = await self.header(log)
            if header is not None:
                await self.put(log, header)
                return log
        raise UnavailableError("the session changes faster than it is read: try again", driver="mongodb")

    async def header(self, log: LogHead) -> SessionHeader | None:
        """The session's fields, from the log; None where it went on meanwhile."""
        shard = shard_key(log.head.key)
        query = {"s": shard, "n": log.fields, "sf": {"$exists": True}}
        found = await self._layout.commits.find_one(query, {"sf": 1})
        if found is None:
            return None
        try:
            body = await self._blobs.load(shard, found["sf"]["body"])
        except MissingPartError:
            # a document that was left, or has lost its fields, is behind the log
            if await self._layout.commits.find_one(query, {"_id": 1}) is not None:
                raise
            return None
        return session_header_of(found["sf"], body)


def touching(after: LogHead) -> tuple[dict[str, Any], dict[str, Any]]:
    """The condition and the change of a `touch`."""
    head = after.head
    return {**_number_0(head.key), "facts": after.facts}, {"$max": {"active": head.last_activity_at}}


def _number_0(key: SessionKey) -> dict[str, Any]:
    return {"s": shard_key(key), "n": 0}


def _fields_of(key: SessionKey, header: SessionHeader, log: LogHead | None) -> dict[str, Any]:
    """What lists show, filter by, and are in the order of."""
    body = header.body if len(header.body) < _LARGE_BODY else None
    fields: dict[str, Any] = {
        "namespace": key.namespace,
        "session_id": key.session_id,
        "kind": header.kind,
        "agent_id": header.agent_id,
        "current_agent": header.current_agent,
        "name": header.name,
        "parent_session_id": header.parent_session_id,
        "updated_at": header.updated_at,
        "body": body,
    }
    if log is not None:
        head = log.head
        fields |= {"user_id": head.user_id, "created_at": head.created_at, "erased": head.erased}
        fields["deleted"] = head.deleted_at is not None
        if head.fork is not None:
            fields["forked_from"] = head.fork.session_id
    return fields


def listed_header(row: Mapping[str, Any]) -> SessionHeader | None:
    """The fields of a document; None where the log has to be asked for them."""
    return None if row["body"] is None else session_header_of(row, row["body"])
