"""`sessions`, `runs`, `messages`, `stats`, `drivers`: for people in columns, for programs in JSON lines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sessionledger import InstalledDriver, Message, Run, RunStatus, Session, SessionStore, ToolCall, Usage
from sessionledger.cli import facts as facts_module
from sessionledger.cli.app import app

Invoke = Callable[..., Result]
OnStore = Callable[..., Any]

CLEAR_SCREEN = "\x1b[2J[bold red]"


async def fill(store: SessionStore) -> None:
    """Two sessions of Ann's, one of Bob's, and one in another namespace."""
    await store.create_session(Session(session_id="s1", user_id="ann", agent_id="support", name="Trip to Rome"))
    call = ToolCall(tool_call_id="t1", name="search", arguments='{"city": "Rome", "limit": 3}')
    usage = Usage(input_tokens=1_200, output_tokens=34, cost=Decimal("0.05"), currency="USD")
    messages = [
        Message(role="user", content=f"flights {CLEAR_SCREEN}\nto Rome"),
        Message(role="assistant", tool_calls=[call], usage=usage),
        Message(role="tool", tool_call_id="t1", name="search", content='["AZ 1", "AZ 2"]'),
        Message(role="assistant", content="There are two."),
    ]
    await store.append(Run(session_id="s1", run_id="r1", user_id="ann", model="gpt-5", messages=messages))
    failed = [Message(role="user", content="book one")]
    await store.append(Run(session_id="s1", run_id="r2", status=RunStatus.FAILED, error="no seat", messages=failed))
    for session_id, user_id in (("s2", "ann"), ("s3", "bob")):
        run = Run(session_id=session_id, user_id=user_id, messages=[Message(role="user", content="hi")])
        await store.append(run)
    elsewhere = Run(session_id="elsewhere", messages=[Message(role="user", content="hi")])
    await store.scoped(namespace="other").append(elsewhere)


@pytest.fixture(autouse=True)
def filled(on_store: OnStore) -> None:
    on_store(fill)


def records(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def ids(result: Result) -> list[str]:
    return [record["session_id"] for record in records(result)]


def test_sessions_come_with_the_latest_activity_first(invoke: Invoke) -> None:
    lines = invoke("sessions").stdout.splitlines()
    assert lines[0].split() == ["SESSION", "NAME", "USER", "AGENT", "RUNS", "MESSAGES", "LAST", "ACTIVE"]
    assert [line.split()[0] for line in lines[1:]] == ["s3", "s2", "s1"]
    assert "Trip to Rome" in lines[3]


def test_sessions_can_be_filtered(invoke: Invoke) -> None:
    assert ids(invoke("sessions", "--json", "--user", "ann")) == ["s2", "s1"]
    assert ids(invoke("sessions", "--json", "--user", "ann", "--reverse")) == ["s1", "s2"]
    assert ids(invoke("sessions", "--json", "--agent", "support")) == ["s1"]
    assert ids(invoke("sessions", "--json", "--name", "Trip to Rome")) == ["s1"]
    assert ids(invoke("sessions", "--json", "--limit", 2)) == ["s3", "s2"]
    assert ids(invoke("sessions", "--json", "--limit", 0)) == []
    assert ids(invoke("sessions", "--json", "--since", "2001-01-01")) == ["s3", "s2", "s1"]
    assert ids(invoke("sessions", "--json", "--until", "2001-01-01 10:00:00")) == []
    assert ids(invoke("sessions", "--json", "--namespace", "other")) == ["elsewhere"]


def test_deleted_sessions_are_shown_on_demand(invoke: Invoke, on_store: OnStore) -> None:
    on_store(lambda store: store.delete_session("s2"))
    assert ids(invoke("sessions", "--json")) == ["s3", "s1"]
    assert ids(invoke("sessions", "--json", "--deleted")) == ["s3", "s2", "s1"]
    result = invoke("messages", "s2")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "'s2'" in result.stderr


def test_no_sessions_are_no_error(invoke: Invoke) -> None:
    result = invoke("sessions", "--user", "nobody")
    assert (result.exit_code, result.stdout) == (0, "")


def test_runs_in_columns(invoke: Invoke) -> None:
    lines = invoke("runs", "s1").stdout.splitlines()
    assert "TOKENS" in lines[0]
    assert lines[1].split()[:3] == ["1", "r1", "completed"]
    assert "1,234" in lines[1]
    assert "gpt-5" in lines[1]
    assert lines[2].split()[:3] == ["2", "r2", "failed"]
    assert "no seat" in lines[2]


def test_runs_can_be_filtered(invoke: Invoke) -> None:
    assert [run["run_id"] for run in records(invoke("runs", "s1", "--json"))] == ["r1", "r2"]
    assert [run["run_id"] for run in records(invoke("runs", "s1", "--json", "--last", 1))] == ["r2"]
    assert [run["run_id"] for run in records(invoke("runs", "s1", "--json", "--reverse"))] == ["r2", "r1"]
    assert [run["run_id"] for run in records(invoke("runs", "s1", "--json", "--status", "failed"))] == ["r2"]
    both = ("--status", "failed", "--status", "completed")
    assert len(records(invoke("runs", "s1", "--json", *both))) == 2


def test_messages_on_a_line_each(invoke: Invoke) -> None:
    lines = invoke("messages", "s1").stdout.splitlines()
    assert len(lines) == 6
    assert "flights \\x1b[2J[bold red] to Rome" in lines[1]
    assert 'search(city="Rome", limit=3)' in lines[2]
    assert "\x1b" not in "".join(lines)


def test_messages_can_be_chosen(invoke: Invoke) -> None:
    def positions(*options: str | int) -> list[int]:
        return [record["position"] for record in records(invoke("messages", "s1", "--json", *options))]

    assert positions() == [1, 2, 3, 4, 5]
    assert positions("--last", 2) == [4, 5]
    assert positions("--offset", 2, "--limit", 2) == [3, 4]
    assert positions("--limit", 2, "--reverse") == [5, 4]
    assert positions("--role", "user") == [1, 5]
    assert positions("--role", "user", "--role", "tool") == [1, 3, 5]
    assert positions("--run", "r2") == [5]


def test_json_gives_defaults_and_whole_content(invoke: Invoke) -> None:
    first, second = records(invoke("messages", "s1", "--json"))[:2]
    assert first["content"] == f"flights {CLEAR_SCREEN}\nto Rome"
    assert first["kind"] == "message"
    assert second["usage"]["cost"] == "0.05"
    assert records(invoke("runs", "s1", "--json"))[0]["status"] == "completed"


def test_json_has_no_raw_control_characters(invoke: Invoke, on_store: OnStore) -> None:
    text = "\x1b[2J \x07 \x7f \x9b31m"
    on_store(lambda store: store.append(Run(session_id="raw", messages=[Message(role="user", content=text)])))
    result = invoke("messages", "raw", "--json")
    assert not set(result.stdout) & set("\x1b\x07\x7f\x9b")
    assert records(result)[0]["content"] == text


def test_stats(invoke: Invoke) -> None:
    shown = invoke("stats", "s1").stdout
    assert "2 (completed 1, failed 1)" in shown
    assert "5 (" in shown
    assert "1,234 (input 1,200, output 34)" in shown
    assert "0.05 USD" in shown
    [stats] = records(invoke("stats", "s1", "--json"))
    assert (stats["tool_calls"], stats["messages_by_role"]["user"]) == (1, 2)


def test_drivers_are_listed(invoke: Invoke) -> None:
    assert "sqlite" in invoke("drivers").stdout
    listed = records(invoke("drivers", "--json"))
    assert {"memory", "sqlite"} <= {driver["scheme"] for driver in listed}
    assert all(driver["info"]["name"] for driver in listed if "problem" not in driver)


@pytest.mark.parametrize("columns", ["80", "120"])
def test_a_driver_is_listed_once_with_all_that_it_says(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    shown = invoke("drivers").stdout
    assert max(map(len, shown.splitlines())) <= int(columns)
    (sqlite,) = re.findall(r"^sqlite  .*?(?:^ *$|\Z)", shown, re.MULTILINE | re.DOTALL)
    facts = dict(re.findall(r"^(?:sqlite)? +(\w+(?: \w+)?)  +(\S.*?) *$", sqlite, re.MULTILINE))
    assert facts == {
        "schemes": "sqlite, sqlite+aiosqlite",
        "package": "sessionledger",
        "durability": "disk (process by option)",
        "largest run": "1,000,000,000 bytes",
        "event loops": "asyncio",
        "abilities": "none",
        "options": "timeout, durability",
    }


def test_a_driver_that_lacks_a_package_says_which(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = InstalledDriver(scheme="x", package="p", info=None, problem="the 'x' driver lacks a package: install it")
    monkeypatch.setattr(facts_module, "drivers", lambda: [lacking])
    assert re.search(r"x +schemes +x *\n +package +p *\n +missing +the 'x' driver lacks", invoke("drivers").stdout)


@pytest.mark.parametrize("command", ["show", "runs", "messages", "stats"])
def test_an_unknown_session_is_one_sentence(invoke: Invoke, command: str) -> None:
    result = invoke(command, "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "'nobody'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


# the store's URL


def test_store_is_named_before_or_behind_the_command(url: str) -> None:
    for arguments in (["--store", url, "sessions"], ["sessions", "--store", url]):
        result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, len(result.stdout.splitlines())) == (0, 4)


def test_store_behind_the_command_outdoes_the_others(invoke: Invoke, url: str) -> None:
    result = invoke("--store", "nothing://", "sessions", "--store", url, "--json")
    assert ids(result) == ["s3", "s2", "s1"]


def test_without_a_store_the_ways_to_name_one_are_told() -> None:
    result = CliRunner().invoke(app, ["sessions"])
    assert result.exit_code == 2
    assert "--store URL" in result.stderr
    assert "SESSIONLEDGER_URL" in result.stderr


SECRET = "s3cr3t"
SECRET_URLS = [
    f"nothing://ann:{SECRET}@db.example/x",
    f"nothing://db.example/x?password={SECRET}",
    f"sqlite:///{{folder}}/x.db?password={SECRET}",
    f"ann:{SECRET}@db.example/x",
]


@pytest.mark.parametrize("secret_url", SECRET_URLS)
@pytest.mark.parametrize(
    "arguments",
    [
        ["sessions", "--store", "URL"],
        ["--store", "URL", "show", "x"],
        ["import", "FILE", "--to", "URL"],
        ["demo", "--store", "URL"],
        ["drivers", "--store", "URL"],
        ["stats", "x", "--store", "URL"],
    ],
    ids=" ".join,
)
def test_secrets_of_a_url_are_never_printed(
    tmp_path: Path, sample: Path, arguments: list[str], secret_url: str
) -> None:
    replaced = {"URL": secret_url.format(folder=tmp_path), "FILE": str(sample)}
    result = CliRunner().invoke(app, [replaced.get(argument, argument) for argument in arguments])
    assert SECRET not in result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit | None)


@pytest.mark.parametrize("arguments", [["stats"], ["sessions"], ["import", "FILE"], []], ids=" ".join)
def test_secrets_in_the_wrong_place_are_not_printed_either(invoke: Invoke, sample: Path, arguments: list[str]) -> None:
    arguments = [str(sample) if argument == "FILE" else argument for argument in arguments]
    result = invoke(*arguments, f"postgres://ann:{SECRET}@db.example/x")
    assert result.exit_code in (1, 2)
    assert SECRET not in result.output


# pipes


def test_a_reader_that_leaves_early_is_no_error(url: str, sample: Path) -> None:
    """`| head -1`: quiet, and the store is closed."""
    program = f"sessionledger messages s1 --store {url}"
    for options in ("", "--json"):
        many = [sys.executable, "-c", LONG_OUTPUT, *program.split()[1:], *options.split()]
        with subprocess.Popen(many, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
            process.wait(20)


LONG_OUTPUT = """
import anyio, sys
from sessionledger import Message, Run, open_store
async def fill():
    async with open_store(sys.argv[-2] if sys.argv[-1] == "--json" else sys.argv[-1]) as store:
        messages = [Message(role="user", content="x" * 100) for _ in range(5_000)]
        await store.append(Run(session_id="s1", messages=messages))
anyio.run(fill)
from sessionledger.cli import main
main()
"""
