"""Every error of the library. Each is one sentence: what happened, to which value, and what helps.

A client library's own exception never leaves a driver; it is the ``__cause__`` of one of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "ConflictError",
    "DecodeError",
    "DriverError",
    "DriverIncompatibleError",
    "DriverNotFoundError",
    "DriverTimeoutError",
    "InvalidCursorError",
    "InvalidRecordError",
    "MissingDependencyError",
    "OutcomeUnknownError",
    "PoolTimeoutError",
    "RunConflictError",
    "RunFinishedError",
    "RunNotFoundError",
    "SchemaOutdatedError",
    "SchemaTooNewError",
    "SessionDeletedError",
    "SessionExistsError",
    "SessionHasForksError",
    "SessionLedgerError",
    "SessionNotFoundError",
    "StorageFullError",
    "StoreClosedError",
    "UnavailableError",
    "UnsupportedError",
    "WrongLoopError",
    "WrongProcessError",
]


class SessionLedgerError(Exception):
    """The root of all errors of this library. Each survives pickling, with its attributes."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    kind: type[SessionLedgerError], arguments: tuple[Any, ...], attributes: dict[str, Any]
) -> SessionLedgerError:
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(attributes)
    return error


class InvalidRecordError(SessionLedgerError, ValueError):
    """A value cannot be stored as it is; nothing was. `path` names the field: ``messages[2].metadata['x']``."""

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class InvalidCursorError(SessionLedgerError, ValueError):
    """A token is damaged, or was made by another kind of cursor or for another session."""


class SessionNotFoundError(SessionLedgerError, LookupError):
    """There is no such session (for this scope)."""

    def __init__(self, message: str, *, session_id: str) -> None:
        super().__init__(message)
        self.session_id = session_id


class RunNotFoundError(SessionLedgerError, LookupError):
    """There is no such run in the session, or it is inherited from another session and read-only here."""

    def __init__(self, message: str, *, session_id: str, run_id: str) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.run_id = run_id


class SessionExistsError(SessionLedgerError):
    """The session's id is taken."""

    def __init__(self, message: str, *, session_id: str) -> None:
        super().__init__(message)
        self.session_id = session_id


class SessionDeletedError(SessionLedgerError):
    """The session was deleted: softly (`restore_session` brings it back) or for good (`create_session` begins anew)."""

    def __init__(self, message: str, *, session_id: str) -> None:
        super().__init__(message)
        self.session_id = session_id


class SessionHasForksError(SessionLedgerError):
    """Other sessions share this one's messages."""

    def __init__(self, message: str, *, session_id: str, forks: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.forks: tuple[str, ...] = tuple(forks)


class ConflictError(SessionLedgerError):
    """Somebody else was first. `version` and `state_version` are the session's actual ones, where they are known."""

    def __init__(
        self,
        message: str,
        *,
        session_id: str | None = None,
        version: int | None = None,
        state_version: int | None = None,
        sessions: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.version = version
        self.state_version = state_version
        self.sessions: tuple[str, ...] = tuple(sessions)


class RunConflictError(SessionLedgerError):
    """The session has a run of that id with another content."""

    def __init__(self, message: str, *, session_id: str, run_id: str) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.run_id = run_id


class RunFinishedError(SessionLedgerError):
    """The run has ended; `status` tells how."""

    def __init__(self, message: str, *, session_id: str, run_id: str, status: str) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.run_id = run_id
        self.status = status


class DecodeError(SessionLedgerError):
    """What is stored cannot be read: it was damaged, or written by a version that this one does not know."""

    def __init__(
        self,
        message: str,
        *,
        session_id: str | None = None,
        run_seq: int | None = None,
        position: int | None = None,
    ) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.run_seq = run_seq
        self.position = position


class DriverError(SessionLedgerError):
    """The storage failed. `driver` names it."""

    def __init__(self, message: str, *, driver: str = "") -> None:
        super().__init__(message)
        self.driver = driver


class UnavailableError(DriverError):
    """The storage cannot be reached or is busy, and nothing was done: the call may be repeated."""


class OutcomeUnknownError(DriverError):
    """The storage was told to write and did not answer, or the store was closed meanwhile; repeating the call with the
    same ids settles it.
    """


class DriverTimeoutError(DriverError, TimeoutError):
    """The call took longer than the store's timeout."""


class PoolTimeoutError(DriverError):
    """All connections were in use for longer than the store's timeout; nothing was done."""


class StorageFullError(DriverError):
    """The disk, a quota or a memory limit is exhausted; nothing was stored."""


class SchemaTooNewError(SessionLedgerError):
    """The stored schema is newer than this release can read or write."""

    def __init__(self, message: str, *, found: int, known: int) -> None:
        super().__init__(message)
        self.found = found
        self.known = known


class SchemaOutdatedError(SessionLedgerError):
    """The stored schema is older than this release needs and could not be upgraded."""

    def __init__(self, message: str, *, found: int, known: int) -> None:
        super().__init__(message)
        self.found = found
        self.known = known


class UnsupportedError(SessionLedgerError):
    """The driver does not have that ability."""

    def __init__(self, message: str, *, driver: str, ability: str) -> None:
        super().__init__(message)
        self.driver = driver
        self.ability = ability


class StoreClosedError(SessionLedgerError):
    """The store is not open, or was closed before the call had its turn: nothing was stored."""


class WrongLoopError(SessionLedgerError):
    """The store belongs to another event loop."""


class WrongProcessError(SessionLedgerError):
    """The store was opened by another process: this one was forked from it."""


class DriverNotFoundError(SessionLedgerError):
    """No installed driver takes that URL, or two packages claim its scheme."""

    def __init__(self, message: str, *, scheme: str) -> None:
        super().__init__(message)
        self.scheme = scheme


class DriverIncompatibleError(SessionLedgerError):
    """The driver speaks another version of the driver protocol."""

    def __init__(self, message: str, *, driver: str) -> None:
        super().__init__(message)
        self.driver = driver


class MissingDependencyError(SessionLedgerError, ImportError):
    """A package is missing; `extra` is the extra that installs it."""

    def __init__(self, message: str, *, extra: str) -> None:
        super().__init__(message)
        self.extra = extra
