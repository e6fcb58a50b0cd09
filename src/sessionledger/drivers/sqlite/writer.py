"""Commits, on the writing connection's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from sessionledger.drivers.sqlite.connection import LedgerConnection, error_of
from sessionledger.drivers.sqlite.reader import ID_BLOCK, head_of, load_head
from sessionledger.drivers.statements import load_statements
from sessionledger.errors import DriverError
from sessionledger.protocol.decide import (
    Decision,
    Known,
    StoredOperation,
    StoredRun,
    add_counters,
    decide,
    hidden_rows,
)
from sessionledger.protocol.rows import (
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
    Show,
)

__all__ = ["commit_group", "erase"]

SQL = load_statements("sql/sqlite.sql")

_ENVIRONMENT = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_INTERRUPT,
    }
)
_MAX_PARTICIPANTS = 50_000  #: that are remembered
_COUNTERS = 19  #: the column of a head's counters
_OPEN = frozenset({"pending", "running", "paused"})
_decode_counters = msgspec.json.Decoder(dict[str, int]).decode
_decode_receipts = msgspec.json.Decoder(tuple[RunReceipt, ...]).decode
_encode = msgspec.json.Encoder().encode

#: The tables of a session's content, for its erasure. `message_rows` alone has rowids.
_CONTENT = (
    ("message_rows", "position"),
    ("message_ids", "message_id, position"),
    ("participants", "role, id"),
    ("runs", "seq, revision"),
    ("run_parts", "seq, revision, name"),
    ("segments", "seq, revision, first_position"),
    ("agent_switches", "version, switch_id"),
    ("hidden", "hide_id, ordinal"),
    ("operations", "operation_id"),
)


def commit_group(db: LedgerConnection, commits: Sequence[Commit]) -> list[Outcome | DriverError]:
    """One transaction for all; if SQLite fails one of them, one for each."""
    try:
        if len(db.participants) > _MAX_PARTICIPANTS:
            db.participants.clear()
        db.execute("BEGIN IMMEDIATE")
        outcomes: list[Outcome | DriverError] = [_commit(db, commit) for commit in commits]
        db.execute("COMMIT")
        return outcomes
    except BaseException as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        db.participants.clear()
        if len(commits) > 1 and _concerns_one(error):
            return [outcome for commit in commits for outcome in _alone(db, commit)]
        if _code(error) == sqlite3.SQLITE_TOOBIG:
            return [Refused(Reason.TOO_LARGE)]
        raise


def _concerns_one(error: BaseException) -> bool:
    """Whether SQLite failed at what one commit brought, and not at the file, the disk or other processes."""
    return isinstance(error, sqlite3.Error) and _code(error) not in _ENVIRONMENT


def _code(error: BaseException) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _alone(db: LedgerConnection, commit: Commit) -> list[Outcome | DriverError]:
    try:
        return commit_group(db, (commit,))
    except sqlite3.Error as error:
        mapped = error_of(error)
        if not isinstance(mapped, DriverError):
            raise
        mapped.__cause__ = error
        return [mapped]


def _commit(db: LedgerConnection, commit: Commit) -> Outcome:
    row, known = _look(db, commit)
    session_key = row[0] if row is not None else None
    decision = decide(commit, known)
    if decision.head is None:
        return decision.outcome
    counters = _decode_counters(row[_COUNTERS]) if row is not None else {}
    session_key = _put_head(db, commit, decision, session_key, counters)
    for change, receipt in decision.writes:
        _put_change(db, session_key, commit, change, receipt, decision.head.version)
    if isinstance(decision.outcome, Committed) and not any(isinstance(change, PutRun) for change in commit.changes):
        receipts = _encode(decision.outcome.receipts).decode()
        db.execute(SQL["insert_operation"], (session_key, commit.operation_id, commit.digest, receipts))
    return decision.outcome


def _look(db: LedgerConnection, commit: Commit) -> tuple[tuple[Any, ...] | None, Known]:
    """The session's row and what the decision needs; one statement for a lone append."""
    change = commit.changes[0] if len(commit.changes) == 1 else None
    if isinstance(change, PutRun) and change.revision == 1:
        row = db.execute(SQL["head_and_run"], (change.run_id, 1, *_names(commit))).fetchone()
        if row is None:
            return None, Known(None)
        head = head_of(row, commit.key)
        there = row[_COUNTERS + 1] is not None and not head.erased
        named = {(change.run_id, 1): StoredRun(*row[_COUNTERS + 1 :])} if there else {}
        return row, Known(head, named=named)
    row = load_head(db, commit.key)
    return row, Known(None) if row is None else _known(db, commit, row[0], head_of(row, commit.key))


