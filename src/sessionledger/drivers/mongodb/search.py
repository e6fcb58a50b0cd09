"""Reads across sessions: their list, and runs by what they are. Indexes find candidates, the log says what they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from sessionledger.drivers.mongodb.client import aggregate
from sessionledger.drivers.mongodb.cover import of_log
from sessionledger.drivers.mongodb.decoding import run_of
from sessionledger.drivers.mongodb.heads import HEAD_FIELDS, USUAL, Heads, LogHead
from sessionledger.drivers.mongodb.lasting import Lasting
from sessionledger.drivers.mongodb.layout import Layout, shard_key
from sessionledger.drivers.mongodb.reader import changing, unless_erased
from sessionledger.drivers.mongodb.register import Register, listed_header
from sessionledger.drivers.mongodb.runs import RunReader, fitting, is_open
from sessionledger.protocol.filters import asks_for_open_alone, has_fields, is_found, is_searched
from sessionledger.protocol.rows import (
    OPEN_STATUSES,
    FoundRuns,
    Head,
    RunRow,
    RunSearch,
    SessionHeader,
    SessionKey,
    SessionPage,
    SessionQuery,
    SessionRow,
)

__all__ = ["Search"]

_ATTEMPTS: Final = 20  #: while sessions are erased under the search
_LEAST: Final = 32  #: candidates that are looked at together
_EVER: Final = -(2**63)

Place = tuple[str, int, int]  #: of a run: its session's shard key, its document's number, its number therein
_FIRST: Final = -1  #: instead of a number: before all of a document's runs
_LAST: Final = 1 << 62  #: behind them


class _Candidate(NamedTuple):
    place: Place
    shard: str
    incarnation: int
    row: Mapping[str, Any]  #: the run's entry in its document
    body: Any


class Search:
    def __init__(self, layout: Layout, heads: Heads, register: Register, lasting: Lasting, runs: RunReader) -> None:
        self._layout, self._heads, self._register = layout, heads, register
        self._lasting, self._runs = lasting, runs

    # sessions

    async def sessions(self, query: SessionQuery) -> SessionPage:
        found: list[SessionRow] = []
        order = 1 if query.reverse else -1
        after = query.after
        while True:
            cursor = self._layout.commits.find(_session_filter(query, after))
            wanted = query.limit + 1 - len(found)
            rows = await cursor.sort([("active", order), ("session_id", order)]).limit(wanted).to_list(None)
            found += await self._listed(query, rows)
            if len(found) > query.limit or len(rows) < wanted:
                return SessionPage(found[: query.limit], len(found) > query.limit)
            after = rows[-1]["active"], rows[-1]["session_id"]

    async def _listed(self, query: SessionQuery, rows: Sequence[Mapping[str, Any]]) -> list[SessionRow]:
        """Those that are what the list is about, as their logs have them."""
        keys = [SessionKey(row["namespace"], row["session_id"]) for row in rows]
        logs = await self._heads_of(keys)
        found: list[SessionRow] = []
        for key, row in zip(keys, rows, strict=True):
            log = logs.get(key)
            if log is None:
                continue
            header = listed_header(row) if row["facts"] == log.facts else None
            if header is None:
                if row["facts"] < log.facts:
                    log = await self._register.repair(key)
                log, header = await self._with_header(key, log)
            if log is None or header is None or not has_fields(log.head, header, query):
                continue
            # the order of the list is the register's
            head = msgspec.structs.replace(log.head, last_activity_at=row["active"])
            found.append(SessionRow(head, header, None, {}))
        return found

    async def _with_header(self, key: SessionKey, log: LogHead | None) -> tuple[LogHead | None, SessionHeader | None]:
        for _ in range(_ATTEMPTS):
            header = await self._register.header(log) if log is not None else None
            if log is None or header is not None:
                return log, header
            log = await self._heads.read(key)
        raise changing()

    async def _heads_of(self, keys: Sequence[SessionKey]) -> dict[SessionKey, LogHead]:
        """Of many sessions at once: the last document of each, from the index."""
        if not keys:
            return {}
        by_shard = {shard_key(key): key for key in keys}
        newest = {name: {"$first": f"${name}"} for name in HEAD_FIELDS if name != "_id"}
        rows = await aggregate(
            self._layout.commits,
            [
                {"$match": {"s": {"$in": list(by_shard)}, "n": {"$gt": 0}}},
                {"$sort": {"s": -1, "n": -1}},
                {"$group": {"_id": "$s", **newest}},
            ],
        )
        heads: dict[SessionKey, LogHead] = {}
        for row in rows:
            key = by_shard[row["_id"]]
            fields = {name: value for name, value in row.items() if value is not None}
            heads[key] = self._heads.saw(key, fields)
        return heads

    # runs

    async def find_runs(self, search: RunSearch) -> FoundRuns:
        await self._settle()
        for _ in range(_ATTEMPTS):
            found = await self._found(search)
            if found is not None:
                return found
        raise changing()

    async def _found(self, search: RunSearch) -> FoundRuns | None:
        """None where one of the sessions was erased meanwhile."""
        after: Place | None = None if search.after is None else _decode_place(search.after)
        found: list[tuple[Head, RunRow, Place]] = []
        while True:
            candidates, ended = await self._candidates(search, after)
            found += await self._verified(search, candidates)
            if ended or len(found) > search.limit:
                break
            after = candidates[-1].place
        rows = [row for _, row, _ in found[: search.limit]]
        count = fitting(rows, search.max_bytes)
        page: list[tuple[Head, RunRow, str]] = []
        for head, row, at in found[:count]:
            loaded = await unless_erased(self._heads, head, self._runs.loaded(shard_key(head.key), row))
            if loaded is None:
                return None
            page.append((head, loaded, msgspec.json.encode(at).decode()))
        return FoundRuns(page, count < len(found))

    async def _settle(self) -> None:
        """Runs that were announced, and whose place nobody noted."""
        # all of them: the first ones may be of commits that never came
        async for row in self._layout.lasting.find({"open": True, "n": None}).batch_size(_LEAST):
            session_id, _, namespace = row["s"].partition("\0")
            log = await self._heads.read(SessionKey(namespace, session_id))
            if log is not None and log.head.incarnation == row["i"] and not log.head.erased:
                await self._lasting.repair(log, row["id"], row["v"])
            else:
                await self._lasting.drop_unless_new(row["_id"], row["s"])

    async def _candidates(self, search: RunSearch, after: Place | None) -> tuple[list[_Candidate], bool]:
        """In the order of their places; True when there are no more."""
        order = -1 if search.reverse else 1
        wanted = max(_LEAST, search.limit + 1)
        sort = [("s", order), ("n", order)]
        ended, lasting = _ended_filter(search), _lasting_filter(search)
        behind = _behind(after, reverse=search.reverse)
        rows: list[Any] = []
        ends: list[tuple[str, int]] = []
        if ended is not None:
            fields = {"_id": 0, "s": 1, "i": 1, "n": 1, "r": 1, "b": 1}
            found = await self._layout.commits.find({**ended, **behind}, fields).sort(sort).limit(wanted).to_list(None)
            rows += _candidates_of(found, search)
            ends += [(found[-1]["s"], found[-1]["n"])] if len(found) == wanted else []
        found = await self._layout.lasting.find({**lasting, **behind}).sort(sort).limit(wanted).to_list(None)
        if len(found) == wanted:
            ends.append((found[-1]["s"], found[-1]["n"]))
            found = await self._with_whole_end(lasting, found)
        rows += await self._entries(found)
        end = (max if search.reverse else min)(ends) if ends else None
        candidates = sorted(
            (row for row in rows if _inside(row.place, after, end, search.reverse)), reverse=search.reverse
        )
        if not candidates and end is not None:
            candidates = [_Candidate((*end, _FIRST if search.reverse else _LAST), "", 0, {}, "")]
        return candidates, end is None

    async def _with_whole_end(self, asked: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Entries that were cut off, with all of the last document's: a place is behind a document as a whole."""
        last = {"s": rows[-1]["s"], "n": rows[-1]["n"]}
        before = [row for row in rows if (row["s"], row["n"]) != (last["s"], last["n"])]
        return [*before, *await self._layout.lasting.find({"$and": [asked, last]}).to_list(None)]

    async def _entries(self, rows: Sequence[Mapping[str, Any]]) -> list[_Candidate]:
        """The runs that entries of the other collection stand for."""
        if not rows:
            return []
        asked = [{"s": row["s"], "n": row["n"]} for row in rows]
        wanted = {(row["s"], row["n"], row["id"], row["v"]) for row in rows}
        fields = {"_id": 0, "s": 1, "i": 1, "n": 1, "r": 1, "b": 1}
        found = await self._layout.commits.find({"$or": asked}, fields).to_list(None)
        return [
            candidate
            for document in found
            for candidate in _candidates_in(document)
            for entry in (candidate.row,)
            if (document["s"], document["n"], entry["id"], entry["v"]) in wanted
        ]

    async def _verified(self, search: RunSearch, candidates: Sequence[_Candidate]) -> list[tuple[Head, RunRow, Place]]:
        """Those that are in a session's present, and are what is searched for."""
        keys = {_key_of(one.shard) for one in candidates if one.row}
        logs = {shard_key(key): log for key, log in (await self._heads_of(list(keys))).items()}
        present: list[tuple[LogHead, _Candidate]] = []
        for one in candidates:
            log = logs.get(one.shard)
            if log is not None and _searched(log, one, search):
                present.append((log, one))
        replaced = await self._replaced(present)
        present = [pair for pair in present if (pair[1].shard, pair[1].row["q"], pair[1].row["v"]) not in replaced]
        rows = [(log, run_of(one.row, one.body, one.place[1] - log.base)) for log, one in present]
        current = await self._runs.with_patches(rows, bodies=True)
        erased = await self._erased({log.head for log, row in rows if log.head.has_hidden or is_open(row)})
        return [
            (log.head, row, one.place)
            for (log, one), row in zip(present, current, strict=True)
            if is_found(row, search) and one.shard not in erased
        ]

    async def _erased(self, heads: Collection[Head]) -> set[str]:
        """Those that have lost rows since they were read: what was asked for then is not whole."""
        now = await self._heads_of([head.key for head in heads])
        kept = {(key, log.head.incarnation) for key, log in now.items() if not log.head.erased}
        return {shard_key(head.key) for head in heads if (head.key, head.incarnation) not in kept}

    async def _replaced(self, pairs: Iterable[tuple[LogHead, _Candidate]]) -> set[tuple[str, int, int]]:
        """The revisions among them that are not the newest of their runs."""
        asked: dict[str, dict[str, Any]] = {}
        for log, one in pairs:
            if log.head.has_hidden:
                query = asked.setdefault(one.shard, {**of_log(log), "hq": {"$in": []}})
                query["hq"]["$in"].append(one.row["q"])
        if not asked:
            return set()
        fields = {"_id": 0, "s": 1, "hi": 1}
        found = await self._layout.commits.find({"$or": list(asked.values())}, fields).to_list(None)
        return {
            (document["s"], low, revision)
            for document in found
            for _, _, low, _, revision, _ in document["hi"]
            if revision is not None
        }


