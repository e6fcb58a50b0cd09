"""Counters of a session: what a run adds to them, and the statistics that they make.

A driver adds them up by name; each is an integer, so that sums are exact: "role/user", "status/completed",
"tool_calls", "usage/input_tokens", "details/…" and, for a cost of 0.12 in USD, "cost/-2/USD": 12. "lasting" are the
runs that were stored open, or have a parent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

from sessionledger.codec import from_micros
from sessionledger.protocol.rows import SessionRow
from sessionledger.records import TOKEN_COUNTS, Message, Run, SessionStats, Usage

__all__ = ["all_are_plain", "count_put", "count_run", "count_usage", "stats_from_row"]


def count_run(messages: Iterable[Message], usage: Usage | None) -> dict[str, int]:
    """What messages and a usage add to a session's counters."""
    counters: dict[str, int] = {} if usage is None else count_usage(usage)
    calls = 0
    for message in messages:
        name = f"role/{message.role}"
        counters[name] = counters.get(name, 0) + 1
        calls += len(message.tool_calls)
    if calls:
        counters["tool_calls"] = calls
    return counters


def count_put(run: Run) -> dict[str, int]:
    """What a run adds by how it is stored."""
    counters = {f"status/{run.status.value}": 1}
    if not run.status.terminal or run.parent_run_id is not None:
        counters[_LASTING] = 1
    return counters


def all_are_plain(counters: Mapping[str, int], runs: int, statuses: Collection[str]) -> bool:
    """Whether all runs of a session that never revised one were stored as a whole, with one of these statuses, and have
    no parent.
    """
    ended = sum(counters.get(f"status/{status}", 0) for status in statuses)
    return ended == runs and not counters.get(_LASTING, 0)


_LASTING: Final = "lasting"
_USAGE_COUNTS: Final = tuple((name, f"usage/{name}") for name in TOKEN_COUNTS)


def count_usage(usage: Usage) -> dict[str, int]:
    counters = {counter: count for name, counter in _USAGE_COUNTS if (count := getattr(usage, name))}
    for name, count in usage.details.items():
        counters[f"details/{name}"] = count
    if usage.cost:
        # exact: the coefficients of each exponent are added up apart
        sign, digits, exponent = usage.cost.as_tuple()
        coefficient = int("".join(map(str, digits)))
        counters[f"cost/{exponent}/{usage.currency or ''}"] = -coefficient if sign else coefficient
    return counters


def stats_from_row(row: SessionRow) -> SessionStats:
    groups: dict[str, dict[str, int]] = {"role": {}, "status": {}, "usage": {}, "details": {}, "cost": {}}
    for name, count in row.counters.items():
        group, slash, rest = name.partition("/")
        if slash and group in groups:
            groups[group][rest] = count
    costs = _costs(groups["cost"])
    currency, cost = next(iter(costs.items())) if len(costs) == 1 else (None, None)
    usage = Usage(**groups["usage"], details=groups["details"], cost=cost, currency=currency or None)
    head = row.head
    return SessionStats(
        session_id=head.key.session_id,
        runs=head.run_count,
        runs_by_status=groups["status"],
        messages=head.message_count,
        messages_by_role=groups["role"],
        tool_calls=row.counters.get("tool_calls", 0),
        usage=usage,
        costs=costs,
        first_activity_at=from_micros(head.created_at),
        last_activity_at=from_micros(head.last_activity_at),
    )


def _costs(counters: Mapping[str, int]) -> dict[str, Decimal]:
    """By currency; exact, so the coefficients are added up at the smallest exponent."""
    by_currency: dict[str, list[tuple[int, int]]] = {}
    for name, coefficient in counters.items():
        exponent, _, currency = name.partition("/")
        by_currency.setdefault(currency, []).append((int(exponent), coefficient))
    return {currency: _sum_costs(parts) for currency, parts in by_currency.items()}


def _sum_costs(parts: Sequence[tuple[int, int]]) -> Decimal:
    least = min(exponent for exponent, _ in parts)
    total = sum(coefficient * 10 ** (exponent - least) for exponent, coefficient in parts)
    return Decimal((int(total < 0), tuple(map(int, str(abs(total)))), least))
