"""A session as a person likes to read it: who said what, and when; a tool call is one line, with its answer."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from sessionledger import Message, Run, RunStatus, Session, ToolCall
from sessionledger.cli.output import clipped, counted, time_text
from sessionledger.cli.safety import one_line, safe

__all__ = ["ROLE_STYLES", "STATUS_STYLES", "Transcript", "call_text", "content_text", "error_text"]

ROLE_STYLES = {
    "system": "yellow",
    "developer": "yellow",
    "user": "bold green",
    "assistant": "bold cyan",
    "tool": "magenta",
}
STATUS_STYLES = {
    RunStatus.COMPLETED: "green",
    RunStatus.FAILED: "red",
    RunStatus.CANCELLED: "yellow",
    RunStatus.RUNNING: "cyan",
}

#: Lines longer than this tire the eye, however wide the terminal is.
_WIDEST = 110
_LABEL_WIDTH = 9
_TIME_WIDTH = 8
_GAP = 2
_NARROWEST = 20
#: Characters of a text that are shown without `--full`.
_LONG_TEXT = 2_000
_ARROW = " → "
_INSTRUCTIONS = ("system", "developer")


class Transcript:
    """Prints a session, run after run, on a console."""

    def __init__(self, console: Console, *, full: bool = False) -> None:
        self._console = console
        self._full = full
        self._width = min(console.width, _WIDEST)
        self._time = ""
        self._calls: dict[str, ToolCall] = {}

    def begin(self, session: Session) -> None:
        title = Text(one_line(session.session_id), style="bold")
        if session.name:
            title.append(f"  {one_line(session.name)}", style="not bold")
        self._print(title)
        for fact in _facts(session):
            self._print(Text(one_line(fact), style="dim"))

    def add(self, run: Run) -> None:
        self._console.print()
        self._console.print(Rule(_run_title(run), align="left", style="dim"), width=self._width)
        self._time = _clock(run.created_at)
        for message in run.messages:
            self._add_message(message)
        self._flush_calls()
        if run.error is not None:
            self._line("error", Text(safe(error_text(run.error)), style="red"), None)

    def _add_message(self, message: Message) -> None:
        if message.role == "tool":
            self._add_result(message)
            return
        self._flush_calls()
        text = safe(content_text(message.content)).strip("\n")
        if text or not message.tool_calls:
            self._line(message.role, self._body(message, text), message.created_at)
        for call in message.tool_calls:
            self._calls[call.tool_call_id] = call

    def _body(self, message: Message, text: str) -> Text:
        kind = "" if message.kind == "message" else f"({one_line(message.kind)}) "
        if self._full:
            return Text(kind + text)
        if message.role in _INSTRUCTIONS:
            return _folded(kind + one_line(text), self._room(message.created_at))
        body = Text(kind + text[:_LONG_TEXT], style="dim italic" if message.kind == "reasoning" else "")
        if len(text) > _LONG_TEXT:
            body.append(f"… {counted(len(text) - _LONG_TEXT, 'more character')}", style="dim")
        return body

    def _add_result(self, message: Message) -> None:
        call = self._calls.pop(message.tool_call_id or "", None)
        name = message.name or "tool"
        self._call(call or ToolCall(tool_call_id="", name=name, arguments=""), message)

    def _flush_calls(self) -> None:
        """Calls that nothing has answered."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            self._call(call, None)

    def _call(self, call: ToolCall, result: Message | None) -> None:
        moment = result.created_at if result else None
        answer, style = _answer(result)
        lasted = f"  {result.duration:.3g} s" if result is not None and result.duration is not None else ""
        if self._full:
            body = _unfolded(call, answer, style)
        else:
            body = _on_one_line(call, answer, style, self._room(moment) - len(lasted))
        self._line("tool", body.append(lasted, style="dim"), moment)

    def _room(self, moment: datetime | None) -> int:
        """Columns that a body has on one line, beside the role, and the time where it is shown."""
        clock = _TIME_WIDTH + _GAP if self._new_clock(moment) else 0
        return max(self._width - _LABEL_WIDTH - _GAP - clock, _NARROWEST)

    def _new_clock(self, moment: datetime | None) -> str:
        """The time of day, where it is another than the one above."""
        clock = _clock(moment)
        return "" if clock == self._time else clock

    def _line(self, role: str, body: Text, moment: datetime | None) -> None:
        """The role, the body beside it, and perhaps the time."""
        clock = self._new_clock(moment)
        row = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
        row.add_column(width=_LABEL_WIDTH, justify="right", no_wrap=True, overflow="ellipsis")
        row.add_column(width=self._room(moment), overflow="fold")
        label = Text(one_line(role), style=ROLE_STYLES.get(role, "red" if role == "error" else "bold"))
        row.add_row(label, body, *([Text(clock, style="dim")] if clock else []))
        self._console.print(row)
        self._time = clock or self._time

    def _print(self, text: Text) -> None:
        self._console.print(text, width=self._width, overflow="fold")


