"""Rows of runs, put together from the documents that stored them and those that patched them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, Final

import msgspec

from sessionledger.drivers.mongodb.blobs import Blobs, MissingPartError, size_of
from sessionledger.drivers.mongodb.cover import Cover, first_seq, of_log, read_some
from sessionledger.drivers.mongodb.decoding import patched, run_of
from sessionledger.drivers.mongodb.encoding import put_key
from sessionledger.drivers.mongodb.heads import USUAL, Heads, LogHead
from sessionledger.drivers.mongodb.layout import Layout, shard_key
from sessionledger.drivers.mongodb.pages import clipped
from sessionledger.drivers.mongodb.reader import changing, unless_erased
from sessionledger.protocol.rows import OPEN_STATUSES, RunPage, RunQuery, RunRow

__all__ = ["RunReader", "fitting", "is_open"]

_ATTEMPTS: Final = 20  #: while the session changes under the reader
_LEAN: Final = {"_id": 0, "i": 1, "n": 1, "q": 1, "r": 1}
_WHOLE: Final = {**_LEAN, "b": 1}
_PATCHES: Final = {"_id": 0, "s": 1, "n": 1, "p": 1}


class RunReader:
    def __init__(self, layout: Layout, heads: Heads, blobs: Blobs) -> None:
        self._layout, self._heads, self._blobs = layout, heads, blobs

    async def runs(self, query: RunQuery) -> RunPage:
        if USUAL in query.plain and query.run_id is None and not (query.bodies or query.reverse):
            page = await self._other_than_plain(query)
            if page is not None:
                return page
        log, cover = await self._begin(query)
        for _ in range(_ATTEMPTS):
            if log is None or cover is None or log.head.erased:
                return RunPage(log.head if log else None, (), False)
            page = await unless_erased(self._heads, log.head, self._page(query, log, cover))
            if page is not None:
                return page
            log, cover = await self._behind_its_head(query)
        raise changing()

    async def _begin(self, query: RunQuery) -> tuple[LogHead | None, Cover | None]:
        """A head, and documents that are those of the page unless somebody writes at this moment."""
        guess = self._heads.guess(query.key)
        if guess is None:
            return await self._behind_its_head(query)
        if query.run_id is not None:
            cover = await self._fetch(query, guess)
            return (guess, cover) if cover.current else await self._behind_its_head(query)
        log, cover = await asyncio.gather(self._heads.read(query.key), self._fetch(query, guess))
        if log is not None and log.head.has_hidden is not guess.head.has_hidden:
            # other fields are wanted
            return log, await self._fetch(query, log)
        return log, cover.renewed(log) if log else None

    async def _behind_its_head(self, query: RunQuery) -> tuple[LogHead | None, Cover | None]:
        log = await self._heads.read(query.key)
        return log, await self._fetch(query, log) if log else None

    async def _other_than_plain(self, query: RunQuery) -> RunPage | None:
        """None of a session with revisions. Only runs that were stored open are ever patched."""
        for _ in range(_ATTEMPTS):
            log = await self._heads.read(query.key)
            if log is None or log.head.erased:
                return RunPage(log.head if log else None, (), False)
            if log.head.has_hidden:
                return None
            if not (log.others and _seqs(query, log)):
                return RunPage(log.head, (), False)
            page = await self._others_at(query, log)
            if await self._heads.keeps(log.head):
                return page
        raise changing()

    async def _others_at(self, query: RunQuery, log: LogHead) -> RunPage:
        ((first, last),) = _seqs(query, log)
        asked = {**of_log(log), "z": {"$gte": first}, "n": {"$lte": log.n}}
        cursor = self._layout.commits.find(asked, {**_LEAN, "z": 1}, hint="by_other_run").sort("z", 1)
        found = await cursor.limit(query.limit + 1).to_list(None)
        rows = [row for document in found for row in _rows(document, log) if first <= row.seq <= last]
        page = await self.with_patches([(log, row) for row in rows[: query.limit]], bodies=False)
        more = len(rows) > query.limit or (len(found) > query.limit and found[-1]["z"] <= last)
        return RunPage(log.head, page, more)

    async def _fetch(self, query: RunQuery, log: LogHead) -> Cover:
        # where runs were stored more than once, bodies are read once it is known of which
        fields = _WHOLE if query.bodies and not log.head.has_hidden else _LEAN
        cover = Cover(self._layout.commits, log, "q", first_seq, log.head.run_count, fields)
        if query.run_id is not None:
            await cover.fetch_named({"op": put_key(query.run_id, 1)}, fields)
            return cover
        ranges = clipped(_seqs(query, log), query.limit, reverse=query.reverse)
        if ranges:
            await cover.fetch(ranges, max_bytes=query.max_bytes, reverse=query.reverse)
        return cover

    async def _page(self, query: RunQuery, log: LogHead, cover: Cover) -> RunPage | None:
        """None where the documents are not those of the head."""
        if not (cover.current or await self._heads.keeps(log.head)):
            return None
        found = self._named(query, log, cover) if query.run_id is not None else await self._dense(query, log, cover)
        if found is None:
            return None
        rows = found[: query.limit]
        was_open = any(is_open(row) for row in rows)
        more = len(found) > query.limit or self._goes_on(query, log, rows)
        if log.head.has_hidden and rows:
            later = await self._later_ones(log, rows)
            found = sorted([*rows, *later], key=_order, reverse=query.reverse)
            more = more or len(found) > query.limit
            rows = found[: query.limit]
            if query.bodies:
                rows = await self._with_bodies(log, rows, query.max_bytes)
                more = more or len(rows) < min(len(found), query.limit)
        rows = await self.with_patches([(log, row) for row in rows], bodies=query.bodies)
        if rows and (log.head.has_hidden or was_open) and not await self._heads.keeps(log.head):
            return None
        if query.bodies:
            count = fitting(rows, query.max_bytes)
            more = more or count < len(rows)
            rows = [await self.loaded(shard_key(query.key), row) for row in rows[:count]]
        return RunPage(log.head, rows, more)

    def _named(self, query: RunQuery, log: LogHead, cover: Cover) -> list[RunRow]:
        rows = [row for document in cover.all() for row in _rows(document, log)]
        return [row for row in rows if row.run_id == query.run_id and query.first_seq <= row.seq <= query.last_seq]

    async def _dense(self, query: RunQuery, log: LogHead, cover: Cover) -> list[RunRow] | None:
        rows: list[RunRow] = []
        for first, last in clipped(_seqs(query, log), query.limit, reverse=query.reverse):
            seqs = range(last, first - 1, -1) if query.reverse else range(first, last + 1)
            held: Mapping[str, Any] | None = None
            by_seq: dict[int, RunRow] = {}
            size = 0
            for seq in seqs:
                document = cover.at(seq) or await cover.find(seq, seq if query.reverse else last)
                if document is None:
                    return None
                if document is not held:
                    held, by_seq = document, {row.seq: row for row in _rows(document, log)}
                rows.append(by_seq[seq])
                size += size_of(by_seq[seq].body)
                if size >= query.max_bytes:
                    return rows
        return rows

    def _goes_on(self, query: RunQuery, log: LogHead, rows: Sequence[RunRow]) -> bool:
        """Whether there are seqs behind these rows."""
        if query.run_id is not None or not rows:
            return False
        ((first, last),) = _seqs(query, log)
        return rows[-1].seq > first if query.reverse else rows[-1].seq < last

    async def _later_ones(self, log: LogHead, rows: Sequence[RunRow]) -> list[RunRow]:
        """The later revisions of the runs."""
        seqs = {row.seq for row in rows}
        asked = {**of_log(log), "hq": {"$gte": min(seqs), "$lte": max(seqs)}, "n": {"$lte": log.n}}
        found = await self._layout.commits.find(asked, _LEAN).to_list(None)
        rows = [row for document in found for row in _rows(document, log, first=False)]
        return [row for row in rows if row.seq in seqs]

    async def _with_bodies(self, log: LogHead, rows: Sequence[RunRow], max_bytes: int) -> list[RunRow]:
        """Up to the row that brings them to the bound."""
        whole: list[RunRow] = []
        size = 0
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            numbers = sorted({row.version + log.base for row in some})
            asked = {"s": shard_key(log.head.key), "n": {"$in": numbers}}
            found = await read_some(self._layout.commits.find(asked, _WHOLE), None)
            bodies = {
                (entry["q"], entry["v"]): body
                for document in found
                for entry, body in zip(document.get("r", ()), document.get("b", ()), strict=False)
            }
            for row in some:
                if (row.seq, row.revision) not in bodies:
                    raise MissingPartError("a run is missing: restore the collection of commits from a backup")
                body = bodies[row.seq, row.revision]
                whole.append(msgspec.structs.replace(row, body=body))
                size += size_of(body)
                if size >= max_bytes:
                    return whole
        return whole

    async def with_patches(self, rows: Sequence[tuple[LogHead, RunRow]], *, bodies: bool) -> list[RunRow]:
        """The runs as they are now: those that were stored open may have been patched."""
        wanted: dict[tuple[str, int], tuple[LogHead, list[int]]] = {}
        for log, row in rows:
            if is_open(row):
                here = of_log(log)
                wanted.setdefault((here["s"], here["i"]), (log, []))[1].append(row.seq)
        if not wanted:
            return [row for _, row in rows]
        asked = [{**of_log(log), "pq": {"$in": seqs}, "n": {"$lte": log.n}} for log, seqs in wanted.values()]
        fields = {**_PATCHES, "pt": 1} if bodies else _PATCHES
        query = asked[0] if len(asked) == 1 else {"$or": asked}
        found = await self._layout.commits.find(query, fields).sort([("s", 1), ("n", 1)]).to_list(None)
        patches: dict[tuple[str, int, int], list[tuple[Mapping[str, Any], Sequence[Any]]]] = {}
        for document in found:
            for entry, parts in zip(document["p"], document.get("pt", repeat(())), strict=False):
                patches.setdefault((document["s"], entry["q"], entry["v"]), []).append((entry, parts))
        named = [((shard_key(log.head.key), row.seq, row.revision), row) for log, row in rows]
        return [patched(row, patches[name]) if name in patches else row for name, row in named]

    async def loaded(self, shard: str, row: RunRow) -> RunRow:
        """With its body and parts, wherever they are."""
        if isinstance(row.body, dict):
            row = msgspec.structs.replace(row, body=await self._blobs.load(shard, row.body))
        if any(isinstance(body, dict) for body in row.parts.values()):
            parts = {name: await self._blobs.load(shard, body) for name, body in row.parts.items()}
            row = msgspec.structs.replace(row, parts=parts)
        return row


_AT_ONCE: Final = 32  #: documents whose bodies are read together


def is_open(row: RunRow) -> bool:
    """Whether it may have been patched, going by how it was stored."""
    return row.header.status in OPEN_STATUSES


def fitting(rows: Sequence[RunRow], max_bytes: int) -> int:
    """How many of these make a page: up to the one that brings it to its bytes."""
    size = 0
    for count, row in enumerate(rows, 1):
        size += size_of(row.body) + sum(map(size_of, row.parts.values()))
        if size >= max_bytes:
            return count
    return len(rows)


def _rows(document: Mapping[str, Any], log: LogHead, *, first: bool = True) -> Iterable[RunRow]:
    """The runs that a document stores for the first time, or, without `first`, anew."""
    for entry, body in zip(document.get("r", ()), document.get("b", repeat("")), strict=False):
        if (entry["v"] == 1) == first:
            yield run_of(entry, body, document["n"] - log.base)


def _order(row: RunRow) -> tuple[int, int]:
    return row.seq, row.revision


def _seqs(query: RunQuery, log: LogHead) -> list[tuple[int, int]]:
    """As a list of one range, or of none."""
    base = log.head.fork.run_seq if log.head.fork else 0
    first, last = max(query.first_seq, base + 1), min(query.last_seq, log.head.run_count)
    return [(first, last)] if first <= last else []
