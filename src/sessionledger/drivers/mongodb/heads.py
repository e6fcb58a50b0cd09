"""Where a session's log stands, as each of its documents says it.

A document carries all that is true behind it, so that the last one answers everything in one read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from sessionledger.drivers.mongodb.layout import Layout, shard_key
from sessionledger.errors import DecodeError
from sessionledger.protocol.decide import Decision, add_counters
from sessionledger.protocol.rows import (
    Commit,
    ForkLink,
    Head,
    PatchRun,
    PatchSession,
    PutRun,
    Seal,
    SessionKey,
    SetDeleted,
)

__all__ = ["HEAD_FIELDS", "USUAL", "Heads", "LogHead", "behind", "head_fields", "is_plain", "log_head_of"]

#: What a query brings for a head.
HEAD_FIELDS: Final = {"_id": 0, "n": 1, "i": 1, "u": 1, "h": 1}

_MOST_HEADS: Final = 8192
USUAL: Final = "completed"  #: how most runs end: no index tells them apart


class LogHead(msgspec.Struct, frozen=True):
    """A head, and where in the log the rest of the session's present is."""

    head: Head
    n: int  #: the document's number; unlike the version, it goes on when the session is made again
    facts: int  #: the number of the last document that changed what lists show
    fields: int  #: the number of the document with the session's fields
    state: int  #: and of that with its state
    others: int = 0  #: how many runs are no plain ones, as `is_plain` says
    size: int = 0  #: of the bodies of all messages, about as many bytes
    counters: Mapping[str, int] = {}

    @property
    def base(self) -> int:
        """The number behind which this incarnation begins."""
        return self.n - self.head.version

    @property
    def shared(self) -> int:
        """The last position that is another session's."""
        return self.head.fork.position if self.head.fork else 0

    @property
    def density(self) -> float:
        """Messages of a document, on average."""
        return max(1, self.head.message_count - self.shared) / max(1, self.head.version)

    def fitting(self, max_bytes: int) -> int:
        """How many messages have that size, going by all of them."""
        return int(max_bytes * max(1, self.head.message_count - self.shared) / max(1, self.size)) + 1


class _Mark(msgspec.Struct, array_like=True, frozen=True):
    """The text `h` of a document; later releases may add to its end."""

    version: int
    state_version: int
    run_count: int
    message_count: int
    created_at: int
    last_activity_at: int
    deleted_at: int | None
    erased: bool
    has_hidden: bool
    has_summary: bool
    forks: int
    facts: int
    fields: int
    state: int
    others: int
    size: int
    counters: dict[str, int]
    fork: tuple[str, int, int, int, int] | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Mark).decode


def log_head_of(document: Mapping[str, Any], key: SessionKey) -> LogHead:
    """Of a document with the fields `HEAD_FIELDS`."""
    try:
        mark = _decode(document["h"])
    except (KeyError, TypeError, msgspec.MsgspecError) as error:
        raise DecodeError(
            f"a document of session {key.session_id!r} is damaged: restore it from a backup", session_id=key.session_id
        ) from error
    head = Head(
        key,
        document["i"],
        mark.version,
        mark.state_version,
        mark.run_count,
        mark.message_count,
        document.get("u"),
        mark.created_at,
        mark.last_activity_at,
        mark.deleted_at,
        mark.erased,
        mark.has_hidden,
        mark.has_summary,
        mark.forks,
        ForkLink(*mark.fork) if mark.fork else None,
    )
    return LogHead(head, document["n"], mark.facts, mark.fields, mark.state, mark.others, mark.size, mark.counters)


def head_fields(log: LogHead) -> dict[str, Any]:
    """Of the document that brought the log there."""
    head = log.head
    mark = _Mark(
        head.version,
        head.state_version,
        head.run_count,
        head.message_count,
        head.created_at,
        head.last_activity_at,
        head.deleted_at,
        head.erased,
        head.has_hidden,
        head.has_summary,
        head.forks,
        log.facts,
        log.fields,
        log.state,
        log.others,
        log.size,
        dict(log.counters),
        msgspec.structs.astuple(head.fork) if head.fork else None,
    )
    fields: dict[str, Any] = {"i": head.incarnation, "n": log.n, "h": _encode(mark).decode()}
    if head.user_id is not None:
        fields["u"] = head.user_id
    return fields


def is_plain(put: PutRun) -> bool:
    """Whether a run is like most: `RunQuery.plain` lets it be left out."""
    return put.header.status == USUAL and put.parent_run_id is None


def _others_in(decision: Decision) -> int:
    return sum(
        isinstance(change, PutRun) and change.revision == 1 and not is_plain(change) for change, _ in decision.writes
    )


def _size_of(decision: Decision) -> int:
    return sum(
        len(row.body)
        for change, _ in decision.writes
        if isinstance(change, PutRun | PatchRun)
        for row in change.messages
    )


def behind(before: LogHead | None, commit: Commit, decision: Decision) -> LogHead:
    """The log once this is written."""
    assert decision.head is not None
    n = before.n + 1 if before else 1
    counters = add_counters(before.counters if before else {}, commit, decision)
    others, size = _others_in(decision), _size_of(decision)
    facts = fields = state = n
    if before is not None and not decision.created:
        others, size = others + before.others, size + before.size
        facts, fields, state = before.facts, before.fields, before.state
        for change in commit.changes:
            if isinstance(change, Seal):
                facts = fields = state = n
            elif isinstance(change, PatchSession):
                facts = fields = n
                state = state if change.state is None else n
            elif isinstance(change, SetDeleted):
                facts = n
    return LogHead(decision.head, n, facts, fields, state, others, size, counters)


class Heads:
    """Heads as this process last saw them: guesses, which a write proves or disproves."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._seen: OrderedDict[SessionKey, LogHead] = OrderedDict()

    def guess(self, key: SessionKey) -> LogHead | None:
        return self._seen.get(key)

    def note(self, key: SessionKey, log: LogHead) -> None:
        """Unless more is known: an answer may come late. Numbers go on in another incarnation."""
        known = self._seen.get(key)
        if known is not None and known.n > log.n:
            return
        self._seen[key] = log
        if len(self._seen) > _MOST_HEADS:
            self._seen.popitem(last=False)

    def forget(self, key: SessionKey) -> None:
        self._seen.pop(key, None)

    async def read(self, key: SessionKey) -> LogHead | None:
        """As the storage has it."""
        query = {"s": shard_key(key), "n": {"$gt": 0}}
        known = self._seen.get(key)
        document = await self._layout.commits.find_one(query, HEAD_FIELDS, sort=[("n", -1)], hint="by_number")
        if known is self._seen.get(key) and (document is None or (known is not None and known.n > document["n"])):
            # nobody was faster: the server has lost what it had
            self.forget(key)
        return None if document is None else self.saw(key, document)

    def saw(self, key: SessionKey, document: Mapping[str, Any]) -> LogHead:
        """Note the last document of a log, which somebody read."""
        known = self._seen.get(key)
        if known is not None and known.n == document["n"] and known.head.incarnation == document["i"]:
            return known
        log = log_head_of(document, key)
        self.note(key, log)
        return log

    async def keeps(self, head: Head) -> bool:
        """Whether nothing of a log was erased up to now: who reads rows behind its head may ask afterwards."""
        now = await self.read(head.key)
        return now is not None and not now.head.erased and now.head.incarnation == head.incarnation
