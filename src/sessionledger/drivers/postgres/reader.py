"""Reads: each is one statement, so that its head and its rows are of one instant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from typing import Any

import asyncpg
import msgspec

from sessionledger.drivers.postgres.tables import Tables
from sessionledger.drivers.postgres.values import body_of, counters_of
from sessionledger.drivers.relational import HEAD, HEADER, RUN, head_of, not_plain, run_filters, session_filters
from sessionledger.protocol.filters import size_of
from sessionledger.protocol.rows import (
    FoundRuns,
    Head,
    HiddenPage,
    HiddenQuery,
    HiddenRow,
    MessagePage,
    MessageQuery,
    MessageRow,
    RunHeader,
    RunPage,
    RunQuery,
    RunRow,
    RunSearch,
    SessionHeader,
    SessionKey,
    SessionPage,
    SessionQuery,
    SessionRow,
    SwitchPage,
    SwitchQuery,
    SwitchRow,
)

__all__ = ["Reader"]

_HEAD_COLUMNS = 20
_decode_segments = msgspec.json.Decoder(list[tuple[int, int]]).decode
_decode_parts = msgspec.json.Decoder(list[tuple[str, str | None, bytes | None]]).decode
_decode_place = msgspec.json.Decoder(tuple[int, int]).decode
_SMALL_COLUMNS = 12  #: behind the head's
_make_message: Callable[..., MessageRow] = MessageRow
_make_run: Callable[..., RunRow] = RunRow
_make_run_header: Callable[..., RunHeader] = RunHeader

_THIS = "WHERE s.namespace = $1 AND s.session_id = $2"

_HEADERS = "{sessions} s JOIN {session_headers} h USING (session_key)"
_SESSION = f"SELECT {HEAD}, {HEADER}, h.packed FROM {_HEADERS} {_THIS}"
_SESSION_WITH_STATE = f"""
SELECT {HEAD}, {HEADER}, h.packed, t.body, t.packed
FROM {_HEADERS} JOIN {{session_states}} t USING (session_key) {_THIS}
"""

_RUN_IDS = """
LEFT JOIN LATERAL (
  SELECT array_agg(seq), array_agg(run_id) FROM (
    SELECT seq, run_id FROM {runs}
    WHERE m.high - m.low <= $3 AND session_key = s.session_key AND seq BETWEEN m.low AND m.high AND revision = 1
    UNION ALL
    SELECT d.seq, n.run_id FROM (SELECT DISTINCT unnest(m.seqs) AS seq WHERE m.high - m.low > $3) AS d
    -- the limit keeps the planner, before the table is analysed, from reading all runs for each of these
    CROSS JOIN LATERAL (
      SELECT run_id FROM {runs} WHERE session_key = s.session_key AND seq = d.seq AND revision = 1 LIMIT 1) AS n
  ) AS named) AS r ON true
"""
_LARGE_BODY = 16_384  #: from how many characters on bodies are added up before they are gathered
_ARRAYS = f"""
  SELECT array_agg(message_id), array_agg(created_at), %s, array_agg(run_index), array_agg(position),
    array_agg(run_seq) AS seqs, array_agg(revision),
    bool_and(body IS NOT NULL AND size < {_LARGE_BODY}) AND sum(size) < $4, min(run_seq) AS low, max(run_seq) AS high"""
#: A page is one row behind its head, with an array for each column. This one has all bodies or, where they come to too
#: much or some are packed, not all: it says so. Then the other statement is needed, which adds up as it goes.
_SMALL_BODIES = f"CASE WHEN sum(size) < $4 THEN array_agg(CASE WHEN size < {_LARGE_BODY} THEN body END) END"
_SMALL = f"""
SELECT {HEAD}, m.*, r.* FROM {{sessions}} s LEFT JOIN LATERAL ({_ARRAYS % _SMALL_BODIES}
  FROM (%s) AS page) AS m ON true {_RUN_IDS} {_THIS}
"""
_LARGE = f"""
SELECT {HEAD}, m.*, r.* FROM {{sessions}} s LEFT JOIN LATERAL ({_ARRAYS % "array_agg(body)"},
    array_agg(packed), sum(size)
  FROM (SELECT *, sum(size) OVER (ROWS UNBOUNDED PRECEDING) - size AS before FROM (%s) AS page) AS bounded
  WHERE before < $4) AS m ON true {_RUN_IDS} {_THIS}
