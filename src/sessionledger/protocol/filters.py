"""What queries and searches ask for, executable: for drivers that look at rows one by one.

A driver that filters inside its server follows the docstrings of `rows` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sessionledger.protocol.rows import (
    OPEN_STATUSES,
    Head,
    HiddenQuery,
    HiddenRow,
    Place,
    RunRow,
    RunSearch,
    SessionQuery,
)

__all__ = [
    "asks_for_open_alone",
    "has_fields",
    "is_asked_for",
    "is_found",
    "is_listed",
    "is_searched",
    "place_of",
    "runs_that_fit",
    "size_of",
]


class Listed(Protocol):
    """What lists filter by, beside the head: of a `SessionHeader`, or of what a driver keeps in its place."""

    @property
    def kind(self) -> str: ...
    @property
    def agent_id(self) -> str | None: ...
    @property
    def name(self) -> str | None: ...


def place_of(head: Head) -> Place:
    return head.last_activity_at, head.key.session_id


def is_listed(head: Head, header: Listed, query: SessionQuery) -> bool:
    place = place_of(head)
    return (
        has_fields(head, header, query)
        and (query.active_after is None or head.last_activity_at > query.active_after)
        and (query.active_before is None or head.last_activity_at < query.active_before)
        and (query.after is None or (place > query.after if query.reverse else place < query.after))
    )


def has_fields(head: Head, header: Listed, query: SessionQuery) -> bool:
    """As `is_listed`, wherever in the order it is."""
    return (
        head.key.namespace == query.namespace
        and not head.erased
        and (query.include_deleted or head.deleted_at is None)
        and query.user_id in (None, head.user_id)
        and query.agent_id in (None, header.agent_id)
        and query.kind in (None, header.kind)
        and query.name in (None, header.name)
        and (query.forked_from is None or (head.fork is not None and head.fork.session_id == query.forked_from))
    )


def is_searched(head: Head, search: RunSearch) -> bool:
    """Whether runs of that session may be found."""
    return (
        head.key.namespace == search.namespace
        and not head.erased
        and head.deleted_at is None
        and search.owner in (None, head.user_id)
    )


def is_found(row: RunRow, search: RunSearch) -> bool:
    """Of the newest revision of a run, in a session that is searched."""
    return (
        search.run_id in (None, row.run_id)
        and (search.statuses is None or row.header.status in search.statuses)
        and search.agent_id in (None, row.agent_id)
        and search.user_id in (None, row.user_id)
        and search.parent_run_id in (None, row.parent_run_id)
        and (search.updated_before is None or row.header.updated_at < search.updated_before)
    )


def asks_for_open_alone(search: RunSearch) -> bool:
    """Whether only runs that still last can be found, for which a driver may have an index."""
    return search.statuses is not None and set(search.statuses) <= set(OPEN_STATUSES)


def size_of(run: RunRow) -> int:
    """As the bytes of a page count it."""
    return len(run.body) + sum(map(len, run.parts.values())) if run.parts else len(run.body)


def runs_that_fit(rows: Sequence[RunRow], max_bytes: int) -> int:
    """How many of these make a page: up to the one that brings it to its bytes."""
    size = 0
    for count, row in enumerate(rows, 1):
        size += size_of(row)
        if size >= max_bytes:
            return count
    return len(rows)


def is_asked_for(row: HiddenRow, query: HiddenQuery) -> bool:
    """Whether a hidden row is one that a query asks for."""
    return _overlap(row.positions, query.positions) and _overlap(row.runs, query.runs)


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]
