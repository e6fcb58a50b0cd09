"""Lines become part of a session: its index, its lookups, and what a snapshot says. For new lines, and for those that
a log holds already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from sessionledger.drivers.jsonfile.chains import find_run, newest_event
from sessionledger.drivers.jsonfile.files import Files, Snapshot, View, boot_id
from sessionledger.drivers.jsonfile.index import IndexDamagedError, Kind, Record, id_hash
from sessionledger.drivers.jsonfile.lines import (
    BeginLine,
    CommitLine,
    HideLine,
    Line,
    MessageLine,
    PartLine,
    PatchLine,
    RunLine,
    SessionLine,
    ShowLine,
    StateLine,
    SwitchLine,
    measure,
)
from sessionledger.protocol.rows import OPEN_STATUSES, Head, SessionKey

__all__ = ["Journal"]

RowLine: TypeAlias = MessageLine | RunLine | PatchLine | PartLine | SwitchLine | HideLine | ShowLine | CommitLine


class Journal:
    """Starts from a snapshot, or from nothing. `snapshot` is there once a commit is complete."""

    def __init__(self, files: Files, base: Snapshot | None) -> None:
        self.files, self.base = files, base
        self.snapshot = base
        self.log_size = base.log_size if base else 0
        self.dropped: list[str] = []  #: files that nothing refers to any more
        self._head = base.head if base else None
        self._messages = base.head.message_count if base else 0
        self._runs = base.head.run_count if base else 0
        self._session = base.session if base else SessionLine()
        self._state = base.state if base else StateLine()
        self._counters: Mapping[str, int] = base.counters if base else {}
        self._open_runs = base.open_runs if base else 0
        self._records = base.records if base else 0
        self._lookups = base.lookups if base else 0
        self._last_switch = base.last_switch if base else 0
        self._last_hidden = base.last_hidden if base else 0
        self._checkpoint = base.checkpoint if base else 0
        self._pending: list[bytes] = []  #: records behind those that are written
        self._found: list[tuple[int, int]] = []  #: hashes and records, to be looked up
        self._links: list[tuple[int, int, int]] = []  #: first revisions, their newest records, and those to come
        self._changed: list[tuple[int, int]] = []  #: first revisions and their newest records, as they were

    def add(self, line: Line, length: int) -> None:
        """The line that follows in the log, and is there already."""
        offset, self.log_size = self.log_size, self.log_size + length
        if isinstance(line, MessageLine | RunLine | PatchLine | PartLine | SwitchLine | HideLine | ShowLine):
            self._add_row(line, offset, length)
        elif isinstance(line, SessionLine):
            self._drop(self._session)
            self._session = line
        elif isinstance(line, StateLine):
            self._drop(self._state)
            self._state = line
        elif isinstance(line, BeginLine):
            self._head = _first_head(line)
            self._messages, self._runs = self._head.message_count, self._head.run_count
        else:
            self._end(line, offset, length)

    def _drop(self, line: SessionLine | StateLine) -> None:
        if line.file is not None:
            self.dropped.append(line.file)

    # rows

    def _add_row(self, line: RowLine, offset: int, length: int) -> None:
        if isinstance(line, MessageLine):
            self._messages = line.position
            if line.message_id is not None:
                self._found.append((id_hash("m", line.message_id), self._next))
        elif isinstance(line, RunLine) and line.revision == 1:
            self._runs = line.seq
            self._found.append((id_hash("r", line.run_id), self._next))
        elif isinstance(line, CommitLine) and line.operation_id is not None:
            self._found.append((id_hash("o", line.operation_id), self._next))
        self._pending.append(self._record(line, offset, length).pack())

    @property
    def _next(self) -> int:
        """The number of the next record."""
        return self._records + len(self._pending)

    def _known_head(self) -> Head:
        if self._head is None:
            raise IndexDamagedError
        return self._head

    def _record(self, line: RowLine, offset: int, length: int) -> Record:
        prefix, size = measure(line, length)
        newest = previous = first = is_open = 0
        kind = _KINDS[type(line)]
        if isinstance(line, RunLine | PatchLine):
            is_open = int(line.header.status in OPEN_STATUSES)
            first, previous = self._follow(line, is_open)
            newest = first
        if isinstance(line, PatchLine):
            prefix, size, newest = line.patch, line.last_position - line.first_position + 1, line.parts
        elif isinstance(line, PartLine):
            newest = id_hash("p", line.name)
        elif isinstance(line, SwitchLine):
            previous, self._last_switch = self._last_switch, self._next + 1
        elif isinstance(line, HideLine | ShowLine):
            previous, self._last_hidden = self._last_hidden, self._next + 1
        counts = (self._messages, self._known_head().version + 1, self._runs)
        return Record(kind, is_open, 0, length, prefix, size, offset, *counts, newest, previous, first)

    def _follow(self, line: RunLine | PatchLine, is_open: int) -> tuple[int, int]:
        """Of a change of a run: the record of its first revision, and the one before this, plus 1."""
        number = self._next
        if isinstance(line, RunLine) and line.revision == 1:
            self._open_runs += is_open
            return number, 0
        self._write_index()
        view = View(self.files, self._so_far())
        first = find_run(view, line.run_id)
        if first is None:
            raise IndexDamagedError
        before, record = newest_event(view, first)
        self._open_runs += is_open - record.is_open
        self._links.append((first, before, number))
        return first, before + 1

    def _write_index(self) -> None:
        if self._pending:
            self.files.index.write(self._records, b"".join(self._pending))
            self._records += len(self._pending)
            self._pending.clear()
        self._write_links()
        for hashed, record in self._found:
            self.files.lookup.add(hashed, record, self._lookups)
            self._lookups += 1
        self._found.clear()

    def _write_links(self) -> None:
        """Behind the records that they lead to: readers follow them, too."""
        for first, before, newest in self._links:
            self.files.index.set_newest(first, newest)
            self._changed.append((first, before))
        self._links.clear()

    # the end of a commit

    def _end(self, line: CommitLine, offset: int, length: int) -> None:
        if line.operation_id is not None:
            self._add_row(line, offset, length)
        self._write_index()
        counters = {} if line.erased else {**self._counters, **line.counters}
        self._counters = {name: count for name, count in counters.items() if count}
        if line.erased:
            self._open_runs = 0
        self._head = _head_behind(self._known_head(), line)
        self.snapshot = self._so_far()

    def _so_far(self) -> Snapshot:
        return Snapshot(
            head=self._known_head(),
            session=self._session,
            state=self._state,
            counters=self._counters,
            open_runs=self._open_runs,
            log_size=self.log_size,
            records=self._records,
            lookups=self._lookups,
            last_switch=self._last_switch,
            last_hidden=self._last_hidden,
            checkpoint=self._checkpoint,
            boot=boot_id(),
        )

    def undo(self) -> None:
        """What cannot be overwritten by what comes next: the links to newest records."""
        for first, before in reversed(self._changed):
            self.files.index.set_newest(first, before)
        self._changed.clear()


_KINDS = {
    MessageLine: Kind.MESSAGE,
    RunLine: Kind.RUN,
    PatchLine: Kind.PATCH,
    PartLine: Kind.PART,
    SwitchLine: Kind.SWITCH,
    HideLine: Kind.HIDE,
    ShowLine: Kind.SHOW,
    CommitLine: Kind.OPERATION,
}


def _first_head(line: BeginLine) -> Head:
    """As it is in front of the first commit."""
    key, fork = SessionKey(line.namespace, line.session_id), line.fork
    counts = (fork.run_seq, fork.position) if fork else (0, 0)
    return Head(key, line.incarnation, 0, 1, *counts, line.user_id, line.created_at, line.created_at, fork=fork)


def _head_behind(head: Head, line: CommitLine) -> Head:
    return Head(
        head.key,
        head.incarnation,
        line.version,
        line.state_version,
        line.runs,
        line.messages,
        head.user_id,
        head.created_at,
        line.last_activity_at,
        line.deleted_at,
        line.erased,
        line.has_hidden,
        line.has_summary,
        line.forks,
        head.fork,
    )
