"""The commands that tell facts: `stats` of a session, `drivers` of this installation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click
from rich.table import Table
from rich.text import Text

from sessionledger import InstalledDriver, SessionStats, SessionStore, drivers
from sessionledger.cli.output import json_line, output_console, time_text
from sessionledger.cli.safety import one_line
from sessionledger.cli.target import Target, json_option, target_options

__all__ = ["drivers_command", "stats_command"]


@click.command("stats")
@click.argument("session_id", metavar="SESSION")
@json_option
@target_options()
@click.pass_obj
def stats_command(target: Target, session_id: str, as_json: bool) -> None:
    """Count a session's runs, messages, tool calls, tokens, costs."""

    async def work(store: SessionStore) -> None:
        stats = await store.stats(session_id)
        if as_json:
            json_line(stats)
        else:
            _print_stats(stats)

    target.run(work)


def _print_stats(stats: SessionStats) -> None:
    console = output_console()
    for name, value in _stats_lines(stats).items():
        if value:
            console.print(Text(f"{name:<16}", style="dim").append(one_line(value), style="not dim"), soft_wrap=True)


def _stats_lines(stats: SessionStats) -> dict[str, str]:
    usage = stats.usage
    costs = {currency: f"{cost}" for currency, cost in stats.costs.items()}
    return {
        "session": stats.session_id,
        "runs": _with_parts(stats.runs, stats.runs_by_status),
        "messages": _with_parts(stats.messages, stats.messages_by_role),
        "tool calls": f"{stats.tool_calls:,}",
        "tokens": _with_parts(usage.total_tokens, {"input": usage.input_tokens, "output": usage.output_tokens}),
        "requests": f"{usage.requests:,}" if usage.requests else "",
        "costs": ", ".join(f"{cost} {currency}".strip() for currency, cost in costs.items()),
        "first activity": time_text(stats.first_activity_at),
        "last activity": time_text(stats.last_activity_at),
    }


def _with_parts(total: int, parts: Mapping[str, int]) -> str:
    """`8 (user 5, assistant 3)`"""
    listed = ", ".join(f"{name} {count:,}" for name, count in parts.items() if count)
    return f"{total:,} ({listed})" if listed else f"{total:,}"


@click.command("drivers")
@json_option
@target_options()
def drivers_command(as_json: bool) -> None:
    """List the drivers that are installed, what they can do, and what is missing."""
    found = drivers()
    if as_json:
        for driver in found:
            json_line(driver)
    else:
        output_console().print(_driver_table(_by_name(found)))


def _by_name(found: Sequence[InstalledDriver]) -> dict[tuple[str, str], list[InstalledDriver]]:
    """A driver's schemes together, by its name and package; of one that cannot be loaded no more is known."""
    named: dict[tuple[str, str], list[InstalledDriver]] = {}
    for driver in found:
        name = driver.info.name if driver.info is not None else driver.scheme
        named.setdefault((name, driver.package), []).append(driver)
    return named


def _driver_table(named: Mapping[tuple[str, str], Sequence[InstalledDriver]]) -> Table:
    """A few lines for each: side by side they would need more columns than a terminal has."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("DRIVER", style="bold", no_wrap=True)
    table.add_column("", style="dim", no_wrap=True)
    table.add_column("", overflow="fold")
    for place, ((name, package), schemes) in enumerate(named.items()):
        if place:
            table.add_row()
        facts = {"schemes": ", ".join(driver.scheme for driver in schemes), "package": package, **_facts(schemes[0])}
        for line, (fact, value) in enumerate(facts.items()):
            style = "red" if fact == "missing" else ""
            table.add_row("" if line else Text(one_line(name)), fact, Text(one_line(value), style=style))
    return table


def _facts(driver: InstalledDriver) -> dict[str, str]:
    info = driver.info
    if info is None:
        return {"missing": driver.problem or ""}
    default, *others = [str(level) for level in info.durabilities]
    return {
        "durability": f"{default} ({', '.join(others)} by option)" if others else default,
        "largest run": "as large as memory" if info.max_run_bytes is None else f"{info.max_run_bytes:,} bytes",
        "event loops": ", ".join(info.backends),
        "abilities": ", ".join(sorted(info.abilities)) or "none",
        "options": ", ".join(("timeout", *info.options)),
    }
