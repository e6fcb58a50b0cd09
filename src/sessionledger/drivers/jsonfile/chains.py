"""Rows of a session, found by its index and read from its log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from sessionledger.drivers.jsonfile.files import View
from sessionledger.drivers.jsonfile.index import IndexDamagedError, Kind, Record, id_hash
from sessionledger.drivers.jsonfile.lines import CommitLine, Line, PatchLine, RunLine, decode_line
from sessionledger.errors import DecodeError

__all__ = ["backwards", "events", "find_operation", "find_run", "newest_event", "read_line", "read_lines", "read_start"]

L = TypeVar("L", bound=Line)

_GAP = 4096  #: bytes between two lines that are read at once all the same


def damaged(view: View, record: Record, reason: object) -> DecodeError:
    session_id, offset = view.snapshot.head.key.session_id, record.offset
    return DecodeError(
        f"the log of session {session_id!r} is damaged at byte {offset} of {view.files.log.path.name} ({reason}): "
        "restore it from a backup",
        session_id=session_id,
        position=record.position if record.kind == Kind.MESSAGE else None,
    )


def decoded(view: View, record: Record, data: bytes, kind: type[L]) -> L:
    try:
        line = decode_line(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise damaged(view, record, error) from error
    if not isinstance(line, kind):
        raise damaged(view, record, f"no line of a {kind.__name__.removesuffix('Line').lower()}")
    return line


def read_line(view: View, record: Record, kind: type[L]) -> L:
    return decoded(view, record, view.files.log.read(record.offset, record.length), kind)


def read_start(view: View, record: Record) -> RunLine:
    """A run's line without its body, however large that is."""
    if not record.prefix:
        return read_line(view, record, RunLine)
    return decoded(view, record, view.files.log.read(record.offset, record.prefix) + b"}", RunLine)


def read_lines(view: View, records: Sequence[Record], kind: type[L]) -> list[L]:
    """In the same order, which is that of the log, or its reverse."""
    if len(records) > 1 and records[0].offset > records[-1].offset:
        return read_lines(view, records[::-1], kind)[::-1]
    lines: list[L] = []
    for group in _neighbours(records):
        start = group[0].offset
        data = view.files.log.read(start, group[-1].offset + group[-1].length - start)
        for record in group:
            at = record.offset - start
            lines.append(decoded(view, record, data[at : at + record.length], kind))
    return lines


def _neighbours(records: Sequence[Record]) -> Iterator[list[Record]]:
    group: list[Record] = []
    for record in records:
        if group and not 0 <= record.offset - group[-1].offset - group[-1].length <= _GAP:
            yield group
            group = []
        group.append(record)
    if group:
        yield group


# runs


def find_run(view: View, run_id: str) -> int | None:
    """The record of its first revision."""
    for number in _candidates(view, id_hash("r", run_id)):
        record = view.files.index.get(number)
        if record.kind == Kind.RUN and record.first == number and read_start(view, record).run_id == run_id:
            return number
    return None


def find_operation(view: View, operation_id: str) -> CommitLine | None:
    for number in _candidates(view, id_hash("o", operation_id)):
        record = view.files.index.get(number)
        if record.kind == Kind.OPERATION:
            line = read_line(view, record, CommitLine)
            if line.operation_id == operation_id:
                return line
    return None


def _candidates(view: View, hashed: int) -> Iterable[int]:
    """Records that may be meant. Those behind the snapshot are of a commit that is under way, or that was undone."""
    snapshot = view.snapshot
    return [number for number in view.files.lookup.find(hashed, snapshot.lookups) if number < snapshot.records]


def events(view: View, first: int) -> Iterator[tuple[int, Record]]:
    """What happened to a run, the newest first: its patches and revisions, down to its first revision."""
    number, bound = view.files.index.get(first).newest, None
    while True:
        record = view.files.index.get(number)
        if (
            record.first != first
            or record.kind not in (Kind.RUN, Kind.PATCH)
            or (bound is not None and number >= bound)
        ):
            raise IndexDamagedError
        if number < view.snapshot.records:
            yield number, record
        if number == first:
            return
        number, bound = record.previous - 1, number


def newest_event(view: View, first: int) -> tuple[int, Record]:
    return next(events(view, first))


def backwards(view: View, last: int) -> Iterator[Record]:
    """Switches or hidden ranges, the newest first."""
    while last:
        record = view.files.index.get(last - 1)
        if record.kind not in (Kind.SWITCH, Kind.HIDE, Kind.SHOW) or record.previous >= last:
            raise IndexDamagedError
        yield record
        last = record.previous


def newest_change(view: View, record: Record) -> RunLine | PatchLine:
    return read_line(view, record, PatchLine) if record.kind == Kind.PATCH else read_start(view, record)
