"""Reads of one session.

A document of the log never changes what it says of messages and runs, so head and rows are of one instant when the rows
are those up to the head's number. Positions and seqs are dense: rows that are missing under a head are noticed, and
read again behind it. So a page and its head are asked for at the same time, once a session is known.

What is not dense does not tell whether a part of it was erased. It is asked for together with the end of the log, or
the head is read again behind it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from sessionledger.drivers.mongodb.blobs import Blobs, MissingPartError
from sessionledger.drivers.mongodb.cover import ends_with, of_log, with_end
from sessionledger.drivers.mongodb.decoding import (
    hidden_of,
    session_header_of,
    shown_of,
    switches_of,
)
from sessionledger.drivers.mongodb.heads import HEAD_FIELDS, Heads, LogHead
from sessionledger.drivers.mongodb.layout import Layout, shard_key
from sessionledger.errors import UnavailableError
from sessionledger.protocol.filters import is_asked_for
from sessionledger.protocol.rows import (
    Head,
    HiddenPage,
    HiddenQuery,
    HiddenRow,
    SessionKey,
    SessionRow,
    SwitchPage,
    SwitchQuery,
    SwitchRow,
)

__all__ = ["Reader", "changing", "unless_erased"]

T = TypeVar("T")

_ATTEMPTS: Final = 20  #: while the session changes under the reader
_SESSION: Final = {**HEAD_FIELDS, "sf": 1}
_HIDING: Final = {"_id": 0, "i": 1, "n": 1, "o": 1, "hi": 1, "sh": 1}


class Reader:
    def __init__(self, layout: Layout, heads: Heads, blobs: Blobs) -> None:
        self._layout, self._heads, self._blobs = layout, heads, blobs

    # the session itself

    async def session(self, key: SessionKey, *, state: bool) -> SessionRow | None:
        log = self._heads.guess(key)
        for _ in range(_ATTEMPTS):
            log = log or await self._heads.read(key)
            if log is None:
                return None
            row = await self._session_at(log, state=state)
            if row is not None:
                return row
            log = None
        raise changing()

    async def _session_at(self, log: LogHead, *, state: bool) -> SessionRow | None:
        """None when the log has gone on: its next document is there, or what it named is not."""
        fields = {**_SESSION, "ss": 1} if state else _SESSION
        numbers = {log.n, log.n + 1, log.fields, log.state if state else log.fields}
        shard = shard_key(log.head.key)
        query = {"s": shard, "n": {"$in": sorted(numbers)}}
        found = {
            row["n"]: row for row in await self._layout.commits.find(query, fields, hint="by_number").to_list(None)
        }
        last = found.get(log.n)
        if log.n + 1 in found or last is None or last["i"] != log.head.incarnation:
            return None
        header = found.get(log.fields, {}).get("sf")
        stored = found.get(log.state, {}).get("ss") if state else None
        if header is None or (state and stored is None):
            return None
        try:
            loaded = await self._blobs.load(shard, stored) if state else None
            body = await self._blobs.load(shard, header["body"])
        except MissingPartError:
            if await self._names_the_same(log):
                raise
            return None
        return SessionRow(log.head, session_header_of(header, body), loaded, log.counters)

    async def _names_the_same(self, log: LogHead) -> bool:
        """Whether fields and state were not replaced: their pieces go with them."""
        now = await self._heads.read(log.head.key)
        return now is not None and (now.fields, now.state) == (log.fields, log.state)

    # what is hidden, and switches

    async def hidden(self, query: HiddenQuery) -> HiddenPage:
        for _ in range(_ATTEMPTS):
            log = await self._heads.read(query.key)
            if log is None or log.head.erased:
                return HiddenPage(log.head if log else None, ())
            rows = await self._hidden_at(query, log)
            if rows is not None:
                return HiddenPage(log.head, rows)
        raise changing()

    async def _hidden_at(self, query: HiddenQuery, log: LogHead) -> list[HiddenRow] | None:
        """None when the log was erased meanwhile."""
        low, high = query.runs
        here = of_log(log)
        # revisions hide one run each, and are found by it; all else is looked through
        asked = with_end(log, {**here, "k": {"$in": ["h", "s"]}}, {**here, "hq": {"$gte": low, "$lte": high}})
        found = await self._layout.commits.find(asked, _HIDING).to_list(None)
        if not (ends_with(log, found) or await self._heads.keeps(log.head)):
            return None
        return _hidden_rows(sorted(found, key=_number), log, query)

    async def switches(self, query: SwitchQuery) -> SwitchPage:
        for _ in range(_ATTEMPTS):
            log = await self._heads.read(query.key)
            if log is None or log.head.erased:
                return SwitchPage(log.head if log else None, (), False)
            page = await unless_erased(self._heads, log.head, self._switches_at(query, log))
            if page is not None and await self._heads.keeps(log.head):
                return page
        raise changing()

    async def _switches_at(self, query: SwitchQuery, log: LogHead) -> SwitchPage:
        first, last = log.base + query.first_version, min(log.base + query.last_version, log.n)
        asked = {**of_log(log), "k": "w", "n": {"$gte": first, "$lte": last}}
        cursor = self._layout.commits.find(asked, {"_id": 0, "n": 1, "w": 1})
        found = await cursor.sort("n", -1 if query.reverse else 1).limit(query.limit + 1).to_list(None)
        rows: list[SwitchRow] = []
        for document in found:
            rows += switches_of(document, document["n"] - log.base)[:: -1 if query.reverse else 1]
        more = len(rows) > query.limit
        loaded = await self._with_reasons(shard_key(query.key), rows[: query.limit])
        return SwitchPage(log.head, loaded, more)

    async def _with_reasons(self, shard: str, rows: Sequence[SwitchRow]) -> list[SwitchRow]:
        return [
            msgspec.structs.replace(row, reason=await self._blobs.load(shard, row.reason))
            if isinstance(row.reason, dict)
            else row
            for row in rows
        ]


async def unless_erased(heads: Heads, head: Head, read: Awaitable[T]) -> T | None:
    """What is read behind a head; None where a part of it is missing because the log was erased meanwhile."""
    try:
        return await read
    except MissingPartError:
        if await heads.keeps(head):
            raise
        return None


def changing() -> UnavailableError:
    return UnavailableError("the session changes faster than it is read: try again", driver="mongodb")


def _hidden_rows(documents: Iterable[Mapping[str, Any]], log: LogHead, query: HiddenQuery) -> list[HiddenRow]:
    rows: list[HiddenRow] = []
    for document in documents:
        version = document["n"] - log.base
        if document["n"] > log.n:
            break
        rows += hidden_of(document, version)
        for hide_id in shown_of(document):
            rows = [_ended(row, version) if row.hide_id == hide_id else row for row in rows]
    return [row for row in rows if is_asked_for(row, query)]


def _number(document: Mapping[str, Any]) -> int:
    number: int = document["n"]
    return number


def _ended(row: HiddenRow, version: int) -> HiddenRow:
    if row.revision is not None or row.until is not None:
        return row
    return msgspec.structs.replace(row, until=version)
