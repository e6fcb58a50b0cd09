"""Arguments of the public methods: checked, and in the words of the core."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sessionledger.codec import to_micros
from sessionledger.errors import InvalidRecordError
from sessionledger.protocol.rows import RunSearch
from sessionledger.records import Run, RunStatus, SessionKind
from sessionledger.token import decode_token
from sessionledger.validate import check_count

__all__ = ["micros_of", "one_of", "passes", "place_of", "statuses_of", "texts_of", "wider"]


def place_of(place: int | str, kind: str, over: str) -> int:
    """A position or seq, given as such or as a token."""
    if isinstance(place, str):
        return decode_token(place, kind, over, int)
    check_count(place, "after and before")
    return place


def wider(name: str, value: str, own: str | None) -> InvalidRecordError:
    return InvalidRecordError(
        f"{name} is {value!r} in a view of {own!r}: a view of a view can only be narrower", path=name
    )


def one_of(kind: type[RunStatus] | type[SessionKind], value: Any, name: str) -> str:
    if value not in kind._value2member_map_:
        raise InvalidRecordError(f"{name} is {value!r}: give one of {', '.join(kind)}", path=name)
    return str(value)


def statuses_of(value: Any, name: str) -> frozenset[str]:
    values = (value,) if isinstance(value, str) else value
    return frozenset(one_of(RunStatus, status, name) for status in values)


def texts_of(values: Collection[str], name: str) -> frozenset[str]:
    if isinstance(values, str):
        raise InvalidRecordError(f"{name} is the text {values!r}: give a list of roles", path=name)
    return frozenset(values)


def micros_of(moment: datetime | None, name: str) -> int | None:
    if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
        raise InvalidRecordError(f"{name} is {moment!r}: give an aware time, as datetime.now(UTC) does", path=name)
    return None if moment is None else to_micros(moment)


def passes(search: RunSearch, run: Run) -> bool:
    assert run.updated_at is not None
    return (
        (search.statuses is None or run.status in search.statuses)
        and search.agent_id in (None, run.agent_id)
        and search.user_id in (None, run.user_id)
        and search.parent_run_id in (None, run.parent_run_id)
        and (search.updated_before is None or to_micros(run.updated_at) < search.updated_before)
    )