"""
_COLUMNS = "message_id, created_at, body, packed, run_index, position, run_seq, revision, size"
_OF_SESSION = f"SELECT {_COLUMNS} FROM {{message_rows}} WHERE session_key = s.session_key AND position BETWEEN"


def _bounded(first: str, last: str, *, reverse: bool) -> str:
    """The messages of a range, no more than are asked for: positions are dense, and the planner goes by the bounds."""
    first, last = f"greatest({first}, coalesce(s.forked_at, 0) + 1)", f"least({last}, s.message_count)"
    if reverse:
        return f"{_OF_SESSION} greatest({first}, {last} - $3 + 1) AND {last} ORDER BY position DESC LIMIT $3"
    return f"{_OF_SESSION} {first} AND least({last}, {first} + $3 - 1) ORDER BY position LIMIT $3"


def _named(first: str, last: str, *, reverse: bool) -> str:
    order = "DESC" if reverse else "ASC"
    # OFFSET keeps the planner from looking through the whole range instead
    found = (
        f"SELECT {_COLUMNS} FROM {{message_rows}} WHERE session_key = s.session_key "
        "AND hashtext(message_id) = hashtext($7) AND message_id = $7 OFFSET 0"
    )
    return (
        f"SELECT * FROM ({found}) AS found WHERE position BETWEEN {first} AND {last} ORDER BY position {order} LIMIT $3"
    )


@cache
def _messages(statement: str, ranges: int, *, reverse: bool, named: bool) -> str:
    """The statement for a page of one range, or of several, one after the other."""
    rows = _named if named else _bounded
    if ranges == 1:
        return statement % rows("$5", "$6", reverse=reverse)
    order = "DESC" if reverse else "ASC"
    return statement % (
        "SELECT l.* FROM unnest($5::bigint[], $6::bigint[]) WITH ORDINALITY AS g (first, last, nth) "
        f"CROSS JOIN LATERAL ({rows('g.first', 'g.last', reverse=reverse)}) AS l "
        f"ORDER BY g.nth, l.position {order} LIMIT $3"
    )


#: What patches added to a run, and the body of one that was stored open: most runs have neither.
_PATCHED = "(r.patch > 0 OR (r.body IS NULL AND r.packed IS NULL))"
_OF_RUN = "session_key = r.session_key AND seq = r.seq AND revision = r.revision"
_SEGMENTS = f"""
LEFT JOIN LATERAL (
  SELECT json_agg(json_build_array(first_position, last_position) ORDER BY first_position)::text AS segments
  FROM {{segments}} WHERE {_PATCHED} AND {_OF_RUN}) AS g ON true
"""
_PARTS = f"""
LEFT JOIN LATERAL (
  SELECT json_agg(json_build_array(name, body::text, replace(encode(packed, 'base64'), E'\\n', '')))::text AS parts
  FROM {{run_parts}} WHERE {_PATCHED} AND {_OF_RUN}) AS p ON true
