"""`sessionledger import`: everything once, bad lines named, conversations that grow."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from sessionledger import Message, Run, Session, SessionStore
from sessionledger.cli import importing, storing
from sessionledger.cli.chat import chat_from_message
from sessionledger.cli.conversations import BadLineError, parse_line, run_id_of

Invoke = Callable[..., Result]
OnStore = Callable[..., Any]
Write = Callable[..., Path]


def conversation(*turns: str, name: str | None = "c1", **more: Any) -> dict[str, Any]:
    """Turns as `user: hello`."""
    messages = [dict(zip(("role", "content"), turn.split(": ", 1), strict=True)) for turn in turns]
    return {**({"conversation_id": name} if name else {}), "messages": messages, **more}


def contents(on_store: OnStore) -> list[str]:
    async def read(store: SessionStore) -> list[str]:
        return [message.content async for message in store.history("c1")]

    found: list[str] = on_store(read)
    return found


def stored_sessions(on_store: OnStore) -> list[Session]:
    async def read(store: SessionStore) -> list[Session]:
        return await store.sessions().collect()

    found: list[Session] = on_store(read)
    return found


def test_sample_is_imported_once(invoke: Invoke, url: str, sample: Path) -> None:
    first = invoke("import", sample, "--to", url)
    assert (first.exit_code, first.stdout) == (0, "3 sessions, 17 runs, 44 messages, 5 tool calls stored\n")
    second = invoke("import", sample, "--to", url)
    told = "nothing new: 3 sessions, 17 runs, 44 messages, 5 tool calls were there already\n"
    assert (second.exit_code, second.stdout) == (0, told)


def test_content_comes_back_equal(invoke: Invoke, on_store: OnStore, sample: Path) -> None:
    invoke("import", sample)
    for line in sample.read_bytes().splitlines():
        assert on_store(lambda store, line=line: read_line(store, line)) == json.loads(line)


async def read_line(store: SessionStore, line: bytes) -> dict[str, Any]:
    """The line again, made of what is stored."""
    session = await store.get_session(json.loads(line)["conversation_id"])
    assert session is not None
    messages = [chat_from_message(message) async for message in store.messages(session.session_id)]
    return {"conversation_id": session.session_id, "messages": messages, "metadata": session.metadata}


def test_a_run_begins_at_each_user_message(invoke: Invoke, on_store: OnStore, write_lines: Write) -> None:
    turns = ["system: be kind", "assistant: welcome", "user: one", "assistant: 1", "user: two"]
    invoke("import", write_lines(conversation(*turns)))

    async def read(store: SessionStore) -> list[list[str]]:
        return [[m.content for m in run.messages] async for run in store.runs("c1", include_messages=True)]

    assert on_store(read) == [["be kind", "welcome", "one", "1"], ["two"]]


def test_a_conversation_without_a_user_is_one_run() -> None:
    line = json.dumps(conversation("system: be kind", "assistant: welcome")).encode()
    assert [len(run.messages) for run in parse_line(line).runs] == [2]


def test_without_an_id_the_content_is_the_identity(invoke: Invoke, on_store: OnStore, write_lines: Write) -> None:
    lines = [conversation("user: one", name=None), conversation("user: two", name=None)]
    invoke("import", write_lines(*lines, json.dumps(lines[0], indent=None, separators=(",", ":"))))
    assert len(stored_sessions(on_store)) == 2
    assert "nothing new: 2 sessions" in invoke("import", write_lines(*lines)).stdout


def test_run_ids_stay_short_enough() -> None:
    assert run_id_of("c1", 3) == "c1:3"
    long = run_id_of("é" * 128, 3)
    assert len(long.encode()) <= 256
    assert long != run_id_of("è" * 128, 3)


def test_metadata_and_other_keys_are_kept(invoke: Invoke, on_store: OnStore, write_lines: Write) -> None:
    invoke("import", write_lines(conversation("user: one", metadata={"tag": [1, None]}, source="web")))
    [session] = stored_sessions(on_store)
    assert (session.metadata, session.extra) == ({"tag": [1, None]}, {"source": "web"})


def test_metadata_is_laid_over_what_is_there(invoke: Invoke, on_store: OnStore, write_lines: Write) -> None:
    invoke("import", write_lines(conversation("user: one", metadata={"a": 1})))

    async def tag(store: SessionStore) -> None:
        await store.update_session("c1", change={"metadata": {"a": 1, "mine": True}})

    on_store(tag)
    result = invoke("import", write_lines(conversation("user: one", metadata={"a": 2})))
    assert "metadata of 1 session brought up to date" in result.stdout
    assert stored_sessions(on_store)[0].metadata == {"a": 2, "mine": True}


def test_a_second_import_writes_nothing(invoke: Invoke, on_store: OnStore, sample: Path) -> None:
    invoke("import", sample)
    before = stored_sessions(on_store)
    invoke("import", sample)
    assert stored_sessions(on_store) == before


# conversations that grow


def test_new_runs_are_appended(invoke: Invoke, on_store: OnStore, write_lines: Write) -> None:
    turns = ["user: one", "assistant: 1", "user: two", "assistant: 2"]
    invoke("import", write_lines(conversation(*turns[:2])))
    result = invoke("import", write_lines(conversation(*turns)))
    assert result.stdout == ("1 run, 2 messages stored; 1 session, 1 run, 2 messages were there already\n")
    assert contents(on_store) == ["one", "1", "two", "2"]


def test_a_last_run_that_has_grown_is_stored_as_it_is_now(
    invoke: Invoke, on_store: OnStore, write_lines: Write
) -> None:
    turns = ["user: one", "assistant: 1", "user: two", "assistant: 2", "user: three", "assistant: 3"]
    for known in (3, 6):
        result = invoke("import", write_lines(conversation(*turns[:known])))
        assert result.exit_code == 0, result.stderr
    assert result.stdout == "1 run, 3 messages stored; 1 session, 2 runs, 3 messages were there already\n"
    assert contents(on_store) == ["one", "1", "two", "2", "three", "3"]
    again = invoke("import", write_lines(conversation(*turns)))
    assert again.stdout == "nothing new: 1 session, 3 runs, 6 messages were there already\n"


def test_a_conversation_may_grow_message_by_message(invoke: Invoke, on_store: OnStore, write_lines: Write) -> None:
    turns = ["system: be kind", "user: one", "assistant: 1", "user: two", "assistant: 2", "user: three"]
    growing = [conversation(*turns[:known]) for known in range(1, len(turns) + 1)]
    result = invoke("import", write_lines(*growing))
    assert result.exit_code == 0, result.stderr
    assert contents(on_store) == ["be kind", "one", "1", "two", "2", "three"]
    assert "nothing new" in invoke("import", write_lines(*growing)).stdout
    assert contents(on_store) == ["be kind", "one", "1", "two", "2", "three"]


def test_an_older_copy_brings_nothing_new(invoke: Invoke, on_store: OnStore, write_lines: Write) -> None:
    turns = ["user: one", "assistant: 1", "user: two", "assistant: 2"]
    invoke("import", write_lines(conversation(*turns)))
    for known in (1, 2, 3):
        result = invoke("import", write_lines(conversation(*turns[:known])))
        assert (result.exit_code, result.stdout[:12]) == (0, "nothing new:")
    assert contents(on_store) == ["one", "1", "two", "2"]


def test_runs_of_others_in_the_session_stay(invoke: Invoke, on_store: OnStore, write_lines: Write) -> None:
    invoke("import", write_lines(conversation("user: one")))

    async def talk(store: SessionStore) -> None:
        await store.append(Run(session_id="c1", messages=[Message(role="user", content="live")]))

    on_store(talk)
    invoke("import", write_lines(conversation("user: one", "assistant: 1", "user: two")))
    assert contents(on_store) == ["one", "1", "live", "two"]


CHANGED = [
    pytest.param(["user: ONE", "assistant: 1", "user: two", "assistant: 2"], 1, id="first run"),
    pytest.param(["user: one", "assistant: 1", "user: two", "assistant: TWO"], 2, id="last run"),
    pytest.param(["user: one", "assistant: TWO", "user: two", "assistant: 2", "user: three"], 1, id="and grown"),
    pytest.param(["user: one", "assistant: 1", "assistant: more", "user: two", "assistant: 2"], 1, id="in the middle"),
    pytest.param(["user: one", "user: two", "assistant: 2"], 1, id="shorter in the middle"),
    pytest.param(["user: one", "assistant: 1", "assistant: more"], 1, id="grown, and its successor gone"),
]


@pytest.mark.parametrize(("turns", "run"), CHANGED)
def test_a_conversation_that_has_changed_is_a_bad_line(
    invoke: Invoke, on_store: OnStore, write_lines: Write, turns: list[str], run: int
) -> None:
    stored = ["user: one", "assistant: 1", "user: two", "assistant: 2"]
    invoke("import", write_lines(conversation(*stored)))
    before = stored_sessions(on_store)
    result = invoke("import", write_lines(conversation(*turns, metadata={"x": 1})))
    assert result.exit_code == 1
    assert f"line 1 has changed: run {run} of 'c1'" in result.stderr
    assert stored_sessions(on_store) == before
    assert contents(on_store) == ["one", "1", "two", "2"]


# bad lines

DEEP = "[" * 150 + "]" * 150
BAD_LINES = [
    ("{", "is not JSON: "),
    (b'{"messages": "\xff"}', "is not UTF-8: byte 0xff"),
    ('{"messages": [{"role": "user", "content": NaN}]}', "is not JSON: NaN"),
    ("[" * 200_000, "is nested too deeply"),
    ("17", "is not a JSON object"),
    ({"conversation_id": 17, "messages": []}, "has a conversation_id that is not text"),
    ({"messages": []}, "has no messages"),
    ({"conversation_id": "x"}, "has no messages"),
    ({"messages": [{"role": "user"}], "metadata": []}, "has metadata that is not an object"),
    ({"messages": [{"role": "user"}, {"role": None}]}, "message 2 has no role"),
    ({"conversation_id": "x\x00", "messages": [{"role": "user"}]}, "session_id"),
    ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
    ('{"messages": [{"role": "user", "content": 1e999}]}', "content"),
    (f'{{"conversation_id": "m", "messages": [{{"role": "user"}}], "metadata": {{"x": {DEEP}}}}}', "metadata"),
    (f'{{"conversation_id": "c", "messages": [{{"role": "user", "content": {DEEP}}}]}}', "content"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_a_bad_line_is_named_and_the_rest_is_stored(
    invoke: Invoke, on_store: OnStore, write_lines: Write, line: Any, reason: str
) -> None:
    good = [conversation("user: one", name=name) for name in ("a", "b")]
    result = invoke("import", write_lines(good[0], "", line, good[1]))
    assert result.exit_code == 1
    assert result.stderr.startswith("line 3 ")
    assert reason in result.stderr
    assert result.stdout == "2 sessions, 2 runs, 2 messages stored; 1 bad line\n"
    assert {session.session_id for session in stored_sessions(on_store)} == {"a", "b"}


def test_strict_stops_at_the_first_bad_line(invoke: Invoke, on_store: OnStore, write_lines: Write) -> None:
    names = ("a", "b", "c", "d")
    lines = [conversation("user: one", name=name) for name in names]
    result = invoke("import", "--strict", write_lines(*lines[:2], "{", *lines[2:]))
    assert result.exit_code == 1
    assert "line 3 " in result.stderr
    assert {session.session_id for session in stored_sessions(on_store)} == {"a", "b"}


def test_strict_stops_at_a_conversation_that_has_changed(invoke: Invoke, on_store: OnStore, write_lines: Write) -> None:
    lines = [conversation("user: one"), conversation("user: ONE"), conversation("user: one", name="c2")]
    assert invoke("import", "--strict", write_lines(*lines)).exit_code == 1
    assert [session.session_id for session in stored_sessions(on_store)] == ["c1"]


def test_a_deleted_session_does_not_come_back(invoke: Invoke, on_store: OnStore, write_lines: Write) -> None:
    lines = write_lines(conversation("user: one", metadata={"x": 1}))
    invoke("import", lines)

    async def delete(store: SessionStore) -> None:
        await store.delete_session("c1", soft=False)

    on_store(delete)
    result = invoke("import", lines)
    assert (result.exit_code, result.stderr[:7]) == (1, "line 1 ")
    assert stored_sessions(on_store) == []


# long files, and what surrounds them


def test_a_long_conversation_takes_several_commits(
    invoke: Invoke, on_store: OnStore, write_lines: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "PIECE", 10)
    turns = [turn for number in range(25) for turn in (f"user: {number}", "assistant: ok")]
    for _ in range(2):
        assert invoke("import", write_lines(conversation(*turns))).exit_code == 0
    [session] = stored_sessions(on_store)
    assert (session.run_count, session.message_count, session.version) == (25, 50, 5)


def test_nothing_is_stored_of_a_long_conversation_that_is_bad_at_its_end(
    invoke: Invoke, on_store: OnStore, write_lines: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "PIECE", 10)
    turns = [turn for number in range(25) for turn in (f"user: {number}", "assistant: ok")]
    line = json.dumps(conversation(*turns, "user: bad")).replace('"bad"', '"\\udc00"')
    assert invoke("import", write_lines(line)).exit_code == 1
    assert stored_sessions(on_store) == []


def test_few_conversations_are_in_memory_at_once(
    on_store: OnStore, write_lines: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = write_lines(*(conversation("user: one", name=f"c{number}") for number in range(200)))
    held: list[int] = []

    def parse(line: bytes) -> Any:
        living.add(found := parse_line(line))
        held.append(len(living))
        return found

    living: weakref.WeakSet[Any] = weakref.WeakSet()
    monkeypatch.setattr(importing, "parse_line", parse)

    async def work(store: SessionStore) -> None:
        with lines.open("rb") as file:
            await importing.import_conversations(store, file)

    on_store(work)
    assert len(held) == 200
    assert 1 < max(held) <= importing.CONCURRENCY + 1


def test_standard_input_is_read(invoke: Invoke) -> None:
    line = json.dumps(conversation("user: one"))
    assert invoke("import", "-", input=line).stdout == "1 session, 1 run, 1 message stored\n"


def test_summary_as_json(invoke: Invoke, sample: Path) -> None:
    summary = json.loads(invoke("import", sample, "--json").stdout)
    assert summary["new"] == {"sessions": 3, "runs": 17, "messages": 44, "tool_calls": 5}
    assert (summary["there"]["sessions"], summary["bad_lines"]) == (0, 0)


def test_a_file_that_is_not_there_is_one_sentence(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("import", tmp_path / "none.jsonl")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_bad_line_errors_are_value_errors() -> None:
    with pytest.raises(BadLineError):
        parse_line(b"{}")
