"""The records that a store keeps: frozen, keyword-only msgspec structs.

Times are aware UTC datetimes with microseconds, durations are seconds as float, ids are text. A field annotated `Any`
or `dict[str, Any]` holds JSON: None, bool, int, float, str, list and dict with text keys, as they come out of a JSON
parser. What goes in comes out equal; what JSON cannot hold (bytes, sets, tuples, NaN) is refused when it is stored,
never converted.

The garbage collector does not look into them, which makes long reads quicker by an eighth: JSON has no cycles, and a
cycle that somebody builds through a record, to no use, is not found.

`metadata` belongs to the user, `extra` to an adapter: whatever its framework has that there is no field for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Context, Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec.structs import force_setattr

__all__ = [
    "AgentSwitch",
    "AppendReceipt",
    "Durability",
    "Health",
    "Message",
    "Page",
    "Run",
    "RunStatus",
    "Session",
    "SessionKind",
    "SessionStats",
    "ToolCall",
    "Usage",
]

T = TypeVar("T")

#: Sums of costs are exact: the default context would round them to 28 digits.
_EXACT = Context(prec=10_000)

Count = Annotated[int, msgspec.Meta(ge=0)]
Time = Annotated[datetime, msgspec.Meta(tz=True)]


class RunStatus(StrEnum):
    """Where a run stands. The last three are terminal: the first of them that is stored wins."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)


class SessionKind(StrEnum):
    """What owns a session: one agent, a team of them, or a workflow."""

    AGENT = "agent"
    TEAM = "team"
    WORKFLOW = "workflow"


class Durability(StrEnum):
    """What an acknowledged write survives, from the least to the most."""

    MEMORY = "memory"  #: nothing: it lives as long as its process
    PROCESS = "process"  #: the end of the process by kill -9; a power cut may take the last writes, in order
    INTERVAL = "interval"  #: as PROCESS, and a power cut takes no more than the server's last flush interval
    DISK = "disk"  #: a power cut
    MAJORITY = "majority"  #: a power cut, and the loss of a minority of the servers


#: The counts of a `Usage` that have a field of their own.
TOKEN_COUNTS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "reasoning_tokens",
    "requests",
)


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a model call, a message or a run used; token counts are from 0 to 2**63 - 1. Adds with ``+``."""

    input_tokens: Count = 0  #: all of them, those read from and written to a cache included
    output_tokens: Count = 0  #: all of them, those spent on reasoning included
    cache_read_input_tokens: Count = 0
    cache_creation_input_tokens: Count = 0
    reasoning_tokens: Count = 0
    requests: Count = 0  #: calls of a model
    cost: Decimal | None = None
    currency: str | None = None  #: of the cost, as ISO 4217 writes it
    details: dict[str, Count] = {}  #: counts that have no field here, by the provider's name

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        """The sum, field by field. Costs in two currencies have no sum: ValueError."""
        if not isinstance(other, Usage):
            return NotImplemented
        if self.cost is not None and other.cost is not None and self.currency != other.currency:
            raise ValueError(
                f"usage in {self.currency!r} and in {other.currency!r} has no common sum: add up each currency apart"
            )
        details = dict(self.details)
        for name, count in other.details.items():
            details[name] = details.get(name, 0) + count
        priced = self if self.cost is not None else other
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_input_tokens=self.cache_read_input_tokens + other.cache_read_input_tokens,
            cache_creation_input_tokens=self.cache_creation_input_tokens + other.cache_creation_input_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            requests=self.requests + other.requests,
            cost=_EXACT.add(self.cost, other.cost) if self.cost is not None and other.cost is not None else priced.cost,
            currency=priced.currency if priced.cost is not None else self.currency or other.currency,
            details=details,
        )

    def __radd__(self, other: int) -> Usage:
        """So that ``sum(usages)`` works."""
        return self if other == 0 else NotImplemented


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A tool that the model asked for. `arguments` stay as the model sent them: text is kept to the byte."""

    tool_call_id: str
    name: str
    arguments: Any = None


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One message of a run.

    `message_id` may be left out: the append derives one from the run's id and the message's index in the run.
    `format` names the dialect of a structured `content` ("openai.chat", "openai.responses", "anthropic", "google.genai"
    …); None stands for text and for the parts of OpenTelemetry's GenAI conventions.
    """

    message_id: str | None = None
    role: str  #: "system", "developer", "user", "assistant", "tool" or any other
    kind: str = "message"  #: also "reasoning", "summary", "event" …
    content: Any = None  #: text, a list of content parts, any JSON, or None
    format: str | None = None
    name: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str | None = None  #: of a tool's result: the call that it answers
    error: str | None = None  #: of a tool's result
    duration: float | None = None  #: of a tool's result, in seconds
    model: str | None = None
    finish_reason: str | None = None
    created_at: Time | None = None
    usage: Usage | None = None
    metadata: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    position: int | None = None  #: set by the store: 1, 2, 3 … in its session
    run_id: str | None = None  #: set by the store
    run_seq: int | None = None  #: set by the store

    def __post_init__(self) -> None:
        if type(self.tool_calls) is not tuple:
            force_setattr(self, "tool_calls", tuple(self.tool_calls))


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One run of an agent in a session: what went in, every message, what came out, what it used.

    `run_id` may be left out: the append makes a UUIDv7. `usage` is the run's own, without its children's; when it is
    left out, it is the sum of its messages'.
    """

    run_id: str | None = None
    session_id: str
    user_id: str | None = None
    agent_id: str | None = None
    agent_name: str | None = None
    kind: str = "agent"  #: also "team", "workflow", "step" …
    parent_run_id: str | None = None  #: of a team member's or a workflow step's run
    model: str | None = None
    provider: str | None = None
    status: RunStatus = RunStatus.COMPLETED
    input: Any = None
    output: Any = None
    error: Any = None
    messages: Sequence[Message] = ()
    usage: Usage | None = None
    metadata: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    created_at: Time | None = None
    updated_at: Time | None = None
    finished_at: Time | None = None
    seq: int | None = None  #: set by the store: 1, 2, 3 … in its session
    revision: int | None = None  #: set by the store: 1, and one more for each `append(…, revise=True)`
    message_count: int | None = None  #: set by the store; `messages` are there only when they were asked for

    def __post_init__(self) -> None:
        if type(self.messages) is not tuple:
            force_setattr(self, "messages", tuple(self.messages))
        if type(self.status) is str:
            force_setattr(self, "status", _member(RunStatus, self.status))


