"""Lists of sessions and searches for runs: an index leads to sessions, which then say themselves what they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from sessionledger.drivers.redis.indexes import Entry, lists_of, removed
from sessionledger.drivers.redis.keys import Keys, session_of
from sessionledger.drivers.redis.reader import Reader
from sessionledger.drivers.redis.scripts import script
from sessionledger.drivers.redis.servers import Request, Servers
from sessionledger.drivers.redis.values import LISTED, listed_of
from sessionledger.protocol.filters import asks_for_open_alone, is_found, is_listed, is_searched, place_of
from sessionledger.protocol.rows import (
    FIRST,
    LAST,
    FoundRuns,
    Head,
    RunQuery,
    RunRow,
    RunSearch,
    SessionKey,
    SessionPage,
    SessionQuery,
    SessionRow,
)

__all__ = ["Lists"]

_BATCH = 100  #: sessions that are looked at together
_REPAIRS = 3  #: of a page, whose entries a writer left half-way

_decode_place = msgspec.json.Decoder(tuple[str, int, int]).decode
_encode = msgspec.json.Encoder().encode


class Lists:
    def __init__(self, keys: Keys, reader: Reader) -> None:
        self._keys, self._reader = keys, reader

    # sessions

    async def sessions(self, servers: Servers, query: SessionQuery) -> SessionPage:
        if query.forked_from is not None:
            return await self._forks(servers, query, query.forked_from)
        for _ in range(_REPAIRS):
            page = await self._page(servers, query)
            if page is not None:
                return page
        return await self._page(servers, query, repair=False) or SessionPage((), False)

    async def _page(self, servers: Servers, query: SessionQuery, *, repair: bool = True) -> SessionPage | None:
        """None: an entry was behind its session and has been mended."""
        rows: list[SessionRow] = []
        async for entries in self._walk(servers, query):
            found = await self._heads(servers, query.namespace, [member for member, _ in entries])
            stale = [
                (member, score, row.head.last_activity_at)
                for row, (member, score) in zip(found, entries, strict=True)
                if row is not None and _is_of_list(row, query) and row.head.last_activity_at != score
            ]
            if repair and stale:
                await self._mend(servers, _list_of(self._keys, query), stale)
                return None
            for row, (_, score) in zip(found, entries, strict=True):
                listed = _as_listed(row, score)
                if listed is None or not is_listed(listed.head, listed.header, query):
                    continue
                if len(rows) == query.limit:
                    return SessionPage(rows, True)
                rows.append(listed)
        return SessionPage(rows, False)

    async def _mend(self, servers: Servers, name: str, entries: Sequence[tuple[bytes, int, int]]) -> None:
        """A writer ended between a commit and its place in the list."""
        await _ask(servers, [Request(name, script("mend").call([name], [*entry])) for entry in entries])

    async def _walk(self, servers: Servers, query: SessionQuery) -> AsyncIterator[list[tuple[bytes, int]]]:
        """Entries of the list that serves a query, in its order, some at a time."""
        name = _list_of(self._keys, query)
        low = "-inf" if query.active_after is None else f"({query.active_after}"
        high = "+inf" if query.active_before is None else f"({query.active_before}"
        size = query.limit + 1
        reached = None if query.after is None else query.after[0]
        told: set[bytes] = set()  #: who is at the score that was reached, as far as that was seen
        while True:
            if reached is not None:
                low, high = (str(reached), high) if query.reverse else (low, str(reached))
            command: list[str | bytes | int] = ["ZRANGE", name, low, high, "BYSCORE"]
            if not query.reverse:
                command = ["ZRANGE", name, high, low, "BYSCORE", "REV"]
            (flat,) = await _ask(servers, [Request(name, [*command, "LIMIT", 0, size, "WITHSCORES"])])
            entries = [(member, int(float(score))) for member, score in zip(flat[::2], flat[1::2], strict=True)]
            # not counted: others leave the place while this goes on
            new = [entry for entry in entries if entry[0] not in told]
            yield [entry for entry in new if _is_behind(entry, query)]
            if len(entries) < size:
                return
            score = entries[-1][1]
            told = {member for member, at in entries if at == score} | (told if score == reached else set())
            reached, size = score, max(size if new else 2 * size, _BATCH)

    async def _heads(self, servers: Servers, namespace: str, members: Sequence[bytes]) -> list[SessionRow | None]:
        """What the lists name, where it is there, in that incarnation, and no tombstone."""
        places = [session_of(member) for member in members]
        keys = [SessionKey(namespace, session_id) for session_id, _ in places]
        names = [self._keys.head(key) for key in keys]
        answers = await _ask(servers, [Request(name, ("HMGET", name, *LISTED)) for name in names])
        found: list[SessionRow | None] = []
        for key, (_, incarnation), answer in zip(keys, places, answers, strict=True):
            row = listed_of(answer, key)
            is_there = row is not None and row.head.incarnation == incarnation and not row.head.erased
            found.append(row if is_there else None)
        return found

    async def _forks(self, servers: Servers, query: SessionQuery, parent: str) -> SessionPage:
        name = self._keys.forks(query.namespace, parent)
        (members,) = await _ask(servers, [Request(name, ("ZRANGE", name, 0, -1))])
        found = await self._heads(servers, query.namespace, members)
        rows = [row for row in found if row is not None and is_listed(row.head, row.header, query)]
        rows.sort(key=lambda row: place_of(row.head), reverse=not query.reverse)
        return SessionPage(rows[: query.limit], len(rows) > query.limit)

    # runs

    async def find_runs(self, servers: Servers, search: RunSearch) -> FoundRuns:
        after = None if search.after is None else _decode_place(search.after)
        rows: list[tuple[Head, RunRow, str]] = []
        size = 0
        async for member in self._candidates(servers, search, after):
            session_id, incarnation = session_of(member)
            key = SessionKey(search.namespace, session_id)
            async for head, row in self._found_in(servers, search, key, incarnation, after):
                if len(rows) == search.limit or size >= search.max_bytes:
                    return FoundRuns(rows, True)
                rows.append((head, row, _encode((session_id, incarnation, row.seq)).decode()))
                size += len(row.body) + sum(map(len, row.parts.values()))
        return FoundRuns(rows, size >= search.max_bytes)

    async def _candidates(
        self, servers: Servers, search: RunSearch, after: tuple[str, int, int] | None
    ) -> AsyncIterator[bytes]:
        """Sessions that may have such runs, in the order of their members, from the one at `after` on."""
        members = await self._few_members(servers, search)
        at = None if after is None else b"%s\0%d" % (after[0].encode(), after[1])
        if members is not None:
            for member in sorted(set(members), reverse=search.reverse):
                if at is None or (member <= at if search.reverse else member >= at):
                    yield member
            return
        name = self._index_of(search)
        edge = b"-" if at is None else b"[" + at
        if search.reverse:
            edge = b"+" if at is None else b"[" + at
        while True:
            command = ("ZREVRANGEBYLEX", name, edge, "-") if search.reverse else ("ZRANGEBYLEX", name, edge, "+")
            (page,) = await _ask(servers, [Request(name, (*command, "LIMIT", 0, _BATCH))])
            for member in page:
                yield member
            if len(page) < _BATCH:
                return
            edge = b"(" + page[-1]

    async def _few_members(self, servers: Servers, search: RunSearch) -> list[bytes] | None:
        """All at once, of an index that names few."""
        if search.run_id is not None:
            name, begin = self._keys.runs_by_id(search.namespace, search.run_id)
            command = ("ZRANGEBYLEX", name, b"[" + begin, b"(" + begin + b"\xff")
            (notes,) = await _ask(servers, [Request(name, command)])
            return [note[len(begin) :] for note in notes]
        if asks_for_open_alone(search):
            name = self._keys.open_runs(search.namespace)
            (notes,) = await _ask(servers, [Request(name, ("ZRANGE", name, 0, -1))])
            return [_session_of_open(note) for note in notes]
        if search.parent_run_id is search.agent_id is None:
            return await self._of_users(servers, search)
        return None

    async def _of_users(self, servers: Servers, search: RunSearch) -> list[bytes] | None:
        """The sessions of a user, and those of others that have runs of his."""
        names = []
        if search.owner is not None:
            names = [self._keys.sessions_of_user(search.namespace, search.owner)]
        elif search.user_id is not None:
            names = [
                self._keys.sessions_of_user(search.namespace, search.user_id),
                self._keys.sessions_with("runner", search.namespace, search.user_id),
            ]
        pages = await _ask(servers, [Request(name, ("ZRANGE", name, 0, -1)) for name in names])
        return [member for page in pages for member in page] if names else None

    def _index_of(self, search: RunSearch) -> str:
        for field, value in (("parent", search.parent_run_id), ("agent", search.agent_id)):
            if value is not None:
                return self._keys.sessions_with(field, search.namespace, value)
        return self._keys.names(search.namespace)

    async def _found_in(
        self,
        servers: Servers,
        search: RunSearch,
        key: SessionKey,
        incarnation: int,
        after: tuple[str, int, int] | None,
    ) -> AsyncIterator[tuple[Head, RunRow]]:
        first, last = FIRST, LAST
        if after is not None and after[:2] == (key.session_id, incarnation):
            first, last = (first, after[2] - 1) if search.reverse else (after[2] + 1, last)
        run_ids: list[str | None] = [search.run_id]
        if search.run_id is None and asks_for_open_alone(search):
            run_ids = list(await self._open_in(servers, key, incarnation))
        found: list[tuple[Head, RunRow]] = []
        for run_id in run_ids:
            query = RunQuery(
                key, _BATCH, search.max_bytes, first_seq=first, last_seq=last, run_id=run_id, reverse=search.reverse
            )
            async for head, row in self._rows(servers, query, incarnation, search):
                if len(run_ids) == 1:
                    yield head, row
                else:
                    found.append((head, row))
        for one in sorted(found, key=lambda one: one[1].seq, reverse=search.reverse):
            yield one

    async def _rows(
        self, servers: Servers, query: RunQuery, incarnation: int, search: RunSearch
    ) -> AsyncIterator[tuple[Head, RunRow]]:
        while True:
            page = await self._reader.runs(servers, query, newest=True)
            head = page.head
            if head is None or head.incarnation != incarnation or not is_searched(head, search):
                return
            for row in page.rows:
                if is_found(row, search):
                    yield head, row
            if not page.more:
                return
            place = page.rows[-1].seq
            query = msgspec.structs.replace(
                query, **({"last_seq": place - 1} if query.reverse else {"first_seq": place + 1})
            )

    async def _open_in(self, servers: Servers, key: SessionKey, incarnation: int) -> list[str]:
        """Runs of a session that the index takes for open."""
        member = self._keys.session(key, incarnation).member
        name = self._keys.open_runs(key.namespace)
        edges = (b"[" + member + b"\0", b"(" + member + b"\1")
        (notes,) = await _ask(servers, [Request(name, ("ZRANGEBYLEX", name, *edges))])
        return list(dict.fromkeys(note[len(member) + 1 :].partition(b"\0")[2].decode() for note in notes))

    async def forget(self, servers: Servers, entries: Sequence[Entry]) -> None:
        await _ask(servers, removed(entries))


async def _ask(servers: Servers, requests: Sequence[Request]) -> list[Any]:
    answers = await servers.send(requests) if requests else []
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _list_of(keys: Keys, query: SessionQuery) -> str:
    return lists_of(keys, SessionKey(query.namespace, ""), query.user_id)[-1]


def _as_listed(row: SessionRow | None, score: int) -> SessionRow | None:
    """At the place where the list has it, which a writer may be about to move: a walk goes on from there."""
    if row is None or row.head.last_activity_at == score:
        return row
    head = msgspec.structs.replace(row.head, last_activity_at=score)
    return SessionRow(head, row.header, row.state, row.counters)


def _is_of_list(row: SessionRow, query: SessionQuery) -> bool:
    """Whether it is one of the list's; a user that was guessed wrong may have got an entry of another's session."""
    return query.user_id in (None, row.head.user_id)


def _is_behind(entry: tuple[bytes, int], query: SessionQuery) -> bool:
    if query.after is None:
        return True
    place = (entry[1], session_of(entry[0])[0])
    return place > query.after if query.reverse else place < query.after


def _session_of_open(note: bytes) -> bytes:
    """The session's member is all before the second NUL."""
    return b"\0".join(note.split(b"\0", 2)[:2])
