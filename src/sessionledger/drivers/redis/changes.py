"""What a commit that was judged writes to its session's keys."""

from __future__ import annotations

from collections.abc import Sequence

from sessionledger.drivers.redis.keys import SEGMENT, Keys, SessionKeys
from sessionledger.drivers.redis.looking import Changing, Seen, big_counters, operation_value
from sessionledger.drivers.redis.pool import Command
from sessionledger.drivers.redis.values import (
    BIG_COUNTER,
    SMALL_COUNTER,
    fields_of_head,
    fields_of_header,
    fork_text,
    hidden_value,
    message_value,
    patches_value,
    record_value,
    short_id,
    stored_body,
    switch_value,
)
from sessionledger.protocol.decide import Decision, hidden_rows, summed
from sessionledger.protocol.rows import (
    SEALED,
    Change,
    Commit,
    Head,
    HiddenRow,
    Hide,
    MessageRow,
    PatchRun,
    PatchSession,
    PutRun,
    PutSwitch,
    RunReceipt,
    Seal,
    Show,
)

__all__ = ["Commands", "commands_of"]

_AT_ONCE = 1000  #: values of one command: a script's call takes no more than some thousands


class Commands:
    """For the script `apply`: they are done if the session is still as it was."""

    def __init__(self, head_key: str, before: Head | None) -> None:
        self.keys = [head_key]
        self.largest = 0  #: of the messages
        self._numbers = {head_key: 1}
        was: tuple[str | int, str | int] = ("", "") if before is None else (before.incarnation, before.version)
        self._words: list[str | bytes | int] = [*was]

    def add(self, command: Command) -> None:
        name, key, *arguments = command
        assert isinstance(key, str)
        number = self._numbers.get(key)
        if number is None:
            self.keys.append(key)
            number = self._numbers[key] = len(self.keys)
        self._words += (len(arguments) + 2, name, number, *arguments)

    def call(self) -> tuple[list[str], list[str | bytes | int]]:
        return self.keys, self._words


def commands_of(keys: Keys, commit: Commit, decision: Decision, seen: Seen) -> Commands:
    head = decision.head
    assert head is not None
    names = keys.session(commit.key, head.incarnation)
    commands = Commands(names.head, seen.known.head)
    if decision.created:
        _make(commands, names, commit, head)
    commands.largest = 0 if decision.created else seen.largest
    changing = dict(seen.changing)
    patched = {run_id: run.patch for run_id, run in seen.known.newest.items()}
    hidden: list[HiddenRow] = []
    switches = 0
    for change, receipt in decision.writes:
        hidden += hidden_rows(commit, change, receipt, head.version)
        if isinstance(change, PutRun):
            assert receipt is not None
            _put_run(commands, names, change, receipt)
        elif isinstance(change, PatchRun):
            assert receipt is not None
            patched[change.run_id] += 1
            changing[change.run_id] = _patch_run(
                commands, names, change, receipt, patched[change.run_id], changing[change.run_id]
            )
        elif isinstance(change, PutSwitch):
            switches += 1
            commands.add(("XADD", names.switches, f"{head.version}-{switches}", "switch", switch_value(change.switch)))
        else:
            _change_session(commands, names, commit, head, change, seen)
    for number, row in enumerate(hidden):
        score = row.runs[0] if row.runs[0] == row.runs[1] else 0
        commands.add(("ZADD", names.hidden, score, hidden_value(row, number)))
    commands.add(("HSET", names.head, *fields_of_head(head, commands.largest)))
    if not head.erased:
        _count(commands, names, commit, decision, seen)
        if decision.operation is not None:
            commands.add(("HSET", names.operations, commit.operation_id, operation_value(decision.operation)))
    return commands


def _make(commands: Commands, names: SessionKeys, commit: Commit, head: Head) -> None:
    new = commit.create
    assert new is not None
    # of a tombstone
    commands.add(("DEL", names.head))
    fields: list[str | bytes | int] = ["incarnation", head.incarnation, "created_at", head.created_at]
    if head.user_id is not None:
        fields += ("user_id", head.user_id)
    if head.fork is not None:
        fields += ("fork", fork_text(head.fork))
    commands.add(("HSET", names.head, *fields, *fields_of_header(new.header), "state", stored_body(new.state)))