"""
_WITH_BODIES = "g.segments, r.body, r.packed, p.parts"
_WITHOUT_BODIES = "g.segments"
#: Bytes of a run's body, roughly: large ones are measured, because they may be compressed. A statement that ends a page
#: by it brings how many rows it found, because who counts characters would not know that it did.
_ROUGH_SIZE = """
CASE WHEN pg_column_size(r.body) < 2000 THEN pg_column_size(r.body) ELSE coalesce(octet_length(r.body::text), 0) END
"""
_RUNS = f"""
SELECT {HEAD}, l.* FROM {{sessions}} s LEFT JOIN LATERAL (
  SELECT array_agg(ROW({RUN}, %s)) FILTER (WHERE before < $4), count(*) FROM (
    SELECT *, sum({_ROUGH_SIZE}) OVER (ROWS UNBOUNDED PRECEDING) - {_ROUGH_SIZE} AS before
    FROM (SELECT * FROM {{runs}} r WHERE %sr.session_key = s.session_key AND r.seq BETWEEN $5 AND $6
      ORDER BY r.seq %s, r.revision %s LIMIT $3) AS r) AS r%s) AS l ON true
{_THIS}
"""

_HIDDEN = f"""
SELECT {HEAD}, l.* FROM {{sessions}} s LEFT JOIN LATERAL (
  SELECT array_agg(
    ROW(hide_id, first_position, last_position, first_run_seq, last_run_seq, revision, since, until, reach))
  FROM {{hidden}} WHERE session_key = s.session_key
    AND first_run_seq <= $3 AND last_run_seq >= $4 AND first_position <= $5 AND last_position >= $6) AS l ON true
{_THIS}
"""
_SWITCHES = f"""
SELECT {HEAD}, l.* FROM {{sessions}} s LEFT JOIN LATERAL (
  SELECT array_agg(ROW(switch_id, from_agent, to_agent, reason, packed, switched_at, version)) FROM (
    SELECT * FROM {{agent_switches}} WHERE session_key = s.session_key AND version BETWEEN $4 AND $5
    ORDER BY version %s LIMIT $3) AS page) AS l ON true
{_THIS}
"""

_ORDER = {False: "ASC", True: "DESC"}


class Reader:
    """Statements of one store's tables, and the rows that they bring."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._texts: dict[Any, str] = {}
        self._large = False  #: whether bodies were large, or packed, in the last page

    def _text(self, *parts: Any) -> str:
        """A statement with the names of the tables; `parts` are its text and what stands at each %s."""
        text = self._texts.get(parts)
        if text is None:
            text = self._texts[parts] = self._tables.named(parts[0] % parts[1:] if len(parts) > 1 else parts[0])
        return text

    async def session(self, db: asyncpg.Connection, key: SessionKey, state: bool) -> SessionRow | None:
        text = self._text(_SESSION_WITH_STATE if state else _SESSION)
        row = await db.fetchrow(text, key.namespace, key.session_id)
        if row is None:
            return None
        header = _header_of(row)
        stored = body_of(row[28], row[29]) if state else None
        return SessionRow(head_of(row, key), header, stored, counters_of(row[19]))

    async def sessions(self, db: asyncpg.Connection, query: SessionQuery) -> SessionPage:
        where, values, order = session_filters(query)
        text = f"SELECT {HEAD}, {HEADER}, h.packed, s.session_id FROM {_HEADERS} WHERE {where} ORDER BY {order} LIMIT ?"
        rows = await db.fetch(self._text(_numbered(text)), *values, query.limit + 1)
        found = [
            SessionRow(head_of(row, SessionKey(query.namespace, row["session_id"])), _header_of(row), None, {})
            for row in rows[: query.limit]
        ]
        return SessionPage(found, len(rows) > query.limit)

    async def messages(self, db: asyncpg.Connection, query: MessageQuery) -> MessagePage:
        # another page may change it meanwhile
        large = self._large
        row = await self._page_of_messages(db, query, large=large)
        if not large and row is not None and row[_HEAD_COLUMNS + 7] is False:
            row = await self._page_of_messages(db, query, large=True)
            self._large = True
        elif row is not None and row[_HEAD_COLUMNS + 7]:
            self._large = False
        if row is None:
            return MessagePage(None, (), {}, False)
        head = head_of(row, query.key)
        if head.erased or row[_HEAD_COLUMNS] is None:
            return MessagePage(head, (), {}, False)
        return _message_page(head, row[_HEAD_COLUMNS:], query)

    async def _page_of_messages(
        self, db: asyncpg.Connection, query: MessageQuery, *, large: bool
    ) -> asyncpg.Record | None:
        first: Any
        last: Any
        if len(query.ranges) == 1:
            first, last = query.ranges[0]
        else:
            first, last = [first for first, _ in query.ranges], [last for _, last in query.ranges]
        named = query.message_id is not None
        text = _messages(_LARGE if large else _SMALL, len(query.ranges), reverse=query.reverse, named=named)
        values = (query.message_id,) if named else ()
        return await db.fetchrow(self._text(text), *_key(query), query.limit + 1, query.max_bytes, first, last, *values)

    async def runs(self, db: asyncpg.Connection, query: RunQuery) -> RunPage:
        order = _ORDER[query.reverse]
        values: tuple[Any, ...] = ()
        named = ""
        if query.run_id is not None:
            named, values = "r.run_id = $7 AND ", (query.run_id,)
        elif query.plain:
            numbered = [f"${number}" for number in range(7, 7 + len(query.plain))]
            named, values = f"{not_plain(numbered)} AND ", tuple(query.plain)
        columns, joins = (_WITH_BODIES, _SEGMENTS + _PARTS) if query.bodies else (_WITHOUT_BODIES, _SEGMENTS)
        text = self._text(_RUNS, columns, named, order, order, joins)
        bound = query.max_bytes if query.bodies else _UNBOUNDED
        row = await db.fetchrow(text, *_key(query), query.limit + 1, bound, query.first_seq, query.last_seq, *values)
        if row is None:
            return RunPage(None, (), False)
        head = head_of(row, query.key)
        if head.erased:
            return RunPage(head, (), False)
        rows, there = row[_HEAD_COLUMNS:]
        return RunPage(head, *_page(rows or (), there, query))

    async def find_runs(self, db: asyncpg.Connection, search: RunSearch) -> FoundRuns:
        after = None if search.after is None else _decode_place(search.after)
        conditions, values, order = run_filters(search, after)
        newest = (
            "r.revision = (SELECT max(n.revision) FROM {runs} n WHERE n.session_key = r.session_key AND n.seq = r.seq)"
        )
        text = (
            "SELECT * FROM ("
            "SELECT *, sum(size) OVER (ROWS UNBOUNDED PRECEDING) - size AS before, count(*) OVER () AS there FROM ("
            f"SELECT {HEAD}, s.session_id, ROW({RUN}, {_WITH_BODIES}) AS run, {_ROUGH_SIZE} AS size FROM {{runs}} r "
            f"JOIN {{sessions}} s USING (session_key) {_SEGMENTS}{_PARTS} "
            f"WHERE {' AND '.join([*conditions, newest])} ORDER BY {order} LIMIT ?) AS page) AS bounded "
            "WHERE before < ?"
        )
        rows = await db.fetch(self._text(_numbered(text)), *values, search.limit + 1, search.max_bytes)
        found: list[tuple[Head, RunRow, str]] = []
        size = 0
        for row in rows[: search.limit]:
            if size >= search.max_bytes:
                break
            run = _run_of(row["run"], bodies=True)
            size += size_of(run)
            place = msgspec.json.encode((row[0], run.seq)).decode()
            found.append((head_of(row, SessionKey(search.namespace, row["session_id"])), run, place))
        return FoundRuns(found, bool(rows) and len(found) < rows[0]["there"])

    async def hidden(self, db: asyncpg.Connection, query: HiddenQuery) -> HiddenPage:
        bounds = (query.runs[1], query.runs[0], query.positions[1], query.positions[0])
        row = await db.fetchrow(self._text(_HIDDEN), *_key(query), *bounds)
        if row is None:
            return HiddenPage(None, ())
        found = [
            HiddenRow(hide_id, (first, last), (low, high), *rest)
            for hide_id, first, last, low, high, *rest in row[20] or ()
        ]
        return HiddenPage(head_of(row, query.key), found)

    async def switches(self, db: asyncpg.Connection, query: SwitchQuery) -> SwitchPage:
        text = self._text(_SWITCHES, _ORDER[query.reverse])
        row = await db.fetchrow(text, *_key(query), query.limit + 1, query.first_version, query.last_version)
        if row is None:
            return SwitchPage(None, (), False)
        rows = row[_HEAD_COLUMNS] or ()
        found = [
            SwitchRow(
                switch_id, from_agent, to_agent, None if reason is packed is None else body_of(reason, packed), *rest
            )
            for switch_id, from_agent, to_agent, reason, packed, *rest in rows[: query.limit]
        ]
        return SwitchPage(head_of(row, query.key), found, len(rows) > query.limit)


