"""The names of all keys.

A session's keys have its namespace and id between braces, so that a cluster keeps them on one node; `/`, `%` and braces
of these are written as in a URL, so that no two sessions share a name. All but the head's have the incarnation behind.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from sessionledger.errors import InvalidRecordError
from sessionledger.protocol.rows import SessionKey

__all__ = ["CONTENT", "SEGMENT", "Keys", "SessionKeys", "member_of", "session_of"]

_PREFIX = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,60}")
_RESERVED = re.compile(r"[%/{}]")

#: Keys of an incarnation's content, which go with it. Its messages and its runs lie in lists of `SEGMENT` each, whose
#: keys have the segment's number behind.
CONTENT = (
    "ids",
    "revisions",
    "changed",
    "patches",
    "hidden",
    "hides",
    "switches",
    "operations",
)

SEGMENT = 4096  #: as `head.lua` has it
_MOST_MADE = 2000  #: sessions whose names are kept at hand


def _escaped(text: str) -> str:
    return _RESERVED.sub(lambda found: f"%{ord(found[0]):02X}", text) if _RESERVED.search(text) else text


@lru_cache(maxsize=_MOST_MADE)
def _shared(begin: str, namespace: str, value: str | None = None) -> str:
    """The name of a key that several sessions share."""
    return begin + _escaped(namespace) + ("" if value is None else f"/{_escaped(value)}")


class SessionKeys:
    """Of one incarnation of a session."""

    __slots__ = (*CONTENT, "head", "member", "messages", "runs", "sealed")

    def __init__(self, prefix: str, key: SessionKey, incarnation: int) -> None:
        session = f"{prefix}{{{_escaped(key.namespace)}/{_escaped(key.session_id)}}}:"
        self.head, self.sealed = f"{session}head", f"{session}sealed"
        inner = f"{session}{incarnation}:"
        self.messages, self.runs = f"{inner}messages:", f"{inner}runs:"
        for name in CONTENT:
            setattr(self, name, inner + name)
        self.member = member_of(key.session_id, incarnation)

    head: str
    sealed: str
    member: bytes
    runs: str
    ids: str
    messages: str
    revisions: str
    changed: str
    patches: str
    hidden: str
    hides: str
    switches: str
    operations: str

    def content(self) -> list[str]:
        return [getattr(self, name) for name in CONTENT]


class Keys:
    def __init__(self, prefix: str) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise InvalidRecordError(
                f"prefix is {prefix!r}: give a letter, then up to 60 letters, digits and any of _ . : -", path="prefix"
            )
        self.prefix = prefix
        self.meta = f"{prefix}meta"
        self._made: dict[tuple[SessionKey, int], SessionKeys] = {}

    def head(self, key: SessionKey) -> str:
        return f"{self.prefix}{{{_escaped(key.namespace)}/{_escaped(key.session_id)}}}:head"

    def mark(self, key: SessionKey) -> str:
        return f"{self.prefix}{{{_escaped(key.namespace)}/{_escaped(key.session_id)}}}:mark"

    def session(self, key: SessionKey, incarnation: int) -> SessionKeys:
        place = (key, incarnation)
        found = self._made.get(place)
        if found is None:
            if len(self._made) >= _MOST_MADE:
                del self._made[next(iter(self._made))]
            found = self._made[place] = SessionKeys(self.prefix, key, incarnation)
        return found

    # lists of sessions and indexes of runs, by their namespace

    def sessions(self, namespace: str) -> str:
        """Scored by their last activity."""
        return _shared(f"{self.prefix}sessions:", namespace)

    def sessions_of_user(self, namespace: str, user_id: str) -> str:
        return _shared(f"{self.prefix}user:", namespace, user_id)

    def names(self, namespace: str) -> str:
        """The same sessions, by their names."""
        return _shared(f"{self.prefix}names:", namespace)

    def forks(self, namespace: str, session_id: str) -> str:
        return _shared(f"{self.prefix}forks:", namespace, session_id)

    def open_runs(self, namespace: str) -> str:
        return _shared(f"{self.prefix}open:", namespace)

    def sessions_with(self, field: str, namespace: str, value: str) -> str:
        """Sessions that have a run with that agent, user or parent."""
        return _shared(f"{self.prefix}{field}:", namespace, value)

    def runs_by_id(self, namespace: str, run_id: str) -> tuple[str, bytes]:
        """Where a run's id is noted, and what the note begins with; behind it stands the session."""
        digest = hashlib.blake2b(run_id.encode(), digest_size=9).digest()
        return _shared(f"{self.prefix}run:{digest[0]:02x}:", namespace), digest[1:]


def member_of(session_id: str, incarnation: int) -> bytes:
    """How lists name a session: in the order of ids, and each incarnation by itself."""
    return b"%s\0%d" % (session_id.encode(), incarnation)


def session_of(member: bytes) -> tuple[str, int]:
    session_id, _, incarnation = member.rpartition(b"\0")
    return session_id.decode(), int(incarnation)
