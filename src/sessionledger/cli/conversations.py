"""A line of a JSON Lines file as a conversation: a session, and the runs that it has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import Any

from sessionledger import Message, Run
from sessionledger.cli.chat import ChatFormatError, message_from_chat

__all__ = ["BadLineError", "Conversation", "parse_line", "run_id_of"]

_MAX_ID_BYTES = 256
_OWN_KEYS = ("conversation_id", "messages", "metadata")


class BadLineError(ValueError):
    """A line that cannot be stored; the sentence says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Conversation:
    session_id: str
    runs: Sequence[Run]
    metadata: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)  #: the line's other keys


def parse_line(line: bytes) -> Conversation:
    """The conversation of a line; `BadLineError` when it has none."""
    data = _parse_json(line)
    if not isinstance(data, dict):
        raise BadLineError("is not a JSON object")
    session_id = _session_id(data)
    return Conversation(
        session_id=session_id,
        runs=_runs(session_id, _messages(data)),
        metadata=_metadata(data),
        extra={key: value for key, value in data.items() if key not in _OWN_KEYS},
    )


def run_id_of(session_id: str, number: int) -> str:
    """The id of a conversation's run, from 1 on: its place, so that a second import finds it there."""
    run_id = f"{session_id}:{number}"
    if len(run_id.encode("utf-8", "surrogatepass")) <= _MAX_ID_BYTES:
        return run_id
    return f"{_fingerprint(session_id)}:{number}"


def _parse_json(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise BadLineError(f"is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}") from error
    except json.JSONDecodeError as error:
        raise BadLineError(f"is not JSON: {error.msg} at character {error.colno}") from error
    except RecursionError as error:
        raise BadLineError("is nested too deeply") from error
    except ValueError as error:
        raise BadLineError(f"is not JSON that can be kept: {error}") from error


def _refuse_constant(name: str) -> None:
    raise BadLineError(f"is not JSON: {name} is no number there")


def _session_id(data: dict[str, Any]) -> str:
    """The conversation's id, or one that its content gives."""
    given = data.get("conversation_id")
    if given is None:
        return _fingerprint(json.dumps(data, sort_keys=True, separators=(",", ":")))
    if not isinstance(given, str) or not given:
        raise BadLineError("has a conversation_id that is not text, or is empty")
    return given


def _fingerprint(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _messages(data: dict[str, Any]) -> list[Message]:
    chats = data.get("messages")
    if not isinstance(chats, list) or not chats:
        raise BadLineError("has no messages")
    return [_message(number, chat) for number, chat in enumerate(chats, 1)]


def _message(number: int, chat: Any) -> Message:
    try:
        return message_from_chat(chat)
    except ChatFormatError as error:
        raise BadLineError(f"message {number} {error}") from error


def _metadata(data: dict[str, Any]) -> dict[str, Any]:
    metadata = data.get("metadata")
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise BadLineError("has metadata that is not an object")
    return metadata


def _runs(session_id: str, messages: Sequence[Message]) -> list[Run]:
    """A run begins at each user message; what stands before the first belongs to the first run."""
    starts = [index for index, message in enumerate(messages) if message.role == "user"][1:]
    bounds = [0, *starts, len(messages)]
    return [
        Run(run_id=run_id_of(session_id, number), session_id=session_id, messages=messages[start:end])
        for number, (start, end) in enumerate(pairwise(bounds), 1)
    ]
