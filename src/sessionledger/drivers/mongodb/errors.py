"""What motor, PyMongo and bson raise, as errors of ours. motor raises PyMongo's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from bson.errors import BSONError, InvalidDocument, InvalidId, InvalidStringData
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
)

from sessionledger.errors import (
    DecodeError,
    DriverError,
    OutcomeUnknownError,
    PoolTimeoutError,
    StorageFullError,
    UnavailableError,
)

__all__ = ["DUPLICATE", "TOO_LARGE", "code_error", "error_of", "mapped"]

DUPLICATE: Final = frozenset({11000, 11001, 12582})
TOO_LARGE: Final = frozenset({10334, 17419, 17420})  #: what a document takes

_DRIVER: Final = "mongodb"
_AUTHENTICATION: Final = (11, 18, 334, 8000)
_RIGHTS: Final = (13, 31)
_FULL: Final = (14031,)
#: The primary steps down, is not one, or stops; the network of the servers; cursors that are gone; locks.
_PASSING: Final = frozenset(
    int(code)
    for code in (
        "6 7 24 43 63 89 91 112 133 134 150 189 202 234 237 262 279 290 317 356 358 384 "
        "9001 10058 10107 11600 11601 11602 13388 13435 13436"
    ).split()
)
_CONCERN: Final = (64, 79, 100)

#: By the server's code: what happened, and what helps.
_SENTENCES: Final[dict[int, tuple[type[DriverError], str]]] = {
    **dict.fromkeys(
        _AUTHENTICATION,
        (DriverError, "MongoDB refused the user or the password: mend them, or authSource, in the store's URL"),
    ),
    **dict.fromkeys(_RIGHTS, (DriverError, "the MongoDB user lacks a right: grant it readWrite on the database")),
    **dict.fromkeys(_FULL, (StorageFullError, "the disk of the MongoDB server is full: make room and repeat the call")),
    12501: (StorageFullError, "the quota of the MongoDB database is exhausted: raise it and repeat the call"),
    **dict.fromkeys(_PASSING, (UnavailableError, "the MongoDB primary steps down, stops or is busy: try again")),
    **dict.fromkeys(_CONCERN, (OutcomeUnknownError, "a majority of the MongoDB servers did not confirm in time")),
    26: (DriverError, "a collection of the store is gone: open the store again, which makes what is missing"),
    50: (UnavailableError, "MongoDB ended the operation for its time: try again"),
    146: (UnavailableError, "the MongoDB server is out of memory: try again"),
}


def code_error(code: int | None, text: str, *, writing: bool) -> DriverError | None:
    """For the code of a server's answer; None where it tells nothing more than that something failed."""
    known = _SENTENCES.get(code or 0)
    if known is None:
        return None
    kind, sentence = known
    if kind is OutcomeUnknownError and not writing:
        kind = UnavailableError
    return kind(f"{sentence} ({_first_line(text)})", driver=_DRIVER)


def error_of(error: BaseException, *, writing: bool) -> DriverError | DecodeError:
    """`writing`: what was under way may have been done, where the server did not say that it was not."""
    if isinstance(error, InvalidDocument | InvalidStringData | InvalidId):
        return DriverError(f"a document cannot be written as BSON ({_first_line(error)}): see the docs", driver=_DRIVER)
    if isinstance(error, BSONError):
        return DecodeError(f"a MongoDB document cannot be read ({_first_line(error)}): restore it from a backup")
    if isinstance(error, BulkWriteError):
        return _bulk_error(error.details if isinstance(error.details, Mapping) else {}, writing=writing)
    if isinstance(error, WaitQueueTimeoutError):
        return PoolTimeoutError("all connections to MongoDB are in use: raise pool_size, or try again", driver=_DRIVER)
    if isinstance(error, ServerSelectionTimeoutError):
        return _unreachable(error)
    if isinstance(error, ConfigurationError | InvalidURI):
        return DriverError(
            f"the options of the MongoDB URL do not fit ({_first_line(error)}): see the docs", driver=_DRIVER
        )
    if isinstance(error, OperationFailure):
        return _failure(error, writing=writing)
    if isinstance(error, ConnectionFailure | OSError | TimeoutError):
        return _lost(error) if writing else _unreachable(error)
    return DriverError(f"MongoDB failed ({_first_line(error)}): look into the server's log", driver=_DRIVER)


def _failure(error: OperationFailure, *, writing: bool) -> DriverError:
    known = code_error(error.code, str(error), writing=writing)
    if isinstance(error, WriteConcernError) and not isinstance(known, StorageFullError):
        return _unconfirmed(error)
    if isinstance(error, ExecutionTimeout) or (known is None and error.has_error_label("RetryableWriteError")):
        return _lost(error) if writing else _unreachable(error)
    if isinstance(error, DuplicateKeyError):
        return UnavailableError("others write the same again and again: try again", driver=_DRIVER)
    if known is not None:
        # the server may have stepped down behind the write
        return _lost(error) if writing and isinstance(known, UnavailableError) else known
    return DriverError(f"MongoDB failed ({_first_line(error)}): look into the server's log", driver=_DRIVER)


def _bulk_error(details: Mapping[str, Any], *, writing: bool) -> DriverError:
    for failed in details.get("writeErrors", ()):
        known = code_error(failed.get("code"), failed.get("errmsg", ""), writing=writing)
        if known is not None:
            return known
    if details.get("writeConcernErrors"):
        return _unconfirmed(details["writeConcernErrors"][0].get("errmsg", ""))
    failed = (details.get("writeErrors") or [{}])[0].get("errmsg", "a bulk write")
    return DriverError(f"MongoDB failed ({_first_line(failed)}): look into the server's log", driver=_DRIVER)


def _unconfirmed(error: object) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"a majority of the MongoDB servers did not confirm in time ({_first_line(error)}): repeat the call with the "
        "same ids, it may be stored",
        driver=_DRIVER,
    )


def _lost(error: object) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"the MongoDB server was lost while it wrote ({_first_line(error)}): repeat the call with the same ids, it may "
        "be stored",
        driver=_DRIVER,
    )


def _unreachable(error: object) -> UnavailableError:
    return UnavailableError(
        f"the MongoDB server cannot be reached ({_first_line(error)}): is it running?", driver=_DRIVER
    )


def _first_line(error: object) -> str:
    """Without the state of the topology, and without a URL's user and password."""
    text = str(error).partition("\n")[0].partition(", full error:")[0].partition(", Timeout:")[0]
    return re.sub(r"//[^/@\s]*@", "//", text)[:300] or type(error).__name__


@contextmanager
def mapped(*, writing: bool = False) -> Iterator[None]:
    try:
        yield
    except (PyMongoError, BSONError, OSError, TimeoutError) as error:
        raise error_of(error, writing=writing) from error
