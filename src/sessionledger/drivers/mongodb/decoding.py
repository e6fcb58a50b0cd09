"""Documents as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sessionledger.protocol.rows import (
    HiddenRow,
    RunHeader,
    RunReceipt,
    RunRow,
    SessionHeader,
    SwitchRow,
)

__all__ = [
    "hidden_of",
    "patched",
    "receipt_of",
    "run_of",
    "session_header_of",
    "shown_of",
    "switches_of",
]


def receipt_of(entry: Mapping[str, Any], version: int) -> RunReceipt:
    return RunReceipt(entry["id"], entry["q"], entry["v"], entry["f"], entry["f"] + entry["c"] - 1, version)


def _header_of(entry: Mapping[str, Any]) -> RunHeader:
    return RunHeader(
        entry["st"], entry["up"], entry.get("fi"), entry.get("ti"), entry.get("to"), entry.get("su", False)
    )


def run_of(entry: Mapping[str, Any], body: Any, version: int) -> RunRow:
    """A run as it was put; its body may still be elsewhere."""
    return RunRow(
        entry["q"],
        entry["v"],
        entry["id"],
        version,
        0,
        entry["d"],
        entry.get("u"),
        entry.get("a"),
        entry.get("pa"),
        entry.get("mo"),
        entry["at"],
        entry["f"],
        entry["f"] + entry["c"] - 1,
        (),
        _header_of(entry),
        body,
        {},
    )


def patched(row: RunRow, patches: Sequence[tuple[Mapping[str, Any], Sequence[Any]]]) -> RunRow:
    """The run with its patches and their parts, the oldest first."""
    segments: list[tuple[int, int]] = []
    parts: dict[str, Any] = {}
    entry: Mapping[str, Any] = {}
    for entry, named in patches:
        parts.update(named)
        first, last = entry["f"], entry["f"] + entry["c"] - 1
        if first > last:
            continue
        if segments and segments[-1][1] == first - 1:
            segments[-1] = (segments[-1][0], last)
        else:
            segments.append((first, last))
    values = {name: getattr(row, name) for name in row.__struct_fields__}
    header = _header_of(entry)
    return RunRow(**{**values, "patch": entry["k"], "segments": segments, "header": header, "parts": parts})


def session_header_of(fields: Mapping[str, Any], body: Any) -> SessionHeader:
    return SessionHeader(
        fields["kind"],
        fields["agent_id"],
        fields["current_agent"],
        fields["name"],
        fields["parent_session_id"],
        fields["updated_at"],
        body,
    )


def switches_of(document: Mapping[str, Any], version: int) -> list[SwitchRow]:
    return [
        SwitchRow(switch_id, from_agent, to_agent, reason, switched_at, version)
        for switch_id, from_agent, to_agent, reason, switched_at in document["w"]
    ]


def hidden_of(document: Mapping[str, Any], version: int) -> list[HiddenRow]:
    """The rows that a document stores, without an end."""
    return [
        HiddenRow(document["o"], (first, last), (low, high), revision, version, None, reach)
        for first, last, low, high, revision, reach in document.get("hi", ())
    ]


def shown_of(document: Mapping[str, Any]) -> Sequence[str]:
    shown: Sequence[str] = document.get("sh", ())
    return shown
