"""Reads of one session, from its index and its log, as of a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sessionledger.drivers.jsonfile.chains import (
    backwards,
    events,
    find_run,
    newest_change,
    read_line,
    read_lines,
    read_start,
)
from sessionledger.drivers.jsonfile.files import Snapshot, View
from sessionledger.drivers.jsonfile.index import IndexDamagedError, Kind, Record, id_hash
from sessionledger.drivers.jsonfile.lines import (
    HideLine,
    MessageLine,
    PartLine,
    RunLine,
    SessionLine,
    ShowLine,
    StateLine,
    SwitchLine,
    body_of,
)
from sessionledger.protocol.filters import is_asked_for, size_of
from sessionledger.protocol.rows import (
    Body,
    HiddenPage,
    HiddenQuery,
    HiddenRow,
    MessagePage,
    MessageQuery,
    MessageRow,
    RunPage,
    RunQuery,
    RunRow,
    SessionHeader,
    SessionRow,
    SwitchPage,
    SwitchQuery,
    SwitchRow,
)

__all__ = [
    "hidden",
    "hidden_rows_of",
    "messages",
    "newest_run",
    "row_of",
    "runs",
    "runs_from",
    "session_row",
    "switches",
]


# the session


def session_row(view: View, *, state: bool) -> SessionRow:
    return row_of(view.files.directory, view.snapshot, state=state, counters=True)


def row_of(directory: Path, snapshot: Snapshot, *, state: bool, counters: bool) -> SessionRow:
    line = snapshot.session
    header = SessionHeader(
        line.kind,
        line.agent_id,
        line.current_agent,
        line.name,
        line.parent_session_id,
        line.updated_at,
        _kept(directory, line),
    )
    text = _kept(directory, snapshot.state) if state else None
    return SessionRow(snapshot.head, header, text, snapshot.counters if counters else {})


def _kept(directory: Path, line: SessionLine | StateLine) -> Body:
    if line.file is None:
        return body_of(line)
    data = (directory / line.file).read_bytes()
    return data if line.file.endswith(".bin") else data.decode()


# messages


def messages(view: View, query: MessageQuery) -> MessagePage:
    head = view.snapshot.head
    if head.erased:
        return MessagePage(head, (), {}, False)
    found, more = _page(_message_records(view, query), query)
    lines = [line for group in found for line in read_lines(view, group, MessageLine)]
    return MessagePage(head, [_message_of(line) for line in lines], {line.run_seq: line.run_id for line in lines}, more)


def _page(ranges: Iterator[Iterator[Record]], query: MessageQuery) -> tuple[list[list[Record]], bool]:
    """The records of a page, range by range, and whether there are more."""
    found: list[list[Record]] = []
    count = size = 0
    for records in ranges:
        group: list[Record] = []
        found.append(group)
        for record in records:
            if count == query.limit or size >= query.max_bytes:
                return found, True
            group.append(record)
            count, size = count + 1, size + record.size
    return found, False


def _message_records(view: View, query: MessageQuery) -> Iterator[Iterator[Record]]:
    for first, last in query.ranges:
        if query.message_id is None:
            yield _records_between(view, first, last, reverse=query.reverse)
        else:
            yield _records_of_id(view, query.message_id, first, last, reverse=query.reverse)


def _records_between(view: View, first: int, last: int, *, reverse: bool) -> Iterator[Record]:
    snapshot, index = view.snapshot, view.files.index
    first, last = max(first, snapshot.base[0] + 1), min(last, snapshot.head.message_count)
    if first > last:
        return
    begin = index.find_position(first, snapshot.records)
    if not reverse:
        left = last - first + 1
        for _, record in index.ascending(begin, snapshot.records):
            if record.kind == Kind.MESSAGE:
                yield record
                left -= 1
                if not left:
                    return
    else:
        end = index.find_position(last, snapshot.records) + 1
        for _, record in index.descending(begin, end):
            if record.kind == Kind.MESSAGE:
                yield record


def _records_of_id(view: View, message_id: str, first: int, last: int, *, reverse: bool) -> Iterator[Record]:
    snapshot, index = view.snapshot, view.files.index
    numbers = set(view.files.lookup.find(id_hash("m", message_id), snapshot.lookups))
    for number in sorted((number for number in numbers if number < snapshot.records), reverse=reverse):
        record = index.get(number)
        if record.kind == Kind.MESSAGE and first <= record.position <= last:
            # a hash found it, or an entry of a commit that was taken back: another one does not count
            (line,) = read_lines(view, [record], MessageLine)
            if line.message_id == message_id:
                yield record


def _message_of(line: MessageLine) -> MessageRow:
    return MessageRow(
        line.message_id, line.created_at, body_of(line), line.index, line.position, line.run_seq, line.revision
    )


# runs


def runs(view: View, query: RunQuery) -> RunPage:
    head = view.snapshot.head
    if head.erased:
        return RunPage(head, (), False)
    found: list[RunRow] = []
    size = 0
    for first in _firsts(view, query):
        revisions = list(_revisions(view, first))
        for changes in revisions if query.reverse else reversed(revisions):
            if len(found) == query.limit or size >= query.max_bytes:
                return RunPage(head, found, True)
            row = _run_of(view, changes, bodies=query.bodies)
            size += size_of(row)
            found.append(row)
    return RunPage(head, found, False)


def _firsts(view: View, query: RunQuery) -> Iterator[int]:
    if query.run_id is None:
        yield from runs_from(view, query.first_seq, query.last_seq, reverse=query.reverse)
        return
    number = find_run(view, query.run_id)
    if number is not None and query.first_seq <= view.files.index.get(number).seq <= query.last_seq:
        yield number


def runs_from(view: View, first_seq: int, last_seq: int, *, reverse: bool) -> Iterator[int]:
    """The records of runs' first revisions."""
    snapshot, index = view.snapshot, view.files.index
    first_seq, last_seq = max(first_seq, snapshot.base[1] + 1), min(last_seq, snapshot.head.run_count)
    if first_seq > last_seq:
        return
    begin = index.find_seq(first_seq, snapshot.records)
    end = index.find_seq(last_seq, snapshot.records) + 1
    for number, record in index.descending(begin, end) if reverse else index.ascending(begin, end):
        if record.kind == Kind.RUN and record.first == number:
            yield number