_decode_place = msgspec.json.Decoder(Place).decode


def _key_of(shard: str) -> SessionKey:
    session_id, _, namespace = shard.partition("\0")
    return SessionKey(namespace, session_id)


def _session_filter(query: SessionQuery, after: tuple[int, str] | None) -> dict[str, Any]:
    fields = {
        "user_id": query.user_id,
        "agent_id": query.agent_id,
        "kind": query.kind,
        "name": query.name,
        "forked_from": query.forked_from,
    }
    asked: dict[str, Any] = {"namespace": query.namespace, "erased": False}
    asked |= {name: value for name, value in fields.items() if value is not None}
    if not query.include_deleted:
        asked["deleted"] = False
    # always there, because the index is one of documents that have it
    bounds = {"$gte": _EVER}
    if query.active_after is not None:
        bounds["$gt"] = query.active_after
    if query.active_before is not None:
        bounds["$lt"] = query.active_before
    asked["active"] = bounds
    if after is not None:
        sign = "$gt" if query.reverse else "$lt"
        # the first bound finds the place in the index, the second one settles ties
        asked["$and"] = [
            {"active": {f"{sign}e": after[0]}},
            {"$or": [{"active": {sign: after[0]}}, {"session_id": {sign: after[1]}}]},
        ]
    return asked


