"""What may be stored. Every check is made before any I/O, and names the field.

The quick way is exact: a record is encoded and decoded again, and must come out equal and of its declared types. Only a
record that does not is walked, to find out where and why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeVar, get_args

import msgspec

from sessionledger.digest import canonical
from sessionledger.errors import InvalidRecordError
from sessionledger.records import TOKEN_COUNTS, AgentSwitch, Message, Run, Session, ToolCall, Usage

__all__ = [
    "MAX_DEPTH",
    "check_count",
    "check_id",
    "check_json",
    "check_text",
    "checked_run",
    "checked_session",
    "checked_switch",
    "is_text",
]

MAX_DEPTH: Final = 100  #: of lists and dicts inside one another, in one field
MAX_DIGITS: Final = 4300  #: of an integer: Python's own limit
MAX_COST_DIGITS: Final = 1000  #: of a cost, before and behind the point
MAX_COUNT: Final = 2**63 - 1  #: of tokens and the like: what a column of a database holds
MAX_ID_BYTES: Final = 256
_EDGES: Final = frozenset({1, 9999})  #: the years in which a time can be one that UTC has no year for

T = TypeVar("T")

_CONTAINERS: Final = frozenset({dict, list, tuple, Message, ToolCall, Usage})

_ID = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,256}").fullmatch
_BIG: Final = 10**MAX_DIGITS
_SMALL: Final = -(10 ** (MAX_DIGITS - 1))  #: the decoder counts the sign as a digit

_decode_run = msgspec.json.Decoder(Run).decode
_decode_session = msgspec.json.Decoder(Session).decode
_decode_switch = msgspec.json.Decoder(AgentSwitch).decode


def check_id(value: Any, path: str, *, empty: bool = False) -> None:
    """An id: text of 1 to 256 bytes in UTF-8, without control characters."""
    if type(value) is str:
        if (value.isascii() and value.isprintable() and 0 < len(value) <= MAX_ID_BYTES) or (empty and not value):
            return
        if _ID(value) and len(value.encode()) <= MAX_ID_BYTES:
            return
    what = f"text of 1 to {MAX_ID_BYTES} bytes without control characters"
    raise InvalidRecordError(f"{path} is {_short(value)}: an id must be {what}", path=path)


def check_count(value: Any, name: str, *, least: int = 0) -> None:
    """An argument that counts."""
    if type(value) is not int or value < least:
        raise InvalidRecordError(f"{name} is {_short(value)}: give an integer of at least {least}", path=name)


def checked_run(run: Run, path: str = "run") -> bytes:
    """The run's canonical JSON; `InvalidRecordError` when the run cannot be stored as it is."""
    if type(run) is not Run:
        raise InvalidRecordError(f"{path} is {_short(run)}: give a sessionledger.Run", path=path)
    text = _round_trip(run, _decode_run, path)
    ids = [run.user_id, run.agent_id, run.parent_run_id, *[message.message_id for message in run.messages]]
    if not _plain([value for value in ids if value is not None]):
        for name in ("user_id", "agent_id", "parent_run_id"):
            value = getattr(run, name)
            if value is not None:
                check_id(value, f"{path}.{name}")
        for index, message in enumerate(run.messages):
            if message.message_id is not None:
                check_id(message.message_id, f"{path}.messages[{index}].message_id")
    if run.usage is not None:
        _check_usage(run.usage, path)
    for name in ("created_at", "updated_at", "finished_at"):
        _check_time(getattr(run, name), path, name)
    for index, message in enumerate(run.messages):
        if message.usage is not None:
            _check_usage(message.usage, path, index)
        if message.created_at is not None:
            _check_time(message.created_at, path, "created_at", index)
        if not message.role or not message.kind:
            where = f"{path}.messages[{index}]"
            raise InvalidRecordError(f"{where} has an empty role or kind: name them", path=where)
    return text


def _plain(ids: Sequence[str]) -> bool:
    """Whether all are ids of the usual kind, at a glance."""
    text = "".join(ids)
    short = all(ids) and max(map(len, ids), default=0) <= MAX_ID_BYTES
    return short and text.isascii() and text.isprintable() and {*map(type, ids)} <= {str}


