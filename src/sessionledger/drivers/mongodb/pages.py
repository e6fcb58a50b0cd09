"""Pages of a session's messages and runs, from the documents of its log."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple

import msgspec

from sessionledger.drivers.mongodb.blobs import Blobs, size_of
from sessionledger.drivers.mongodb.cover import Cover, first_position
from sessionledger.drivers.mongodb.encoding import id_number
from sessionledger.drivers.mongodb.heads import HEAD_FIELDS, Heads, LogHead
from sessionledger.drivers.mongodb.layout import Layout, shard_key
from sessionledger.drivers.mongodb.outlines import Entry, Outline, outline_of
from sessionledger.drivers.mongodb.reader import changing, unless_erased
from sessionledger.protocol.rows import LAST, MessagePage, MessageQuery, MessageRow, SessionKey

__all__ = ["MessageReader", "clipped"]

_ATTEMPTS: Final = 20  #: while the session changes under the reader
_MOST_PLACES: Final = 8192
_FIELDS: Final = {"_id": 0, "i": 1, "n": 1, "f": 1, "l": 1, "m": 1, "t": 1, "ck": 1}


class MessageReader:
    def __init__(self, layout: Layout, heads: Heads, blobs: Blobs) -> None:
        self._layout, self._heads, self._blobs = layout, heads, blobs
        self._places = _Places()

    async def messages(self, query: MessageQuery) -> MessagePage:
        log, cover = await self._begin(query)
        for _ in range(_ATTEMPTS):
            if log is None or log.head.erased:
                return MessagePage(log.head if log else None, (), {}, False)
            page = await unless_erased(self._heads, log.head, self._page(query, log, cover))
            if page is not None:
                return page
            log, cover = await self._behind_its_head(query)
        raise changing()

    async def _behind_its_head(self, query: MessageQuery) -> tuple[LogHead | None, Cover | None]:
        log = await self._heads.read(query.key)
        return log, await self._fetch(query, log) if log else None

    async def _begin(self, query: MessageQuery) -> tuple[LogHead | None, Cover | None]:
        """A head, and documents that are those of the page unless somebody writes at this moment."""
        guess = self._heads.guess(query.key)
        if guess is None or guess.head.erased:
            return await self._behind_its_head(query)
        if query.message_id is not None:
            cover = await self._fetch(query, guess)
            return (guess, cover) if cover.current else await self._behind_its_head(query)
        if query.reverse and query.ranges[0][1] >= guess.head.message_count:
            return await self._end(query, guess)
        number = self._places.number_of(guess, query)
        if number:
            return await self._together(query, guess, number)
        log, cover = await asyncio.gather(self._heads.read(query.key), self._fetch(query, guess))
        return log, cover.renewed(log) if log else None

    async def _together(self, query: MessageQuery, guess: LogHead, number: int) -> tuple[LogHead | None, Cover | None]:
        """Head and documents by one query, where it is known at which number the documents begin."""
        cover = self._cover(guess)
        places = min(query.limit, query.ranges[0][1] - query.ranges[0][0] + 1, guess.fitting(query.max_bytes))
        await cover.fetch_with_head(number, places, query.max_bytes)
        log = guess if cover.current else await self._heads.read(query.key)
        return log, cover.renewed(log) if log else None

    async def _end(self, query: MessageQuery, guess: LogHead) -> tuple[LogHead | None, Cover | None]:
        """The last documents of a log, of which the very last is its head."""
        first, last = query.ranges[0]
        wanted = max(1, min(query.limit, last - first + 1, guess.head.message_count))
        each = max(1.0, guess.head.message_count / max(1, guess.head.version))
        cursor = self._layout.commits.find(
            {"s": shard_key(query.key), "n": {"$gt": 0}}, {**_FIELDS, **HEAD_FIELDS}, hint="by_number"
        ).sort("n", -1)
        found = await cursor.limit(min(128, int(wanted / each) + 1)).to_list(None)
        if not found:
            return None, None
        log = self._heads.saw(query.key, found[0])
        cover = self._cover(log)
        cover.add(found)
        return log, cover

    def _cover(self, log: LogHead) -> Cover:
        return Cover(self._layout.commits, log, "l", first_position, log.head.message_count, _FIELDS)

    async def _fetch(self, query: MessageQuery, log: LogHead) -> Cover:
        cover = self._cover(log)
        if query.message_id is not None:
            await cover.fetch_named({"g": id_number(query.message_id)}, {**_FIELDS, "g": 1})
            return cover
        # what is behind a guessed head is there by now, or is not asked for
        ranges = clipped(_within(query.ranges, log, open_end=not query.reverse), query.limit, reverse=query.reverse)
        if ranges:
            await cover.fetch(ranges, max_bytes=query.max_bytes, reverse=query.reverse)
        return cover

    async def _page(self, query: MessageQuery, log: LogHead, cover: Cover | None) -> MessagePage | None:
        """None where the documents are not those of the head."""
        assert cover is not None
        page = _Page(query)
        ranges = _within(query.ranges, log)
        if query.message_id is not None:
            if not (cover.current or await self._heads.keeps(log.head)):
                return None
            await self._named(page, ranges, cover.all(), id_number(query.message_id))
        elif not await self._dense(page, ranges, cover):
            return None
        rows = await self._with_bodies(page) if page.elsewhere else page.rows
        if page.more and not query.reverse:
            self._places.note(log, page.rows[-1].position + 1, cover)
        return MessagePage(log.head, rows, page.run_ids, page.more)

    async def _with_bodies(self, page: _Page) -> list[MessageRow]:
        return [
            msgspec.structs.replace(row, body=await self._blobs.load(page.shard, row.body))
            if isinstance(row.body, dict)
            else row
            for row in page.rows
        ]

    async def _dense(self, page: _Page, ranges: Sequence[tuple[int, int]], cover: Cover) -> bool:
        """Every position of the ranges. False when the log does not have one."""
        for first, last in ranges:
            at = last if page.reverse else page.take_whole(cover, first, last)
            while first <= at <= last:
                if page.full:
                    page.more = True
                    return True
                document = cover.at(at) or await cover.find(at, at if page.reverse else last)
                if document is None:
                    return False
                stretch = await self._stretch(page.shard, document, at)
                if page.reverse:
                    at = page.take(stretch, max(first, stretch.first), at)
                else:
                    at = page.take(stretch, at, min(last, stretch.last))
        return True

    async def _named(
        self, page: _Page, ranges: Sequence[tuple[int, int]], documents: Iterable[Mapping[str, Any]], number: int
    ) -> None:
        places: list[tuple[int, _Stretch]] = []
        for document in documents:
            if number not in document.get("g", ()):
                continue
            at = document["f"]
            while at <= document["l"]:
                stretch = await self._stretch(page.shard, document, at)
                for position, message_id in enumerate(stretch.outline.ids, stretch.first):
                    if message_id == page.message_id:
                        places.append((position, stretch))
                at = stretch.last + 1
        for first, last in ranges:
            inside = [found for found in places if first <= found[0] <= last]
            for position, stretch in inside[:: -1 if page.reverse else 1]:
                if page.full:
                    page.more = True
                    return
                page.take(stretch, position, position)

    async def _stretch(self, shard: str, document: Mapping[str, Any], at: int) -> _Stretch:
        """The messages of a document, or the portion of them in which a position lies."""
        outline = outline_of(document)
        if "m" in document:
            return _Stretch(document["f"], outline.entries, outline, document["m"])
        chunks = document["ck"]
        number = bisect_right(chunks["o"], at - document["f"]) - 1
        portion = await self._blobs.portion(shard, chunks, number)
        return _Stretch(document["f"] + chunks["o"][number], outline.entries, outline_of(portion), portion["m"])


class _Places:
    """At which numbers the pages begin that are likely to be asked for: a session's first, and those behind others."""

    def __init__(self) -> None:
        self._numbers: OrderedDict[tuple[SessionKey, int, int], int] = OrderedDict()

    def note(self, log: LogHead, position: int, cover: Cover) -> None:
        """A page has ended before this position."""
        within, before = cover.at(position), cover.at(position - 1)
        number = within["n"] if within is not None else before["n"] + 1 if before is not None else 0
        self._numbers[log.head.key, log.head.incarnation, position] = number
        if len(self._numbers) > _MOST_PLACES:
            self._numbers.popitem(last=False)

    def number_of(self, log: LogHead, query: MessageQuery) -> int:
        """0 where it is not known."""
        if query.reverse or query.message_id is not None or len(query.ranges) > 1:
            return 0
        first = query.ranges[0][0]
        if first <= log.shared + 1:
            return log.base + 1
        return self._numbers.get((log.head.key, log.head.incarnation, first), 0)


