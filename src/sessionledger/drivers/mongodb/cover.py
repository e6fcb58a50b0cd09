"""Documents that cover a stretch of something dense: of positions, or of seqs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil
from typing import Any, Final

from sessionledger.drivers.mongodb.heads import LogHead
from sessionledger.drivers.mongodb.layout import shard_key

__all__ = ["Cover", "ends_with", "first_position", "first_seq", "of_log", "read_some", "with_end"]

_BATCH: Final = 256  #: documents of one answer, where it is not known how large they are
_LOOK: Final = 64  #: documents behind which their size is looked at: as large as they get, one answer has no more
_BY_NUMBER: Final = "by_number"
_INDEXES: Final = {"l": "by_position", "q": "by_run"}
_SLACK: Final = 4  #: documents' worth of places behind a stretch, whose end may lie inside a document


def of_log(log: LogHead) -> dict[str, Any]:
    """Which documents are of this log, and of this incarnation."""
    return {"s": shard_key(log.head.key), "i": log.head.incarnation}


def first_position(document: Mapping[str, Any]) -> int:
    first: int = document["f"]
    return first


def first_seq(document: Mapping[str, Any]) -> int:
    first: int = min(entry["q"] for entry in document["r"] if entry["v"] == 1)
    return first


class Cover:
    """`last` is the field with the last place of a document, `first` tells its first one, `count` how many places there
    are in the whole log.
    """

    def __init__(
        self, commits: Any, log: LogHead, last: str, first: Any, count: int, fields: Mapping[str, Any]
    ) -> None:
        self._commits, self._log = commits, log
        self._last, self._first, self._fields = last, first, fields
        self._count = count
        self._each = max(1, -(-count // max(1, log.head.version)))  #: places of a document, on average
        self._ends: list[int] = []
        self._documents: dict[int, Mapping[str, Any]] = {}
        self.current = True  #: when it was read, the log still ended where it was known to

    def add(self, documents: Iterable[Mapping[str, Any]]) -> None:
        log = self._log
        for document in documents:
            if self._last in document and document["i"] == log.head.incarnation and document["n"] <= log.n:
                self._documents[document[self._last]] = document
        self._ends = sorted(self._documents)

    def renewed(self, log: LogHead) -> Cover:
        """What of it is under another head."""
        if log is self._log:
            return self
        cover = Cover(self._commits, log, self._last, self._first, self._count, self._fields)
        cover.add(self._documents.values())
        return cover

    def all(self) -> list[Mapping[str, Any]]:
        return [self._documents[end] for end in self._ends]

    def behind(self, place: int) -> Iterator[Mapping[str, Any]]:
        """The documents that were read, from that of a place on."""
        for index in range(bisect_left(self._ends, place), len(self._ends)):
            yield self._documents[self._ends[index]]

    def at(self, place: int) -> Mapping[str, Any] | None:
        """The document in which a place lies, if it was read."""
        index = bisect_left(self._ends, place)
        if index == len(self._ends):
            return None
        document = self._documents[self._ends[index]]
        return document if self._first(document) <= place else None

    def bounds(self, ranges: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """The condition for documents of some ranges."""
        here = of_log(self._log)
        # pieces of several ranges end where documents do, most of them
        slack = _SLACK * self._each if len(ranges) == 1 else 0
        asked = [{self._last: {"$gte": first, "$lte": last + slack}} for first, last in ranges]
        return {**here, **asked[0]} if len(asked) == 1 else {"$or": [{**here, **one} for one in asked]}

    async def fetch(self, ranges: Sequence[tuple[int, int]], *, max_bytes: int, reverse: bool) -> None:
        order = -1 if reverse else 1
        # the planner would try several indexes first
        cursor = self._commits.find(self.bounds(ranges), self._fields, hint=_INDEXES[self._last])
        cursor = cursor.sort(self._last, order)
        self.add(await read_some(cursor, max_bytes if len(ranges) == 1 else None))

    async def fetch_with_head(self, number: int, places: int, max_bytes: int) -> None:
        """The documents from a number on; `current` tells whether the log went on."""
        log = self._log
        last = number + ceil(places / log.density)
        asked = with_end(log, {"s": shard_key(log.head.key), "n": {"$gte": number, "$lte": last}})
        cursor = self._commits.find(asked, self._fields, hint=_BY_NUMBER)
        found = await read_some(cursor, max_bytes, batch=min(_BATCH, last - number + 4))
        self.add(found)
        self.current = ends_with(log, found)

    async def fetch_named(self, condition: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
        """The documents that fulfil a condition. They are not dense: whether some are missing, `current` tells."""
        asked = with_end(self._log, {**of_log(self._log), **condition})
        found = await self._commits.find(asked, fields).to_list(None)
        self.add(found)
        self.current = ends_with(self._log, found)

    async def find(self, place: int, end: int) -> Mapping[str, Any] | None:
        """The document of a place that was not read yet, and some behind it; None where the log does not have it."""
        here = of_log(self._log)
        many = min(_BATCH, (end - place) // self._each + 1)
        asked = {**here, self._last: {"$gte": place}}
        cursor = self._commits.find(asked, self._fields, hint=_INDEXES[self._last])
        self.add(await cursor.sort(self._last, 1).limit(many).to_list(None))
        return self.at(place)


def with_end(log: LogHead, *asked: Mapping[str, Any]) -> dict[str, Any]:
    """Some documents, and those that tell whether the log still ends where it was known to."""
    return {"$or": [*asked, {"s": shard_key(log.head.key), "n": {"$in": [log.n, log.n + 1]}}]}


def ends_with(log: LogHead, found: Iterable[Mapping[str, Any]]) -> bool:
    """What those tell."""
    incarnations = {document["n"]: document["i"] for document in found}
    return incarnations.get(log.n) == log.head.incarnation and log.n + 1 not in incarnations


async def read_some(cursor: Any, max_bytes: int | None, *, batch: int = _BATCH) -> list[Mapping[str, Any]]:
    """What a cursor brings, up to the document that brings its bodies to `max_bytes`, or a few more."""
    found: list[Mapping[str, Any]] = []
    size = 0
    cursor = cursor.batch_size(batch)
    while True:
        some = await cursor.to_list(_LOOK)
        found += some
        if len(some) < _LOOK:
            return found
        if max_bytes is not None:
            size += sum(map(_size, some))
            if size >= max_bytes:
                await cursor.close()
                return found


def _size(document: Mapping[str, Any]) -> int:
    return sum(map(len, document["m"] if "m" in document else document.get("b", ())))
