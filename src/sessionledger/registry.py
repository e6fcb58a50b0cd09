"""Stores by URL: drivers are found through entry points of the group `sessionledger.drivers`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from sessionledger.errors import (
    DriverIncompatibleError,
    DriverNotFoundError,
    InvalidRecordError,
    MissingDependencyError,
)
from sessionledger.protocol.driver import PROTOCOL_VERSION, DriverFactory, DriverInfo, StoreURL
from sessionledger.store import Store

__all__ = ["GROUP", "InstalledDriver", "drivers", "open_store", "parse_url"]

GROUP: Final = "sessionledger.drivers"

#: What `open_store` itself takes, from the URL's query too.
_STORE_OPTIONS: Final = {"timeout": float}

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*").fullmatch


class InstalledDriver(msgspec.Struct, frozen=True, kw_only=True):
    """A driver that is installed; `info` is None when it cannot be loaded, and `problem` says why."""

    scheme: str
    package: str
    info: DriverInfo | None
    problem: str | None = None


def open_store(url: str, *, timeout: float | None = 30.0, **options: Any) -> Store:
    """A store for that URL, not open yet: use it with ``async with``, or call `open`.

    `timeout` bounds every call and every page of a cursor, in seconds; None: no bound. The other options are the
    driver's; the URL's query may give them as well (``sqlite:///agents.db?durability=process``).

    `DriverNotFoundError` when no installed driver takes the URL's scheme, `MissingDependencyError` when the driver
    lacks a package, `DriverIncompatibleError` when it is of another protocol version, `InvalidRecordError` for an
    unknown option or a URL with a fragment.
    """
    parsed = parse_url(url)
    factory = _load(_find(parsed.scheme))
    info = _info(factory, parsed.scheme)
    given = {**_typed_query(parsed.query), **options}
    if "timeout" in given:
        timeout = given.pop("timeout")
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0):
        raise InvalidRecordError(f"timeout is {timeout!r}: give seconds above 0, or None", path="timeout")
    unknown = sorted(set(given) - set(info.options))
    if unknown:
        known = ", ".join(["timeout", *info.options])
        raise InvalidRecordError(
            f"the {info.name} driver has no option {unknown[0]!r}: it knows {known}", path=unknown[0]
        )
    return Store.on(factory(parsed, **given), timeout=timeout)


def drivers() -> list[InstalledDriver]:
    """What is installed, by scheme; a driver that lacks a package is listed with its problem."""
    found: list[InstalledDriver] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        package = entry.dist.name if entry.dist is not None else entry.module.partition(".")[0]
        try:
            info, problem = _info(_load(entry), entry.name), None
        except (MissingDependencyError, DriverIncompatibleError) as error:
            info, problem = None, str(error)
        found.append(InstalledDriver(scheme=entry.name, package=package, info=info, problem=problem))
    return found


def parse_url(url: str) -> StoreURL:
    """`DriverNotFoundError` when it is no URL, `InvalidRecordError` when it has a fragment; its text is not shown,
    because it may hold a secret.
    """
    scheme, colon, _ = url.partition(":") if isinstance(url, str) else ("", "", "")
    if not colon or not _SCHEME(scheme.lower()):
        raise DriverNotFoundError(
            "the store's URL has no scheme: give one like sqlite:///agents.db or memory://", scheme=""
        )
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DriverNotFoundError(
            f"the store's URL of scheme {scheme!r} is malformed: write [, ] and @ in a password as %5B, %5D and %40",
            scheme=scheme,
        ) from error
    if "#" in url:
        raise InvalidRecordError(
            "the store's URL has a '#', which ends its path: write %23 for one in a name", path="url"
        )
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return StoreURL(scheme=scheme.lower(), text=url, path=unquote(parts.path), authority=parts.netloc, query=query)


def _find(scheme: str) -> EntryPoint:
    found = list(entry_points(group=GROUP, name=scheme))
    claims = {entry.value: entry for entry in found}
    if len(claims) > 1:
        names = " and ".join(sorted(entry.dist.name if entry.dist else entry.value for entry in claims.values()))
        raise DriverNotFoundError(f"{names} both claim the scheme {scheme!r}: uninstall one of them", scheme=scheme)
    if not found:
        known = ", ".join(sorted({entry.name for entry in entry_points(group=GROUP)})) or "none"
        raise DriverNotFoundError(
            f"no installed driver takes the scheme {scheme!r}: install one, or use one of {known}", scheme=scheme
        )
    return found[0]


def _load(entry: EntryPoint) -> DriverFactory:
    try:
        factory: DriverFactory = entry.load()
    except MissingDependencyError:
        raise
    except ImportError as error:
        package = entry.dist.name if entry.dist is not None else "sessionledger"
        offered = (entry.dist.metadata.get_all("Provides-Extra") if entry.dist is not None else None) or []
        extra = next((name for name in (*entry.extras, _base_scheme(entry.name)) if name in offered), "")
        what = f"{package}[{extra}]" if extra else package
        raise MissingDependencyError(
            f'the {entry.name!r} driver lacks a package ({error}): python -m pip install "{what}"', extra=extra
        ) from error
    return factory


def _base_scheme(scheme: str) -> str:
    """`postgresql+asyncpg` is `postgresql`."""
    return scheme.partition("+")[0]


def _info(factory: DriverFactory, scheme: str) -> DriverInfo:
    info = getattr(factory, "info", None)
    version = getattr(info, "protocol_version", None)
    if not isinstance(info, DriverInfo) or version != PROTOCOL_VERSION:
        raise DriverIncompatibleError(
            f"the driver of {scheme!r} speaks driver protocol {version}, this release {PROTOCOL_VERSION}: "
            "install matching versions of both packages",
            driver=scheme,
        )
    return info


def _typed_query(query: Mapping[str, str]) -> dict[str, Any]:
    """Options of a URL are text; a driver converts its own."""
    typed: dict[str, Any] = {}
    for name, value in query.items():
        try:
            typed[name] = _STORE_OPTIONS[name](value) if name in _STORE_OPTIONS else value
        except ValueError as error:
            raise InvalidRecordError(f"{name} in the store's URL is no number: give seconds", path=name) from error
    return typed