def _folded(text: str, room: int) -> Text:
    more = f" {len(text):,} characters" if cell_len(text) > room else ""
    return Text(clipped(text, room - len(more))).append(more, style="dim")


def _clock(moment: datetime | None) -> str:
    return time_text(moment)[-_TIME_WIDTH:]


def _answer(result: Message | None) -> tuple[str, str]:
    """What a tool has answered, and the style that tells whether it went well."""
    if result is None:
        return "no result", "red"
    answer = safe(content_text(result.content))
    return (answer, "dim") if result.error is None else (f"{safe(result.error)} {answer}".strip(), "red")


def _on_one_line(call: ToolCall, answer: str, style: str, room: int) -> Text:
    """The call gets what its answer leaves of the line, and two thirds of it at least."""
    room -= len(_ARROW)
    answer = one_line(answer)
    asked = clipped(one_line(call_text(call)), max(room - cell_len(answer), room * 2 // 3))
    name, bracket, rest = asked.partition("(")
    body = Text().append(name, style="magenta").append(bracket + rest).append(_ARROW, style="dim")
    return body.append(clipped(answer, room - cell_len(asked)), style=style)


def _unfolded(call: ToolCall, answer: str, style: str) -> Text:
    body = Text().append(one_line(call.name), style="magenta").append(f" {safe(_pretty(call.arguments))}\n")
    return body.append(answer, style=style)


def _facts(session: Session) -> list[str]:
    """What stands under a session's title."""
    owners = {"user": session.user_id, "agent": session.current_agent or session.agent_id, "in": session.namespace}
    facts = [counted(session.run_count, "run"), counted(session.message_count, "message")]
    facts += [f"{name} {value}" for name, value in owners.items() if value]
    if session.forked_from:
        facts.append(f"forked from {session.forked_from} at {session.forked_at}")
    begun, active = time_text(session.created_at), time_text(session.last_activity_at)
    lines = [" · ".join(facts), f"begun {begun} · last active {active}"]
    if session.metadata:
        lines.append(" · ".join(f"{key}={_compact(value)}" for key, value in session.metadata.items()))
    return lines


def _run_title(run: Run) -> Text:
    title = Text(f"run {run.seq}", style="bold")
    if run.status is not RunStatus.COMPLETED:
        title.append(f" {run.status}", style=f"not bold {STATUS_STYLES.get(run.status, '')}")
    facts = [time_text(run.created_at), run.agent_name or run.agent_id, run.model]
    if run.usage is not None and run.usage.total_tokens:
        facts.append(counted(run.usage.total_tokens, "token"))
    if (run.revision or 1) > 1:
        facts.append(f"revision {run.revision}")
    if run.parent_run_id:
        facts.append(f"part of run {run.parent_run_id}")
    rest = "".join(f" · {one_line(fact)}" for fact in facts if fact)
    return title.append(rest, style="not bold dim")


def content_text(content: Any) -> str:
    """Content as text: the text of its parts, other parts by their type, any other JSON as it is."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_part_text(part) for part in content)
    return _part_text(content)


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        for key in ("text", "content"):
            if isinstance(part.get(key), str):
                return str(part[key])
        if isinstance(part.get("type"), str):
            return f"[{part['type']}]"
    return _compact(part)


def error_text(error: Any) -> str:
    """A run's error: `APIError: the model is gone` where it has a type and a message."""
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return f"{error.get('type') or 'error'}: {error['message']}"
    return error if isinstance(error, str) else _compact(error)


def call_text(call: ToolCall) -> str:
    """A call as a programmer would write it: `search(city="Rome", limit=3)`."""
    arguments = _parsed(call.arguments)
    if isinstance(arguments, dict):
        return f"{call.name}({', '.join(f'{key}={_compact(value)}' for key, value in arguments.items())})"
    return f"{call.name}({arguments if isinstance(arguments, str) else _compact(arguments)})"


def _parsed(arguments: Any) -> Any:
    """Arguments as the model meant them; the text itself where it is no JSON."""
    if arguments is None:
        return ""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _pretty(arguments: Any) -> str:
    parsed = _parsed(arguments)
    return parsed if isinstance(parsed, str) else json.dumps(parsed, ensure_ascii=False, indent=2)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
