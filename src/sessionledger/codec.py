"""Records to rows and back. The one place that knows what the rows of a driver mean.

A body is JSON text, format 1. Bytes begin with a byte that names another format; this version knows none.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec
from msgspec import convert
from msgspec.structs import force_setattr, replace

from sessionledger.digest import digest
from sessionledger.errors import DecodeError
from sessionledger.protocol.rows import (
    Body,
    ForkLink,
    Head,
    MessageRow,
    RunHeader,
    RunRow,
    SessionHeader,
    SessionRow,
    SwitchRow,
)
from sessionledger.records import (
    AgentSwitch,
    Message,
    Run,
    RunStatus,
    Session,
    SessionKind,
    Usage,
)
from sessionledger.validate import MAX_COUNT

__all__ = [
    "EMPTY",
    "RUN_PARTS",
    "body_of_run",
    "column_of_name",
    "from_micros",
    "header_of_run",
    "header_of_session",
    "link_of",
    "message_count_of",
    "messages_from_rows",
    "now_micros",
    "parts_of_run",
    "rows_of_messages",
    "run_from_row",
    "session_from_row",
    "state_of",
    "switch_from_row",
    "switch_to_row",
    "to_micros",
    "token_columns",
    "usage_of_messages",
]

T = TypeVar("T")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_EXACT: Final = 2**52  #: microseconds below which a float of seconds is right to the microsecond: up to 2112
EMPTY: Final = "{}"  #: the body of a session of which nothing more is known, and its state
_MAX_COPY: Final = 256  #: bytes of a text that is copied into a column
_STAND_IN: Final = "\ufffc"  #: begins what stands in a column for a name that it cannot hold

_encode = msgspec.json.Encoder().encode


class _RunBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of a run that no column holds."""

    agent_name: str | None = None
    kind: str = "agent"
    model: str | None = None
    provider: str | None = None
    input: Any = None
    output: Any = None
    error: Any = None
    usage: Usage | None = None
    summed: bool = False  #: the usage is the sum of the messages'
    metadata: dict[str, Any] = {}
    extra: dict[str, Any] = {}


class _SessionBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str | None = None  #: where the column cannot hold it, and has another text
    summary: Any = None
    metadata: dict[str, Any] = {}
    extra: dict[str, Any] = {}


#: The fields of a run that a patch can replace, and their types.
RUN_PARTS: Final[Mapping[str, Any]] = {
    "output": Any,
    "error": Any,
    "usage": Usage | None,
    "summed": bool,
    "metadata": dict[str, Any],
    "extra": dict[str, Any],
}

_decode_message = msgspec.json.Decoder(Message).decode
_decode_run = msgspec.json.Decoder(_RunBody).decode
_decode_session = msgspec.json.Decoder(_SessionBody).decode
_decode_dict = msgspec.json.Decoder(dict[str, Any]).decode


def now_micros() -> int:
    return time.time_ns() // 1000


def to_micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    return _EPOCH + _MICROSECOND * micros  # the quickest of the ways to write it


def _moments(times: Sequence[int]) -> Iterator[datetime]:
    """Of many: all together they take a quarter of the time. Each is made when it is asked for where one is unusual."""
    if set(map(type, times)) == {int} and min(times) >= 0 and max(times) < _EXACT:
        return iter(convert([micros / 1_000_000 for micros in times], list[datetime], strict=False))
    return map(from_micros, times)


