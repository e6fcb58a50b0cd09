"""Values as the keys hold them, and rows made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from sessionledger.protocol.decide import StoredRun
from sessionledger.protocol.rows import (
    OPEN_STATUSES,
    Body,
    ForkLink,
    Head,
    HiddenRow,
    MessageRow,
    PutRun,
    RunHeader,
    RunRow,
    SessionHeader,
    SessionKey,
    SessionRow,
    SwitchRow,
)

__all__ = [
    "BIG_COUNTER",
    "HEAD",
    "LISTED",
    "SMALL_COUNTER",
    "body_of",
    "fields_of_head",
    "fields_of_header",
    "fork_text",
    "head_of",
    "hidden_of",
    "hidden_value",
    "largest_of",
    "listed_of",
    "log_text",
    "message_value",
    "messages_of",
    "meta_of",
    "patches_of",
    "patches_value",
    "record_value",
    "run_of",
    "session_of_fields",
    "short_id",
    "stored_body",
    "stored_run_of",
    "switch_of",
    "switch_value",
]

#: Fields of a session's hash, in the order of `head.lua`.
HEAD: Final = (
    "incarnation",
    "log",
    "state_version",
    "user_id",
    "created_at",
    "deleted_at",
    "erased",
    "has_hidden",
    "has_summary",
    "forks",
    "fork",
)
#: What a list of sessions reads of each.
LISTED: Final = (*HEAD, "header", "body")

#: A counter is the sum of two fields: what the server adds up, and what would be too large for it.
SMALL_COUNTER, BIG_COUNTER = "n:", "N:"

_RECORD = Struct(">QQQQ")
_MESSAGE = Struct(">BBIBI")  #: a list of eight, and the first two of them, in 4 bytes each
_SHORT: Final = hashlib.blake2b(digest_size=8)
_json = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
_decode_fork = msgspec.json.Decoder(tuple[str, int, int, int, int]).decode
_decode_header = msgspec.json.Decoder(tuple[str, str | None, str | None, str | None, str | None, int]).decode
_RunHeaderFields = tuple[str, int, int | None, int | None, int | None, bool]
_decode_meta = msgspec.msgpack.Decoder(
    tuple[str, int, bytes, str | None, str | None, str | None, str | None, int, _RunHeaderFields]
).decode
_decode_patches = msgspec.msgpack.Decoder(tuple[list[str], _RunHeaderFields]).decode
_decode_messages = msgspec.msgpack.Decoder(list[tuple[int, int, int, int, int, str | None, str, Any]]).decode
_decode_hidden = msgspec.msgpack.Decoder(tuple[str, tuple[int, int], tuple[int, int], int | None, int, int, int]).decode
_decode_switch = msgspec.msgpack.Decoder(tuple[str, str | None, str, Any, int]).decode
_make_run_header: Callable[..., RunHeader] = RunHeader
_make_head: Callable[..., Head] = Head


# bodies


def stored_body(body: Body) -> str | bytes:
    """Text as it is; bytes behind a NUL, which no text has."""
    return body if isinstance(body, str) else b"\0" + body


def body_of(data: bytes) -> Body:
    return data[1:] if data[:1] == b"\0" else data.decode()


# sessions


def head_of(values: Sequence[bytes | None], key: SessionKey) -> Head | None:
    """Of the fields of `HEAD`."""
    if values[0] is None:
        return None
    incarnation: Any
    log: Any
    incarnation, log, state_version, user, created, deleted, erased, has_hidden, has_summary, forks, fork, *_ = values
    version, runs, messages, active, _ = map(int, (log or b"").split())
    return _make_head(
        key,
        int(incarnation),
        version,
        int(state_version or 0),
        runs,
        messages,
        None if user is None else user.decode(),
        int(created or 0),
        active,
        int(deleted) if deleted else None,
        erased == b"1",
        has_hidden == b"1",
        has_summary == b"1",
        int(forks or 0),
        ForkLink(*_decode_fork(fork)) if fork else None,
    )


def largest_of(values: Sequence[bytes | None]) -> int:
    """Of the same fields: the length of the largest message."""
    return int((values[1] or b"0").rpartition(b" ")[2])


def log_text(version: int, runs: int, messages: int, active: int, largest: int) -> str:
    """What every append changes, in one field."""
    return f"{version} {runs} {messages} {active} {largest}"


def fields_of_head(head: Head, largest: int) -> list[str | bytes | int]:
    """Names and values of what changes in a session's life."""
    return [
        "log",
        log_text(head.version, head.run_count, head.message_count, head.last_activity_at, largest),
        "state_version",
        head.state_version,
        "deleted_at",
        "" if head.deleted_at is None else head.deleted_at,
        "erased",
        int(head.erased),
        "has_hidden",
        int(head.has_hidden),
        "has_summary",
        int(head.has_summary),
        "forks",
        head.forks,
    ]


