"""One session's directory: which files are its own now, who may write, and what is published."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EROFS
from hashlib import blake2b
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from sessionledger.drivers.jsonfile.files import (
    HEAD,
    Files,
    Snapshot,
    View,
    boot_id,
    encode_snapshot,
    incarnations,
    log_path,
    read_snapshot,
    remove_incarnation,
)
from sessionledger.drivers.jsonfile.handle import Handle, replace_file
from sessionledger.drivers.jsonfile.index import IndexDamagedError
from sessionledger.drivers.jsonfile.journal import Journal
from sessionledger.drivers.jsonfile.lines import BeginLine, CommitLine, SessionLine, StateLine, encode_line
from sessionledger.drivers.jsonfile.lock import locked
from sessionledger.drivers.jsonfile.recovery import replay
from sessionledger.errors import DecodeError
from sessionledger.protocol.rows import Head, SessionKey

__all__ = ["Session", "commit_line"]

logger = logging.getLogger("sessionledger.jsonfile")

_CHECKPOINT: Final = "checkpoint.json"
#: Commits after which the index is brought to the disk too: no more than these are read again after a power cut.
_CHECKPOINT_COMMITS: Final = 1024


class Session:
    """Its methods block. Those that change something are called by whoever has the lock."""

    def __init__(self, directory: Path, key: SessionKey, *, erasing: Path, sync: bool) -> None:
        self.directory, self.key = directory, key
        self._marker = erasing / f"{blake2b(msgspec.json.encode(key), digest_size=16).hexdigest()}.json"
        self._sync = sync
        self._head: Handle | None = None
        self._view: View | None = None
        self._checked = False  #: once a process: what an earlier one left was whole, or was made so

    @contextmanager
    def locked(self, *, wait: bool = True) -> Iterator[None]:
        """`BusyError` while somebody else writes."""
        with locked(self.directory / "lock", wait=wait):
            yield

    # what is published

    def view(self) -> View | None:
        """As of the last commit; waits for nobody, but for the first time."""
        cached = self._view
        if cached is not None and cached.files.is_at(cached.snapshot.log_size):
            return cached
        view = self._open_published() if self._checked else self._check()
        if view is None and incarnations(self.directory):
            try:
                with self.locked():
                    return self.latest()
            except OSError as error:
                # whoever may not write cannot mend either, and reads what is published
                if not isinstance(error, PermissionError) and error.errno != EROFS:
                    raise
                view = self._open_published()
        self._view = view
        return view

    def _check(self) -> View | None:
        """What is published, if nothing that was acknowledged can be missing from it, nor from the index."""
        view = self._open_published()
        if view is None or view.snapshot.boot != boot_id():
            return None
        self._checked = True
        return view

    def _open_published(self) -> View | None:
        """None while it is being replaced, too."""
        snapshot = self._read(HEAD)
        if snapshot is None:
            return None
        try:
            files = self._files(snapshot.head.incarnation)
        except FileNotFoundError:
            return None
        return View(files, snapshot) if files.hold(snapshot) else None

    def _files(self, incarnation: int) -> Files:
        """Those that are open already, if they are still the session's."""
        view = self._view
        if view is not None:
            with suppress(FileNotFoundError):
                there = os.stat(log_path(self.directory, incarnation))
                if os.path.samestat(there, view.files.log.stat()) and view.files.current:
                    return view.files
        return Files(self.directory, incarnation)

    def _read(self, name: str) -> Snapshot | None:
        snapshot = read_snapshot(self.directory / name)
        if snapshot is None:
            return None
        if snapshot.head.key != self.key:
            raise DecodeError(
                f"{self.directory / name} is of session {snapshot.head.key.session_id!r}, not {self.key.session_id!r}: "
                "move it back",
                session_id=self.key.session_id,
            )
        return snapshot

    # with the lock

    def latest(self) -> View | None:
        """As of the last commit; what a crash left half is mended."""
        view = self._view
        if self._checked and view is not None and view.files.is_at(view.snapshot.log_size):
            return view
        view = self._open_published()
        if view is None or not (self._checked or view.snapshot.boot == boot_id()):
            view = self._recover()
        else:
            self._drop_unpublished(view)
        self._checked, self._view = True, view
        self._sweep(view)
        return view

    def _sweep(self, view: View | None) -> None:
        """Drafts, fields in files that no commit has come to refer to, earlier incarnations. `view`: the latest, which
        a reader who is late may have replaced by an older one where it is remembered.
        """
        used: tuple[str | None, ...] = ()
        if view is not None:
            used = (view.snapshot.session.file, view.snapshot.state.file)
            self._remove_others(view.files.incarnation)
        for name in os.listdir(self.directory):
            if name.endswith(".tmp") or (name.startswith(("session-", "state-")) and name not in used):
                (self.directory / name).unlink(missing_ok=True)

    def _drop_unpublished(self, view: View) -> None:
        """What a process wrote that was killed before anybody could see it. Nobody was told that it was stored, and
        whoever has looked meanwhile was told that it is not.
        """
        files, snapshot = view
        for incarnation in incarnations(self.directory):
            if incarnation > files.incarnation:
                remove_incarnation(self.directory, incarnation)
        surplus = files.log.size() - snapshot.log_size
        if surplus:
            logger.warning(
                "%s: dropped a torn commit of %d bytes at byte %d", files.log.path, surplus, snapshot.log_size
            )
            with suppress(IndexDamagedError):
                files.index.unlink(snapshot.records)
            files.log.truncate(snapshot.log_size)

    def rebuild(self, damaged: Files) -> None:
        """Make the index again, unless somebody did while this waited."""
        with self.locked():
            if damaged.current:
                self.mend()

    def mend(self) -> None:
        """Make the index again, from the log."""
        view = self.latest()
        if view is not None:
            self._view = self._make_again(view.files.incarnation)

    def _recover(self) -> View | None:
        for incarnation in reversed(incarnations(self.directory)):
            files = Files(self.directory, incarnation, create=True)
            view = self._replay(files, self._base(files))
            if view is not None:
                self._remove_others(incarnation)
                return view
            # its first commit was torn
            remove_incarnation(self.directory, incarnation)
        return None

    def _base(self, files: Files) -> Snapshot | None:
        """From where on the index may be wrong."""
        snapshot = self._read(_CHECKPOINT)
        if snapshot is None or snapshot.head.incarnation != files.incarnation or not files.hold(snapshot):
            return None
        return snapshot

    def _replay(self, files: Files, base: Snapshot | None) -> View | None:
        if base is None:
            return self._make_again(files.incarnation)
        try:
            journal = replay(files, base, self.key.session_id)
        except IndexDamagedError:
            return self._make_again(files.incarnation)
        return self._published(journal)

    def _make_again(self, incarnation: int) -> View | None:
        """The index, in files of its own: in the old ones readers would miss what is not in them again yet."""
        files = Files(self.directory, incarnation, draft=True)
        try:
            journal = replay(files, None, self.key.session_id)
        except IndexDamagedError as error:
            raise DecodeError(
                f"{files.log.path} contradicts itself: restore it from a backup", session_id=self.key.session_id
            ) from error
        return self._published(journal)

    def _published(self, journal: Journal) -> View | None:
        """What was read again, if it is a commit of this session."""
        files, snapshot = journal.files, journal.snapshot
        if snapshot is None:
            return None
        if snapshot.head.key != self.key:
            raise DecodeError(
                f"{files.log.path} is of session {snapshot.head.key.session_id!r}: move it back",
                session_id=self.key.session_id,
            )
        if journal.base is None:
            # it vouches for an index that is no longer there
            (self.directory / _CHECKPOINT).unlink(missing_ok=True)
            files.keep()
        self.publish(journal)
        return View(files, snapshot)

    def begin(self, incarnation: int) -> Files:
        """The files of a new log. It is there once `publish` was called."""
        remove_incarnation(self.directory, incarnation)
        files = Files(self.directory, incarnation, create=True)
        files.index.file.truncate(0)
        files.lookup.file.truncate(0)
        return files

    def publish(self, journal: Journal) -> None:
        """Let readers see what is durable now."""
        snapshot = journal.snapshot
        assert snapshot is not None
        self._write_head(snapshot)
        # it is there now, whatever becomes of the rest
        with suppress(OSError):
            if self._sync and snapshot.head.version - snapshot.checkpoint >= _CHECKPOINT_COMMITS:
                snapshot = self._bring_to_disk(journal.files, snapshot)
            for name in journal.dropped:
                (self.directory / name).unlink(missing_ok=True)
        self._checked, self._view = True, View(journal.files, snapshot)

    def _write_head(self, snapshot: Snapshot) -> None:
        if self._head is None:
            self._head = Handle(self.directory / HEAD, create=True)
        self._head.write(0, encode_snapshot(snapshot, self._head.size()))

    def _bring_to_disk(self, files: Files, snapshot: Snapshot) -> Snapshot:
        snapshot = msgspec.structs.replace(snapshot, checkpoint=snapshot.head.version)
        files.index.file.sync()
        files.lookup.file.sync()
        replace_file(self.directory / _CHECKPOINT, encode_snapshot(snapshot), sync=True)
        return snapshot

    def _remove_others(self, incarnation: int) -> None:
        """Of a log that is newer nothing was ever acknowledged."""
        for other in incarnations(self.directory):
            if other != incarnation:
                remove_incarnation(self.directory, other)

    def made_again(self, incarnation: int) -> None:
        """What was sealed before is of no use any more."""
        with suppress(OSError):
            self._remove_others(incarnation)
            self._marker.unlink(missing_ok=True)

    def forget(self) -> None:
        """What is known of the files: the next one looks."""
        self._view = None

    # erasing

    def mark_for_erasure(self) -> None:
        """So that it is erased when the store is opened again, should nobody come to it before."""
        self._marker.parent.mkdir(exist_ok=True)
        replace_file(self._marker, msgspec.json.encode(self.key) + b"\n", sync=self._sync)

    def erase(self) -> None:
        """Leave a tombstone of what is sealed: a log that says so, and nothing else."""
        view = self.latest()
        if view is not None and view.snapshot.head.erased and view.snapshot.records:
            head = view.snapshot.head
            (self.directory / _CHECKPOINT).unlink(missing_ok=True)
            replace_file(view.files.log.path, b"".join(tombstone(head)), sync=self._sync)
            view = self._view = self._make_again(head.incarnation)
            self._sweep(view)
        if view is not None:
            self._remove_others(view.files.incarnation)
        self._marker.unlink(missing_ok=True)


def tombstone(head: Head) -> list[bytes]:
    begin = encode_line(
        BeginLine(
            namespace=head.key.namespace,
            session_id=head.key.session_id,
            incarnation=head.incarnation,
            user_id=head.user_id,
            created_at=head.created_at,
            fork=head.fork,
        )
    )
    empty = msgspec.Raw(b"{}")
    lines = [begin, encode_line(SessionLine(body=empty)), encode_line(StateLine(body=empty))]
    return [*lines, encode_line(commit_line(head, lines, after=0))]


def commit_line(head: Head, lines: list[bytes], *, after: int, **fields: object) -> CommitLine:
    """The end of a commit that consists of these lines."""
    crc = 0
    for line in lines:
        crc = crc32(line, crc)
    return CommitLine(
        version=head.version,
        state_version=head.state_version,
        runs=head.run_count,
        messages=head.message_count,
        last_activity_at=head.last_activity_at,
        deleted_at=head.deleted_at,
        erased=head.erased,
        has_hidden=head.has_hidden,
        has_summary=head.has_summary,
        forks=head.forks,
        after=after,
        size=sum(map(len, lines)),
        crc=crc,
        **fields,  # type: ignore[arg-type]
    )
