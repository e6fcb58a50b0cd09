"""All that can be read of a session, but for what the clock says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from sessionledger import SessionLedgerError, SessionStore

__all__ = ["Snapshot", "snapshot", "without_version"]

Snapshot = dict[str, Any]

_CLOCK = {
    "created_at",
    "updated_at",
    "finished_at",
    "last_activity_at",
    "first_activity_at",
    "deleted_at",
    "switched_at",
}


async def snapshot(store: SessionStore, session_id: str) -> Snapshot:
    reads: dict[str, Callable[[], Awaitable[Any]]] = {
        "session": lambda: store.get_session(session_id),
        "runs": lambda: store.runs(session_id, include_messages=True).collect(),
        "messages": lambda: store.messages(session_id).collect(),
        "log": lambda: store.messages(session_id, include_retracted=True).collect(),
        "history": lambda: store.history(session_id).collect(),
        "switches": lambda: store.switches(session_id).collect(),
        "stats": lambda: store.stats(session_id),
    }
    return {name: await _answer(read) for name, read in reads.items()}


async def _answer(read: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return _timeless(msgspec.to_builtins(await read()))
    except SessionLedgerError as error:
        return type(error).__name__


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if name not in _CLOCK}
    if isinstance(value, list | tuple):
        return [_timeless(item) for item in value]
    return value


def without_version(found: Snapshot) -> Snapshot:
    """A write of several commits shows none of its content before the last, but the log's version tells of each."""
    session = found["session"]
    if not isinstance(session, dict):
        return found
    return {**found, "session": {name: value for name, value in session.items() if name != "version"}}