def _names(commit: Commit) -> tuple[str, str]:
    return commit.key.namespace, commit.key.session_id


def _known(db: LedgerConnection, commit: Commit, key: int, head: Head) -> Known:
    if head.erased:
        return Known(head)
    named: dict[tuple[str, int], StoredRun] = {}
    newest: dict[str, StoredRun] = {}
    hides: set[str] = set()
    puts = False
    for change in commit.changes:
        if isinstance(change, PutRun):
            puts = True
            stored = db.execute(SQL["stored_run"], (change.run_id, key, change.revision)).fetchone()
            if stored is not None:
                named[change.run_id, change.revision] = StoredRun(*stored)
        if isinstance(change, PatchRun) or (isinstance(change, PutRun) and change.revision > 1):
            stored = db.execute(SQL["newest_run"], (change.run_id, key)).fetchone()
            if stored is not None:
                newest[change.run_id] = StoredRun(*stored)
        elif isinstance(change, Show) and db.execute(SQL["hide_exists"], (key, change.hide_id)).fetchone():
            hides.add(change.hide_id)
    operation = None if puts else db.execute(SQL["operation"], (key, commit.operation_id)).fetchone()
    stored_operation = None if operation is None else StoredOperation(operation[0], _decode_receipts(operation[1]))
    return Known(head, stored_operation, named, newest, frozenset(hides))


def _put_head(
    db: LedgerConnection, commit: Commit, decision: Decision, session_key: int | None, counters: dict[str, int]
) -> int:
    head = decision.head
    assert head is not None
    total = _encode(add_counters(counters, commit, decision)).decode()
    if not decision.created:
        assert session_key is not None
        db.execute(
            SQL["update_session"],
            (
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
                total,
                session_key,
            ),
        )
        return session_key
    if session_key is not None:
        # its rows may still be there, under the old key
        new_key = db.execute(SQL["next_key"]).fetchone()[0]
        for name in ("drop_tombstone", "drop_header", "drop_state"):
            db.execute(SQL[name], (session_key,))
        session_key = new_key
    fork = head.fork
    link = (fork.session_id, fork.incarnation, fork.position, fork.run_seq, fork.version) if fork else (None,) * 5
    cursor = db.execute(
        SQL["insert_session"],
        (
            session_key,
            head.key.namespace,
            head.key.session_id,
            head.incarnation,
            head.version,
            head.state_version,
            head.run_count,
            head.message_count,
            head.user_id,
            head.created_at,
            head.last_activity_at,
            head.deleted_at,
            head.erased,
            head.has_hidden,
            head.has_summary,
            head.forks,
            *link,
            total,
        ),
    )
    new, key = commit.create, cursor.lastrowid
    assert new is not None and key is not None
    _put_header(db, key, new.header)
    db.execute(SQL["put_state"], (key, new.state))
    return int(key)


def _put_header(db: LedgerConnection, session_key: int, header: SessionHeader) -> None:
    values = (
        session_key,
        header.kind,
        header.agent_id,
        header.current_agent,
        header.name,
        header.parent_session_id,
        header.updated_at,
        header.body,
    )
    db.execute(SQL["put_header"], values)


