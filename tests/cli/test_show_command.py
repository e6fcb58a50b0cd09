"""`sessionledger show`: a transcript that a person likes to read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console

from sessionledger import Message, Run, RunStatus, SessionStore, ToolCall
from sessionledger.cli.transcript import Transcript, call_text, content_text, error_text

Invoke = Callable[..., Result]
OnStore = Callable[..., Any]

NOON = datetime(2025, 11, 21, 12, 0, tzinfo=UTC)
RULES = "You are an airline's agent. " * 40
CALLS = [
    ToolCall(tool_call_id="t1", name="search", arguments='{"city": "Rome", "days": [1, 2]}'),
    ToolCall(tool_call_id="t2", name="weather", arguments="Rome?"),
    ToolCall(tool_call_id="t3", name="lost"),
]
MESSAGES = [
    Message(role="system", content=RULES),
    Message(role="user", content="Flights to Rome?\nAnd the weather?", created_at=NOON),
    Message(role="assistant", tool_calls=CALLS, created_at=NOON),
    Message(role="tool", tool_call_id="t2", content="sunny", created_at=NOON),
    Message(role="tool", tool_call_id="t1", content='["AZ 1"]' * 60, duration=0.25, created_at=NOON),
    Message(role="assistant", content="One flight; [bold]sun[/bold]. \x1b[2J", created_at=NOON),
]


async def fill(store: SessionStore) -> None:
    await store.append(Run(session_id="s1", agent_name="support", messages=MESSAGES))
    again = [Message(role="user", content="Thanks")]
    failed = Run(session_id="s1", status=RunStatus.FAILED, error="model is gone", messages=again)
    await store.append(failed)


@pytest.fixture(autouse=True)
def filled(on_store: OnStore) -> None:
    on_store(fill)


def lines(invoke: Invoke, *options: str | int) -> list[str]:
    result = invoke("show", "s1", *options)
    assert result.exit_code == 0, result.stderr
    return [line.rstrip() for line in result.stdout.splitlines()]


def line_with(shown: list[str], text: str) -> str:
    [found] = [line for line in shown if text in line]
    return found


def test_header_tells_what_the_session_is(invoke: Invoke) -> None:
    shown = lines(invoke)
    assert shown[0] == "s1"
    assert shown[1].startswith("2 runs · 7 messages")


def test_each_message_stands_beside_its_role(invoke: Invoke) -> None:
    shown = lines(invoke)
    assert "user" in line_with(shown, "Flights to Rome?")
    assert line_with(shown, "And the weather?").startswith(" " * 9)
    assert line_with(shown, "One flight").split()[0] == "assistant"


def test_instructions_are_folded(invoke: Invoke) -> None:
    line = line_with(lines(invoke), "You are an airline's agent")
    assert "… 1,119 characters" in line


def test_a_tool_call_and_its_result_are_one_line(invoke: Invoke) -> None:
    shown = lines(invoke)
    assert '["AZ 1"]' in line_with(shown, 'search(city="Rome", days=[1, 2]) → ')
    assert "0.25 s" in line_with(shown, "search(")
    assert line_with(shown, "weather(Rome?) → sunny")
    assert line_with(shown, "lost() → no result")
    assert max(len(line) for line in shown) <= 110


def test_failed_run_tells_its_error(invoke: Invoke) -> None:
    shown = lines(invoke)
    assert line_with(shown, "run 2").split()[2] == "failed"
    assert line_with(shown, "model is gone").split()[0] == "error"


def test_full_unfolds_everything(invoke: Invoke) -> None:
    text = "".join(line[11:] for line in lines(invoke, "--full"))
    assert text.count("agent.") == 40
    assert '"city": "Rome"' in text
    assert text.count('["AZ 1"]') > 40


def test_last_runs_only(invoke: Invoke) -> None:
    shown = "\n".join(lines(invoke, "--last-runs", 1))
    assert "Thanks" in shown
    assert "Rome" not in shown


def test_content_reaches_the_terminal_as_text(invoke: Invoke) -> None:
    shown = "\n".join(lines(invoke))
    assert "[bold]sun[/bold]. \\x1b[2J" in shown
    assert "\x1b" not in shown


def test_colours_are_for_terminals() -> None:
    assert "\x1b[" in drawn(force_terminal=True)
    assert "\x1b[" not in drawn()


def drawn(**options: Any) -> str:
    file = io.StringIO()
    Transcript(Console(file=file, width=100, **options)).add(Run(session_id="s", seq=1, messages=MESSAGES))
    return file.getvalue()


def test_time_is_shown_where_it_changes() -> None:
    assert drawn().count(NOON.astimezone().strftime("%H:%M:%S")) == 1


def test_show_as_json(invoke: Invoke) -> None:
    session, *runs = (json.loads(line) for line in invoke("show", "s1", "--json").stdout.splitlines())
    assert session["session"]["session_id"] == "s1"
    assert [len(run["run"]["messages"]) for run in runs] == [6, 1]
    assert runs[0]["run"]["messages"][0]["kind"] == "message"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("hi", "hi"),
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}], "a\n[image_url]"),
        ([{"type": "text", "content": "a"}, "b"], "a\nb"),
        ({"x": [1, None]}, '{"x": [1, null]}'),
    ],
)
def test_structured_content_as_text(content: Any, text: str) -> None:
    assert content_text(content) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("gone", "gone"),
        ({"type": "APIError", "message": "gone"}, "APIError: gone"),
        ({"code": 1}, '{"code": 1}'),
    ],
)
def test_errors_as_text(error: Any, text: str) -> None:
    assert error_text(error) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (None, "f()"),
        ('{"a": "x", "b": null}', 'f(a="x", b=null)'),
        ({"a": 1}, "f(a=1)"),
        ("{broken", "f({broken)"),
        ("[1, 2]", "f([1, 2])"),
    ],
)
def test_calls_as_text(arguments: Any, text: str) -> None:
    assert call_text(ToolCall(tool_call_id="t", name="f", arguments=arguments)) == text
