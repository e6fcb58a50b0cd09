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
from sessionledger.protocol.plain import plain_chains
from sessionledger.protocol.rows import OPEN_STATUSES, Commit, Committed, Head, PutRun, RunReceipt, SessionKey

__all__ = ["Appender"]


_MOST_KNOWN = 20_000  #: sessions that are remembered


class Appender:
    def __init__(self, statements: Mapping[str, str]) -> None:
        self._any, self._known, self._one = (statements[name] for name in ("append", "append_known", "append_one"))
        #: Sessions that were there a moment ago. What is said here is judged by the statements, which are then shorter.
        self._seen: set[SessionKey] = set()

    async def append(self, db: asyncpg.Connection, commits: Sequence[Commit]) -> list[Committed | None]:
        """Write those that are plain; None for each that is not, or is no simple matter for a reason that it found."""
        chains = plain_chains(commits)
        outcomes: list[Committed | None] = [None] * len(commits)
        try:
            for index, outcome in await self._append(db, commits, chains):
                outcomes[index] = outcome
        except asyncpg.PostgresError as error:
            if not concerns_one(error):
                raise
        self._remember(commits, outcomes)
        return outcomes

    def _remember(self, commits: Sequence[Commit], outcomes: Sequence[Committed | None]) -> None:
        if len(self._seen) > _MOST_KNOWN:
            self._seen.clear()
        for commit, outcome in zip(commits, outcomes, strict=True):
            if outcome is None:
                self._seen.discard(commit.key)
            else:
                self._seen.add(commit.key)

    async def _append(
        self, db: asyncpg.Connection, commits: Sequence[Commit], chains: Sequence[Sequence[int]]
    ) -> list[tuple[int, Committed]]:
        if not chains:
            return []
        known = self._seen.issuperset([commits[chain[0]].key for chain in chains])
        if known and len(commits) == 1:
            put = _put_of(commits[0])
            if put.header.status not in OPEN_STATUSES:
                return _placed_one(await db.fetchrow(self._one, *_values(commits[0], put)), commits[0], put)
        statement = self._known if known else self._any
        return _placed(await db.fetch(statement, *_arrays(commits, chains, known=known)), commits, chains)


def _put_of(commit: Commit) -> PutRun:
    put = commit.changes[0]
    assert isinstance(put, PutRun)
    return put


def _placed_one(row: Sequence[Any] | None, commit: Commit, put: PutRun) -> list[tuple[int, Committed]]:
    if row is None:
        return []
    head = head_of(row, commit.key)
    first = head.message_count - len(put.messages) + 1
    receipt = RunReceipt(put.run_id, head.run_count, 1, first, head.message_count, head.version)
    return [(0, Committed(head, [receipt]))]


def _placed(
    rows: Sequence[Sequence[Any]], commits: Sequence[Commit], chains: Sequence[Sequence[int]]
) -> list[tuple[int, Committed]]:
    last = {item: len(chain) for chain in chains for item in chain}
    placed: list[tuple[int, Committed]] = []
    for item, nth, seq, version, behind, *head in rows:
        commit = commits[item]
        put = _put_of(commit)
        receipt = RunReceipt(put.run_id, seq, 1, behind + 1, behind + len(put.messages), version)
        at = _head_at(head_of(head, commit.key), receipt, last[item] - nth, commit.at)
        placed.append((item, Committed(at, [receipt])))
    return placed


def _values(commit: Commit, put: PutRun) -> list[Any]:
    """The parameters of the statement `append_one`."""
    session = (commit.key.namespace, commit.key.session_id, commit.owner)
    counts = (len(put.messages), commit.at, json_of_counters(put.counters))
    messages = [(n, *message_values(row)) for n, row in enumerate(put.messages, 1)]
    return [*session, *counts, *_run_values(put), *columns(messages, 7)]


def _arrays(commits: Sequence[Commit], chains: Sequence[Sequence[int]], *, known: bool) -> list[list[Any]]:
    """The parameters of the statement `append_known`, or of `append`."""
    items: list[tuple[Any, ...]] = []
    sessions: list[tuple[Any, ...]] = []
    messages: list[tuple[Any, ...]] = []
    for number, chain in enumerate(chains):
        before = 0
        for nth, index in enumerate(chain, 1):
            put = _put_of(commits[index])
            items.append((index, number, nth, before, len(put.messages), *_run_values(put)))
            messages += [(index, n, *message_values(row)) for n, row in enumerate(put.messages, 1)]
            before += len(put.messages)
        of_chain = [commits[index] for index in chain]
        added = _chain_values(of_chain, number, before)
        sessions.append(added if known else (*added, *_new_values(of_chain[0])))
    return [*columns(items, 20), *columns(sessions, 9 if known else 21), *columns(messages, 8)]


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


def _chain_values(commits: Sequence[Commit], number: int, messages: int) -> tuple[Any, ...]:
    """What the runs of one session add to it."""
    first, puts = commits[0], [_put_of(commit) for commit in commits]
    counters: dict[str, int] = {}
    for put in puts:
        for name, count in put.counters.items():
            counters[name] = counters.get(name, 0) + count
    return (
        number,
        first.key.namespace,
        first.key.session_id,
        first.owner,
        max([commit.at for commit in commits]),
        len(puts),
        messages,
        json_of_counters(counters),
        any([put.header.has_summary for put in puts]),
    )


def _new_values(commit: Commit) -> tuple[Any, ...]:
    """The fields of the session that it makes where there is none."""
    new = commit.create
    assert new is not None
    return (new.user_id, new.created_at, *header_values(new.header), *columns_of_body(new.state))


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