def _put_change(
    db: LedgerConnection, key: int, commit: Commit, change: Change, receipt: RunReceipt | None, version: int
) -> None:
    if isinstance(change, PutRun):
        assert receipt is not None
        _put_run(db, key, change, receipt)
        if change.revision == 1:
            return
    elif isinstance(change, PatchRun):
        assert receipt is not None
        _patch_run(db, key, change, receipt)
        return
    elif isinstance(change, PatchSession):
        _put_header(db, key, change.header)
        if change.state is not None:
            db.execute(SQL["put_state"], (key, change.state))
        return
    elif isinstance(change, PutSwitch):
        row = change.switch
        values: tuple[Any, ...] = (row.switch_id, row.from_agent, row.to_agent, row.reason, row.switched_at)
        db.execute(SQL["insert_switch"], (key, version, *values))
        return
    elif isinstance(change, Show):
        db.execute(SQL["show"], (version, key, change.hide_id))
        return
    elif isinstance(change, Seal):
        _put_header(db, key, SessionHeader("agent", None, None, None, None, 0, "{}"))
        db.execute(SQL["put_state"], (key, "{}"))
        db.execute(SQL["insert_erasure"], (key,))
        return
    for hidden in hidden_rows(commit, change, receipt, version):
        values = (*hidden.positions, *hidden.runs, hidden.revision, hidden.since, hidden.until, hidden.reach)
        db.execute(SQL["insert_hidden"], (key, hidden.hide_id, key, hidden.hide_id, *values))


def _put_run(db: LedgerConnection, key: int, put: PutRun, receipt: RunReceipt) -> None:
    header, seq = put.header, receipt.run_seq
    open_run = header.status in _OPEN
    db.execute(
        SQL["insert_run"],
        (
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
            None if open_run else put.body,
        ),
    )
    if open_run:
        db.execute(SQL["put_part"], (key, seq, put.revision, "", put.body))
    _put_participants(db, key, put)
    _put_messages(db, key, put.messages, receipt)


def _put_participants(db: LedgerConnection, key: int, put: PutRun) -> None:
    """A run's agent and user. Most runs tell what an earlier one of their session has told."""
    for role, participant in (("agent", put.agent_id), ("user", put.user_id)):
        if participant is not None and (role, participant, key) not in db.participants:
            db.execute(SQL["insert_participant"], (role, participant, key))
            db.participants.add((role, participant, key))


def _patch_run(db: LedgerConnection, key: int, patch: PatchRun, receipt: RunReceipt) -> None:
    header, place = patch.header, (key, receipt.run_seq, patch.revision)
    values = (header.updated_at, header.finished_at, header.input_tokens, header.output_tokens, header.has_summary)
    db.execute(SQL["patch_run"], (header.status, *values, *place))
    for name, body in patch.parts.items():
        db.execute(SQL["put_part"], (*place, name, body))
    if patch.messages:
        first, last = receipt.first_position, receipt.last_position
        if not db.execute(SQL["grow_segment"], (last, *place, first - 1)).rowcount:
            db.execute(SQL["insert_segment"], (*place, first, last))
        _put_messages(db, key, patch.messages, receipt)


def _put_messages(db: LedgerConnection, key: int, rows: Sequence[MessageRow], receipt: RunReceipt) -> None:
    seq, revision, first = receipt.run_seq, receipt.revision, receipt.first_position
    db.executemany(
        SQL["insert_message"],
        [
            (key, position, seq, revision, row.index, row.message_id, row.created_at, row.body)
            for position, row in enumerate(rows, first)
        ],
    )
    for end in range((first - 1) // ID_BLOCK + 1, receipt.last_position // ID_BLOCK + 1):
        db.execute(SQL["index_ids"], (key, (end - 1) * ID_BLOCK + 1, end * ID_BLOCK))


def erase(db: LedgerConnection, limit: int) -> bool:
    """Some rows of what was sealed, whichever session it was; True while there are more."""
    db.execute("BEGIN IMMEDIATE")
    try:
        row = db.execute(SQL["erasures"]).fetchone()
        if row is not None:
            _erase_rows(db, row[0], limit)
        more = db.execute(SQL["erasures"]).fetchone() is not None
        db.execute("COMMIT")
        return more
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _erase_rows(db: LedgerConnection, key: int, limit: int) -> None:
    for table, columns in _CONTENT:
        places = f"SELECT {columns} FROM {table} WHERE session_key = ? LIMIT ?"
        limit -= db.execute(
            f"DELETE FROM {table} WHERE session_key = ? AND ({columns}) IN ({places})", (key, key, limit)
        ).rowcount
        if limit <= 0:
            return
    db.execute(SQL["end_erasure"], (key,))
