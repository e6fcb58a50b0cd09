"""What the drivers of relational databases share: the words of their tables, and rows made of them.

Statements are written with `?` for each value; a driver that numbers its values puts numbers there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from sessionledger.protocol.filters import asks_for_open_alone
from sessionledger.protocol.rows import OPEN_STATUSES, ForkLink, Head, PutRun, RunSearch, SessionKey, SessionQuery

__all__ = [
    "HEAD",
    "HEADER",
    "RUN",
    "changing_values",
    "head_of",
    "link_values",
    "not_plain",
    "run_filters",
    "run_values",
    "session_filters",
]

#: Columns of a session `s`, in the order in which `head_of` takes them; the last has its counters.
HEAD: Final = (
    "s.session_key, s.incarnation, s.version, s.state_version, s.run_count, s.message_count, s.user_id, s.created_at, "
    "s.last_activity_at, s.deleted_at, s.erased, s.has_hidden, s.has_summary, s.forks, s.forked_from, "
    "s.forked_incarnation, s.forked_at, s.forked_run_seq, s.forked_version, s.counters"
)
#: Columns of a session's header `h`.
HEADER: Final = "h.kind, h.agent_id, h.current_agent, h.name, h.parent_session_id, h.updated_at, h.body"
#: Columns of a run `r`, without its body.
RUN: Final = (
    "r.seq, r.revision, r.run_id, r.version, r.patch, r.digest, r.user_id, r.agent_id, r.parent_run_id, r.model, "
    "r.created_at, r.first_position, r.last_position, r.status, r.updated_at, r.finished_at, r.input_tokens, "
    "r.output_tokens, r.has_summary"
)
#: Made of as many columns as it has fields.
_make_head: Callable[..., Head] = Head


def head_of(row: Sequence[Any], key: SessionKey) -> Head:
    """Of a row that begins with the columns of a head."""
    fork = ForkLink(*row[14:19]) if row[14] is not None else None
    return _make_head(key, *row[1:10], bool(row[10]), bool(row[11]), bool(row[12]), row[13], fork)


def changing_values(head: Head) -> tuple[Any, ...]:
    """Of the columns of a session that commits change, without its counters."""
    return (
        head.version,
        head.state_version,
        head.run_count,
        head.message_count,
        head.last_activity_at,
        head.deleted_at,
        head.erased,
        head.has_hidden,
        head.has_summary,
        head.forks,
    )


def link_values(head: Head) -> tuple[Any, ...]:
    """Of the columns that say where a session was forked."""
    return (None,) * 5 if head.fork is None else msgspec.structs.astuple(head.fork)


def run_values(put: PutRun) -> tuple[Any, ...]:
    """Of the columns of a run from its digest to its creation."""
    return (put.digest, put.user_id, put.agent_id, put.parent_run_id, put.model, put.created_at)


def not_plain(values: Sequence[str]) -> str:
    """The condition on a run `r` that a query with `plain` brings it; `values` stand for the statuses."""
    known = ", ".join(values)
    return f"(r.patch > 0 OR r.revision > 1 OR r.parent_run_id IS NOT NULL OR r.status NOT IN ({known}))"


def session_filters(query: SessionQuery) -> tuple[str, list[Any], str]:
    """The condition on a session `s` and its header `h`, its values, and the order."""
    where: list[tuple[str, Any]] = [("s.namespace = ?", query.namespace)]
    where += [
        ("s.user_id = ?", query.user_id),
        ("h.agent_id = ?", query.agent_id),
        ("h.kind = ?", query.kind),
        ("h.name = ?", query.name),
        ("s.last_activity_at > ?", query.active_after),
        ("s.last_activity_at < ?", query.active_before),
        ("s.forked_from = ?", query.forked_from),
    ]
    where = [(text, value) for text, value in where if value is not None]
    if query.after is not None:
        sign = ">" if query.reverse else "<"
        # the first bound finds the place in the index, the second one settles ties
        where.append((f"s.last_activity_at {sign}= ?", query.after[0]))
        where.append((f"(s.last_activity_at, s.session_id) {sign} (?, ?)", query.after))
    conditions = [text for text, _ in where] + ["NOT s.erased"]
    if not query.include_deleted:
        conditions.append("s.deleted_at IS NULL")
    order = "ASC" if query.reverse else "DESC"
    return " AND ".join(conditions), _flat(where), f"s.last_activity_at {order}, s.session_id {order}"


def run_filters(search: RunSearch, after: tuple[int, int] | None) -> tuple[list[str], list[Any], str]:
    """Conditions on a run `r` of a session `s`, their values, and the order: by session_key and seq."""
    where: list[tuple[str, Any]] = [("s.namespace = ?", search.namespace)]
    where += [
        ("s.user_id = ?", search.owner),
        ("r.run_id = ?", search.run_id),
        ("r.agent_id = ?", search.agent_id),
        ("r.user_id = ?", search.user_id),
        ("r.parent_run_id = ?", search.parent_run_id),
        ("r.updated_at < ?", search.updated_before),
    ]
    where = [(text, value) for text, value in where if value is not None]
    if search.statuses is not None:
        where.append((f"r.status IN ({', '.join('?' * len(search.statuses))})", tuple(search.statuses)))
    if after is not None:
        where.append((f"(r.session_key, r.seq) {'<' if search.reverse else '>'} (?, ?)", after))
    conditions = [text for text, _ in where] + ["s.deleted_at IS NULL", "NOT s.erased"]
    if asks_for_open_alone(search):
        # said again in the words of the partial index, so that it is used
        conditions.append(f"r.status IN ({', '.join(map(repr, OPEN_STATUSES))})")
    order = "DESC" if search.reverse else "ASC"
    return conditions, _flat(where), f"r.session_key {order}, r.seq {order}"


def _flat(where: Sequence[tuple[str, Any]]) -> list[Any]:
    return [value for _, given in where for value in (given if isinstance(given, tuple) else (given,))]
