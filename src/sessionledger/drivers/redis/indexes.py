"""Indexes over sessions, which on a cluster lie on other nodes than these.

Where they do, what is added is added before the session is written, and what is taken out, after: a process that ends
in between leaves an entry too many, which readers pass over, never one too few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sessionledger.drivers.redis.keys import Keys
from sessionledger.drivers.redis.pool import Command
from sessionledger.drivers.redis.servers import Request
from sessionledger.drivers.redis.values import meta_of
from sessionledger.protocol.decide import Decision
from sessionledger.protocol.rows import OPEN_STATUSES, Commit, Head, PatchRun, PutRun, Seal, SessionKey

__all__ = [
    "Entry",
    "Indexing",
    "added",
    "early",
    "entries_of_record",
    "entries_of_run",
    "indexing_of",
    "late",
    "lists_of",
    "open_entry",
    "removed",
]


class Entry(NamedTuple):
    key: str
    member: bytes


def lists_of(keys: Keys, key: SessionKey, user_id: str | None) -> list[str]:
    """The lists that have a session by its activity."""
    names = [keys.sessions(key.namespace)]
    return names if user_id is None else [*names, keys.sessions_of_user(key.namespace, user_id)]


def entries_of_run(keys: Keys, key: SessionKey, member: bytes, put: PutRun, *, user_id: str | None) -> Iterator[Entry]:
    """What a run, or a revision of one, adds. A run of the session's own user is found by that user's list."""
    name, begin = keys.runs_by_id(key.namespace, put.run_id)
    yield Entry(name, begin + member)
    if put.agent_id is not None:
        yield Entry(keys.sessions_with("agent", key.namespace, put.agent_id), member)
    if put.user_id not in (None, user_id):
        yield Entry(keys.sessions_with("runner", key.namespace, put.user_id), member)
    if put.parent_run_id is not None:
        yield Entry(keys.sessions_with("parent", key.namespace, put.parent_run_id), member)
    if put.header.status in OPEN_STATUSES:
        yield open_entry(keys, key, member, put.run_id, put.revision)


def entries_of_record(keys: Keys, key: SessionKey, member: bytes, record: bytes) -> Iterator[Entry]:
    """What a stored run, or a revision of one, has added."""
    run_id, revision, _, user_id, agent_id, parent_run_id, *_ = meta_of(record)
    name, begin = keys.runs_by_id(key.namespace, run_id)
    yield Entry(name, begin + member)
    for field, value in (("agent", agent_id), ("runner", user_id), ("parent", parent_run_id)):
        if value is not None:
            yield Entry(keys.sessions_with(field, key.namespace, value), member)
    yield open_entry(keys, key, member, run_id, revision)


def open_entry(keys: Keys, key: SessionKey, member: bytes, run_id: str, revision: int) -> Entry:
    """Of one revision, which never opens again once it is closed: so its entry may be taken out at any time."""
    return Entry(keys.open_runs(key.namespace), b"%s\0%d\0%s" % (member, revision, run_id.encode()))


class Indexing(NamedTuple):
    """What one commit changes in the indexes."""

    lists: Sequence[Entry]  #: by activity
    score: int
    added: Sequence[Entry]
    removed: Sequence[Entry]


def indexing_of(keys: Keys, commit: Commit, decision: Decision, before: Head | None) -> Indexing:
    head = decision.head
    assert head is not None
    key, member = commit.key, keys.session(commit.key, head.incarnation).member
    names = lists_of(keys, key, head.user_id)
    added: list[Entry] = []
    removed: list[Entry] = []
    if decision.created:
        added.append(Entry(keys.names(key.namespace), member))
        if head.fork is not None:
            added.append(Entry(keys.forks(key.namespace, head.fork.session_id), member))
    for change, _ in decision.writes:
        if isinstance(change, PutRun):
            added += entries_of_run(keys, key, member, change, user_id=head.user_id)
            if change.revision > 1:
                removed.append(open_entry(keys, key, member, change.run_id, change.revision - 1))
        elif isinstance(change, PatchRun) and change.header.status not in OPEN_STATUSES:
            removed.append(open_entry(keys, key, member, change.run_id, change.revision))
        elif isinstance(change, Seal):
            removed += _of_session(keys, key, member, head)
    moved = decision.created or before is None or before.last_activity_at != head.last_activity_at
    lists = [Entry(name, member) for name in names] if moved and not head.erased else []
    return Indexing(lists, head.last_activity_at, [entry for entry in added if entry not in removed], removed)


def _of_session(keys: Keys, key: SessionKey, member: bytes, head: Head) -> list[Entry]:
    names = [*lists_of(keys, key, head.user_id), keys.names(key.namespace)]
    if head.fork is not None:
        names.append(keys.forks(key.namespace, head.fork.session_id))
    return [Entry(name, member) for name in names]


def added(entries: Sequence[Entry]) -> list[Request]:
    return [Request(entry.key, ("ZADD", entry.key, 0, entry.member)) for entry in entries]


def removed(entries: Sequence[Entry]) -> list[Request]:
    return [Request(entry.key, ("ZREM", entry.key, entry.member)) for entry in entries]


def early(indexing: Indexing) -> list[Request]:
    """What is sent before the commit, where it cannot be part of it."""
    listed: list[Command] = [("ZADD", name, "NX", indexing.score, member) for name, member in indexing.lists]
    return [Request(str(command[1]), command) for command in listed] + added(indexing.added)


def late(indexing: Indexing) -> list[Request]:
    """What is sent behind it."""
    listed: list[Command] = [("ZADD", name, "GT", indexing.score, member) for name, member in indexing.lists]
    return [Request(str(command[1]), command) for command in listed] + removed(indexing.removed)