def _run_filter(search: RunSearch) -> dict[str, Any]:
    fields = {"id": search.run_id, "a": search.agent_id, "u": search.user_id, "pa": search.parent_run_id}
    return {name: value for name, value in fields.items() if value is not None}


def _ended_filter(search: RunSearch) -> dict[str, Any] | None:
    """For documents with runs that were stored when they had ended; None where none is searched for."""
    entry = _run_filter(search)
    asked: dict[str, Any] = {"ns": search.namespace or None}
    if search.owner is not None:
        asked["u"] = search.owner
    entry["st"] = {"$nin": list(OPEN_STATUSES)}
    if search.statuses is not None:
        ended = [status for status in search.statuses if status not in OPEN_STATUSES]
        if not ended:
            return None
        entry["st"] = {"$in": ended}
        if USUAL not in ended:
            asked["x"] = {"$in": ended}
    if search.updated_before is not None:
        entry["up"] = {"$lt": search.updated_before}
    # said again in the words of the indexes
    asked |= {f"r.{name}": value for name, value in entry.items() if name in ("id", "a", "u", "pa")}
    return {**asked, "r": {"$elemMatch": entry}}


def _lasting_filter(search: RunSearch) -> dict[str, Any]:
    asked: dict[str, Any] = {"ns": search.namespace, **_run_filter(search), "n": {"$exists": True}}
    if search.statuses is not None:
        if asks_for_open_alone(search):
            asked["open"] = True
        else:
            asked["$and"] = [{"$or": [{"open": True}, {"st": {"$in": list(search.statuses)}}]}]
    return asked


