"""A chat message that went through a record is the one that it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionledger import ToolCall
from sessionledger.cli.chat import ChatFormatError, chat_from_message, message_from_chat

CALL = {"id": "call_1", "type": "function", "function": {"name": "search", "arguments": '{"q":  "x"}'}}

MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"role": "user", "content": ""},
    {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "x"}}]},
    {"role": "user", "name": "ann", "content": "hi"},
    {"role": "assistant"},
    {"role": "assistant", "content": None},
    {"role": "assistant", "content": None, "tool_calls": None, "name": None, "tool_call_id": None},
    {"role": "assistant", "content": "hi", "tool_calls": []},
    {"role": "assistant", "content": "hi", "refusal": None, "annotations": [], "audio": {"id": "a"}},
    {"role": "assistant", "content": None, "function_call": {"name": "search", "arguments": "{}"}},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "call_2", "index": 1}]},
    {"role": "assistant", "tool_calls": [{"function": {"name": "search"}}]},
    {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "s", "arguments": {"q": 1}, "strict": True}}]},
    {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "run", "input": "x = 1"}}]},
    {"role": "tool", "tool_call_id": "call_1", "name": "search", "content": "{}"},
]


@pytest.mark.parametrize("chat", MESSAGES, ids=json.dumps)
def test_chat_message_comes_back_equal(chat: dict[str, Any]) -> None:
    assert exact(chat_from_message(message_from_chat(chat))) == exact(chat)


def test_sample_comes_back_equal(sample: Path) -> None:
    for line in sample.read_bytes().splitlines():
        for chat in json.loads(line)["messages"]:
            assert exact(chat_from_message(message_from_chat(chat))) == exact(chat)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
functions = st.fixed_dictionaries({"name": st.text()}, optional={"arguments": json_values, "strict": st.booleans()})
calls = st.fixed_dictionaries(
    {"function": functions},
    optional={"id": st.text() | st.none(), "type": st.just("function") | json_values, "index": json_values},
)
chats = st.fixed_dictionaries(
    {"role": st.text(min_size=1)},
    optional={
        "content": json_values,
        "name": st.text() | st.none(),
        "tool_call_id": st.text() | st.none(),
        "tool_calls": st.none() | st.lists(calls, max_size=3),
        "refusal": json_values,
    },
)


@settings(deadline=None)
@given(chats)
def test_any_chat_message_comes_back_equal(chat: dict[str, Any]) -> None:
    assert exact(chat_from_message(message_from_chat(chat))) == exact(chat)


def test_fields_are_found_where_they_belong() -> None:
    message = message_from_chat({"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None})
    assert message.tool_calls == (ToolCall(tool_call_id="call_1", name="search", arguments='{"q":  "x"}'),)
    assert message.extra == {"content": None, "refusal": None}
    assert message.format is None
    assert message_from_chat({"role": "user", "content": [{"type": "text", "text": "hi"}]}).format == "openai.chat"


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ("hi", "is not an object"),
        ({"content": "hi"}, "has no role"),
        ({"role": 1}, "has no role"),
        ({"role": "user", "name": 1}, "has a name that is not text"),
        ({"role": "tool", "tool_call_id": 1}, "has a tool_call_id that is not text"),
        ({"role": "assistant", "tool_calls": {}}, "has tool_calls that are not a list"),
        ({"role": "assistant", "tool_calls": [1]}, "has a tool call that is not an object"),
        ({"role": "assistant", "tool_calls": [{"id": "c"}]}, "has a tool call without a name"),
        ({"role": "assistant", "tool_calls": [{**CALL, "id": 1}]}, "has a tool call whose id is not text"),
    ],
)
def test_what_is_no_chat_message_is_refused(chat: Any, reason: str) -> None:
    with pytest.raises(ChatFormatError, match=f"^{reason}$"):
        message_from_chat(chat)


def exact(chat: Any) -> str:
    """As text, because Python takes 1, 1.0 and True for equal."""
    return json.dumps(chat, sort_keys=True)
