"""msgspec encoding shared by the raw contenders: one payload per run head and one per message."""

from __future__ import annotations

from typing import Any

import msgspec

from benchmarks.workload import Run


class StoredMessage(msgspec.Struct, omit_defaults=True):
    id: str
    role: str
    content: str
    created_at: int
    tool_call_id: str | None = None
    tool_name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    metrics: dict[str, int] | None = None


class StoredRun(msgspec.Struct, omit_defaults=True):
    run_id: str
    agent_id: str
    user_id: str
    model: str
    model_provider: str
    status: str
    created_at: int
    metrics: dict[str, float]
    messages: list[StoredMessage] = []


_encoder = msgspec.json.Encoder()
encode = _encoder.encode
decode_message = msgspec.json.Decoder(StoredMessage).decode
decode_run = msgspec.json.Decoder(StoredRun).decode


def to_struct(run: Run) -> StoredRun:
    """The run as a user of a msgspec-based store would hold it; encoding it is the store's (timed) work."""
    messages = [StoredMessage(**message.as_dict()) for message in run.messages]
    return StoredRun(**run.metadata(), messages=messages)


def split(run: StoredRun) -> tuple[bytes, list[bytes]]:
    """The run's head without messages, and each message, encoded."""
    messages, run.messages = run.messages, []
    try:
        return encode(run), [encode(message) for message in messages]
    finally:
        run.messages = messages