def _behind(after: Place | None, *, reverse: bool) -> dict[str, Any]:
    """The place's own document too, if it may have more runs."""
    if after is None:
        return {}
    sign = "$lt" if reverse else "$gt"
    shard, number, nth = after
    own = sign if nth in (_FIRST, _LAST) else f"{sign}e"
    return {"$or": [{"s": {sign: shard}}, {"s": shard, "n": {own: number}}]}


def _inside(place: Place, after: Place | None, end: tuple[str, int] | None, reverse: bool) -> bool:
    if reverse:
        return (after is None or place < after) and (end is None or place[:2] >= end)
    return (after is None or place > after) and (end is None or place[:2] <= end)


def _candidates_of(documents: Sequence[Mapping[str, Any]], search: RunSearch) -> list[_Candidate]:
    wanted = _run_filter(search)
    return [
        candidate
        for document in documents
        for candidate in _candidates_in(document)
        if candidate.row["st"] not in OPEN_STATUSES
        and all(candidate.row.get(name) == value for name, value in wanted.items())
    ]


def _candidates_in(document: Mapping[str, Any]) -> list[_Candidate]:
    shard, number = document["s"], document["n"]
    return [
        _Candidate((shard, number, nth), shard, document["i"], entry, body)
        for nth, (entry, body) in enumerate(zip(document.get("r", ()), document.get("b", ()), strict=True))
    ]


def _searched(log: LogHead, one: _Candidate, search: RunSearch) -> bool:
    return is_searched(log.head, search) and log.head.incarnation == one.incarnation and one.place[1] <= log.n
