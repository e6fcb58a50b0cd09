"""Large pages of messages without a script, which would copy each message twice more inside the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sessionledger.drivers.redis.guesses import Extent, Extents, Guesses
from sessionledger.drivers.redis.keys import SEGMENT, Keys
from sessionledger.drivers.redis.servers import Request, Servers
from sessionledger.drivers.redis.values import HEAD, head_of, largest_of, messages_of
from sessionledger.protocol.rows import Head, MessagePage, MessageQuery, MessageRow

__all__ = ["Straight"]

_LEAST = 100  #: messages of a page that a script would be slower to bring


class Straight:
    def __init__(self, keys: Keys, guesses: Guesses) -> None:
        self._keys, self._guesses = keys, guesses
        self._extents = Extents()

    def learn(self, head: Head, values: Sequence[bytes | None]) -> None:
        if not head.erased:
            self._extents.learn(head, largest_of(values))

    async def page(self, servers: Servers, query: MessageQuery) -> MessagePage | None:
        """None: a script has to say, because the page is small, may be too large, or the session has changed."""
        incarnation, _ = self._guesses.of(query.key, None)
        extent = self._extents.of(query.key, incarnation)
        if extent is None or not _is_worth_it(query, extent):
            return None
        first, last = _bounds(query, extent)
        if first > last:
            return None
        names = self._keys.session(query.key, incarnation)
        commands = [("LRANGE", *piece) for piece in _pieces(names.messages, extent.base, first, last)]
        found = await self._at_once(servers, names.head, [("HMGET", names.head, *HEAD), *commands])
        head = head_of(found[0], query.key)
        if head is None or head.erased or head.incarnation != incarnation:
            return None
        self.learn(head, found[0])
        more = min(query.ranges[0][1], head.message_count) > extent.newest
        if more and (query.reverse or last == extent.newest):
            return None
        run_ids: dict[int, str] = {}
        rows = messages_of(first, [value for piece in found[1:] for value in piece], run_ids)
        return _cut(head, rows, run_ids, query)

    async def _at_once(self, servers: Servers, key: str, commands: Sequence[Any]) -> list[Any]:
        requests = [Request(key, command) for command in (("MULTI",), *commands, ("EXEC",))]
        *queued, found = await servers.send(requests)
        for answer in (found, *queued, *(found if isinstance(found, list) else ())):
            if isinstance(answer, Exception):
                raise answer
        return list(found)


def _is_worth_it(query: MessageQuery, extent: Extent) -> bool:
    return (
        len(query.ranges) == 1
        and query.message_id is None
        and _LEAST <= query.limit < SEGMENT
        and extent.largest * (query.limit + 1) <= 2 * query.max_bytes
    )


def _bounds(query: MessageQuery, extent: Extent) -> tuple[int, int]:
    """One more than the limit, so that one sees whether there is more; none of which the size is not known."""
    first, last = query.ranges[0]
    first, last = max(first, extent.base + 1), min(last, extent.newest)
    return (max(first, last - query.limit), last) if query.reverse else (first, min(last, first + query.limit))


def _pieces(prefix: str, base: int, first: int, last: int) -> list[tuple[str, int, int]]:
    """Key, first and last index of each list that a range lies in, as `head.lua` has them."""
    found = []
    while first <= last:
        segment = (first - 1) // SEGMENT
        start, end = max(segment * SEGMENT, base) + 1, min(last, (segment + 1) * SEGMENT)
        found.append((f"{prefix}{segment}", first - start, end - start))
        first = end + 1
    return found


def _cut(head: Head, rows: list[MessageRow], run_ids: dict[int, str], query: MessageQuery) -> MessagePage:
    if query.reverse:
        rows.reverse()
    if sum([len(row.body) for row in rows]) < query.max_bytes:
        return MessagePage(head, rows[: query.limit], run_ids, len(rows) > query.limit)
    size = 0
    for count, row in enumerate(rows):
        if count == query.limit or size >= query.max_bytes:
            return MessagePage(head, rows[:count], run_ids, True)
        size += len(row.body)
    return MessagePage(head, rows, run_ids, size >= query.max_bytes)
