"""Plain appends: those of a group in one statement, which judges what there is to judge of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import asyncpg
from msgspec.structs import astuple

from sessionledger.drivers.postgres.errors import concerns_one
from sessionledger.drivers.postgres.values import (
    columns,
    columns_of_body,
    counters_of,
    header_values,
    json_of_counters,
    message_values,
)
from sessionledger.drivers.relational import head_of, run_values
from sessionledger.protocol.decide import summed
from sessionledger.protocol.plain import add_up, chain_outcomes, head_behind, plain_chains, put_of
from sessionledger.protocol.rows import OPEN_STATUSES, Commit, Committed, Head, PutRun, SessionKey

__all__ = ["Appender"]


_MOST_KNOWN = 20_000  #: sessions that are remembered


class _Known(NamedTuple):
    """A session as a statement last left it. The next statement judges whether it still is."""

    session_key: int
    head: Head
    counters: Mapping[str, int]


class _Chain(NamedTuple):
    """The runs of one session, in order."""

    places: Sequence[int]  #: of the commits in their group
    commits: Sequence[Commit]
    puts: Sequence[PutRun]
    added: Mapping[str, int]  #: by all of them to the session's counters
    known: _Known | None

    @property
    def follows(self) -> bool:
        """Whether it is one run that is over, of which nothing is left to judge if the session is where it was."""
        return (
            self.known is not None
            and len(self.puts) == 1
            and self.puts[0].header.status not in OPEN_STATUSES
            and self.commits[0].owner in (None, self.known.head.user_id)
        )


class Appender:
    def __init__(self, statements: Mapping[str, str]) -> None:
        self._any, self._known = statements["append"], statements["append_known"]
        self._each, self._one = statements["append_each"], statements["append_one"]
        self._seen: dict[SessionKey, _Known] = {}

    async def append(self, db: asyncpg.Connection, commits: Sequence[Commit]) -> list[Committed | None]:
        """Write those that are plain; None for each that is not, or is no simple matter for a reason that it found."""
        chains = [self._chain(commits, places) for places in plain_chains(commits)]
        outcomes: list[Committed | None] = [None] * len(commits)
        for chain in chains:
            self._seen.pop(chain.commits[0].key, None)
        if chains and all([chain.follows for chain in chains]):
            chains = await self._follow(db, chains, outcomes)
        for number, *row, counters in await self._send(db, chains):
            chain = chains[number]
            head = head_of(row, chain.commits[0].key)
            total = _after(chain) if counters is None else counters_of(counters)
            self._settle(chain, _Known(row[0], head, total), outcomes)
        return outcomes

    def _chain(self, commits: Sequence[Commit], places: Sequence[int]) -> _Chain:
        own = [commits[place] for place in places]
        puts = [put_of(commit) for commit in own]
        return _Chain(places, own, puts, add_up(puts), self._seen.get(own[0].key))

    def _settle(self, chain: _Chain, behind: _Known, outcomes: list[Committed | None]) -> None:
        """A chain that was written: the session is remembered as it is behind it."""
        for place, outcome in zip(chain.places, chain_outcomes(behind.head, chain.commits), strict=True):
            outcomes[place] = outcome
        if len(self._seen) >= _MOST_KNOWN:
            self._seen.clear()
        self._seen[chain.commits[0].key] = behind

    async def _follow(
        self, db: asyncpg.Connection, chains: Sequence[_Chain], outcomes: list[Committed | None]
    ) -> list[_Chain]:
        """Append to sessions that are where they were; what is left is to be judged."""
        behind = [_behind(chain) for chain in chains]
        if len(chains) == 1:
            rows = await _rows(db, self._one, _values(chains[0], behind[0]))
        else:
            rows = await _rows(db, self._each, _values_of_each(chains, behind))
        written = {row[0] for row in rows}
        for number in written:
            self._settle(chains[number], behind[number], outcomes)
        return [chain for number, chain in enumerate(chains) if number not in written]

    async def _send(self, db: asyncpg.Connection, chains: Sequence[_Chain]) -> Sequence[Sequence[Any]]:
        if not chains:
            return ()
        if all([chain.known for chain in chains]):
            return await _rows(db, self._known, _arrays(chains, _known_values, 12))
        return await _rows(db, self._any, _arrays(chains, _new_values, 21))


async def _rows(db: asyncpg.Connection, statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
    """No rows where PostgreSQL refuses what one of the commits brought."""
    try:
        rows: Sequence[Sequence[Any]] = await db.fetch(statement, *values)
    except asyncpg.PostgresError as error:
        if not concerns_one(error):
            raise
        return ()
    return rows


def _after(chain: _Chain) -> dict[str, int]:
    """The counters of its session, if that is as it was."""
    assert chain.known is not None
    return summed([chain.known.counters, chain.added])


def _behind(chain: _Chain) -> _Known:
    """Its session behind its runs, if that is as it was."""
    assert chain.known is not None
    return _Known(chain.known.session_key, head_behind(chain.known.head, chain.commits), _after(chain))


# The parameters of the statements


def _values(chain: _Chain, behind: _Known) -> list[Any]:
    put = chain.puts[0]
    return [
        *_steps(chain, behind),
        json_of_counters(behind.counters),
        *_run_values(put),
        *columns([message_values(row) for row in put.messages], 4),
    ]


def _values_of_each(chains: Sequence[_Chain], behind: Sequence[_Known]) -> list[Any]:
    items: list[tuple[Any, ...]] = []
    messages: list[tuple[Any, ...]] = []
    for number, (chain, after) in enumerate(zip(chains, behind, strict=True)):
        put = chain.puts[0]
        session = (number, *_steps(chain, after), json_of_counters(after.counters), len(messages))
        items.append((*session, *_run_values(put)))
        messages += [(number, *message_values(row)) for row in put.messages]
    return [*columns(items, 26), *columns(messages, 5)]


def _steps(chain: _Chain, behind: _Known) -> tuple[Any, ...]:
    """Where a session was, and what becomes of it."""
    assert chain.known is not None
    old, new = chain.known.head, behind.head
    was = (behind.session_key, old.version, old.run_count, old.message_count, old.last_activity_at)
    return (*was, new.message_count, new.last_activity_at, new.has_summary)


def _arrays(
    chains: Sequence[_Chain], of_session: Callable[[_Chain], tuple[Any, ...]], columns_of_session: int
) -> list[list[Any]]:
    items: list[tuple[Any, ...]] = []
    sessions: list[tuple[Any, ...]] = []
    messages: list[tuple[Any, ...]] = []
    for number, chain in enumerate(chains):
        before = 0
        for nth, (place, put) in enumerate(zip(chain.places, chain.puts, strict=True), 1):
            items.append((place, number, nth, before, len(put.messages), *_run_values(put)))
            messages += [(place, n, *message_values(row)) for n, row in enumerate(put.messages, 1)]
            before += len(put.messages)
        sessions.append((number, *_added_values(chain, before), *of_session(chain)))
    return [*columns(items, 20), *columns(sessions, columns_of_session), *columns(messages, 6)]


def _run_values(put: PutRun) -> tuple[Any, ...]:
    return (put.run_id, *run_values(put), *astuple(put.header), *columns_of_body(put.body))


def _added_values(chain: _Chain, messages: int) -> tuple[Any, ...]:
    """What the runs of one session add to it."""
    return (
        chain.commits[0].owner,
        max([commit.at for commit in chain.commits]),
        len(chain.puts),
        messages,
        json_of_counters(chain.added),
        any([put.header.has_summary for put in chain.puts]),
    )


def _known_values(chain: _Chain) -> tuple[Any, ...]:
    assert chain.known is not None
    key, head = chain.known.session_key, chain.known.head
    return (key, head.key.namespace, head.key.session_id, head.version, json_of_counters(_after(chain)))


def _new_values(chain: _Chain) -> tuple[Any, ...]:
    """The names of a session, and the fields of the one that is made where there is none."""
    key, new = chain.commits[0].key, chain.commits[0].create
    assert new is not None
    made = (new.user_id, new.created_at, *header_values(new.header), *columns_of_body(new.state))
    return (key.namespace, key.session_id, *made)
