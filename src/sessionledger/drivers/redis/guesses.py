"""What is most likely so of a session, so that it need not be asked for; the scripts check it."""

from __future__ import annotations

from typing import NamedTuple

from sessionledger.protocol.rows import Head, SessionKey

__all__ = ["Extent", "Extents", "Guesses"]

_MOST = 20_000
_MOST_READ = 1000


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
