"""Values as the tables hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import astuple

from sessionledger.protocol.rows import Body, MessageRow, SessionHeader

__all__ = [
    "body_of",
    "columns",
    "columns_of_body",
    "counters_of",
    "header_values",
    "json_of_counters",
    "message_values",
]

_encode = msgspec.json.Encoder().encode
_decode_counters = msgspec.json.Decoder(dict[str, int]).decode


def columns_of_body(body: Body) -> tuple[str | None, bytes | None]:
    """JSON in a column that shows it, anything else in one of bytes."""
    return (body, None) if isinstance(body, str) else (None, body)


def body_of(text: str | None, packed: bytes | None) -> Body:
    return text if text is not None else packed or b""


def json_of_counters(counters: Mapping[str, int]) -> str:
    """Of those that are not 0. jsonb, which adds them up, has no NUL: it is written as two characters."""
    return _encode({_escaped(name): count for name, count in counters.items() if count}).decode()


def counters_of(text: str) -> dict[str, int]:
    counters: dict[str, int] = _decode_counters(text)
    return {_unescaped(name): count for name, count in counters.items()} if "\\\\" in text else counters


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace("\0", "\\0") if "\0" in name or "\\" in name else name


def _unescaped(name: str) -> str:
    parts = name.split("\\\\")
    return "\\".join(part.replace("\\0", "\0") for part in parts)


def header_values(header: SessionHeader) -> tuple[Any, ...]:
    return (*astuple(header)[:-1], *columns_of_body(header.body))


def message_values(row: MessageRow) -> tuple[Any, ...]:
    return (row.created_at, row.message_id, *columns_of_body(row.body))


def columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """The rows turned round; `width` says how many columns no rows have.

    A column of nothing but NULL is empty, which unnest fills up: asyncpg looks at each value for a long time.
    """
    if not rows:
        return [[] for _ in range(width)]
    return [[] if column.count(None) == len(column) else list(column) for column in zip(*rows, strict=True)]
