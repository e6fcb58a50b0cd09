"""Workload W: seeded, English-like agent runs, neutral to every contender.

One run is a user message (200 characters), an assistant message with one tool call, a tool result (1 KB of JSON),
and a final assistant message (600 characters), with ids, model, status and token metrics.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MESSAGES_PER_RUN = 4
MODEL = "gpt-5.2-mini"
AGENT_ID = "support-agent"

_WORDS = """the of and a to in is you that it he was for on are as with his they at be this have from or one had by
word but not what all were we when your can said there use an each which she do how their if will up other about out
many then them these so some her would make like him into time has look two more write go see number no way could
people my than first water been call who oil its now find long down day did get come made may part order customer
account invoice payment shipment address package delivery refund support request product price total balance status
update schedule meeting report document search result database server network error message response question answer
information available confirm change cancel review contact email phone number service team manager office project
deadline budget forecast quarterly revenue growth market analysis research technical detail version release feature
issue solution option recommend consider include require provide because however therefore although between during
without within across against toward several different important possible already probably usually sometimes
Zürich café naïve résumé""".split()
_WEIGHTS = [1.0 / (rank + 5) for rank in range(len(_WORDS))]


@dataclass(slots=True)
class Message:
    id: str
    role: str
    content: str
    created_at: int
    tool_call_id: str | None = None
    tool_name: str | None = None
    tool_args: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0

    def as_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "id": self.id,
            "role": self.role,
            "content": self.content,
            "created_at": self.created_at,
        }
        if self.role == "assistant":
            data["metrics"] = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
            if self.tool_call_id:
                function = {"name": self.tool_name, "arguments": self.tool_args}
                data["tool_calls"] = [{"id": self.tool_call_id, "type": "function", "function": function}]
        elif self.role == "tool":
            data["tool_call_id"] = self.tool_call_id
            data["tool_name"] = self.tool_name
        return data


@dataclass(slots=True)
class Run:
    run_id: str
    session_id: str
    user_id: str
    created_at: int
    duration: float
    messages: list[Message] = field(default_factory=list)

    @property
    def input_tokens(self) -> int:
        return sum(message.input_tokens for message in self.messages)

    @property
    def output_tokens(self) -> int:
        return sum(message.output_tokens for message in self.messages)

    def metadata(self) -> dict[str, Any]:
        """Everything about the run but its messages."""
        return {
            "run_id": self.run_id,
            "agent_id": AGENT_ID,
            "user_id": self.user_id,
            "model": MODEL,
            "model_provider": "OpenAI",
            "status": "COMPLETED",
            "created_at": self.created_at,
            "metrics": {
                "input_tokens": self.input_tokens,
                "output_tokens": self.output_tokens,
                "total_tokens": self.input_tokens + self.output_tokens,
                "duration": self.duration,
            },
        }


class Generator:
    """Deterministic source of runs and ids."""

    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self._clock = 1_760_000_000

    def text(self, length: int) -> str:
        words = self.random.choices(_WORDS, _WEIGHTS, k=length // 3)
        return " ".join(words)[: length - 1].ljust(length - 1, ".") + "."

    def id(self, prefix: str = "") -> str:
        return prefix + f"{self.random.getrandbits(128):032x}"

    def run(self, session_id: str, user_id: str) -> Run:
        rng = self.random
        self._clock += rng.randint(5, 90)
        call_id = self.id("call_")[:29]
        arguments = json.dumps({"query": self.text(40), "limit": rng.randint(1, 50), "customer_id": self.id()[:12]})
        rows = [{"id": self.id()[:8], "score": round(rng.random(), 4), "snippet": self.text(150)} for _ in range(5)]
        result = json.dumps({"results": rows})[:1023].ljust(1024, "}")
        clock = self._clock
        tokens = [rng.randint(200, 4000), rng.randint(10, 60), rng.randint(400, 6000), rng.randint(80, 240)]
        return Run(
            run_id=self.id(),
            session_id=session_id,
            user_id=user_id,
            created_at=clock,
            duration=round(rng.random() * 9, 6),
            messages=[
                Message(self.id(), "user", self.text(200), clock),
                Message(self.id(), "assistant", "", clock + 1, call_id, "search_orders", arguments, *tokens[:2]),
                Message(self.id(), "tool", result, clock + 2, call_id, "search_orders"),
                Message(self.id(), "assistant", self.text(600), clock + 4, None, None, None, *tokens[2:]),
            ],
        )

    def runs(self, session_id: str, user_id: str, count: int) -> Iterator[Run]:
        return (self.run(session_id, user_id) for _ in range(count))
