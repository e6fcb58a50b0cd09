"""Small runs and messages for tests, and what they look like when they come back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from sessionledger.digest import canonical
from sessionledger.records import Message, Run, ToolCall, Usage

__all__ = ["answer", "as_given", "ask", "call", "exactly", "result", "run", "texts", "turn"]


def ask(text: str = "hi", **fields: Any) -> Message:
    return Message(role="user", content=text, **fields)


def answer(text: str | None = "hello", **fields: Any) -> Message:
    return Message(role="assistant", content=text, **fields)


def call(*tool_call_ids: str, text: str | None = None, **fields: Any) -> Message:
    """The model calls tools."""
    calls = [ToolCall(tool_call_id=one, name="tool", arguments="{}") for one in tool_call_ids]
    return Message(role="assistant", content=text, tool_calls=calls, **fields)


def result(tool_call_id: str, text: str = "done", **fields: Any) -> Message:
    return Message(role="tool", content=text, tool_call_id=tool_call_id, **fields)


def run(run_id: str | None = "r1", *messages: Message | str, session_id: str = "s", **fields: Any) -> Run:
    """A run of those messages; a text is a user's."""
    made = [ask(message) if isinstance(message, str) else message for message in messages]
    return Run(run_id=run_id, session_id=session_id, messages=made, **fields)


def turn(run_id: str, *, session_id: str = "s", **fields: Any) -> Run:
    """A question and its answer, both named after the run."""
    question, reply = ask(f"{run_id}?", usage=None), answer(f"{run_id}!", usage=Usage(input_tokens=3, output_tokens=2))
    return Run(run_id=run_id, session_id=session_id, messages=[question, reply], **fields)


def texts(messages: Iterable[Message]) -> list[Any]:
    return [message.content for message in messages]


def exactly(value: Any) -> bytes:
    """Equal for values that are equal and of the same types: 1 is not 1.0, and 0.0 not -0.0."""
    return canonical(value)


def as_given(stored: Message | Sequence[Message], like: Message | Sequence[Message]) -> Any:
    """What was stored, without what the store fills in where nothing was given."""
    if isinstance(stored, Message):
        assert isinstance(like, Message)
        return msgspec.structs.replace(
            stored,
            position=None,
            run_id=None,
            run_seq=None,
            message_id=stored.message_id if like.message_id is not None else None,
            created_at=stored.created_at if like.created_at is not None else None,
        )
    assert not isinstance(like, Message) and len(stored) == len(like)
    return [as_given(one, other) for one, other in zip(stored, like, strict=True)]