def fork_text(fork: ForkLink) -> bytes:
    return _json(astuple(fork))


def fields_of_header(header: SessionHeader) -> list[str | bytes | int]:
    return ["header", _json(astuple(header)[:-1]), "body", stored_body(header.body)]


def _header_of(header: bytes, body: bytes) -> SessionHeader:
    return SessionHeader(*_decode_header(header), body_of(body))


def listed_of(values: Sequence[bytes | None], key: SessionKey) -> SessionRow | None:
    """Of the fields of `LISTED`."""
    head = head_of(values[:-2], key)
    if head is None:
        return None
    return SessionRow(head, _header_of(values[-2] or b"", values[-1] or b""), None, {})


def session_of_fields(flat: Sequence[bytes], key: SessionKey) -> SessionRow | None:
    """Of names and values."""
    names = iter(flat)
    fields = {name.decode(): value for name, value in zip(names, names, strict=True)}
    head = head_of([fields.get(name) for name in HEAD], key)
    if head is None:
        return None
    counters: dict[str, int] = {}
    for name, value in fields.items():
        if name[:2] in (SMALL_COUNTER, BIG_COUNTER):
            counters[name[2:]] = counters.get(name[2:], 0) + int(value)
    state = fields.get("state")
    return SessionRow(
        head,
        _header_of(fields["header"], fields["body"]),
        None if state is None else body_of(state),
        {name: count for name, count in counters.items() if count},
    )


# runs


def record_value(put: PutRun, seq: int, version: int, first: int, last: int) -> bytes:
    """A run; first and last position."""
    meta = _pack(
        (
            put.run_id,
            put.revision,
            put.digest,
            put.user_id,
            put.agent_id,
            put.parent_run_id,
            put.model,
            put.created_at,
            astuple(put.header),
        )
    )
    body = stored_body(put.body)
    kind = _kind_of(put) + len(meta).to_bytes(3)
    return _RECORD.pack(seq, version, first, last) + kind + meta + (body.encode() if isinstance(body, str) else body)


_STATUSES: Final = (*OPEN_STATUSES, "completed", "failed", "cancelled")
_OTHER: Final = 7  #: a status that is none of these
_HAS_PARENT: Final = 8


def _kind_of(put: PutRun) -> bytes:
    """By which scripts tell a run whose header they need not read."""
    status = put.header.status
    parent = 0 if put.parent_run_id is None else _HAS_PARENT
    return bytes([(_STATUSES.index(status) if status in _STATUSES else _OTHER) | parent])


def kinds_of(statuses: Sequence[str]) -> list[int]:
    """Of runs of these statuses without a parent."""
    return [_STATUSES.index(status) for status in statuses if status in _STATUSES]


def _split(record: bytes) -> tuple[tuple[Any, ...], Any, int]:
    """Seq, version, first and last position; what the meta has; where the body begins."""
    end = 36 + int.from_bytes(record[33:36])
    return _RECORD.unpack_from(record), _decode_meta(memoryview(record)[36:end]), end


def meta_of(record: bytes) -> tuple[Any, ...]:
    """run_id, revision, digest, user_id, agent_id, parent_run_id, model, created_at, and the header's fields."""
    meta: tuple[Any, ...] = _split(record)[1]
    return meta


