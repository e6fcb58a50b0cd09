"""What redis-py raises, and what a server answers, as errors of ours."""

from __future__ import annotations

import re
import struct

import msgspec
import redis.exceptions as theirs

from sessionledger.errors import (
    DecodeError,
    DriverError,
    OutcomeUnknownError,
    PoolTimeoutError,
    StorageFullError,
    UnavailableError,
)

__all__ = ["CLIENT_ERRORS", "DAMAGE", "Mapped", "UnsentError", "damage_of", "error_of"]


class UnsentError(Exception):
    """Nothing was sent: its cause says why."""


#: All that redis-py raises; not everything has one root.
CLIENT_ERRORS = (
    theirs.RedisError,
    theirs.RedisClusterException,
    theirs.ChildDeadlockedError,
    theirs.IncorrectPolicyType,
    OSError,
    TimeoutError,
)

#: By what a server's answer has in it, also when a script passes it on: what happened, and what helps.
_SENTENCES: tuple[tuple[str, type[DriverError], str], ...] = (
    (
        "OOM command not allowed",
        StorageFullError,
        "the Redis server's maxmemory is reached: raise it, or erase sessions",
    ),
    ("MISCONF", StorageFullError, "the Redis server cannot write to its disk: make room and repeat the call"),
    (
        "max number of clients",
        PoolTimeoutError,
        "the Redis server has no connection left: raise maxclients or use fewer",
    ),
    ("NOAUTH", DriverError, "the Redis server asks for a password: put it into the store's URL"),
    ("WRONGPASS", DriverError, "the Redis server refused the user or the password: mend them in the store's URL"),
    (
        "invalid username-password",
        DriverError,
        "the Redis server refused the user or the password: mend the store's URL",
    ),
    ("AUTH", DriverError, "the Redis server refused the user or the password: mend them in the store's URL"),
    ("NOPERM", DriverError, "the Redis user lacks a right: grant it the store's keys, and EVALSHA, SCRIPT and INFO"),
    ("READONLY", UnavailableError, "the Redis server is a replica and takes no writes: connect to the master"),
    ("NOREPLICAS", UnavailableError, "the Redis server has too few replicas to take writes: try again"),
    ("MASTERDOWN", UnavailableError, "the Redis replica has lost its master: try again"),
    ("CLUSTERDOWN", UnavailableError, "the Redis cluster is not whole: try again"),
    ("TRYAGAIN", UnavailableError, "the session is being moved to another node of the Redis cluster: try again"),
    ("LOADING", UnavailableError, "the Redis server is still loading its data: try again"),
    ("BUSY", UnavailableError, "the Redis server is busy with a script: try again"),
    ("DB index is out of range", DriverError, "the Redis server has no database of that number: mend the store's URL"),
    ("CROSSSLOT", DriverError, "the Redis server is part of a cluster: use a URL of scheme redis+cluster"),
    ("WRONGTYPE", DriverError, "a key of the store holds something else: use another prefix, or restore a backup"),
    ("unknown command", DriverError, "the Redis server lacks a command that is needed: use Redis 6.2 or later"),
)

#: By the class, where no sentence fits.
_KINDS: tuple[tuple[type[BaseException], type[DriverError], str], ...] = (
    (
        theirs.AuthenticationError,
        DriverError,
        "the Redis server refused the user or the password: mend the store's URL",
    ),
    (theirs.AuthenticationWrongNumberOfArgsError, DriverError, "the Redis server refused the password: mend the URL"),
    (theirs.AuthorizationError, DriverError, "the Redis user lacks a right: grant it the store's keys and EVALSHA"),
    (theirs.NoPermissionError, DriverError, "the Redis user lacks a right: grant it the store's keys and EVALSHA"),
    (theirs.ExternalAuthProviderError, DriverError, "the provider of credentials for Redis failed: look into it"),
    (theirs.OutOfMemoryError, StorageFullError, "the Redis server's maxmemory is reached: raise it, or erase sessions"),
    (theirs.BusyLoadingError, UnavailableError, "the Redis server is still loading its data: try again"),
    (theirs.MaxConnectionsError, PoolTimeoutError, "all connections to Redis are in use: raise pool_size"),
    (
        theirs.ReadOnlyError,
        UnavailableError,
        "the Redis server is a replica and takes no writes: connect to the master",
    ),
    (theirs.TryAgainError, UnavailableError, "the session is being moved in the Redis cluster: try again"),
    (theirs.AskError, UnavailableError, "the session was moved to another node of the Redis cluster: try again"),
    (theirs.NoScriptError, UnavailableError, "the Redis server has forgotten the store's scripts: try again"),
    (theirs.ClusterError, UnavailableError, "the Redis cluster is not whole: try again"),
    (theirs.SlotNotCoveredError, UnavailableError, "the Redis cluster is not whole: try again"),
)

#: Nobody knows what the server did.
_LOST = (theirs.ConnectionError, theirs.TimeoutError, theirs.InvalidResponse, OSError, TimeoutError)


#: What Lua says when a script meets values that make no sense.
_STUMBLED = re.compile(r"user_script:\d+: (bad argument|attempt to)")


def error_of(error: BaseException, *, writing: bool) -> DriverError | DecodeError:
    """`writing`: what was under way may have been done, where the server did not say that it was not."""
    text = _first_line(error)
    if _STUMBLED.search(text):
        return damage_of(error)
    for words, kind, sentence in _SENTENCES:
        if words in text:
            return kind(f"{sentence} ({text})", driver="redis")
    for cause, kind, sentence in _KINDS:
        if isinstance(error, cause):
            return kind(f"{sentence} ({text})", driver="redis")
    if not isinstance(error, _LOST):
        return DriverError(f"Redis failed ({text}): look into the server's log", driver="redis")
    if writing:
        return OutcomeUnknownError(
            f"the connection to Redis was lost while it wrote ({text}): repeat the call with the same ids, it may be "
            "stored",
            driver="redis",
        )
    return UnavailableError(f"the Redis server cannot be reached ({text}): is it running?", driver="redis")


#: What comes of values that are stored and make no sense.
DAMAGE = (msgspec.MsgspecError, struct.error, ValueError, LookupError)


def damage_of(error: BaseException) -> DecodeError:
    return DecodeError(f"what is stored in Redis cannot be read ({_first_line(error)}): restore it from a backup")


_USERINFO = re.compile(r"//[^/@\s]*@")


def _first_line(error: BaseException) -> str:
    text = _USERINFO.sub("//", str(error).partition("\n")[0])
    return text or type(error).__name__


class Mapped:
    """Raises what the store knows instead of what the client raises."""

    __slots__ = ("_writing",)

    def __init__(self, *, writing: bool = False) -> None:
        self._writing = writing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, UnsentError):
            cause = error.__cause__ or error
            raise error_of(cause, writing=False) from cause
        if isinstance(error, CLIENT_ERRORS):
            raise error_of(error, writing=self._writing) from error
        if isinstance(error, DAMAGE):
            raise damage_of(error) from error
