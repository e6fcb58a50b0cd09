"""Erasing what a sealed incarnation left: its entries in the indexes, a few runs at a time, then its keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sessionledger.drivers.redis.indexes import Entry, entries_of_record, removed
from sessionledger.drivers.redis.keys import SEGMENT, Keys, SessionKeys
from sessionledger.drivers.redis.servers import Request, Servers
from sessionledger.protocol.rows import SessionKey

__all__ = ["Eraser"]

_STEP = 16  #: runs that are read at once, with their bodies


class Eraser:
    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def erase(self, servers: Servers, key: SessionKey, limit: int) -> bool:
        sealed = self._keys.session(key, 1).sealed
        (flat,) = await _ask(servers, [Request(sealed, ("HGETALL", sealed))])
        for incarnation, counts in zip(flat[::2], flat[1::2], strict=True):
            names = self._keys.session(key, int(incarnation))
            runs, messages = map(int, counts.split())
            limit = await self._forget_runs(servers, key, names, runs, limit)
            if limit <= 0:
                return True
            # the server frees what they held behind the answer, in a thread of its own
            commands = [("UNLINK", name) for name in [*names.content(), *_segments(names, runs, messages)]]
            requests = [Request(names.head, command) for command in commands]
            await _ask(servers, [*requests, Request(names.head, ("HDEL", names.sealed, incarnation))])
        return False

    async def _forget_runs(self, servers: Servers, key: SessionKey, names: SessionKeys, runs: int, limit: int) -> int:
        """What is left of the limit; 0 while there are runs."""
        for segment in range(-(-runs // SEGMENT)):
            name = f"{names.runs}{segment}"
            while records := (await _ask(servers, [Request(names.head, ("LRANGE", name, 0, _STEP - 1))]))[0]:
                await _ask(servers, removed(self._entries(key, names, records)))
                await _ask(servers, [Request(names.head, ("LTRIM", name, len(records), -1))])
                limit -= len(records)
                if limit <= 0:
                    return 0
        return await self._forget_revisions(servers, key, names, limit)

    async def _forget_revisions(self, servers: Servers, key: SessionKey, names: SessionKeys, limit: int) -> int:
        cursor: Any = 0
        while limit > 0:
            command = ("HSCAN", names.revisions, cursor, "COUNT", _STEP)
            ((cursor, flat),) = await _ask(servers, [Request(names.head, command)])
            if flat:
                await _ask(servers, removed(self._entries(key, names, flat[1::2])))
                await _ask(servers, [Request(names.head, ("HDEL", names.revisions, *flat[::2]))])
                limit -= len(flat) // 2
            if int(cursor) == 0:
                return max(limit, 1)
        return 0

    def _entries(self, key: SessionKey, names: SessionKeys, records: Iterable[bytes]) -> Sequence[Entry]:
        found: dict[Entry, None] = {}
        for record in records:
            found.update(dict.fromkeys(entries_of_record(self._keys, key, names.member, record)))
        return list(found)


def _segments(names: SessionKeys, runs: int, messages: int) -> list[str]:
    return [
        f"{prefix}{segment}"
        for prefix, count in ((names.runs, runs), (names.messages, messages))
        for segment in range(-(-count // SEGMENT))
    ]


async def _ask(servers: Servers, requests: Sequence[Request]) -> list[Any]:
    answers = await servers.send(requests)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