def stored_run_of(record: bytes) -> StoredRun:
    (seq, version, first, last), (_, revision, digest, *_), _ = _split(record)
    return StoredRun(seq, revision, 0, digest, first, last, version)


def run_of(row: Any, *, bodies: bool) -> RunRow:
    """Of what `runs.lua` returns of each."""
    record, patches, segments, parts = (row, None, (), ()) if isinstance(row, bytes) else row
    (seq, version, first, last), meta, end = _split(record)
    run_id, revision, digest, user_id, agent_id, parent_run_id, model, created_at, header = meta
    patch = 0
    names: Sequence[str] = ()
    if patches is not None:
        patch, _, names, header = patches_of(patches)
    return RunRow(
        seq,
        revision,
        run_id,
        version,
        patch,
        digest,
        user_id,
        agent_id,
        parent_run_id,
        model,
        created_at,
        first,
        last,
        [_segment_of(segment) for segment in segments] if segments else (),
        _make_run_header(*header),
        body_of(record[end:]) if bodies else "",
        {name: body_of(part) for name, part in zip(names, parts, strict=True)} if bodies and names else {},
    )


def _segment_of(text: bytes) -> tuple[int, int]:
    first, last = text.split()
    return int(first), int(last)


def patches_value(patch: int, segments: int, names: Sequence[str], header: RunHeader) -> bytes:
    return b"%d %d\n" % (patch, segments) + _pack((names, astuple(header)))


def patches_of(value: bytes) -> tuple[int, int, list[str], tuple[Any, ...]]:
    """How many patches and segments, which parts, and the fields of the header."""
    line, _, rest = value.partition(b"\n")
    patch, segments = map(int, line.split())
    names, header = _decode_patches(rest)
    return patch, segments, names, header


# messages


def message_value(row: MessageRow, run_id: str, seq: int, revision: int) -> bytes:
    """A message, as a list in MessagePack whose beginning is always as long."""
    rest = _pack((row.index, row.created_at, revision, row.message_id, run_id, row.body))
    return _MESSAGE.pack(0x98, 0xCE, seq, 0xCE, len(row.body)) + rest[1:]


def short_id(message_id: str) -> bytes:
    """What stands for a message's id where messages are found by it; the message itself tells whether it is the one.

    It begins as no run's id does, which is found there too.
    """
    digest = _SHORT.copy()
    digest.update(message_id.encode())
    return b"\0" + digest.digest()


def messages_of(first: int, values: Sequence[bytes], run_ids: dict[int, str]) -> list[MessageRow]:
    """Those from a position on, decoded at once; the ids of their runs are added to `run_ids`."""
    decoded = _decode_messages(b"\xdd" + len(values).to_bytes(4) + b"".join(values))
    run_ids.update([(one[0], one[6]) for one in decoded])
    return [
        MessageRow(message_id, created_at, body, index, position, seq, revision)
        for position, (seq, _, index, created_at, revision, message_id, _, body) in enumerate(decoded, first)
    ]


# hidden rows and switches


def hidden_value(row: HiddenRow, number: int) -> bytes:
    """Its id stands before it where it may be shown again; the number keeps equal ones apart."""
    fields = (row.hide_id, row.positions, row.runs, row.revision, row.since, row.reach, number)
    return (row.hide_id.encode() if row.revision is None else b"") + b"\0" + _pack(fields)


def hidden_of(value: bytes, ends: bytes | None) -> HiddenRow:
    """`ends`: the versions at which ranges of its id were shown again."""
    hide_id, positions, runs, revision, since, reach, _ = _decode_hidden(value[value.index(b"\0") + 1 :])
    until = min((end for end in map(int, (ends or b"").split()) if end > since), default=None)
    return HiddenRow(hide_id, positions, runs, revision, since, until, reach)


def switch_value(row: SwitchRow) -> bytes:
    return _pack((row.switch_id, row.from_agent, row.to_agent, row.reason, row.switched_at))


def switch_of(place: bytes, value: bytes) -> SwitchRow:
    return SwitchRow(*_decode_switch(value), int(place.partition(b"-")[0]))
