"""What a driver's refusal means to a user."""

from __future__ import annotations

from sessionledger.errors import (
    ConflictError,
    InvalidRecordError,
    RunConflictError,
    RunNotFoundError,
    SessionDeletedError,
    SessionExistsError,
    SessionHasForksError,
    SessionLedgerError,
    SessionNotFoundError,
)
from sessionledger.protocol.rows import Commit, Reason, Refused

__all__ = ["deleted", "error_of", "not_found", "run_not_found", "unknown_run"]


def not_found(session_id: str) -> SessionNotFoundError:
    return SessionNotFoundError(
        f"there is no session {session_id!r}: append to it or create it first", session_id=session_id
    )


def unknown_run(session_id: str, run_id: str, remedy: str) -> RunNotFoundError:
    """Neither its own, nor inherited."""
    return RunNotFoundError(
        f"session {session_id!r} has no run {run_id!r}: {remedy}", session_id=session_id, run_id=run_id
    )


def run_not_found(session_id: str, run_id: str) -> RunNotFoundError:
    return RunNotFoundError(
        f"session {session_id!r} has no run {run_id!r} of its own: append it first (inherited runs are read-only)",
        session_id=session_id,
        run_id=run_id,
    )


def deleted(session_id: str, *, erased: bool) -> SessionDeletedError:
    remedy = "create_session makes it again" if erased else "restore_session brings it back"
    return SessionDeletedError(f"session {session_id!r} was deleted: {remedy}", session_id=session_id)


def error_of(refused: Refused, commit: Commit) -> SessionLedgerError:
    session_id, reason, head = commit.key.session_id, refused.reason, refused.head
    if reason is Reason.MISSING or (reason is Reason.ERASED and commit.create is None):
        # only who would make it again learns that it was erased
        return not_found(session_id)
    if reason is Reason.NOT_OWNER:
        # whoever may not see a session learns no more than that its id is taken, when he would make it
        return _taken(session_id) if commit.create is not None else not_found(session_id)
    if reason is Reason.EXISTS:
        return _taken(session_id)
    if reason in (Reason.DELETED, Reason.ERASED):
        return deleted(session_id, erased=reason is Reason.ERASED)
    if reason is Reason.RUN_CONFLICT:
        run_id = refused.run_id or ""
        return RunConflictError(
            f"session {session_id!r} has a run {run_id!r} with another content: give a new run_id, or revise=True",
            session_id=session_id,
            run_id=run_id,
        )
    if reason is Reason.RUN_CHANGED:
        return run_not_found(session_id, refused.run_id or "")
    if reason is Reason.FORKS:
        return SessionHasForksError(
            f"other sessions share the messages of {session_id!r}: delete them first, or with forks=True",
            session_id=session_id,
        )
    if reason is Reason.TOO_LARGE:
        return InvalidRecordError(f"what was to be stored in {session_id!r} is larger than the storage takes: split it")
    return _conflict(refused, commit, head.version if head else 0, head.state_version if head else 0)


def _taken(session_id: str) -> SessionExistsError:
    return SessionExistsError(f"the session id {session_id!r} is taken: choose another", session_id=session_id)


def _conflict(refused: Refused, commit: Commit, version: int, state_version: int) -> ConflictError:
    session_id = commit.key.session_id
    texts = {
        Reason.VERSION: f"session {session_id!r} is at version {version}, not {commit.expected_version}: read it again",
        Reason.STATE_VERSION: (
            f"session {session_id!r} is at state version {state_version}, not {commit.expected_state_version}: "
            "read it again"
        ),
        Reason.INCARNATION: f"session {session_id!r} was deleted and made again meanwhile: read it again",
        Reason.OPERATION_CONFLICT: (
            f"session {session_id!r} knows the operation {commit.operation_id!r} with another content: use a new id"
        ),
        Reason.HIDE_MISSING: f"session {session_id!r} has no such retract: give the id that retract returned",
    }
    return ConflictError(texts[refused.reason], session_id=session_id, version=version, state_version=state_version)