class Session(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A conversation: who it belongs to, its state, and how far its log has come."""

    session_id: str
    namespace: str = ""
    kind: SessionKind = SessionKind.AGENT
    user_id: str | None = None
    agent_id: str | None = None  #: of the agent, team or workflow that owns it, as `kind` says
    current_agent: str | None = None  #: the agent that has the word now
    name: str | None = None
    state: dict[str, Any] = {}
    summary: Any = None
    metadata: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    parent_session_id: str | None = None
    forked_from: str | None = None  #: the session whose first messages this one shares
    forked_at: int | None = None  #: the last position that it shares
    created_at: Time | None = None
    updated_at: Time | None = None
    last_activity_at: Time | None = None  #: when a run was last appended or updated; never goes back
    deleted_at: Time | None = None
    version: int = 0  #: kept by the store, of the session's log: every commit adds one
    state_version: int = 0  #: kept by the store: every change of the session itself adds one
    run_count: int = 0  #: kept by the store
    message_count: int = 0  #: kept by the store

    def __post_init__(self) -> None:
        if type(self.kind) is str:
            force_setattr(self, "kind", _member(SessionKind, self.kind))


class AgentSwitch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The word passes from one agent to another."""

    switch_id: str | None = None  #: made by the append when it is left out
    from_agent: str | None = None  #: the session's current agent when it is left out
    to_agent: str
    reason: str | None = None
    switched_at: Time | None = None


class SessionStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over all that a session's log holds: revised and retracted messages have been paid for too."""

    session_id: str
    runs: int = 0
    runs_by_status: dict[str, int] = {}
    messages: int = 0
    messages_by_role: dict[str, int] = {}
    tool_calls: int = 0
    usage: Usage = Usage()  #: without `cost` when the session's costs are in several currencies
    costs: dict[str, Decimal] = {}  #: by currency; "" stands for none given
    first_activity_at: Time | None = None
    last_activity_at: Time | None = None


class AppendReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What an append or an update of a run has stored. The positions are None where it stored no message."""

    run_id: str
    run_seq: int
    revision: int
    first_position: int | None
    last_position: int | None
    version: int  #: of the session's log, right after this commit
    replayed: bool = False  #: it had been stored before; this is the first receipt


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a store that works."""

    driver: str
    latency: float  #: seconds that one round trip to the storage took
    durability: Durability
    schema_version: int


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Some items of a cursor, and the place behind them; None: there is no more.

    Of `history` and `switches`, which begin nowhere but at their beginning, it only tells whether there is more.
    """

    items: Sequence[T]
    next_token: str | None = None


def _member(kind: type[StrEnum], value: str) -> Any:
    """The member of that value; the text itself where there is none, so that the append can refuse it by name."""
    return kind._value2member_map_.get(value, value)
