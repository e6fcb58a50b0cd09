"""The store's directory: its schema, its sessions, and how many of their files are open."""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from sessionledger.drivers.jsonfile.files import Snapshot, View
from sessionledger.drivers.jsonfile.handle import replace_file, sync_directory
from sessionledger.drivers.jsonfile.index import IndexDamagedError
from sessionledger.drivers.jsonfile.lock import BusyError, locked
from sessionledger.drivers.jsonfile.names import directory_name
from sessionledger.drivers.jsonfile.session import Session
from sessionledger.errors import DecodeError, DriverError, SchemaTooNewError
from sessionledger.protocol.rows import SessionKey

__all__ = ["SCHEMA_VERSION", "Directory"]

T = TypeVar("T")

SCHEMA_VERSION: Final = 1
_META: Final = "store.json"
_SESSIONS: Final = "sessions"
_NAMESPACES: Final = "namespaces"
_ERASING: Final = "erasing"
_RESUMED: Final = 100  #: interrupted erasures, finished at open
_MOST_OPEN: Final = 48  #: sessions whose files stay open, four each
_ATTEMPTS: Final = 50  #: of a read whose session is changed meanwhile
_SYNCS: Final = 16  #: that are under way at once


class _Meta(msgspec.Struct, frozen=True):
    schema_version: int
    min_reader: int
    min_writer: int


_decode_key = msgspec.json.Decoder(SessionKey).decode
_decode_meta = msgspec.json.Decoder(_Meta).decode


class Directory:
    """Its methods block; threads share it."""

    def __init__(self, path: Path, *, sync: bool) -> None:
        self.path, self.sync = path, sync
        self._mutex = threading.Lock()
        self._open: OrderedDict[SessionKey, Session] = OrderedDict()
        self._syncing: ThreadPoolExecutor | None = None

    # the schema

    def make(self) -> None:
        """`BusyError` while somebody else makes it."""
        if self._stored_version() is not None:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path / "lock"):
            if self._stored_version() is None:
                (self.path / _SESSIONS).mkdir(exist_ok=True)
                meta = _Meta(SCHEMA_VERSION, 1, 1)
                replace_file(self.path / _META, msgspec.json.encode(meta) + b"\n", sync=self.sync)
                if self.sync:
                    # who may not read it still has the store there
                    with suppress(PermissionError):
                        sync_directory(self.path.parent)

    def version(self) -> int:
        version = self._stored_version()
        if version is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path / _META))
        return version

    def _stored_version(self) -> int | None:
        try:
            meta = _decode_meta((self.path / _META).read_bytes())
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise DriverError(
                f"{self.path / _META} is another program's or damaged ({error}): give the store a directory of its own",
                driver="jsonfile",
            ) from error
        least = max(meta.min_reader, meta.min_writer)
        if least > SCHEMA_VERSION:
            raise SchemaTooNewError(
                f"the store's directory asks for schema {least}, this release knows {SCHEMA_VERSION}: "
                "upgrade sessionledger",
                found=least,
                known=SCHEMA_VERSION,
            )
        return meta.schema_version

    # sessions

    def sessions_of(self, namespace: str) -> Path:
        """Where a namespace's sessions are."""
        if not namespace:
            return self.path / _SESSIONS
        return self.path / _NAMESPACES / directory_name(namespace) / _SESSIONS

    def session(self, key: SessionKey) -> Session:
        with self._mutex:
            session = self._open.get(key)
            if session is None:
                place = self.sessions_of(key.namespace) / directory_name(key.session_id)
                session = self._open[key] = Session(place, key, erasing=self.path / _ERASING, sync=self.sync)
                if len(self._open) > _MOST_OPEN:
                    # whoever is at it has its files open still
                    self._open.popitem(last=False)
            else:
                self._open.move_to_end(key)
            return session

    def resume_erasures(self) -> None:
        """Those of processes that were stopped; what others are at, or what is damaged, can wait."""
        try:
            names = os.listdir(self.path / _ERASING)[:_RESUMED]
        except FileNotFoundError:
            return
        for name in names:
            with suppress(OSError, BusyError, DecodeError, IndexDamagedError, msgspec.DecodeError):
                session = self.session(_decode_key((self.path / _ERASING / name).read_bytes()))
                with session.locked(wait=False):
                    session.erase()

    def make_session(self, session: Session) -> None:
        """Its directory, and its namespace's."""
        if session.directory.is_dir():
            return
        namespace = session.directory.parent
        for path in reversed([path for path in (namespace, *namespace.parents) if not path.is_dir()]):
            path.mkdir(exist_ok=True)
            if self.sync:
                sync_directory(path.parent)
        session.directory.mkdir(exist_ok=True)

    def sync_all(self, syncs: Sequence[Callable[[], None]]) -> list[OSError | None]:
        """At once, so that the disk does them together; the error of each that failed."""
        if not self.sync:
            return [None] * len(syncs)
        if len(syncs) < 2:
            return [_failure(sync) for sync in syncs]
        with self._mutex:
            if self._syncing is None:
                self._syncing = ThreadPoolExecutor(_SYNCS, "sessionledger-sync")
        return list(self._syncing.map(_failure, syncs))

    def close(self) -> None:
        self.forget_files()
        with self._mutex:
            syncing, self._syncing = self._syncing, None
        if syncing is not None:
            syncing.shutdown(wait=False)

    def forget_files(self) -> None:
        with self._mutex:
            self._open.clear()

    def read(self, key: SessionKey, read: Callable[[View], T]) -> T | None:
        """Read as of the session's last commit; None when there is none."""
        session = self.session(key)
        before: Snapshot | None = None
        for _ in range(_ATTEMPTS):
            view = session.view()
            if view is None:
                return None
            try:
                return read(view)
            except (IndexDamagedError, FileNotFoundError) as error:
                # the index, or a file of its state that was replaced meanwhile; what does not change is damaged
                if view.snapshot == before:
                    break
                before = view.snapshot
                if isinstance(error, IndexDamagedError):
                    session.rebuild(view.files)
                else:
                    session.forget()
        raise DecodeError(
            f"files of session {key.session_id!r} are missing or damaged in {session.directory}: restore them from a "
            "backup",
            session_id=key.session_id,
        )

    def within_limits(self, work: Callable[[], T]) -> T:
        """Once more without the files that are open only to be used again, when there are too many."""
        try:
            return work()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self.forget_files()
        return work()


def _failure(sync: Callable[[], None]) -> OSError | None:
    try:
        sync()
    except OSError as error:
        return error
    return None