def _change_session(
    commands: Commands, names: SessionKeys, commit: Commit, head: Head, change: Change, seen: Seen
) -> None:
    if isinstance(change, PatchSession):
        commands.add(("HSET", names.head, *fields_of_header(change.header)))
        if change.state is not None:
            commands.add(("HSET", names.head, "state", stored_body(change.state)))
    elif isinstance(change, Hide):
        commands.add(("HSETNX", names.hides, commit.operation_id, ""))
    elif isinstance(change, Show):
        ends = seen.ends[change.hide_id]
        commands.add(("HSET", names.hides, change.hide_id, b"%s %d" % (ends, head.version)))
    elif isinstance(change, Seal):
        assert seen.known.head is not None
        _seal(commands, names, head, seen.known.head)


def _seal(commands: Commands, names: SessionKeys, head: Head, before: Head) -> None:
    """Nothing of its fields stays but what a tombstone has."""
    commands.add(("DEL", names.head))
    fields: list[str | bytes | int] = ["incarnation", head.incarnation, "created_at", head.created_at]
    if head.user_id is not None:
        fields += ("user_id", head.user_id)
    if head.fork is not None:
        fields += ("fork", fork_text(head.fork))
    fields += (*fields_of_header(SEALED), "state", "{}")
    commands.add(("HSET", names.head, *fields))
    # how far its lists go, for its erasure
    commands.add(("HSET", names.sealed, head.incarnation, f"{before.run_count} {before.message_count}"))


def _put_run(commands: Commands, names: SessionKeys, put: PutRun, receipt: RunReceipt) -> None:
    record = record_value(put, receipt.run_seq, receipt.version, receipt.first_position, receipt.last_position)
    if put.revision == 1:
        commands.add(("HSET", names.ids, put.run_id, receipt.run_seq))
        _push(commands, names.runs, receipt.run_seq - 1, [record])
    else:
        commands.add(("HSET", names.revisions, f"{receipt.run_seq}.{put.revision}", record))
        commands.add(("HSET", names.changed, receipt.run_seq, put.revision))
    _put_messages(commands, names, put.messages, receipt)


def _patch_run(
    commands: Commands, names: SessionKeys, patch: PatchRun, receipt: RunReceipt, number: int, before: Changing
) -> Changing:
    place = f"{receipt.run_seq}.{patch.revision}"
    segments, last = before.segments, before.last_segment
    if patch.messages:
        first = receipt.first_position
        if last is not None and last[1] == first - 1:
            first = last[0]
        else:
            segments += 1
        last = (first, receipt.last_position)
        commands.add(("HSET", names.patches, f"{place}/segment/{segments}", f"{last[0]} {last[1]}"))
    parts = list(dict.fromkeys([*before.parts, *patch.parts]))
    for name, body in patch.parts.items():
        commands.add(("HSET", names.patches, f"{place}/part/{name}", stored_body(body)))
    commands.add(("HSET", names.patches, place, patches_value(number, segments, parts, patch.header)))
    commands.add(("HSET", names.changed, receipt.run_seq, patch.revision))
    _put_messages(commands, names, patch.messages, receipt)
    return Changing(segments, last, parts)


def _put_messages(commands: Commands, names: SessionKeys, rows: Sequence[MessageRow], receipt: RunReceipt) -> None:
    values = [message_value(row, receipt.run_id, receipt.run_seq, receipt.revision) for row in rows]
    _push(commands, names.messages, receipt.first_position - 1, values)
    commands.largest = max(commands.largest, max(map(len, values), default=0))
    for position, row in enumerate(rows, receipt.first_position):
        if row.message_id is not None:
            commands.add(("NAME", names.ids, short_id(row.message_id), position))


def _push(commands: Commands, prefix: str, last: int, values: Sequence[str | bytes]) -> None:
    """Append what comes behind the number `last`, as `head.lua` does."""
    done = 0
    while done < len(values):
        segment, within = divmod(last + done, SEGMENT)
        room = min(SEGMENT - within, _AT_ONCE)
        commands.add(("RPUSH", f"{prefix}{segment}", *values[done : done + room]))
        done += room


def _count(commands: Commands, names: SessionKeys, commit: Commit, decision: Decision, seen: Seen) -> None:
    given = [change.counters for change, _ in decision.writes if isinstance(change, PutRun | PatchRun)]
    if decision.created and commit.create is not None:
        given.append(commit.create.counters)
    large = set(big_counters(commit))
    for name, count in summed(given).items():
        if name in large:
            before = 0 if decision.created else seen.counters.get(name, 0)
            commands.add(("HSET", names.head, BIG_COUNTER + name, before + count))
        elif count:
            commands.add(("HINCRBY", names.head, SMALL_COUNTER + name, count))
