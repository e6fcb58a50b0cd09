"""Reads across sessions. There is no index of a namespace: they look at the head of each of its sessions."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from heapq import nlargest, nsmallest
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from sessionledger.drivers.jsonfile.chains import find_run
from sessionledger.drivers.jsonfile.directory import Directory
from sessionledger.drivers.jsonfile.files import HEAD, Snapshot, View, boot_id, incarnations, log_path, read_snapshot
from sessionledger.drivers.jsonfile.lines import BeginLine, decode_line
from sessionledger.drivers.jsonfile.lock import BusyError
from sessionledger.drivers.jsonfile.names import directory_name
from sessionledger.drivers.jsonfile.reader import newest_run, row_of, runs_from
from sessionledger.protocol.filters import asks_for_open_alone, is_found, is_listed, is_searched, place_of, size_of
from sessionledger.protocol.rows import (
    FIRST,
    LAST,
    FoundRuns,
    Head,
    RunRow,
    RunSearch,
    SessionKey,
    SessionPage,
    SessionQuery,
    SessionRow,
)

__all__ = ["Listing"]

_MOST_REMEMBERED: Final = 10_000  #: heads, of about a kilobyte

_decode_place = msgspec.json.Decoder(tuple[str, int]).decode
_encode = msgspec.json.Encoder().encode


class _Known(NamedTuple):
    """A session's head, as long as its log is that large."""

    directory: Path
    log: str
    file: int
    snapshot: Snapshot


class Listing:
    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._known: dict[str, _Known] = {}
        self._mutex = threading.Lock()

    def sessions(self, query: SessionQuery) -> SessionPage:
        found = (
            (place_of(snapshot.head), path, snapshot)
            for path, snapshot in self._snapshots(query.namespace)
            if is_listed(snapshot.head, snapshot.session, query)
        )
        choose = nsmallest if query.reverse else nlargest
        chosen = choose(query.limit + 1, found, key=lambda item: item[0])
        rows = [self._row(path, snapshot) for _, path, snapshot in chosen[: query.limit]]
        return SessionPage(rows, len(chosen) > query.limit)

    def _row(self, path: Path, snapshot: Snapshot) -> SessionRow:
        try:
            return row_of(path, snapshot, state=False, counters=False)
        except FileNotFoundError:
            # a large body was replaced meanwhile
            row = self._directory.read(
                snapshot.head.key, lambda view: row_of(path, view.snapshot, state=False, counters=False)
            )
            assert row is not None
            return row

    def _snapshots(self, namespace: str) -> Iterator[tuple[Path, Snapshot]]:
        # a path is put together and looked up as text: this is done for each session of the namespace
        root = str(self._directory.sessions_of(namespace))
        for name in _names(root):
            known = self._known_of(f"{root}/{name}")
            if known is not None and known.snapshot.head.key.namespace == namespace:
                yield known.directory, known.snapshot

    def _known_of(self, path: str) -> _Known | None:
        known = self._known.get(path)
        if known is not None and _state_of(known.log) == (known.file, known.snapshot.log_size):
            return known
        directory = Path(path)
        snapshot = read_snapshot(directory / HEAD)
        key = _first_key(directory) if snapshot is None else snapshot.head.key
        if key is None:
            return None
        file, size = (0, -1) if snapshot is None else _state_of(str(log_path(directory, snapshot.head.incarnation)))
        if snapshot is None or size < snapshot.log_size or (snapshot.boot != boot_id() and size != snapshot.log_size):
            # a power cut, or somebody is making the session, in which case nobody was told that it is there
            with suppress(BusyError):
                snapshot = self._directory.read(key, lambda view: view.snapshot)
        if snapshot is None:
            return None
        known = _Known(directory, str(log_path(directory, snapshot.head.incarnation)), file, snapshot)
        self._remember(path, known)
        return known

    def _remember(self, path: str, known: _Known) -> None:
        with self._mutex:
            self._known[path] = known
            if len(self._known) > _MOST_REMEMBERED:
                self._known.pop(next(iter(self._known)))

    # runs

    def find_runs(self, search: RunSearch) -> FoundRuns:
        """In the order of the sessions' directories, then by seq."""
        found: list[tuple[Head, RunRow, str]] = []
        size = 0
        for head, row in self._searched(search):
            if len(found) == search.limit or size >= search.max_bytes:
                return FoundRuns(found, True)
            found.append((head, row, _encode((head.key.session_id, row.seq)).decode()))
            size += size_of(row)
        return FoundRuns(found, False)

    def _searched(self, search: RunSearch) -> Iterator[tuple[Head, RunRow]]:
        root = str(self._directory.sessions_of(search.namespace))
        after = _decode_place(search.after) if search.after is not None else None
        begin = None if after is None else directory_name(after[0])
        for name in sorted(_names(root), reverse=search.reverse):
            if begin is not None and (name > begin if search.reverse else name < begin):
                continue
            known = self._known_of(f"{root}/{name}")
            if known is None or not _may_have(known.snapshot, search):
                continue
            bounds = (FIRST, LAST)
            if after is not None and name == begin:
                bounds = (FIRST, after[1] - 1) if search.reverse else (after[1] + 1, LAST)
            yield from self._found_in(known.snapshot.head.key, search, bounds)

    def _found_in(self, key: SessionKey, search: RunSearch, bounds: tuple[int, int]) -> Iterator[tuple[Head, RunRow]]:
        first, last = bounds
        while True:
            # a run at a time, so that no more is read than the page takes
            found = self._directory.read(key, partial(_next_found, search=search, first_seq=first, last_seq=last))
            if found is None:
                return
            yield found
            first, last = (first, found[1].seq - 1) if search.reverse else (found[1].seq + 1, last)


def _next_found(view: View, search: RunSearch, first_seq: int, last_seq: int) -> tuple[Head, RunRow] | None:
    head = view.snapshot.head
    if not _may_have(view.snapshot, search):
        return None
    for number in _candidates(view, search, first_seq, last_seq):
        if is_found(newest_run(view, number, bodies=False), search):
            return head, newest_run(view, number, bodies=True)
    return None


def _candidates(view: View, search: RunSearch, first_seq: int, last_seq: int) -> Iterator[int]:
    if search.run_id is None:
        yield from runs_from(view, first_seq, last_seq, reverse=search.reverse)
        return
    number = find_run(view, search.run_id)
    if number is not None and first_seq <= view.files.index.get(number).seq <= last_seq:
        yield number


def _may_have(snapshot: Snapshot, search: RunSearch) -> bool:
    return is_searched(snapshot.head, search) and (snapshot.open_runs > 0 or not asks_for_open_alone(search))


def _first_key(directory: Path) -> SessionKey | None:
    """Whose directory it is, by the first line of its log, where the head does not say."""
    for incarnation in incarnations(directory):
        with log_path(directory, incarnation).open("rb") as log, suppress(msgspec.DecodeError):
            line = decode_line(log.readline())
            if isinstance(line, BeginLine):
                return SessionKey(line.namespace, line.session_id)
    return None


def _names(root: str) -> list[str]:
    try:
        return os.listdir(root)
    except FileNotFoundError:
        return []


def _state_of(log: str) -> tuple[int, int]:
    try:
        there = os.stat(log)
    except FileNotFoundError:
        return 0, -1
    return there.st_ino, there.st_size
