"""What is most likely so of a session, so that it need not be asked for; the scripts check it."""

from __future__ import annotations

from sessionledger.protocol.rows import Head, SessionKey

__all__ = ["Guesses"]

_MOST = 20_000


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
