"""Plain appends: those of a group in one statement, which judges what there is to judge of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from sessionledger.drivers.postgres.errors import concerns_one
from sessionledger.drivers.postgres.values import (
    columns,
    columns_of_body,
    header_values,
    json_of_counters,
    message_values,
)
from sessionledger.drivers.relational import head_of
from sessionledger.protocol.plain import plain_chains, plain_put
from sessionledger.protocol.rows import OPEN_STATUSES, Commit, Committed, Head, PutRun, RunReceipt

__all__ = ["Appender"]


class Appender:
    def __init__(self, statements: Mapping[str, str]) -> None:
        self._one, self._many = statements["append_one"], statements["append"]

    async def append(self, db: asyncpg.Connection, commits: Sequence[Commit]) -> list[Committed | None]:
        """Write those that are plain; None for each that is not, or is no simple matter for a reason that it found."""
        outcomes: list[Committed | None] = [None] * len(commits)
        try:
            if len(commits) == 1:
                put = plain_put(commits[0])
                if put is not None:
                    outcomes[0] = await self._append_one(db, commits[0], put)
            else:
                await self._append_many(db, commits, outcomes)
        except asyncpg.PostgresError as error:
            if not concerns_one(error):
                raise
        return outcomes

    async def _append_one(self, db: asyncpg.Connection, commit: Commit, put: PutRun) -> Committed | None:
        row = await db.fetchrow(self._one, *_values(commit, put))
        if row is None:
            return None
        head = head_of(row, commit.key)
        first = head.message_count - len(put.messages) + 1
        return Committed(head, [RunReceipt(put.run_id, head.run_count, 1, first, head.message_count, head.version)])

    async def _append_many(
        self, db: asyncpg.Connection, commits: Sequence[Commit], outcomes: list[Committed | None]
    ) -> None:
        chains = plain_chains(commits)
        if not chains:
            return
        rows = await db.fetch(self._many, *_arrays(commits, chains))
        last = {item: len(chain) for chain in chains for item in chain}
        for item, nth, seq, version, behind, *head in rows:
            commit = commits[item]
            put = commit.changes[0]
            assert isinstance(put, PutRun)
            receipt = RunReceipt(put.run_id, seq, 1, behind + 1, behind + len(put.messages), version)
            later = last[item] - nth
            outcomes[item] = Committed(_head_at(head_of(head, commit.key), receipt, later, commit.at), [receipt])


def _arrays(commits: Sequence[Commit], chains: Sequence[Sequence[int]]) -> list[list[Any]]:
    """The parameters of the statement `append`."""
    items: list[tuple[Any, ...]] = []
    sessions: list[tuple[Any, ...]] = []
    messages: list[tuple[Any, ...]] = []
    for number, chain in enumerate(chains):
        before = 0
        counters: dict[str, int] = {}
        for nth, index in enumerate(chain, 1):
            put = commits[index].changes[0]
            assert isinstance(put, PutRun)
            items.append((index, number, nth, before, len(put.messages), *_run_values(put)))
            messages += [(index, n, *message_values(row)) for n, row in enumerate(put.messages, 1)]
            before += len(put.messages)
            for name, count in put.counters.items():
                counters[name] = counters.get(name, 0) + count
        sessions.append(_session_values(commits, number, chain, before, counters))
    return [*columns(items, 20), *columns(sessions, 21), *columns(messages, 8)]


def _values(commit: Commit, put: PutRun) -> list[Any]:
    """The parameters of the statement `append_one`."""
    new = commit.create
    assert new is not None
    *run, body, packed = _run_values(put)
    state, packed_state = columns_of_body(new.state)
    is_open = put.header.status in OPEN_STATUSES
    stored = (None, None) if is_open else (body, packed)
    in_part = (body, packed) if is_open else (None, None)
    session = (commit.key.namespace, commit.key.session_id, commit.owner, new.user_id, new.created_at)
    counts = (len(put.messages), commit.at, json_of_counters(put.counters))
    messages = [(n, *message_values(row)) for n, row in enumerate(put.messages, 1)]
    values = [*session, *counts, *header_values(new.header), state, *run, *stored, packed_state, *in_part, is_open]
    return [*values, *columns(messages, 7)]


def _run_values(put: PutRun) -> tuple[Any, ...]:
    header = put.header
    return (
        put.run_id,
        put.digest,
        put.user_id,
        put.agent_id,
        put.parent_run_id,
        put.model,
        put.created_at,
        header.status,
        header.updated_at,
        header.finished_at,
        header.input_tokens,
        header.output_tokens,
        header.has_summary,
        *columns_of_body(put.body),
    )


def _session_values(
    commits: Sequence[Commit], number: int, chain: Sequence[int], messages: int, counters: dict[str, int]
) -> tuple[Any, ...]:
    first = commits[chain[0]]
    new = first.create
    assert new is not None
    puts = [commits[index].changes[0] for index in chain]
    return (
        number,
        first.key.namespace,
        first.key.session_id,
        first.owner,
        new.user_id,
        new.created_at,
        max(commits[index].at for index in chain),
        len(chain),
        messages,
        json_of_counters(counters),
        any(isinstance(put, PutRun) and put.header.has_summary for put in puts),
        *header_values(new.header),
        *columns_of_body(new.state),
    )


def _head_at(head: Head, receipt: RunReceipt, later: int, at: int) -> Head:
    """The head right behind one commit of a chain, after which `later` more were written at once."""
    if not later:
        return head
    return msgspec.structs.replace(
        head,
        version=receipt.version,
        run_count=receipt.run_seq,
        message_count=receipt.last_position,
        last_activity_at=min(head.last_activity_at, at),
    )
