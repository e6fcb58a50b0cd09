"""OpenAI chat messages as records, and back again.

One rule keeps the way back exact: what the fields alone would not give back stays in `extra` under its own key. So a
key that is null is told from one that is missing, and a dialect's own keys survive.
"""

from __future__ import annotations

from typing import Any

from sessionledger import Message, ToolCall

__all__ = ["ChatFormatError", "chat_from_message", "message_from_chat"]

#: What `Message.format` says of content that is not plain text.
_FORMAT = "openai.chat"
_TEXTS = ("name", "tool_call_id")
_FIELDS = ("role", "content", *_TEXTS, "tool_calls")


class ChatFormatError(ValueError):
    """This is no chat message; the sentence says what is wrong with it."""


def message_from_chat(chat: Any) -> Message:
    """The record of a chat message; `ChatFormatError` when it is none."""
    if not isinstance(chat, dict):
        raise ChatFormatError("is not an object")
    if not isinstance(chat.get("role"), str):
        raise ChatFormatError("has no role")
    for key in _TEXTS:
        if not isinstance(chat.get(key), str | None):
            raise ChatFormatError(f"has a {key} that is not text")
    content = chat.get("content")
    extra = {key: value for key, value in chat.items() if key not in _FIELDS or value is None}
    calls, kept = _calls_from_chat(chat.get("tool_calls"))
    if kept is not None:
        extra["tool_calls"] = kept
    return Message(
        role=chat["role"],
        content=content,
        format=None if isinstance(content, str | None) else _FORMAT,
        name=chat.get("name"),
        tool_calls=calls,
        tool_call_id=chat.get("tool_call_id"),
        extra=extra,
    )


def chat_from_message(message: Message) -> dict[str, Any]:
    """The chat message that the record was made from."""
    fields = {"content": message.content, "name": message.name, "tool_call_id": message.tool_call_id}
    chat = {"role": message.role, **{key: value for key, value in fields.items() if value is not None}, **message.extra}
    if message.tool_calls:
        kept = message.extra.get("tool_calls") or [{}] * len(message.tool_calls)
        chat["tool_calls"] = [_chat_from_call(call, rest) for call, rest in zip(message.tool_calls, kept, strict=True)]
    return chat


def _calls_from_chat(calls: Any) -> tuple[list[ToolCall], list[Any] | None]:
    """The calls, and what `extra` has to keep of them."""
    if calls is None:
        return [], None
    if not isinstance(calls, list):
        raise ChatFormatError("has tool_calls that are not a list")
    kept = [_rest_of_call(call) for call in calls]
    return [_call_from_chat(call) for call in calls], kept if any(kept) or not calls else None


def _call_from_chat(call: dict[str, Any]) -> ToolCall:
    body = call.get("function") or call.get("custom")
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        raise ChatFormatError("has a tool call without a name")
    call_id = call.get("id")
    if not isinstance(call_id, str | None):
        raise ChatFormatError("has a tool call whose id is not text")
    return ToolCall(tool_call_id=call_id or "", name=body["name"], arguments=body.get("arguments", body.get("input")))


def _rest_of_call(call: Any) -> dict[str, Any]:
    """Keys beside the usual ones; of a call that is made otherwise, all of it."""
    if not isinstance(call, dict):
        raise ChatFormatError("has a tool call that is not an object")
    function = call.get("function")
    usual = isinstance(function, dict) and function.keys() == {"name", "arguments"} and "custom" not in call
    if usual and call.get("type") == "function" and isinstance(call.get("id"), str):
        return {key: value for key, value in call.items() if key not in ("id", "type", "function")}
    return call


def _chat_from_call(call: ToolCall, rest: dict[str, Any]) -> dict[str, Any]:
    if "function" in rest or "custom" in rest:
        return rest
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.tool_call_id, "type": "function", "function": function, **rest}
