"""Commits: many plain appends in one statement, all others one by one under the session's lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec

from sessionledger.drivers.postgres.errors import error_of
from sessionledger.drivers.postgres.tables import Tables
from sessionledger.drivers.postgres.values import columns_of_body, counters_of, json_of_counters
from sessionledger.drivers.relational import HEAD, head_of
from sessionledger.errors import DriverError, UnavailableError
from sessionledger.protocol.decide import (
    Decision,
    Known,
    StoredOperation,
    StoredRun,
    add_counters,
    decide,
    hidden_rows,
    needs_operation,
)
from sessionledger.protocol.rows import (
    OPEN_STATUSES,
    SEALED,
    Change,
    Commit,
    Committed,
    Head,
    MessageRow,
    Outcome,
    PatchRun,
    PatchSession,
    PutRun,
    PutSwitch,
    Reason,
    Refused,
    RunReceipt,
    Seal,
    SessionHeader,
    SessionKey,
    Show,
)

__all__ = ["Writer"]

_ATTEMPTS = 8  #: of one commit, while others make the session or the run that it would make
_TOO_LARGE = "54000"  #: program_limit_exceeded
_decode_receipts = msgspec.json.Decoder(tuple[RunReceipt, ...]).decode
_encode = msgspec.json.Encoder().encode

#: The tables of a session's content, for its erasure, by their keys.
_CONTENT = (
    ("message_rows", "session_key, position"),
    ("runs", "session_key, seq, revision"),
    ("run_parts", "session_key, seq, revision, name"),
    ("segments", "session_key, seq, revision, first_position"),
    ("agent_switches", "session_key, version, switch_id"),
    ("hidden", "session_key, hide_id, ordinal"),
    ("operations", "session_key, operation_id"),
)


class Writer:
    def __init__(self, tables: Tables) -> None:
        self._tables, self._sql = tables, tables.statements()
        self._find = tables.named(
            f"SELECT {HEAD} FROM {{sessions}} s WHERE s.namespace = $1 AND s.session_id = $2 FOR UPDATE"
        )

    async def commit(self, db: asyncpg.Connection, commits: Sequence[Commit]) -> list[Outcome | DriverError]:
        outcomes: list[Outcome | DriverError | None] = [None] * len(commits)
        if len(commits) == 1 and _is_plain(commits[0]):
            outcomes[0] = await self._append_one(db, commits[0])
        else:
            chains = _chains(commits)
            if chains:
                await self._append(db, commits, chains, outcomes)
        for index, commit in enumerate(commits):
            if outcomes[index] is None:
                outcomes[index] = await self._commit_in_turn(db, commit, alone=len(commits) == 1)
        return [outcome for outcome in outcomes if outcome is not None]

    # plain appends

    async def _append(
        self,
        db: asyncpg.Connection,
        commits: Sequence[Commit],
        chains: Sequence[Sequence[int]],
        outcomes: list[Outcome | DriverError | None],
    ) -> None:
        """Those of whole sessions that need no judgement; what is left without an outcome does."""
        try:
            rows = await db.fetch(self._sql["append"], *_arrays(commits, chains))
        except asyncpg.PostgresError as error:
            if not _concerns_one(error):
                raise
            return
        last = {item: len(chain) for chain in chains for item in chain}
        for item, nth, seq, version, behind, *head in rows:
            commit = commits[item]
            put = commit.changes[0]
            assert isinstance(put, PutRun)
            receipt = RunReceipt(put.run_id, seq, 1, behind + 1, behind + len(put.messages), version)
            later = last[item] - nth
            outcomes[item] = Committed(_head_at(head_of(head, commit.key), receipt, later, commit.at), [receipt])

    async def _append_one(self, db: asyncpg.Connection, commit: Commit) -> Outcome | None:
        put = commit.changes[0]
        assert isinstance(put, PutRun)
        try:
            row = await db.fetchrow(self._sql["append_one"], *_values(commit, put))
        except asyncpg.PostgresError as error:
            if not _concerns_one(error):
                raise
            return None
        if row is None:
            return None
        head = head_of(row, commit.key)
        first = head.message_count - len(put.messages) + 1
        receipt = RunReceipt(put.run_id, head.run_count, 1, first, head.message_count, head.version)
        return Committed(head, [receipt])

    # all others

    async def _commit_in_turn(self, db: asyncpg.Connection, commit: Commit, *, alone: bool) -> Outcome | DriverError:
        try:
            return await self._commit(db, commit)
        except asyncpg.PostgresError as error:
            if error.sqlstate == _TOO_LARGE:
                return Refused(Reason.TOO_LARGE)
            if alone or not _concerns_one(error):
                raise
            mapped = error_of(error, writing=True)
            if not isinstance(mapped, DriverError):
                raise
            mapped.__cause__ = error
            return mapped

    async def _commit(self, db: asyncpg.Connection, commit: Commit) -> Outcome:
        for _ in range(_ATTEMPTS):
            try:
                async with db.transaction():
                    outcome = await self._judge_and_write(db, commit)
            except asyncpg.UniqueViolationError:
                continue  # somebody has made it meanwhile: judge again
            if outcome is not None:
                return outcome
        raise UnavailableError("others write the same again and again: try again", driver="postgres")

    async def _judge_and_write(self, db: asyncpg.Connection, commit: Commit) -> Outcome | None:
        """None: a session was made meanwhile, which has to be looked at."""
        row = await db.fetchrow(self._find, commit.key.namespace, commit.key.session_id)
        key: int | None = None if row is None else row[0]
        head = None if row is None else head_of(row, commit.key)
        known = await self._known(db, commit, key, head)
        decision = decide(commit, known)
        if decision.head is None:
            return decision.outcome
        counters = json_of_counters(add_counters({} if row is None else counters_of(row[19]), commit, decision))
        if decision.created:
            if key is not None:
                # its rows may still be there, under the old key
                await db.execute(self._sql["drop_session"], key)
            key = await self._insert_session(db, commit, decision.head, counters)
            if key is None:
                return None
        else:
            await db.execute(self._sql["update_session"], *_changing(decision.head), counters, key)
        assert key is not None
        await self._write(db, key, commit, decision)
        return decision.outcome

    async def _known(self, db: asyncpg.Connection, commit: Commit, key: int | None, head: Head | None) -> Known:
        if head is None or head.erased:
            return Known(head)
        named: dict[tuple[str, int], StoredRun] = {}
        newest: dict[str, StoredRun] = {}
        hides: set[str] = set()
        for change in commit.changes:
            if isinstance(change, PutRun):
                row = await db.fetchrow(self._sql["stored_run"], change.run_id, key, change.revision)
                if row is not None:
                    named[change.run_id, change.revision] = StoredRun(*row)
            if isinstance(change, PatchRun) or (isinstance(change, PutRun) and change.revision > 1):
                row = await db.fetchrow(self._sql["newest_run"], change.run_id, key)
                if row is not None:
                    newest[change.run_id] = StoredRun(*row)
            elif isinstance(change, Show) and await db.fetchval(self._sql["hide_exists"], key, change.hide_id):
                hides.add(change.hide_id)
        operation = None
        if needs_operation(commit):
            row = await db.fetchrow(self._sql["operation"], key, commit.operation_id)
            operation = None if row is None else StoredOperation(row[0], _decode_receipts(row[1]))
        return Known(head, operation, named, newest, frozenset(hides))

    async def _insert_session(self, db: asyncpg.Connection, commit: Commit, head: Head, counters: str) -> int | None:
        fork, new = head.fork, commit.create
        assert new is not None
        link = (fork.session_id, fork.incarnation, fork.position, fork.run_seq, fork.version) if fork else (None,) * 5
        identity = (head.key.namespace, head.key.session_id, head.incarnation)
        key: int | None = await db.fetchval(
            self._sql["insert_session"],
            *identity,
            *_changing(head)[:4],
            head.user_id,
            head.created_at,
            *_changing(head)[4:],
            *link,
            counters,
            *_columns_of(new.header),
            *columns_of_body(new.state),
        )
        return key

    async def _write(self, db: asyncpg.Connection, key: int, commit: Commit, decision: Decision) -> None:
        assert decision.head is not None
        version = decision.head.version
        for change, receipt in decision.writes:
            await self._write_change(db, commit.key, key, change, receipt, version)
            hidden = hidden_rows(commit, change, receipt, version)
            if hidden:
                columns = zip(
                    *[(*h.positions, *h.runs, h.revision, h.since, h.until, h.reach) for h in hidden], strict=True
                )
                await db.execute(self._sql["insert_hidden"], key, hidden[0].hide_id, *map(list, columns))
        if decision.operation is not None:
            digest, receipts = decision.operation.digest, _encode(decision.operation.receipts).decode()
            await db.execute(self._sql["insert_operation"], key, commit.operation_id, digest, receipts)

    async def _write_change(
        self,
        db: asyncpg.Connection,
        session: SessionKey,
        key: int,
        change: Change,
        receipt: RunReceipt | None,
        version: int,
    ) -> None:
        if isinstance(change, PutRun):
            assert receipt is not None
            await self._put_run(db, key, change, receipt)
        elif isinstance(change, PatchRun):
            assert receipt is not None
            await self._patch_run(db, key, change, receipt)
        elif isinstance(change, PatchSession):
            await db.execute(self._sql["put_header"], key, *_columns_of(change.header))
            if change.state is not None:
                await db.execute(self._sql["put_state"], key, *columns_of_body(change.state))
        elif isinstance(change, PutSwitch):
            row = change.switch
            reason = (None, None) if row.reason is None else columns_of_body(row.reason)
            await db.execute(
                self._sql["insert_switch"],
                key,
                version,
                row.switch_id,
                row.from_agent,
                row.to_agent,
                *reason,
                row.switched_at,
            )
        elif isinstance(change, Show):
            await db.execute(self._sql["show"], version, key, change.hide_id)
        elif isinstance(change, Seal):
            await db.execute(self._sql["put_header"], key, *_columns_of(SEALED))
            await db.execute(self._sql["put_state"], key, *columns_of_body("{}"))
            await db.execute(self._sql["insert_erasure"], key, session.namespace, session.session_id)

    async def _put_run(self, db: asyncpg.Connection, key: int, put: PutRun, receipt: RunReceipt) -> None:
        header, seq = put.header, receipt.run_seq
        body = (None, None) if header.status in OPEN_STATUSES else columns_of_body(put.body)
        await db.execute(
            self._sql["insert_run"],
            key,
            seq,
            put.revision,
            put.run_id,
            receipt.version,
            put.digest,
            put.user_id,
            put.agent_id,
            put.parent_run_id,
            put.model,
            put.created_at,
            receipt.first_position,
            receipt.last_position,
            header.status,
            header.updated_at,
            header.finished_at,
            header.input_tokens,
            header.output_tokens,
            header.has_summary,
            *body,
        )
        if header.status in OPEN_STATUSES:
            await self._put_parts(db, (key, seq, put.revision), {"": put.body})
        await self._put_messages(db, key, put.messages, receipt)

    async def _patch_run(self, db: asyncpg.Connection, key: int, patch: PatchRun, receipt: RunReceipt) -> None:
        header, place = patch.header, (key, receipt.run_seq, patch.revision)
        values = (header.updated_at, header.finished_at, header.input_tokens, header.output_tokens, header.has_summary)
        await db.execute(self._sql["patch_run"], header.status, *values, *place)
        if patch.parts:
            await self._put_parts(db, place, patch.parts)
        if patch.messages:
            await db.execute(self._sql["grow_segment"], *place, receipt.first_position, receipt.last_position)
            await self._put_messages(db, key, patch.messages, receipt)

    async def _put_parts(self, db: asyncpg.Connection, place: tuple[int, int, int], parts: Any) -> None:
        split = [columns_of_body(body) for body in parts.values()]
        texts, packed = [text for text, _ in split], [data for _, data in split]
        await db.execute(self._sql["put_parts"], *place, list(parts), texts, packed)

    async def _put_messages(
        self, db: asyncpg.Connection, key: int, rows: Sequence[MessageRow], receipt: RunReceipt
    ) -> None:
        if rows:
            columns = _columns([(nth, *_message_values(row)) for nth, row in enumerate(rows, 1)], 7)
            place = (key, receipt.run_seq, receipt.revision, receipt.first_position - 1)
            await db.execute(self._sql["insert_messages"], *place, *columns)

    # erasure

    async def erase(self, db: asyncpg.Connection, key: SessionKey, limit: int) -> bool:
        """Some rows of what was sealed under this key; True while there are more.

        What that leaves of the limit goes to erasures of others that were interrupted.
        """
        names = (key.namespace, key.session_id)
        async with db.transaction():
            left = await self._erase_sealed(db, "erasure", names, limit)
            if left <= 0 and await db.fetchval(self._sql["erasure"], *names) is not None:
                return True
            await self._erase_sealed(db, "any_erasure", (), left)
            return False

    async def _erase_sealed(
        self, db: asyncpg.Connection, statement: str, arguments: tuple[str, ...], limit: int
    ) -> int:
        """One erasure after the other, as a statement names them; returns what is left of the limit."""
        while limit > 0 and (key := await db.fetchval(self._sql[statement], *arguments)) is not None:
            limit = await self._erase_rows(db, key, limit)
        return limit

    async def _erase_rows(self, db: asyncpg.Connection, key: int, limit: int) -> int:
        for table, columns in _CONTENT:
            name = self._tables.named(f"{{{table}}}")
            places = f"SELECT {columns} FROM {name} WHERE session_key = $1 LIMIT $2"
            done = await db.execute(
                f"DELETE FROM {name} WHERE session_key = $1 AND ({columns}) IN ({places})", key, limit
            )
            limit -= int(done.rpartition(" ")[2])
            if limit <= 0:
                return limit
        await db.execute(self._sql["end_erasure"], key)
        return limit


# plain appends, as arrays


def _is_plain(commit: Commit) -> bool:
    """A new run, of a session as it may be, or a new one."""
    change, new = commit.changes[0] if len(commit.changes) == 1 else None, commit.create
    return (
        isinstance(change, PutRun)
        and change.revision == 1
        and new is not None
        and new.fork is None
        and not new.counters
        and not commit.must_create
        and not commit.on_deleted
        and commit.incarnation is commit.expected_version is commit.expected_state_version is None
    )


def _chains(commits: Sequence[Commit]) -> list[list[int]]:
    """The plain appends of each session whose commits are all plain, of one owner and of different runs."""
    chains: dict[SessionKey, list[int]] = {}
    left_out: set[SessionKey] = set()
    seen: set[tuple[SessionKey, str]] = set()
    for index, commit in enumerate(commits):
        change = commit.changes[0] if commit.changes else None
        run = (commit.key, change.run_id) if isinstance(change, PutRun) else None
        chain = chains.setdefault(commit.key, [])
        if not _is_plain(commit) or run is None or run in seen or (chain and commits[chain[0]].owner != commit.owner):
            left_out.add(commit.key)
        else:
            seen.add(run)
        chain.append(index)
    return [chain for key, chain in chains.items() if key not in left_out]


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
            messages += [(index, n, *_message_values(row)) for n, row in enumerate(put.messages, 1)]
            before += len(put.messages)
            for name, count in put.counters.items():
                counters[name] = counters.get(name, 0) + count
        sessions.append(_session_values(commits, number, chain, before, counters))
    return [*_columns(items, 20), *_columns(sessions, 21), *_columns(messages, 8)]


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
    messages = [(n, *_message_values(row)) for n, row in enumerate(put.messages, 1)]
    values = [*session, *counts, *_columns_of(new.header), state, *run, *stored, packed_state, *in_part, is_open]
    return [*values, *_columns(messages, 7)]


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
        *_columns_of(new.header),
        *columns_of_body(new.state),
    )


def _message_values(row: MessageRow) -> tuple[Any, ...]:
    return (row.index, len(row.body), row.created_at, row.message_id, *columns_of_body(row.body))


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _columns_of(header: SessionHeader) -> tuple[Any, ...]:
    return (
        header.kind,
        header.agent_id,
        header.current_agent,
        header.name,
        header.parent_session_id,
        header.updated_at,
        *columns_of_body(header.body),
    )


def _changing(head: Head) -> tuple[Any, ...]:
    return (
        head.version,
        head.state_version,
        head.run_count,
        head.message_count,
        head.last_activity_at,
        head.deleted_at,
        head.erased,
        head.has_hidden,
        head.has_summary,
        head.forks,
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


def _concerns_one(error: asyncpg.PostgresError) -> bool:
    """Whether PostgreSQL failed at what one commit brought: bad data, a limit, a run that another process stored."""
    return (error.sqlstate or "")[:2] in ("21", "22", "23", "54")
