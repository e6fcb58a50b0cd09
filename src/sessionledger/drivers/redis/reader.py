"""Reads of one session: each is one script, so that its head and its rows are of one instant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sessionledger.drivers.redis.guesses import Guesses
from sessionledger.drivers.redis.keys import Keys, SessionKeys
from sessionledger.drivers.redis.scripts import script
from sessionledger.drivers.redis.servers import Request, Servers
from sessionledger.drivers.redis.straight import Straight
from sessionledger.drivers.redis.values import (
    head_of,
    hidden_of,
    kinds_of,
    messages_of,
    run_of,
    session_of_fields,
    short_id,
    switch_of,
)
from sessionledger.protocol.filters import is_asked_for
from sessionledger.protocol.rows import (
    Head,
    HiddenPage,
    HiddenQuery,
    MessagePage,
    MessageQuery,
    MessageRow,
    RunPage,
    RunQuery,
    SessionKey,
    SessionRow,
    SwitchPage,
    SwitchQuery,
)

__all__ = ["Reader"]

Arguments = list[str | bytes | int]


class Reader:
    def __init__(self, keys: Keys, guesses: Guesses, *, straight: bool) -> None:
        """`straight`: the server takes transactions as well as scripts, which a cluster may send elsewhere half-way."""
        self._keys, self._guesses = keys, guesses
        self._straight = Straight(keys, guesses) if straight else None

    async def session(self, servers: Servers, key: SessionKey, *, state: bool) -> SessionRow | None:
        name = self._keys.head(key)
        command = ["HGETALL", name] if state else script("session").call([name], [])
        (answer,) = await servers.send([Request(name, command)])
        if isinstance(answer, Exception):
            raise answer
        return session_of_fields(answer, key) if answer else None

    async def _read(
        self,
        servers: Servers,
        name: str,
        key: SessionKey,
        names_of: Callable[[SessionKeys], list[str]],
        arguments: Arguments,
    ) -> tuple[Head | None, Sequence[Any]]:
        """The head, and what a script brings beside it; of an incarnation that most likely is the present one."""
        incarnation, _ = self._guesses.of(key, None)
        while True:
            names = self._keys.session(key, incarnation)
            command = script(name).call(names_of(names), [incarnation, *arguments])
            (answer,) = await servers.send([Request(names.head, command)])
            if isinstance(answer, Exception):
                raise answer
            head = head_of(answer[0], key)
            if head is None or head.erased or head.incarnation == incarnation:
                if head is not None and self._straight is not None:
                    self._straight.learn(head, answer[0])
                return head, answer[1:]
            self._guesses.learn(head)
            incarnation = head.incarnation

    async def messages(self, servers: Servers, query: MessageQuery) -> MessagePage:
        if self._straight is not None:
            page = await self._straight.page(servers, query)
            if page is not None:
                return page
        short = b"" if query.message_id is None else short_id(query.message_id)
        arguments: Arguments = [query.limit, query.max_bytes, int(query.reverse), short]
        for ends in query.ranges:
            arguments += ends
        head, rest = await self._read(servers, "messages", query.key, _of_messages, arguments)
        if not rest:
            return MessagePage(head, (), {}, False)
        return _message_page(head, rest[0], query)

    async def runs(self, servers: Servers, query: RunQuery, *, newest: bool = False) -> RunPage:
        """`newest`: of each run that revision alone."""
        arguments: Arguments = [query.limit, query.max_bytes, int(query.bodies), int(query.reverse)]
        arguments += (_marked(query.run_id), query.first_seq, query.last_seq, int(newest), *kinds_of(query.plain))
        head, rest = await self._read(servers, "runs", query.key, _of_runs, arguments)
        if not rest:
            return RunPage(head, (), False)
        more, rows = rest
        return RunPage(head, [run_of(row, bodies=query.bodies) for row in rows], bool(more))

    async def hidden(self, servers: Servers, query: HiddenQuery) -> HiddenPage:
        head, rest = await self._read(servers, "hidden", query.key, _of_hidden, list(query.runs))
        if not rest:
            return HiddenPage(head, ())
        found = [hidden_of(value, ends) for value, ends in zip(rest[0][::2], rest[0][1::2], strict=True)]
        rows = [row for row in found if is_asked_for(row, query)]
        return HiddenPage(head, rows)

    async def switches(self, servers: Servers, query: SwitchQuery) -> SwitchPage:
        arguments: Arguments = [query.limit, query.first_version, query.last_version, int(query.reverse)]
        head, rest = await self._read(servers, "switches", query.key, _of_switches, arguments)
        if not rest:
            return SwitchPage(head, (), False)
        rows = [switch_of(place, fields[1]) for place, fields in rest[0][: query.limit]]
        return SwitchPage(head, rows, len(rest[0]) > query.limit)


def _of_messages(names: SessionKeys) -> list[str]:
    return [names.head, names.messages, names.ids]


def _of_runs(names: SessionKeys) -> list[str]:
    return [names.head, names.runs, names.ids, names.revisions, names.changed, names.patches]


def _of_hidden(names: SessionKeys) -> list[str]:
    return [names.head, names.hidden, names.hides]


def _of_switches(names: SessionKeys) -> list[str]:
    return [names.head, names.switches]


def _marked(value: str | None) -> str:
    return "" if value is None else f"={value}"


def _message_page(head: Head | None, page: Sequence[Any], query: MessageQuery) -> MessagePage:
    rows: list[MessageRow] = []
    run_ids: dict[int, str] = {}
    size = 0
    for first, values in zip(page[::2], page[1::2], strict=True):
        found = messages_of(first, values, run_ids)
        for row in reversed(found) if query.reverse else found:
            if query.message_id not in (None, row.message_id):
                continue
            if len(rows) == query.limit or size >= query.max_bytes:
                return MessagePage(head, rows, run_ids, True)
            rows.append(row)
            size += len(row.body)
    return MessagePage(head, rows, run_ids, size >= query.max_bytes)