class _Stretch(NamedTuple):
    first: int
    entries: Sequence[Entry]  #: of the whole document
    outline: Outline
    bodies: Sequence[Any]

    @property
    def last(self) -> int:
        return self.first + len(self.bodies) - 1


class _Page:
    """A page in the making."""

    def __init__(self, query: MessageQuery) -> None:
        self.reverse, self.message_id = query.reverse, query.message_id
        self.shard = shard_key(query.key)
        self._limit, self._max_bytes = query.limit, query.max_bytes
        self.rows: list[MessageRow] = []
        self.run_ids: dict[int, str] = {}
        self.more = False
        self.elsewhere = False  #: a body is kept apart
        self._size = 0

    @property
    def full(self) -> bool:
        return len(self.rows) >= self._limit or self._size >= self._max_bytes

    def take_whole(self, cover: Cover, at: int, last: int) -> int:
        """From a position on, documents that have one run, and room here: most have. The place behind them."""
        rows, room = self.rows, self._limit - len(self.rows)
        for document in cover.behind(at):
            if document["f"] != at or document["l"] > last or "ck" in document:
                break
            outline, bodies = outline_of(document), document["m"]
            entry, count = outline.entries[0], len(bodies)
            size = self._size + sum(map(len, bodies))
            room -= count
            if entry.count < count or outline.elsewhere or room < 0 or size >= self._max_bytes:
                break
            rows += map(
                _make_row,
                outline.ids or _NOBODY,
                outline.times,
                bodies,
                range(count) if entry.numbers == 0 else entry.indexes(at, at + count - 1),
                range(at, at + count),
                repeat(entry.run_seq),
                repeat(entry.revision),
            )
            self.run_ids[entry.run_seq] = entry.run_id
            self._size, at = size, at + count
        return at

    def take(self, stretch: _Stretch, low: int, high: int) -> int:
        """Positions `low` to `high` of a stretch, as far as the page has room; the place behind them."""
        self.elsewhere = self.elsewhere or stretch.outline.elsewhere
        for entry in stretch.entries[::-1] if self.reverse else stretch.entries:
            first, last = max(low, entry.first), min(high, entry.last)
            if first > last:
                continue
            taken = self._fitting(stretch, first, last)
            self.run_ids[entry.run_seq] = entry.run_id
            if self.reverse:
                self._add(entry, stretch, last - taken + 1, last)
                if taken <= last - first:
                    return last - taken
            else:
                self._add(entry, stretch, first, first + taken - 1)
                if taken <= last - first:
                    return first + taken
        return low - 1 if self.reverse else high + 1

    def _fitting(self, stretch: _Stretch, first: int, last: int) -> int:
        """How many of these the page has room for, from its side; it is as full then."""
        bodies = stretch.bodies[first - stretch.first : last - stretch.first + 1]
        room = self._limit - len(self.rows)
        count = 0
        for body in bodies[::-1] if self.reverse else bodies:
            if count == room or self._size >= self._max_bytes:
                break
            self._size += size_of(body)
            count += 1
        return count

    def _add(self, entry: Entry, stretch: _Stretch, first: int, last: int) -> None:
        low, high = first - stretch.first, last - stretch.first + 1
        outline = stretch.outline
        numbers = entry.indexes(first, last)
        seq, revision = entry.run_seq, entry.revision
        rows = map(
            _make_row,
            outline.ids[low:high] or _NOBODY,
            outline.times[low:high],
            stretch.bodies[low:high],
            numbers,
            range(first, last + 1),
            repeat(seq),
            repeat(revision),
        )
        self.rows += list(rows)[::-1] if self.reverse else rows


_make_row: Callable[..., MessageRow] = MessageRow
_NOBODY: Final = repeat(None)  #: the ids of messages that have none


def _within(ranges: Sequence[tuple[int, int]], log: LogHead, *, open_end: bool = False) -> list[tuple[int, int]]:
    """The ranges as far as the session has positions; `open_end`: it may have more by now."""
    end = LAST if open_end else log.head.message_count
    bounded = [(max(first, log.shared + 1), min(last, end)) for first, last in ranges]
    return [(first, last) for first, last in bounded if first <= last]


def clipped(ranges: Sequence[tuple[int, int]], limit: int, *, reverse: bool) -> list[tuple[int, int]]:
    """What of the ranges a page of so many places needs."""
    wanted: list[tuple[int, int]] = []
    for first, last in ranges:
        if limit <= 0:
            break
        first, last = (max(first, last - limit + 1), last) if reverse else (first, min(last, first + limit - 1))
        wanted.append((first, last))
        limit -= last - first + 1
    return wanted
