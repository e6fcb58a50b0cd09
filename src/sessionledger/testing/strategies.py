"""Hypothesis strategies for records: all that may be stored, the extremes included."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from sessionledger.records import Message, Run, RunStatus, Session, SessionKind, ToolCall, Usage

__all__ = ["ids", "json_values", "messages", "runs", "sessions", "texts", "tool_calls", "usages"]

#: Any Unicode but lone surrogates; NUL and other controls too.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["", "\0", "a\0b", "\\u0000", "👩‍👩‍👧", "e\u0301", "\u2028", "'\"`;--", "NaN", "1e5"]
)

#: Of 1 to 256 bytes, without control characters.
ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=64)

_integers = st.integers() | st.sampled_from([2**63 - 1, 2**63, -(2**63) - 1, 2**200, -(2**200), 10**4300 - 1])
_floats = st.floats(allow_nan=False, allow_infinity=False)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _integers | _floats | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)

_objects = st.dictionaries(texts, json_values, max_size=3)
_times = st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
_counts = st.integers(0, 2**63 - 1)
_costs = st.decimals(allow_nan=False, allow_infinity=False, min_value=Decimal(-(10**9)), max_value=Decimal(10**9))

usages = st.builds(
    Usage,
    input_tokens=_counts,
    output_tokens=_counts,
    cache_read_input_tokens=_counts,
    reasoning_tokens=_counts,
    requests=_counts,
    cost=st.none() | _costs,
    currency=st.none() | texts,
    details=st.dictionaries(texts, _counts, max_size=2),
)

tool_calls = st.builds(ToolCall, tool_call_id=texts, name=texts, arguments=json_values)

messages = st.builds(
    Message,
    message_id=st.none(),
    role=st.sampled_from(["system", "user", "assistant", "tool"]) | texts.filter(bool),
    kind=st.sampled_from(["message", "reasoning", "event"]) | texts.filter(bool),
    content=json_values,
    format=st.none() | texts,
    name=st.none() | texts,
    tool_calls=st.lists(tool_calls, max_size=2),
    tool_call_id=st.none() | texts,
    error=st.none() | texts,
    duration=st.none() | _floats,
    model=st.none() | texts,
    finish_reason=st.none() | texts,
    created_at=st.none() | _times,
    usage=st.none() | usages,
    metadata=_objects,
    extra=_objects,
)

runs = st.builds(
    Run,
    run_id=ids,
    session_id=ids,
    user_id=st.none() | ids,
    agent_id=st.none() | ids,
    agent_name=st.none() | texts,
    kind=texts.filter(bool),
    parent_run_id=st.none() | ids,
    model=st.none() | texts,
    provider=st.none() | texts,
    status=st.sampled_from(RunStatus),
    input=json_values,
    output=json_values,
    error=json_values,
    messages=st.lists(messages, max_size=3),
    usage=st.none() | usages,
    metadata=_objects,
    extra=_objects,
    created_at=st.none() | _times,
)

sessions = st.builds(
    Session,
    session_id=ids,
    kind=st.sampled_from(SessionKind),
    user_id=st.none() | ids,
    agent_id=st.none() | ids,
    current_agent=st.none() | ids,
    name=st.none() | texts,
    state=_objects,
    summary=json_values,
    metadata=_objects,
    extra=_objects,
    parent_session_id=st.none() | ids,
    created_at=st.none() | _times,
)
