"""Commits, on the writing connection's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import astuple

from sessionledger.drivers.relational import changing_values, head_of, link_values, run_values
from sessionledger.drivers.sqlite.connection import LedgerConnection, StoredSession, error_of, roll_back
from sessionledger.drivers.sqlite.reader import ID_BLOCK, decoded, load_head
from sessionledger.drivers.statements import load_statements
from sessionledger.errors import DecodeError, DriverError
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

__all__ = ["commit_group", "erase", "resume_erasures"]

SQL = load_statements("sql/sqlite.sql")

_ENVIRONMENT = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_INTERRUPT,
    }
)
_MAX_PARTICIPANTS = 50_000  #: that are remembered
_MAX_SESSIONS = 5_000
_COUNTERS = 19  #: the column of a head's counters
_decode_counters = msgspec.json.Decoder(dict[str, int]).decode
_decode_receipts = msgspec.json.Decoder(tuple[RunReceipt, ...]).decode
_encode = msgspec.json.Encoder().encode

#: The tables of a session's content, for its erasure. `WITHOUT ROWID` tables among them have no rowid to name a row by.
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


def commit_group(db: LedgerConnection, commits: Sequence[Commit]) -> list[Outcome | DriverError | DecodeError]:
    """One transaction for all; if it fails at one of them, one for each."""
    execute = db.statements.execute
    try:
        execute("BEGIN IMMEDIATE")
        _check_memory(db)
        outcomes: list[Outcome | DriverError | DecodeError] = [_commit(db, commit) for commit in commits]
        _update_sessions(db)
        execute("COMMIT")
        return outcomes
    except BaseException as error:
        # first of all: what was not written must not stay remembered, whatever becomes of the transaction
        db.memory.clear()
        roll_back(db)
        if len(commits) > 1 and _concerns_one(error):
            return [outcome for commit in commits for outcome in _alone(db, commit)]
        if _code(error) == sqlite3.SQLITE_TOOBIG:
            return [Refused(Reason.TOO_LARGE)]
        raise


def _check_memory(db: LedgerConnection) -> None:
    """Forget the sessions that other connections may have changed, and everything when it is much."""
    memory = db.memory
    if len(memory.participants) > _MAX_PARTICIPANTS:
        memory.participants.clear()
    # differs as soon as another connection has committed; this transaction keeps the others from it
    version = db.statements.execute("PRAGMA data_version").fetchone()[0]
    if version != memory.data_version or len(memory.sessions) > _MAX_SESSIONS:
        memory.sessions.clear()
        memory.data_version = version


def _concerns_one(error: BaseException) -> bool:
    """Whether it failed at what one commit brought or found, and not at the file, the disk or other processes."""
    return isinstance(error, Exception) and _code(error) not in _ENVIRONMENT


def _code(error: BaseException) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _alone(db: LedgerConnection, commit: Commit) -> list[Outcome | DriverError | DecodeError]:
    try:
        return commit_group(db, (commit,))
    except Exception as error:
        mapped = error_of(error)
        if mapped is not error:
            mapped.__cause__ = error
        return [mapped]


def _commit(db: LedgerConnection, commit: Commit) -> Outcome:
    stored = db.memory.sessions.get(commit.key) or _load_session(db, commit.key)
    decision = decide(commit, _known(db, commit, stored))
    if decision.head is None:
        return decision.outcome
    if decision.created:
        session_key = _insert_session(db, commit, decision, stored)
    else:
        assert stored is not None
        session_key = stored.key
    counters = add_counters({} if stored is None else stored.counters, commit, decision)
    db.memory.sessions[commit.key] = db.memory.changed[session_key] = StoredSession(
        session_key, decision.head, counters
    )
    for change, receipt in decision.writes:
        _put_change(db, session_key, commit, change, receipt, decision.head.version)
    if decision.operation is not None:
        digest, receipts = decision.operation.digest, _encode(decision.operation.receipts).decode()
        db.statements.execute(SQL["insert_operation"], (session_key, commit.operation_id, digest, receipts))
    return decision.outcome


def _load_session(db: LedgerConnection, key: SessionKey) -> StoredSession | None:
    row = load_head(db, key)
    if row is None:
        return None
    stored = StoredSession(row[0], head_of(row, key), decoded(_decode_counters, row[_COUNTERS], key))
    db.memory.sessions[key] = stored
    return stored


def _known(db: LedgerConnection, commit: Commit, stored: StoredSession | None) -> Known:
    if stored is None:
        return Known(None)
    key, head, _ = stored
    if head.erased:
        return Known(head)
    execute = db.statements.execute
    named: dict[tuple[str, int], StoredRun] = {}
    newest: dict[str, StoredRun] = {}
    hides: set[str] = set()
    operation = None
    for change in commit.changes:
        if isinstance(change, PutRun):
            row = execute(SQL["stored_run"], (change.run_id, key, change.revision)).fetchone()
            if row is not None:
                named[change.run_id, change.revision] = StoredRun(*row)
        if isinstance(change, PatchRun) or (isinstance(change, PutRun) and change.revision > 1):
            row = execute(SQL["newest_run"], (change.run_id, key)).fetchone()
            if row is not None:
                newest[change.run_id] = StoredRun(*row)
        elif isinstance(change, Show) and execute(SQL["hide_exists"], (key, change.hide_id)).fetchone():
            hides.add(change.hide_id)
    if needs_operation(commit):
        row = execute(SQL["operation"], (key, commit.operation_id)).fetchone()
        operation = None if row is None else StoredOperation(row[0], decoded(_decode_receipts, row[1], commit.key))
    return Known(head, operation, named, newest, frozenset(hides))


def _insert_session(db: LedgerConnection, commit: Commit, decision: Decision, stored: StoredSession | None) -> int:
    """The row of a new session, or of one that is made again; its counters follow at the end of the transaction."""
    head, new = decision.head, commit.create
    assert head is not None and new is not None
    session_key = None
    execute = db.statements.execute
    if stored is not None:
        # its rows may still be there, under the old key
        session_key = execute(SQL["next_key"]).fetchone()[0]
        for name in ("drop_tombstone", "drop_header", "drop_state"):
            execute(SQL[name], (stored.key,))
        db.memory.changed.pop(stored.key, None)
    changing = changing_values(head)
    execute(
        SQL["insert_session"],
        (
            session_key,
            head.key.namespace,
            head.key.session_id,
            head.incarnation,
            *changing[:4],
            head.user_id,
            head.created_at,
            *changing[4:],
            *link_values(head),
            "{}",
        ),
    )
    key = db.statements.lastrowid
    assert key is not None
    _put_header(db, key, new.header)
    execute(SQL["put_state"], (key, new.state))
    return int(key)


def _update_sessions(db: LedgerConnection) -> None:
    """The rows of all sessions that this transaction changed, each once."""
    rows = [
        (*changing_values(head), _encode(counters).decode(), key) for key, head, counters in db.memory.changed.values()
    ]
    db.statements.executemany(SQL["update_session"], rows)
    db.memory.changed.clear()


def _put_header(db: LedgerConnection, session_key: int, header: SessionHeader) -> None:
    db.statements.execute(SQL["put_header"], (session_key, *astuple(header)))


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
            db.statements.execute(SQL["put_state"], (key, change.state))
        return
    elif isinstance(change, PutSwitch):
        row = change.switch
        values: tuple[Any, ...] = (row.switch_id, row.from_agent, row.to_agent, row.reason, row.switched_at)
        db.statements.execute(SQL["insert_switch"], (key, version, *values))
        return
    elif isinstance(change, Show):
        db.statements.execute(SQL["show"], (version, key, change.hide_id))
        return
    elif isinstance(change, Seal):
        _put_header(db, key, SEALED)
        db.statements.execute(SQL["put_state"], (key, "{}"))
        db.statements.execute(SQL["insert_erasure"], (key, commit.key.namespace, commit.key.session_id))
        return
    for hidden in hidden_rows(commit, change, receipt, version):
        values = (*hidden.positions, *hidden.runs, hidden.revision, hidden.since, hidden.until, hidden.reach)
        db.statements.execute(SQL["insert_hidden"], (key, hidden.hide_id, key, hidden.hide_id, *values))


def _put_run(db: LedgerConnection, key: int, put: PutRun, receipt: RunReceipt) -> None:
    seq, open_run = receipt.run_seq, put.header.status in OPEN_STATUSES
    db.statements.execute(
        SQL["insert_run"],
        (
            key,
            seq,
            put.revision,
            put.run_id,
            receipt.version,
            *run_values(put),
            receipt.first_position,
            receipt.last_position,
            *astuple(put.header),
            None if open_run else put.body,
        ),
    )
    if open_run:
        db.statements.execute(SQL["put_part"], (key, seq, put.revision, "", put.body))
    _put_participants(db, key, put)
    _put_messages(db, key, put.messages, receipt)


def _put_participants(db: LedgerConnection, key: int, put: PutRun) -> None:
    """A run's agent and user. Most runs tell what an earlier one of their session has told."""
    for role, participant in (("agent", put.agent_id), ("user", put.user_id)):
        if participant is not None and (role, participant, key) not in db.memory.participants:
            db.statements.execute(SQL["insert_participant"], (role, participant, key))
            db.memory.participants.add((role, participant, key))


