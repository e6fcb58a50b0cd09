"""What a commit has to know of its session before it is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from sessionledger.drivers.redis.append import most_of_a_counter
from sessionledger.drivers.redis.keys import Keys
from sessionledger.drivers.redis.scripts import script
from sessionledger.drivers.redis.values import BIG_COUNTER, head_of, largest_of, patches_of, stored_run_of
from sessionledger.protocol.decide import Known, StoredOperation, StoredRun, needs_operation
from sessionledger.protocol.rows import Commit, Hide, PatchRun, PutRun, RunReceipt, Show

__all__ = ["Changing", "Seen", "big_counters", "look_command", "operation_value", "seen_of"]

_decode_operation = msgspec.msgpack.Decoder(tuple[bytes, list[tuple[str, int, int, int, int, int]]]).decode
_pack = msgspec.msgpack.Encoder().encode


class Changing(NamedTuple):
    """The newest revision of a run that is patched."""

    segments: int
    last_segment: tuple[int, int] | None
    parts: Sequence[str]


class Seen(NamedTuple):
    known: Known
    changing: Mapping[str, Changing]
    ends: Mapping[str, bytes]  #: of hidden ranges: the versions at which they were shown again
    counters: Mapping[str, int]  #: those that are too large for the server to add to
    largest: int  #: of its messages


def _named(commit: Commit) -> list[PutRun]:
    return [change for change in commit.changes if isinstance(change, PutRun)]


def _changed(commit: Commit) -> list[str]:
    return [
        change.run_id
        for change in commit.changes
        if isinstance(change, PatchRun) or (isinstance(change, PutRun) and change.revision > 1)
    ]


def _hides(commit: Commit) -> list[str]:
    shown = [change.hide_id for change in commit.changes if isinstance(change, Show)]
    return shown + [commit.operation_id for change in commit.changes if isinstance(change, Hide)]


def big_counters(commit: Commit) -> list[str]:
    """The names of those that the server could not add to."""
    counted = [change.counters for change in commit.changes if isinstance(change, PutRun | PatchRun)]
    if commit.create is not None:
        counted.append(commit.create.counters)
    found = {name: None for counters in counted for name, count in counters.items() if abs(count) >= most_of_a_counter}
    return list(found)


def look_command(keys: Keys, commit: Commit, incarnation: int) -> list[str | bytes | int]:
    names = keys.session(commit.key, incarnation)
    named, changed, hides, counters = _named(commit), _changed(commit), _hides(commit), big_counters(commit)
    arguments: list[str | bytes | int] = [
        incarnation,
        f"={commit.operation_id}" if needs_operation(commit) else "",
        len(named),
    ]
    for put in named:
        arguments += (put.run_id, put.revision)
    arguments += (len(changed), *changed, len(hides), *hides)
    arguments += (len(counters), *(BIG_COUNTER + name for name in counters))
    stored = [names.head, names.runs, names.ids, names.revisions, names.changed, names.patches, names.operations]
    return script("look").call([*stored, names.hides], arguments)


def seen_of(commit: Commit, answer: Sequence[Any]) -> Seen:
    head = head_of(answer[0], commit.key)
    if head is None or len(answer) == 1:
        return Seen(Known(head), {}, {}, {}, 0)
    _, operation, named, newest, hides, counters = answer
    runs, changing = _newest(commit, newest)
    ends = {name: found for name, found in zip(_hides(commit), hides, strict=True) if found is not None}
    totals = {name: int(found or 0) for name, found in zip(big_counters(commit), counters, strict=True)}
    known = Known(
        head,
        None if operation is None else _operation_of(operation),
        {
            (put.run_id, put.revision): stored_run_of(found)
            for put, found in zip(_named(commit), named, strict=True)
            if found is not None
        },
        runs,
        frozenset(ends),
    )
    return Seen(known, changing, ends, totals, largest_of(answer[0]))


def _newest(commit: Commit, answers: Sequence[Any]) -> tuple[dict[str, StoredRun], dict[str, Changing]]:
    runs: dict[str, StoredRun] = {}
    changing: dict[str, Changing] = {}
    for run_id, found in zip(_changed(commit), answers, strict=True):
        if found is None:
            continue
        seq, revision, patches, segment = found
        patch, segments, parts, _ = patches_of(patches) if patches is not None else (0, 0, [], ())
        runs[run_id] = StoredRun(int(seq), int(revision), patch, b"", 0, 0, 0)
        last = None if segment is None else tuple(map(int, segment.split()))
        changing[run_id] = Changing(segments, (last[0], last[1]) if last else None, parts)
    return runs, changing


def operation_value(operation: StoredOperation) -> bytes:
    receipts = [
        (one.run_id, one.run_seq, one.revision, one.first_position, one.last_position, one.version)
        for one in operation.receipts
    ]
    return _pack((operation.digest, receipts))


def _operation_of(value: bytes) -> StoredOperation:
    digest, receipts = _decode_operation(value)
    return StoredOperation(digest, [RunReceipt(*receipt) for receipt in receipts])