def _check_usage(usage: Usage, path: str, index: int | None = None) -> None:
    """What the types cannot say: how large a count may be, and a cost. `index` is the message's, if it is one's."""
    largest = max(
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
        usage.reasoning_tokens,
        usage.requests,
    )
    if largest <= MAX_COUNT and not usage.details and usage.cost is None:
        return
    where = f"{path}.usage" if index is None else f"{path}.messages[{index}].usage"
    counts = {f"{where}.{name}": getattr(usage, name) for name in TOKEN_COUNTS}
    counts |= {f"{where}.details[{_short(name)}]": count for name, count in usage.details.items()}
    for field, count in counts.items():
        if count > MAX_COUNT:
            raise InvalidRecordError(f"{field} is over 2**63 - 1: give a smaller count", path=field)
    if usage.cost is not None:
        _check_cost(usage.cost, f"{where}.cost")


def _check_time(moment: datetime | None, path: str, name: str, index: int | None = None) -> None:
    """Times are stored in UTC, where one at the edge of the calendar may lie in a year that no `datetime` has."""
    if moment is None or moment.year not in _EDGES:
        return
    try:
        moment.astimezone(UTC)
    except OverflowError as error:
        where = f"{path}.{name}" if index is None else f"{path}.messages[{index}].{name}"
        raise InvalidRecordError(
            f"{where} is {moment.isoformat()}, in UTC outside the years 1 to 9999: give a time between", path=where
        ) from error


def _check_cost(cost: Decimal, path: str) -> None:
    """Costs are added up exactly: one that is astronomically large or small would cost as many digits."""
    if not cost.is_finite():
        raise InvalidRecordError(f"{path} is {cost}: give a finite number", path=path)
    exponent = cost.as_tuple().exponent
    if isinstance(exponent, int) and (cost.adjusted() > MAX_COST_DIGITS or exponent < -MAX_COST_DIGITS):
        raise InvalidRecordError(f"{path} has over {MAX_COST_DIGITS} digits: round it", path=path)


def checked_session(session: Session, path: str = "session") -> bytes:
    if type(session) is not Session:
        raise InvalidRecordError(f"{path} is {_short(session)}: give a sessionledger.Session", path=path)
    text = _round_trip(session, _decode_session, path)
    check_id(session.session_id, f"{path}.session_id")
    check_id(session.namespace, f"{path}.namespace", empty=True)
    for name in ("created_at", "updated_at", "last_activity_at", "deleted_at"):
        _check_time(getattr(session, name), path, name)
    for name in ("user_id", "agent_id", "current_agent", "parent_session_id", "forked_from"):
        value = getattr(session, name)
        if value is not None:
            check_id(value, f"{path}.{name}")
    return text


def checked_switch(switch: AgentSwitch, path: str = "switch") -> bytes:
    if type(switch) is not AgentSwitch:
        raise InvalidRecordError(f"{path} is {_short(switch)}: give a sessionledger.AgentSwitch", path=path)
    text = _round_trip(switch, _decode_switch, path)
    _check_time(switch.switched_at, path, "switched_at")
    for name in ("switch_id", "from_agent", "to_agent"):
        value = getattr(switch, name)
        if value is not None:
            check_id(value, f"{path}.{name}")
    return text


def check_json(value: Any, path: str) -> None:
    """A JSON value by itself: `state=`, `metadata=` …"""
    _round_trip(value, msgspec.json.decode, path)


def _round_trip(record: T, decode: Callable[[bytes], Any], path: str) -> bytes:
    try:
        text = canonical(record)
        same = decode(text) == record
    except (TypeError, ValueError, RecursionError, ArithmeticError) as error:
        # a signalling NaN cannot even be compared
        _explain(record, path)
        raise InvalidRecordError(f"{path} cannot be stored: {error}", path=path) from error
    if not same:
        _explain(record, path)
        raise InvalidRecordError(f"{path} would not come back as it is: use JSON values alone", path=path)
    # each level has a bracket, so few brackets, wherever they stand, cannot nest deeply
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH and _depth(record) > MAX_DEPTH:
        _explain(record, path)
    return text


def _depth(record: Any) -> int:
    """How deeply lists and dicts nest in any one field of a record, or in a JSON value."""
    deepest = 0
    stack = [(record, 0)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, dict):
            children: Iterable[Any] = item.values()
        elif isinstance(item, list):
            children = item
        elif isinstance(item, msgspec.Struct):
            # records don't count, their fields begin anew
            stack += [(value, 0) for value in msgspec.structs.astuple(item) if type(value) in _CONTAINERS]
            continue
        else:
            stack += [(value, 0) for value in item]
            continue
        depth += 1
        deepest = max(deepest, depth)
        stack += [(child, depth) for child in children if type(child) in _CONTAINERS]
    return deepest


# the walk that finds the place