def _patch_run(db: LedgerConnection, key: int, patch: PatchRun, receipt: RunReceipt) -> None:
    place = (key, receipt.run_seq, patch.revision)
    db.statements.execute(SQL["patch_run"], (*astuple(patch.header), *place))
    for name, body in patch.parts.items():
        db.statements.execute(SQL["put_part"], (*place, name, body))
    if patch.messages:
        first, last = receipt.first_position, receipt.last_position
        if not db.statements.execute(SQL["grow_segment"], (last, *place, first - 1)).rowcount:
            db.statements.execute(SQL["insert_segment"], (*place, first, last))
        _put_messages(db, key, patch.messages, receipt)


def _put_messages(db: LedgerConnection, key: int, rows: Sequence[MessageRow], receipt: RunReceipt) -> None:
    seq, revision, first = receipt.run_seq, receipt.revision, receipt.first_position
    db.statements.executemany(
        SQL["insert_message"],
        [
            (key, position, seq, revision, row.index, row.message_id, row.created_at, row.body)
            for position, row in enumerate(rows, first)
        ],
    )
    for end in range((first - 1) // ID_BLOCK + 1, receipt.last_position // ID_BLOCK + 1):
        db.statements.execute(SQL["index_ids"], (key, (end - 1) * ID_BLOCK + 1, end * ID_BLOCK))


def erase(db: LedgerConnection, key: SessionKey, limit: int) -> bool:
    """Some rows of what was sealed under this key; True while there are more.

    What that leaves of the limit goes to erasures of others that were interrupted.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        left = _erase_sealed(db, "erasure", (key.namespace, key.session_id), limit)
        more = left <= 0 and db.execute(SQL["erasure"], (key.namespace, key.session_id)).fetchone() is not None
        if not more:
            _erase_sealed(db, "any_erasure", (), left)
        db.execute("COMMIT")
        return more
    except BaseException:
        roll_back(db)
        raise


def resume_erasures(db: LedgerConnection, limit: int) -> None:
    """Some rows of what was sealed by somebody who was stopped before he had erased it; waits for no other process."""
    if db.execute(SQL["any_erasure"]).fetchone() is None:
        return
    patience = db.execute("PRAGMA busy_timeout").fetchone()[0]
    db.execute("PRAGMA busy_timeout = 0")
    try:
        db.execute("BEGIN IMMEDIATE")
        _erase_sealed(db, "any_erasure", (), limit)
        db.execute("COMMIT")
    finally:
        roll_back(db)
        db.execute(f"PRAGMA busy_timeout = {patience}")


def _erase_sealed(db: LedgerConnection, statement: str, arguments: tuple[str, ...], limit: int) -> int:
    """One erasure after the other, as a statement names them; returns what is left of the limit."""
    while limit > 0 and (row := db.execute(SQL[statement], arguments).fetchone()) is not None:
        limit = _erase_rows(db, row[0], limit)
    return limit


def _erase_rows(db: LedgerConnection, key: int, limit: int) -> int:
    for table, columns in _CONTENT:
        places = f"SELECT {columns} FROM {table} WHERE session_key = ? LIMIT ?"
        limit -= db.execute(
            f"DELETE FROM {table} WHERE session_key = ? AND ({columns}) IN ({places})", (key, key, limit)
        ).rowcount
        if limit <= 0:
            return limit
    db.execute(SQL["end_erasure"], (key,))
    return limit
