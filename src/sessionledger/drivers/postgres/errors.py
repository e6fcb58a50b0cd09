"""What asyncpg raises, as errors of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from sessionledger.errors import (
    DecodeError,
    DriverError,
    OutcomeUnknownError,
    PoolTimeoutError,
    StorageFullError,
    UnavailableError,
)

__all__ = ["LOST", "concerns_one", "error_of", "mapped"]

#: What asyncpg raises of a connection that is of no more use; `InternalClientError` after a server ended an idle one.
LOST = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)

#: By the SQLSTATE, or its class: what happened, and what helps.
_SENTENCES: dict[str, tuple[type[DriverError], str]] = {
    "28": (DriverError, "PostgreSQL refused the user or the password: mend them in the store's URL"),
    "3D": (DriverError, "the PostgreSQL database does not exist: create it, or name another in the store's URL"),
    "3F": (DriverError, "the PostgreSQL schema does not exist: create it, or let the user create it"),
    "42501": (DriverError, "the PostgreSQL user lacks a right: grant it CREATE on the schema, or all on the tables"),
    "42P01": (DriverError, "a table of the store is gone: open the store again, which makes what is missing"),
    "53100": (StorageFullError, "the disk of the PostgreSQL server is full: make room and repeat the call"),
    "53200": (UnavailableError, "the PostgreSQL server is out of memory: try again"),
    "53300": (PoolTimeoutError, "the PostgreSQL server has no connection left: raise max_connections or use fewer"),
    "40": (UnavailableError, "PostgreSQL undid the transaction, for another one's sake: try again"),
    "55P03": (UnavailableError, "a row of the session is locked by somebody else: try again"),
    "57P03": (UnavailableError, "the PostgreSQL server is starting or stopping: try again"),
    "57014": (UnavailableError, "PostgreSQL cancelled the statement: raise the user's statement_timeout, or try again"),
    "25006": (UnavailableError, "the PostgreSQL server takes no writes, as a standby does not: connect to the primary"),
    "XX001": (DriverError, "the PostgreSQL database is damaged: restore it from a backup"),
    "XX002": (DriverError, "an index of the PostgreSQL database is damaged: reindex it"),
}


def error_of(error: BaseException, *, writing: bool) -> DriverError | DecodeError:
    """`writing`: what was under way may have been done, where the server did not say that it was not."""
    state = getattr(error, "sqlstate", None) or ""
    for code in (state, state[:2]):
        if code in _SENTENCES:
            kind, sentence = _SENTENCES[code]
            return kind(f"{sentence} ({_first_line(error)})", driver="postgres")
    lost = state[:2] in ("08", "57") or isinstance(error, LOST)
    if lost and writing:
        return OutcomeUnknownError(
            f"the connection to PostgreSQL was lost while it wrote ({_first_line(error)}): repeat the call with the "
            "same ids, it may be stored",
            driver="postgres",
        )
    if lost:
        return UnavailableError(
            f"the PostgreSQL server cannot be reached ({_first_line(error)}): is it running?", driver="postgres"
        )
    return DriverError(f"PostgreSQL failed ({_first_line(error)}): look into the server's log", driver="postgres")


def _first_line(error: BaseException) -> str:
    text = str(error).partition("\n")[0]
    return text or type(error).__name__


def concerns_one(error: asyncpg.PostgresError) -> bool:
    """Whether PostgreSQL failed at what one commit brought: bad data, a limit, a run that another process stored."""
    return (error.sqlstate or "")[:2] in ("21", "22", "23", "54")


@contextmanager
def mapped(*, writing: bool = False) -> Iterator[None]:
    try:
        yield
    except asyncpg.ClientConfigurationError:
        raise  # a `ValueError`: what it was asked for is wrong
    except (asyncpg.PostgresError, *LOST) as error:
        raise error_of(error, writing=writing) from error