def _maybe(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


def _copy(text: str | None) -> str | None:
    """A text for a column, or None where the column could not hold it exactly."""
    if text is None or len(text) > _MAX_COPY or "\0" in text:
        return None
    return text if text.isascii() or len(text.encode()) <= _MAX_COPY else None


# messages


def rows_of_messages(messages: Iterable[Message], created_at: int, *, copies: bool, start: int = 0) -> list[MessageRow]:
    """`start` is the index in the run of the first of them; `created_at` of those that have none."""
    to_row = _row_with_copies if copies else _row
    return [
        to_row(message, created_at if message.created_at is None else to_micros(message.created_at), index)
        for index, message in enumerate(messages, start)
    ]


def _row(message: Message, created_at: int, index: int) -> MessageRow:
    body: Message = replace(message, message_id=None, created_at=None, position=None, run_id=None, run_seq=None)
    return MessageRow(message.message_id, created_at, _encode(body).decode(), index)


def _row_with_copies(message: Message, created_at: int, index: int) -> MessageRow:
    input_tokens, output_tokens = token_columns(message.usage)
    return replace(
        _row(message, created_at, index),
        role=_copy(message.role),
        kind=None if message.kind == "message" else _copy(message.kind),
        name=_copy(message.name),
        tool_call_id=_copy(message.tool_call_id),
        model=_copy(message.model),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        error=_copy(message.error),
        tool_calls=[(_copy(call.tool_call_id) or "", _copy(call.name) or "") for call in message.tool_calls],
    )


def messages_from_rows(rows: Sequence[MessageRow], run_ids: Mapping[int, str], session_id: str) -> list[Message]:
    """Half of the time of a long read is spent here."""
    messages: list[Message] = []
    put, decode, fill = messages.append, _decode_message, force_setattr
    moments = _moments([row.created_at for row in rows])
    row: MessageRow | None = None
    try:
        for row in rows:
            body, message_id, seq = row.body, row.message_id, row.run_seq
            message = decode(body) if type(body) is str else _unknown(body)
            run_id = run_ids[seq]
            fill(message, "message_id", message_id or derived_id(run_id, row.revision, row.index))
            fill(message, "created_at", next(moments))
            fill(message, "position", row.position)
            fill(message, "run_id", run_id)
            fill(message, "run_seq", seq)
            put(message)
    except (msgspec.DecodeError, KeyError, OverflowError, TypeError, UnicodeError) as error:
        assert row is not None
        raise DecodeError(
            f"message {row.position} of session {session_id!r}, run {row.run_seq}, is damaged ({error}): "
            "restore it from a backup",
            session_id=session_id,
            run_seq=row.run_seq,
            position=row.position,
        ) from error
    return messages


def derived_id(run_id: str, revision: int, index: int) -> str:
    """Of a message that was given none; unique in its session, and in each revision."""
    return f"{run_id}#{index}" if revision == 1 else f"{run_id}#{revision}.{index}"


def parse_derived_id(message_id: str) -> tuple[str, int, int] | None:
    """run_id, revision and index of an id that looks derived."""
    run_id, mark, place = message_id.rpartition("#")
    revision, dot, index = place.rpartition(".")
    if not (
        mark and index.isdecimal() and index.isascii() and (not dot or (revision.isdecimal() and revision.isascii()))
    ):
        return None
    if len(place) > 32:
        return None
    return run_id, int(revision) if dot else 1, int(index)


def _unknown(body: Body) -> Any:
    raise msgspec.DecodeError(f"its format {body[:1]!r} is not known to this version")


def _decode(decode: Any, body: Body) -> Any:
    return decode(body) if type(body) is str else _unknown(body)


# runs


def body_of_run(run: Run, usage: Usage | None) -> str:
    """`usage` is the run's, or the sum of its messages'."""
    body = _RunBody(
        agent_name=run.agent_name,
        kind=run.kind,
        model=run.model,
        provider=run.provider,
        input=run.input,
        output=run.output,
        error=run.error,
        usage=usage,
        summed=run.usage is None,
        metadata=run.metadata,
        extra=run.extra,
    )
    return _encode(body).decode()


def parts_of_run(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name: _encode(value).decode() for name, value in fields.items()}


def header_of_run(run: Run, usage: Usage | None, at: int) -> RunHeader:
    updated_at = at if run.updated_at is None else to_micros(run.updated_at)
    if run.finished_at is not None:
        finished_at: int | None = to_micros(run.finished_at)
    else:
        finished_at = updated_at if run.status.terminal else None
    return RunHeader(
        run.status.value,
        updated_at,
        finished_at,
        *token_columns(usage),
        "summary" in [message.kind for message in run.messages],
    )


def token_columns(usage: Usage | None) -> tuple[int | None, int | None]:
    """Input and output tokens, or None where a column cannot hold the sum."""
    if usage is None:
        return None, None
    tokens = (usage.input_tokens, usage.output_tokens)
    return tokens if max(tokens) <= MAX_COUNT else (None, None)


def usage_of_messages(messages: Iterable[Message]) -> Usage | None:
    """The sum; None when no message has any, and without cost when they are in several currencies."""
    total: Usage | None = None
    for message in messages:
        if message.usage is not None:
            total = message.usage if total is None else add_usage(total, message.usage)
    return total


def add_usage(one: Usage, other: Usage) -> Usage:
    mixed = one.cost is not None and other.cost is not None and one.currency != other.currency
    if mixed:
        return replace(one, cost=None, currency=None) + replace(other, cost=None, currency=None)
    return one + other


def run_from_row(row: RunRow, session_id: str, messages: Sequence[Message] = (), *, message_count: int = 0) -> Run:
    try:
        return _run(row, session_id, messages, message_count)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise DecodeError(
            f"run {row.run_id!r} of session {session_id!r} is damaged ({error}): restore it from a backup",
            session_id=session_id,
            run_seq=row.seq,
        ) from error


def _run(row: RunRow, session_id: str, messages: Sequence[Message], message_count: int) -> Run:
    body = _decode(_decode_run, row.body)
    parts = {name: _decode_part(name, part) for name, part in row.parts.items()}
    header = row.header
    return Run(
        run_id=row.run_id,
        session_id=session_id,
        user_id=row.user_id,
        agent_id=row.agent_id,
        agent_name=body.agent_name,
        kind=body.kind,
        parent_run_id=row.parent_run_id,
        model=body.model,
        provider=body.provider,
        status=RunStatus(header.status),
        input=body.input,
        output=parts.get("output", body.output),
        error=parts.get("error", body.error),
        messages=messages,
        usage=parts.get("usage", body.usage),
        metadata=parts.get("metadata", body.metadata),
        extra=parts.get("extra", body.extra),
        created_at=from_micros(row.created_at),
        updated_at=from_micros(header.updated_at),
        finished_at=_maybe(header.finished_at),
        seq=row.seq,
        revision=row.revision,
        message_count=message_count,
    )


def message_count_of(row: RunRow) -> int:
    """Of a revision as it is stored, whatever is hidden or behind the end of a view."""
    return sum(last - first + 1 for first, last in ((row.first_position, row.last_position), *row.segments))


def usage_is_sum(row: RunRow) -> bool:
    """Whether the run's usage follows from its messages'."""
    part = row.parts.get("summed")
    return bool(_decode_part("summed", part) if part is not None else _decode(_decode_run, row.body).summed)


def _decode_part(name: str, part: Body) -> Any:
    return msgspec.json.decode(part, type=RUN_PARTS[name]) if type(part) is str else _unknown(part)


# sessions


def column_of_name(name: str | None) -> str | None:
    """A session's name as its column has it, and whoever looks for it: another text where the column could not hold it,
    but one that no other name has.
    """
    if name is None or (_copy(name) is not None and not name.startswith(_STAND_IN)):
        return name
    return f"{_STAND_IN}{digest(name.encode()).hex()}"


def header_of_session(session: Session, at: int) -> SessionHeader:
    name = column_of_name(session.name)
    body = _SessionBody(
        name=session.name if name != session.name else None,
        summary=session.summary,
        metadata=session.metadata,
        extra=session.extra,
    )
    return SessionHeader(
        session.kind.value,
        session.agent_id,
        session.current_agent,
        name,
        session.parent_session_id,
        at if session.updated_at is None else to_micros(session.updated_at),
        _encode(body).decode(),
    )


def session_from_row(row: SessionRow) -> Session:
    try:
        return _session(row)
    except (OverflowError, TypeError, ValueError) as error:
        session_id = row.head.key.session_id
        raise DecodeError(
            f"session {session_id!r} is damaged ({error}): restore it from a backup", session_id=session_id
        ) from error


def _session(row: SessionRow) -> Session:
    head, header = row.head, row.header
    body = _decode(_decode_session, header.body)
    state = _decode(_decode_dict, row.state) if row.state is not None else {}
    return Session(
        session_id=head.key.session_id,
        namespace=head.key.namespace,
        kind=SessionKind(header.kind),
        user_id=head.user_id,
        agent_id=header.agent_id,
        current_agent=header.current_agent,
        name=header.name if body.name is None else body.name,
        state=state,
        summary=body.summary,
        metadata=body.metadata,
        extra=body.extra,
        parent_session_id=header.parent_session_id,
        forked_from=head.fork.session_id if head.fork else None,
        forked_at=head.fork.position if head.fork else None,
        created_at=from_micros(head.created_at),
        updated_at=from_micros(header.updated_at),
        last_activity_at=from_micros(head.last_activity_at),
        deleted_at=_maybe(head.deleted_at),
        version=head.version,
        state_version=head.state_version,
        run_count=head.run_count,
        message_count=head.message_count,
    )


def state_of(session: Session) -> str:
    return _encode(session.state).decode()


def link_of(head: Head, position: int, run_seq: int) -> ForkLink:
    """A fork's link to a session as it is now."""
    return ForkLink(head.key.session_id, head.incarnation, position, run_seq, head.version)


# switches


def switch_to_row(switch: AgentSwitch, switch_id: str, from_agent: str | None, at: int) -> SwitchRow:
    return SwitchRow(
        switch_id,
        from_agent,
        switch.to_agent,
        None if switch.reason is None else _encode(switch.reason).decode(),
        at if switch.switched_at is None else to_micros(switch.switched_at),
    )


def switch_from_row(row: SwitchRow) -> AgentSwitch:
    return AgentSwitch(
        switch_id=row.switch_id,
        from_agent=row.from_agent,
        to_agent=row.to_agent,
        reason=None if row.reason is None else _decode(msgspec.json.decode, row.reason),
        switched_at=from_micros(row.switched_at),
    )
