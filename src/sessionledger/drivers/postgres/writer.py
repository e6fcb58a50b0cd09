"""Commits: plain appends in one statement, all others one by one under the session's lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec
from msgspec.structs import astuple

from sessionledger.drivers.postgres.appending import Appender
from sessionledger.drivers.postgres.errors import concerns_one, error_of
from sessionledger.drivers.postgres.tables import Tables
from sessionledger.drivers.postgres.values import (
    columns,
    columns_of_body,
    counters_of,
    header_values,
    json_of_counters,
    message_values,
)
from sessionledger.drivers.relational import HEAD, changing_values, head_of, link_values, run_values
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
        self._appender = Appender(self._sql)
        self._find = tables.named(
            f"SELECT {HEAD} FROM {{sessions}} s WHERE s.namespace = $1 AND s.session_id = $2 FOR UPDATE"
        )

    async def commit(self, db: asyncpg.Connection, commits: Sequence[Commit]) -> list[Outcome | DriverError]:
        appended = await self._appender.append(db, commits)
        outcomes: list[Outcome | DriverError] = []
        for commit, outcome in zip(commits, appended, strict=True):
            if outcome is None:
                outcomes.append(await self._commit_in_turn(db, commit, alone=len(commits) == 1))
            else:
                outcomes.append(outcome)
        return outcomes

    async def _commit_in_turn(self, db: asyncpg.Connection, commit: Commit, *, alone: bool) -> Outcome | DriverError:
        try:
            return await self._commit(db, commit)
        except asyncpg.PostgresError as error:
            if error.sqlstate == _TOO_LARGE:
                return Refused(Reason.TOO_LARGE)
            if alone or not concerns_one(error):
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
            await db.execute(self._sql["update_session"], *changing_values(decision.head), counters, key)
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
        new, changing = commit.create, changing_values(head)
        assert new is not None
        identity = (head.key.namespace, head.key.session_id, head.incarnation)
        key: int | None = await db.fetchval(
            self._sql["insert_session"],
            *identity,
            *changing[:4],
            head.user_id,
            head.created_at,
            *changing[4:],
            *link_values(head),
            counters,
            *header_values(new.header),
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
            await db.execute(self._sql["put_header"], key, *header_values(change.header))
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
            await db.execute(self._sql["put_header"], key, *header_values(SEALED))
            await db.execute(self._sql["put_state"], key, *columns_of_body("{}"))
            await db.execute(self._sql["insert_erasure"], key, session.namespace, session.session_id)

    async def _put_run(self, db: asyncpg.Connection, key: int, put: PutRun, receipt: RunReceipt) -> None:
        seq, open_run = receipt.run_seq, put.header.status in OPEN_STATUSES
        body = (None, None) if open_run else columns_of_body(put.body)
        await db.execute(
            self._sql["insert_run"],
            key,
            seq,
            put.revision,
            put.run_id,
            receipt.version,
            *run_values(put),
            receipt.first_position,
            receipt.last_position,
            *astuple(put.header),
            *body,
        )
        if open_run:
            await self._put_parts(db, (key, seq, put.revision), {"": put.body})
        await self._put_messages(db, key, put.messages, receipt)

    async def _patch_run(self, db: asyncpg.Connection, key: int, patch: PatchRun, receipt: RunReceipt) -> None:
        place = (key, receipt.run_seq, patch.revision)
        await db.execute(self._sql["patch_run"], *astuple(patch.header), *place)
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
            values = columns([(row.index, *message_values(row)) for row in rows], 5)
            place = (key, receipt.run_seq, receipt.revision, receipt.first_position - 1)
            await db.execute(self._sql["insert_messages"], *place, *values)

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
        for table, key_columns in _CONTENT:
            name = self._tables.named(f"{{{table}}}")
            places = f"SELECT {key_columns} FROM {name} WHERE session_key = $1 LIMIT $2"
            done = await db.execute(
                f"DELETE FROM {name} WHERE session_key = $1 AND ({key_columns}) IN ({places})", key, limit
            )
            limit -= int(done.rpartition(" ")[2])
            if limit <= 0:
                return limit
        await db.execute(self._sql["end_erasure"], key)
        return limit