def _explain(record: Any, path: str) -> None:
    """Raise for the first thing that is wrong, in the order of the fields."""
    if isinstance(record, msgspec.Struct):
        for field in msgspec.structs.fields(record):
            _explain_field(getattr(record, field.name), f"{path}.{field.name}", field.type)
    else:
        _walk(record, path)


_NESTED = (Message, ToolCall, Usage, Run)
_ITEMS: Final = {"messages": Message, "tool_calls": ToolCall}


def _explain_field(value: Any, path: str, kind: Any) -> None:
    items = _ITEMS.get(path.rpartition(".")[2])
    if isinstance(value, _NESTED) and type(value) in get_args(kind):
        _explain(value, path)
    elif items is not None and type(value) is tuple:
        for index, item in enumerate(value):
            _explain_item(item, f"{path}[{index}]", items)
    elif isinstance(value, datetime | Decimal):
        _convert(value, path, kind)
    else:
        _walk(value, path)
        _convert(value, path, kind)


def _explain_item(item: Any, path: str, kind: type) -> None:
    if type(item) is not kind:
        raise InvalidRecordError(f"{path} is {_short(item)}: give a sessionledger.{kind.__name__}", path=path)
    _explain(item, path)


def _convert(value: Any, path: str, kind: Any) -> None:
    """Hold a value against its field's declared type."""
    if isinstance(value, datetime) and value.tzinfo is None:
        raise InvalidRecordError(
            f"{path} is {_short(value)}, without a time zone: give an aware time, as datetime.now(UTC) does", path=path
        )
    if isinstance(value, Decimal) and not value.is_finite():
        raise InvalidRecordError(f"{path} is {_short(value)}: give a finite number", path=path)
    try:
        msgspec.convert(value, kind, strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        raise InvalidRecordError(f"{path} is {_short(value)}: {_lower(str(error))}", path=path) from error


def _walk(value: Any, path: str) -> None:
    """Every leaf of a JSON value, without recursion: the value may be nested deeper than the interpreter can follow."""
    stack: list[tuple[Any, str, int]] = [(value, path, 0)]
    while stack:
        item, where, depth = stack.pop()
        kind = type(item)
        if kind is dict or kind is list:
            if depth == MAX_DEPTH:
                raise InvalidRecordError(f"{path} is nested deeper than {MAX_DEPTH} levels: flatten it", path=path)
            stack.extend(reversed([(child, name, depth + 1) for child, name in _children(item, where)]))
        else:
            _leaf(item, where)


def _children(item: dict[Any, Any] | list[Any], path: str) -> Iterator[tuple[Any, str]]:
    if type(item) is list:
        for index, child in enumerate(item):
            yield child, f"{path}[{index}]"
        return
    assert isinstance(item, dict)
    for key, child in item.items():
        if type(key) is not str:
            raise InvalidRecordError(f"{path} has the key {_short(key)}: keys must be text", path=path)
        _text(key, path)
        yield child, f"{path}[{_short(key)}]"


def _leaf(item: Any, path: str) -> None:
    if isinstance(item, str):
        _text(item, path)
    elif isinstance(item, bool) or item is None:
        return
    elif isinstance(item, int):
        if not _SMALL < item < _BIG:
            raise InvalidRecordError(f"{path} is an integer of over {MAX_DIGITS} digits: store it as text", path=path)
    elif isinstance(item, float):
        if not math.isfinite(item):
            raise InvalidRecordError(f"{path} is {item!r}: JSON has no such number, use None or text", path=path)
    elif isinstance(item, tuple):
        raise InvalidRecordError(f"{path} is a tuple, which would come back as a list: use a list", path=path)
    else:
        name = type(item).__name__
        raise InvalidRecordError(
            f"{path} is of type {name}: use JSON values alone (text, numbers, lists, dicts)", path=path
        )


def check_text(value: Any, path: str) -> None:
    """An argument that is compared with text that is stored."""
    if type(value) is not str:
        raise InvalidRecordError(f"{path} is {_short(value)}: give text", path=path)
    _text(value, path)


def is_text(value: Any) -> bool:
    """Whether it is text that can be stored."""
    try:
        check_text(value, "")
    except InvalidRecordError:
        return False
    return True


def _text(value: str, path: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        where = f"{path} has the lone surrogate {value[error.start]!r} at index {error.start}"
        raise InvalidRecordError(f"{where}: it is no character, replace it", path=path) from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def check_one_of(given: Mapping[str, Any], names: Collection[str]) -> str:
    """The one argument that was given."""
    found = [name for name in names if given.get(name) is not None]
    if len(found) != 1:
        raise InvalidRecordError(f"{len(found)} of {', '.join(names)} were given: give exactly one")
    return found[0]
