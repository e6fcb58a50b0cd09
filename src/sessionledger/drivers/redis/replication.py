"""Waiting for replicas, or for the disk, before a commit counts as done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sessionledger.drivers.redis.keys import Keys
from sessionledger.drivers.redis.servers import Request, Servers
from sessionledger.errors import OutcomeUnknownError
from sessionledger.protocol.rows import SessionKey

__all__ = ["Replication"]

_LIFE = 1000  #: milliseconds that a mark stays


class Replication:
    """`replicas`: how many have to confirm; `aof`: they, and the server itself, have it on their disks."""

    def __init__(self, keys: Keys, *, replicas: int, aof: bool, timeout: float) -> None:
        self._keys, self._replicas, self._aof, self._timeout = keys, replicas, aof, timeout
        self.is_wanted = aof or replicas > 0

    async def confirm(self, servers: Servers, sessions: Iterable[SessionKey]) -> None:
        """A connection waits for its own writes alone: so a mark is written behind all others, and waited for."""
        requests: list[Request] = []
        for session in dict.fromkeys(sessions):
            mark = self._keys.mark(session)
            requests += (Request(mark, ("SET", mark, 1, "PX", _LIFE)), Request(mark, self._wait()))
        answers = await servers.send(requests)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        for answer in answers[1::2]:
            self._check(answer)

    def _wait(self) -> tuple[str | int, ...]:
        patience = int(self._timeout * 1000)
        if self._aof:
            return ("WAITAOF", 1, self._replicas, patience)
        return ("WAIT", self._replicas, patience)

    def _check(self, answer: Any) -> None:
        local, confirmed = answer if self._aof else (1, answer)
        if confirmed < self._replicas or not local:
            raise OutcomeUnknownError(
                f"Redis has written it, but {confirmed} of {self._replicas} replicas have confirmed it within "
                f"{self._timeout:g} s: repeat the call with the same ids, or lower wait_replicas",
                driver="redis",
            )
