"""Reads, on a reading connection's thread. Each is one statement or one transaction, so that its head and its rows are
of one instant.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from sessionledger.drivers.relational import HEAD, HEADER, RUN, head_of, not_plain, run_filters, session_filters
from sessionledger.drivers.statements import load_statements
from sessionledger.errors import DecodeError
from sessionledger.protocol.filters import size_of
from sessionledger.protocol.rows import (
    Body,
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

__all__ = [
    "decoded",
    "find_runs",
    "hidden",
    "load_head",
    "messages",
    "runs",
    "session",
    "sessions",
    "switches",
]

T = TypeVar("T")

SQL = load_statements("sql/sqlite.sql")

_FIND_HEAD = f"SELECT {HEAD} FROM sessions s WHERE s.namespace = ? AND s.session_id = ?"
_SESSIONS = "sessions s JOIN session_headers h USING (session_key)"
_WITHOUT_STATE = f"SELECT {HEAD}, {HEADER} FROM {_SESSIONS} WHERE s.namespace = ? AND s.session_id = ?"
_WITH_STATE = (
    f"SELECT {HEAD}, {HEADER}, t.state FROM {_SESSIONS} JOIN session_states t USING (session_key) "
    "WHERE s.namespace = ? AND s.session_id = ?"
)

#: Positions of a block whose given ids are indexed together, once it is whole.
ID_BLOCK = 1024

_BATCH_BYTES = 256 * 1024  #: that are fetched ahead of the bound of a page, about

_decode_counters = msgspec.json.Decoder(dict[str, int]).decode
_decode_place = msgspec.json.Decoder(tuple[int, int]).decode


#: Made of as many columns as they have fields.
_make_run: Callable[..., RunRow] = RunRow
_make_run_header: Callable[..., RunHeader] = RunHeader


class _OneInstant:
    """Makes one transaction of several statements."""

    __slots__ = ("_db",)

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN")

    def __exit__(self, *error: object) -> None:
        self._db.execute("COMMIT")


def load_head(db: sqlite3.Connection, key: SessionKey) -> tuple[Any, ...] | None:
    row: tuple[Any, ...] | None = db.execute(_FIND_HEAD, (key.namespace, key.session_id)).fetchone()
    return row


def decoded(decode: Callable[[str], T], text: str, key: SessionKey) -> T:
    """JSON of a session's rows; the error names the session."""
    try:
        return decode(text)
    except (TypeError, ValueError) as error:
        raise DecodeError(
            f"session {key.session_id!r} is damaged ({error}): restore it from a backup", session_id=key.session_id
        ) from error


def session(db: sqlite3.Connection, key: SessionKey, state: bool) -> SessionRow | None:
    row = db.execute(_WITH_STATE if state else _WITHOUT_STATE, (key.namespace, key.session_id)).fetchone()
    if row is None:
        return None
    counters = decoded(_decode_counters, row[19], key)
    return SessionRow(head_of(row, key), SessionHeader(*row[20:27]), row[27] if state else None, counters)


def sessions(db: sqlite3.Connection, query: SessionQuery) -> SessionPage:
    where, values, order = session_filters(query)
    sql = f"SELECT s.session_id, {HEAD}, {HEADER} FROM {_SESSIONS} WHERE {where} ORDER BY {order} LIMIT ?"
    rows = db.execute(sql, (*values, query.limit + 1)).fetchall()
    found = [
        SessionRow(
            head_of(row[1:21], SessionKey(query.namespace, row[0])),
            SessionHeader(*row[21:]),
            None,
            {},
        )
        for row in rows[: query.limit]
    ]
    return SessionPage(found, len(rows) > query.limit)


def messages(db: sqlite3.Connection, query: MessageQuery) -> MessagePage:
    with _OneInstant(db):
        row = load_head(db, query.key)
        if row is None:
            return MessagePage(None, (), {}, False)
        head = head_of(row, query.key)
        if head.erased:
            return MessagePage(head, (), {}, False)
        rows, more = _messages(db, row[0], query, head)
        return MessagePage(head, rows, _run_ids(db, row[0], rows), more)


