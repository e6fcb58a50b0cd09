"""The lines of a log. Each is a JSON object with a `type`; a commit is some lines and the `commit` line behind them.

A body is the last field of its line: `body` holds its JSON as it was given, to the byte; what is no JSON, or has a line
feed between its tokens, is a string in `text`; bytes are in `base64`.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Raw

from sessionledger.protocol.rows import Body, ForkLink, RunHeader, RunReceipt

__all__ = [
    "BeginLine",
    "CommitLine",
    "HideLine",
    "Line",
    "MessageLine",
    "PartLine",
    "PatchLine",
    "RunLine",
    "SessionLine",
    "ShowLine",
    "StateLine",
    "SwitchLine",
    "body_fields",
    "body_of",
    "decode_line",
    "encode_line",
    "measure",
]

_NO_BODY: Final = Raw()
_BEFORE_BODY: Final = len(b',"body":')
_BEHIND_BODY: Final = len(b"}\n")


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", gc=False):
    """In the order of its fields, what is at its default left out."""


class BeginLine(_Line, frozen=True, tag="begin"):
    """The first of each log: whose it is."""

    namespace: str
    session_id: str
    incarnation: int
    user_id: str | None
    created_at: int
    fork: ForkLink | None = None


class SessionLine(_Line, frozen=True, tag="session"):
    """The session's fields, from this commit on. A large body is in a `file` beside the log."""

    kind: str = "agent"
    agent_id: str | None = None
    current_agent: str | None = None
    name: str | None = None
    parent_session_id: str | None = None
    updated_at: int = 0
    body: Raw = _NO_BODY
    text: str | None = None
    base64: str | None = None
    file: str | None = None


class StateLine(_Line, frozen=True, tag="state"):
    """The session's state, from this commit on."""

    body: Raw = _NO_BODY
    text: str | None = None
    base64: str | None = None
    file: str | None = None


class RunLine(_Line, frozen=True, tag="run"):
    """A revision of a run. Its messages follow."""

    run_id: str
    seq: int
    revision: int
    version: int
    digest: bytes
    created_at: int
    first_position: int
    last_position: int
    header: RunHeader
    user_id: str | None = None
    agent_id: str | None = None
    parent_run_id: str | None = None
    model: str | None = None
    body: Raw = _NO_BODY
    text: str | None = None
    base64: str | None = None


class PartLine(_Line, frozen=True, tag="part"):
    """A field that a patch replaced. The `patch` line comes behind all of them."""

    run_id: str
    name: str
    body: Raw = _NO_BODY
    text: str | None = None
    base64: str | None = None


class PatchLine(_Line, frozen=True, tag="patch"):
    """What became of a run. Its new messages follow."""

    run_id: str
    seq: int
    revision: int
    patch: int
    first_position: int
    last_position: int
    header: RunHeader
    parts: int = 0


class MessageLine(_Line, frozen=True, tag="message"):
    position: int
    run_id: str
    run_seq: int
    index: int
    created_at: int
    revision: int = 1
    message_id: str | None = None
    body: Raw = _NO_BODY
    text: str | None = None
    base64: str | None = None


class SwitchLine(_Line, frozen=True, tag="switch"):
    switch_id: str
    to_agent: str
    switched_at: int
    version: int
    from_agent: str | None = None
    reason: bool = False  #: it has one: the body
    body: Raw = _NO_BODY
    text: str | None = None
    base64: str | None = None


class HideLine(_Line, frozen=True, tag="hide"):
    hide_id: str
    positions: tuple[int, int]
    runs: tuple[int, int]
    since: int
    revision: int | None = None
    reach: int = 0


class ShowLine(_Line, frozen=True, tag="show"):
    hide_id: str
    version: int


class CommitLine(_Line, frozen=True, tag="commit"):
    """Makes the lines since the one before whole. `after` is where its group began: what is in front of that was on
    the disk before.
    """

    version: int
    state_version: int
    runs: int
    messages: int
    last_activity_at: int
    deleted_at: int | None = None
    erased: bool = False
    has_hidden: bool = False
    has_summary: bool = False
    forks: int = 0
    counters: Mapping[str, int] = {}  #: those that changed, as they are now; 0: gone
    operation_id: str | None = None
    digest: bytes | None = None
    receipts: Sequence[RunReceipt] = ()
    after: int = 0
    size: int = 0  #: of the lines in front of it, in bytes
    crc: int = 0  #: and their CRC-32


Line: TypeAlias = (
    BeginLine
    | SessionLine
    | StateLine
    | RunLine
    | PartLine
    | PatchLine
    | MessageLine
    | SwitchLine
    | HideLine
    | ShowLine
    | CommitLine
)
WithBody: TypeAlias = SessionLine | StateLine | RunLine | PartLine | MessageLine | SwitchLine

decode_line: Callable[[bytes], Line] = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode
_decode_raw = msgspec.json.Decoder(Raw).decode


def encode_line(line: Line) -> bytes:
    return _encode(line) + b"\n"


def body_fields(body: Body) -> dict[str, Any]:
    """The field of a line that holds a body."""
    if isinstance(body, bytes):
        return {"base64": b64encode(body).decode()}
    raw = body.encode()
    return {"body": Raw(raw)} if _is_json_in_a_line(raw) else {"text": body}


def _is_json_in_a_line(raw: bytes) -> bool:
    try:
        return b"\n" not in raw and bytes(_decode_raw(raw)) == raw
    except (msgspec.DecodeError, RecursionError):
        return False


def body_of(line: WithBody) -> Body:
    if line.base64 is not None:
        return b64decode(line.base64)
    return line.text if line.text is not None else str(memoryview(line.body), "utf-8")


def measure(line: Line, length: int) -> tuple[int, int]:
    """Of a line: how much of it stands in front of its body (0: unknown), and the body's size."""
    if not isinstance(line, RunLine | MessageLine):
        return 0, 0
    if line.base64 is not None:
        return 0, len(b64decode(line.base64))
    if line.text is not None:
        return 0, len(line.text.encode())
    size = memoryview(line.body).nbytes
    return length - size - _BEFORE_BODY - _BEHIND_BODY, size