def newest_run(view: View, first: int, *, bodies: bool) -> RunRow:
    return _run_of(view, next(_revisions(view, first)), bodies=bodies)


def _revisions(view: View, first: int) -> Iterator[list[tuple[int, Record]]]:
    """The changes of each revision, the newest first: patches, and the put in the end."""
    changes: list[tuple[int, Record]] = []
    for number, record in events(view, first):
        changes.append((number, record))
        if record.kind == Kind.RUN:
            yield changes
            changes = []


def _run_of(view: View, changes: Sequence[tuple[int, Record]], *, bodies: bool) -> RunRow:
    *patches, (_, put) = changes
    line = read_line(view, put, RunLine) if bodies else read_start(view, put)
    header, patch = line.header, 0
    if patches:
        newest = newest_change(view, patches[0][1])
        header, patch = newest.header, patches[0][1].prefix
    return RunRow(
        line.seq,
        line.revision,
        line.run_id,
        line.version,
        patch,
        line.digest,
        line.user_id,
        line.agent_id,
        line.parent_run_id,
        line.model,
        line.created_at,
        line.first_position,
        line.last_position,
        _segments(patches),
        header,
        body_of(line) if bodies else "",
        _parts(view, patches) if bodies else {},
    )


def _segments(patches: Sequence[tuple[int, Record]]) -> list[tuple[int, int]]:
    segments: list[tuple[int, int]] = []
    for _, record in reversed(patches):
        first, last = record.position + 1, record.position + record.size
        if first > last:
            continue
        if segments and segments[-1][1] == first - 1:
            segments[-1] = (segments[-1][0], last)
        else:
            segments.append((first, last))
    return segments


def _parts(view: View, patches: Sequence[tuple[int, Record]]) -> dict[str, Body]:
    """The newest of each name."""
    parts: dict[str, Body] = {}
    seen: set[int] = set()
    for number, record in patches:
        for part in view.files.index.read(number - record.newest, number) if record.newest else ():
            if part.kind != Kind.PART:
                raise IndexDamagedError
            if part.newest not in seen:
                seen.add(part.newest)
                line = read_line(view, part, PartLine)
                parts[line.name] = body_of(line)
    return parts


# hidden rows and switches


def hidden(view: View, query: HiddenQuery) -> HiddenPage:
    if view.snapshot.head.erased:
        return HiddenPage(view.snapshot.head, ())
    rows = [row for row in hidden_rows_of(view) if is_asked_for(row, query)]
    return HiddenPage(view.snapshot.head, rows)


def hidden_rows_of(view: View) -> tuple[HiddenRow, ...]:
    """All of them; kept until there are others."""
    last, rows = view.files.hidden
    if last != view.snapshot.last_hidden:
        rows = tuple(_hidden_rows(view))
        view.files.hidden = (view.snapshot.last_hidden, rows)
    return rows


def _hidden_rows(view: View) -> Iterator[HiddenRow]:
    ends: dict[str, list[int]] = {}
    for record in backwards(view, view.snapshot.last_hidden):
        if record.kind == Kind.SHOW:
            shown = read_line(view, record, ShowLine)
            ends.setdefault(shown.hide_id, []).append(shown.version)
            continue
        line = read_line(view, record, HideLine)
        # the first end counts, and only what is in front of it
        until = ends[line.hide_id][-1] if line.revision is None and line.hide_id in ends else None
        yield HiddenRow(line.hide_id, line.positions, line.runs, line.revision, line.since, until, line.reach)


def switches(view: View, query: SwitchQuery) -> SwitchPage:
    snapshot = view.snapshot
    if snapshot.head.erased:
        return SwitchPage(snapshot.head, (), False)
    found: list[Record] = []
    for record in backwards(view, snapshot.last_switch):
        if record.version < query.first_version or (query.reverse and len(found) > query.limit):
            break
        if record.version <= query.last_version:
            found.append(record)
    if not query.reverse:
        found.reverse()
    rows = [_switch_of(read_line(view, record, SwitchLine)) for record in found[: query.limit]]
    return SwitchPage(snapshot.head, rows, len(found) > query.limit)


def _switch_of(line: SwitchLine) -> SwitchRow:
    reason = body_of(line) if line.reason else None
    return SwitchRow(line.switch_id, line.from_agent, line.to_agent, reason, line.switched_at, line.version)
