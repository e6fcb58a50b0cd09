"""What is most likely so of a session, so that it need not be asked for; the scripts check it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from sessionledger.drivers.redis.indexes import Entry
from sessionledger.protocol.rows import Head, SessionKey

__all__ = ["NOWHERE", "Extent", "Extents", "Guesses", "Standing", "Standings"]

_MOST = 20_000
_MOST_READ = 1000
_MOST_WRITTEN = 1000


class Guesses:
    """Incarnations and users of sessions that were seen. One that is not known is taken for a first incarnation."""

    def __init__(self) -> None:
        self._known: dict[SessionKey, tuple[int, str | None]] = {}

    def of(self, key: SessionKey, user_id: str | None) -> tuple[int, str | None]:
        return self._known.get(key) or (1, user_id)

    def learn(self, head: Head) -> None:
        known = (head.incarnation, head.user_id)
        if self._known.get(head.key) == known:
            return
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[head.key] = known


class Extent(NamedTuple):
    """How far a session's messages go, and how large they are."""

    base: int
    newest: int
    largest: int


class Extents:
    """Of sessions that were read: what a page is asked for without a script. It is checked when the page has come."""

    def __init__(self) -> None:
        self._known: dict[tuple[SessionKey, int], Extent] = {}

    def of(self, key: SessionKey, incarnation: int) -> Extent | None:
        return self._known.get((key, incarnation))

    def learn(self, head: Head, largest: int) -> None:
        place = (head.key, head.incarnation)
        if place not in self._known and len(self._known) >= _MOST_READ:
            del self._known[next(iter(self._known))]
        self._known[place] = Extent(head.fork.position if head.fork else 0, head.message_count, largest)


class Standing(NamedTuple):
    """A session as an append has left it."""

    head: Head | None
    counters: Mapping[str, int]  #: those that are known, as the server adds them up
    largest: int
    entries: frozenset[Entry]  #: that are known to be in the indexes

    @property
    def version(self) -> int:
        return self.head.version if self.head else 0

    @property
    def runs(self) -> int:
        return self.head.run_count if self.head else 0

    @property
    def messages(self) -> int:
        return self.head.message_count if self.head else 0

    @property
    def active(self) -> int:
        return self.head.last_activity_at if self.head else 0


#: Of a session of which nothing is known.
NOWHERE: Final = Standing(None, {}, 0, frozenset())


class Standings:
    """Of sessions that were appended to: what the next append is made for. The script moves it where it is wrong."""

    def __init__(self) -> None:
        self._known: dict[SessionKey, Standing] = {}

    def of(self, key: SessionKey) -> Standing | None:
        return self._known.get(key)

    def learn(self, key: SessionKey, standing: Standing) -> None:
        self._known.pop(key, None)
        if len(self._known) >= _MOST_WRITTEN:
            del self._known[next(iter(self._known))]
        self._known[key] = standing