_UNBOUNDED = 2**62


def _key(query: MessageQuery | RunQuery | HiddenQuery | SwitchQuery) -> tuple[str, str]:
    return query.key.namespace, query.key.session_id


def _numbered(text: str) -> str:
    """`?` as $1, $2 …"""
    numbers = count(1)
    return "".join(f"${next(numbers)}" if part == "?" else part for part in text.replace("?", "\0?\0").split("\0"))


def _header_of(row: Sequence[Any]) -> SessionHeader:
    """Of the columns behind a head's."""
    kind, agent_id, current_agent, name, parent_session_id, updated_at, body, packed = row[20:28]
    return SessionHeader(kind, agent_id, current_agent, name, parent_session_id, updated_at, body_of(body, packed))


def _message_page(head: Head, row: Sequence[Any], query: MessageQuery) -> MessagePage:
    """Of the columns of `_SMALL` or `_LARGE` behind the head's; `_LARGE` has two more."""
    message_ids, times, bodies, *places = row[:7]
    size = 0
    if len(row) > _SMALL_COLUMNS:
        packed, size = row[10:12]
        bodies = [body_of(text, data) for text, data in zip(bodies, packed, strict=True)]
    rows = list(map(_make_message, message_ids, times, bodies, *places))
    more = len(rows) > query.limit or size >= query.max_bytes
    del rows[query.limit :]
    return MessagePage(head, rows, dict(zip(row[-2] or (), row[-1] or (), strict=True)), more)


def _page(rows: Sequence[Any], there: int, query: RunQuery) -> tuple[list[RunRow], bool]:
    """Of those that a statement brought, and how many it found."""
    found: list[RunRow] = []
    size = 0
    for row in rows[: query.limit]:
        if size >= query.max_bytes:
            break
        run = _run_of(row, bodies=query.bodies)
        if query.bodies:
            size += size_of(run)
        found.append(run)
    return found, len(found) < there


def _run_of(row: Sequence[Any], *, bodies: bool) -> RunRow:
    """Of the columns of `RUN`, the segments, the body and the parts."""
    segments = _decode_segments(row[19]) if row[19] else ()
    header = _make_run_header(*row[13:19])
    if not bodies:
        return _make_run(*row[:13], segments, header, "", {})
    parts = {name: body_of(text, packed) for name, text, packed in _decode_parts(row[22] or "[]")}
    body = parts.pop("", None)
    return _make_run(*row[:13], segments, header, body_of(row[20], row[21]) if body is None else body, parts)