def _messages(db: sqlite3.Connection, key: int, query: MessageQuery, head: Head) -> tuple[list[MessageRow], bool]:
    sql = SQL["messages_reverse" if query.reverse else "messages"]
    ranges = query.ranges if query.message_id is None else _positions_of_id(db, key, query, head)
    rows: list[MessageRow] = []
    limit, max_bytes, size = query.limit, query.max_bytes, 0
    for first, last in ranges:
        if len(rows) > limit or size >= max_bytes:
            break
        cursor = db.execute(sql, (key, first, last, limit - len(rows) + 1))
        while batch := cursor.fetchmany(_batch(size, len(rows))):
            rows += [MessageRow(*row) for row in batch]
            size += sum([len(row[2]) for row in batch])
            if len(rows) > limit or size >= max_bytes:
                break
    return _cut(rows, limit, max_bytes) if len(rows) > limit or size >= max_bytes else (rows, False)


def _batch(size: int, count: int) -> int:
    """How many rows to fetch at once: few while it is not known whether they are large."""
    return 8 if not count else max(1, min(512, _BATCH_BYTES * count // (size + 1)))


def _cut(rows: list[MessageRow], limit: int, max_bytes: int) -> tuple[list[MessageRow], bool]:
    """The rows of a page, and whether some are left."""
    size = 0
    for count, row in enumerate(rows[:limit], 1):
        size += len(row.body)
        if size >= max_bytes:
            # one that reaches the bound with its very last row ends there: an empty page follows
            return rows[:count], True
    return rows[:limit], len(rows) > limit


def _positions_of_id(db: sqlite3.Connection, key: int, query: MessageQuery, head: Head) -> list[tuple[int, int]]:
    """Of the messages that were given an id, in the query's order."""
    found: list[tuple[int, int]] = []
    indexed = head.message_count // ID_BLOCK * ID_BLOCK
    for first, last in query.ranges:
        rows = db.execute(SQL["positions_of_id"], (key, query.message_id, first, last)).fetchall()
        behind = (key, max(first, indexed + 1), last, query.message_id)
        rows += db.execute(SQL["positions_of_id_behind"], behind).fetchall()
        found += [(position, position) for (position,) in sorted(rows, reverse=query.reverse)]
    return found


def _run_ids(db: sqlite3.Connection, key: int, rows: Sequence[MessageRow]) -> dict[int, str]:
    seqs = {row.run_seq for row in rows}
    if not seqs:
        return {}
    first, last = min(seqs), max(seqs)
    if last - first < 2 * len(seqs) + 8:
        return dict(db.execute(SQL["run_ids"], (key, first, last)))
    # runs that lie far apart: each by itself
    return {seq: run_id for one in seqs for seq, run_id in db.execute(SQL["run_ids"], (key, one, one))}


def runs(db: sqlite3.Connection, query: RunQuery) -> RunPage:
    with _OneInstant(db):
        row = load_head(db, query.key)
        if row is None:
            return RunPage(None, (), False)
        head = head_of(row, query.key)
        if head.erased:
            return RunPage(head, (), False)
        found, more = _runs(db, row[0], query)
        return RunPage(head, found, more)


def _runs(db: sqlite3.Connection, key: int, query: RunQuery) -> tuple[list[RunRow], bool]:
    order = "DESC" if query.reverse else "ASC"
    # in the order of an index: rows that are sorted would all be read before the first one comes
    values: tuple[Any, ...] = (key, query.first_seq, query.last_seq, query.limit + 1)
    if query.run_id is None:
        where, places = "r.session_key = ? AND r.seq BETWEEN ? AND ?", f"r.seq {order}, r.revision {order}"
        if query.plain:
            where += f" AND {not_plain(['?' for _ in query.plain])}"
            values = (*values[:-1], *query.plain, values[-1])
    else:
        # its revisions share a seq; the plus keeps the planner from walking through all runs of the session
        where, places = "r.run_id = ? AND r.session_key = ? AND +r.seq BETWEEN ? AND ?", f"r.revision {order}"
        values = (query.run_id, *values)
    body = "r.body" if query.bodies else "''"
    cursor = db.execute(f"SELECT {RUN}, {body} FROM runs r WHERE {where} ORDER BY {places} LIMIT ?", values)
    if not query.bodies:
        rows = cursor.fetchall()
        return [_run_of(db, key, row, bodies=False) for row in rows[: query.limit]], len(rows) > query.limit
    found: list[RunRow] = []
    size = 0
    for row in cursor:
        if len(found) == query.limit or size >= query.max_bytes:
            return found, True
        run = _run_of(db, key, row, bodies=True)
        size += size_of(run)
        found.append(run)
    return found, False


def _run_of(db: sqlite3.Connection, key: int, row: Sequence[Any], *, bodies: bool) -> RunRow:
    """Of a row of the run's columns and its body; what patches added is read where there is any."""
    patch, body = row[4], row[19]
    if not patch and body is not None:
        return _make_run(*row[:13], (), _make_run_header(*row[13:18], row[18] != 0), body, {})
    parts: dict[str, Body] = {}
    segments: list[tuple[int, int]] = []
    if patch or body is None:
        place = (key, row[0], row[1])
        segments = db.execute(SQL["segments"], place).fetchall()
        if bodies:
            parts = dict(db.execute(SQL["parts"], place))
            body = parts.pop("", body)
    header = _make_run_header(*row[13:18], bool(row[18]))
    return _make_run(*row[:13], segments, header, body or "", parts)


#: Sessions in which an agent or a user has runs, in place of an index over all runs.
_PARTICIPANT = "r.session_key IN (SELECT session_key FROM participants WHERE role = ? AND id = ?)"
_NEWEST = "r.revision = (SELECT max(n.revision) FROM runs n WHERE n.session_key = r.session_key AND n.seq = r.seq)"


def find_runs(db: sqlite3.Connection, search: RunSearch) -> FoundRuns:
    where, values, order = run_filters(search, None if search.after is None else _decode_place(search.after))
    where.append(_NEWEST)
    for role, name in (("agent", search.agent_id), ("user", search.user_id)):
        if name is not None:
            where.append(_PARTICIPANT)
            values += [role, name]
    sql = (
        f"SELECT {RUN}, s.session_id, {HEAD} FROM runs r JOIN sessions s USING (session_key) "
        f"WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?"
    )
    with _OneInstant(db):
        return _find(db, search, sql, (*values, search.limit + 1))


def _find(db: sqlite3.Connection, search: RunSearch, sql: str, values: Sequence[Any]) -> FoundRuns:
    found: list[tuple[Head, RunRow, str]] = []
    size, bodies = 0, db.cursor()
    for row in db.execute(sql, values):
        if len(found) == search.limit or size >= search.max_bytes:
            return FoundRuns(found, True)
        key, seq = row[20], row[0]
        # bodies are read one by one: most searches sort, which would read those of all runs that match
        body = bodies.execute(SQL["run_body"], (key, seq, row[1])).fetchone()
        run = _run_of(db, key, (*row[:19], *body), bodies=True)
        size += size_of(run)
        found.append((head_of(row[20:], SessionKey(search.namespace, row[19])), run, f"[{key},{seq}]"))
    return FoundRuns(found, False)


def hidden(db: sqlite3.Connection, query: HiddenQuery) -> HiddenPage:
    bounds = (query.runs[1], query.runs[0], query.positions[1], query.positions[0])
    with _OneInstant(db):
        row = load_head(db, query.key)
        if row is None:
            return HiddenPage(None, ())
        head = head_of(row, query.key)
        if head.erased:
            return HiddenPage(head, ())
        rows = db.execute(SQL["hidden"], (row[0], *bounds)).fetchall()
    return HiddenPage(head, [HiddenRow(row[0], row[1:3], row[3:5], *row[5:]) for row in rows])


def switches(db: sqlite3.Connection, query: SwitchQuery) -> SwitchPage:
    sql = SQL["switches_reverse" if query.reverse else "switches"]
    with _OneInstant(db):
        row = load_head(db, query.key)
        if row is None:
            return SwitchPage(None, (), False)
        rows = db.execute(sql, (row[0], query.first_version, query.last_version, query.limit + 1)).fetchall()
        found = [SwitchRow(*values) for values in rows[: query.limit]]
        return SwitchPage(head_of(row, query.key), found, len(rows) > query.limit)
