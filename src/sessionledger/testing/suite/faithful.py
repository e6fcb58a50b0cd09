"""What goes in comes out equal; what could not is refused before anything is stored, with the path of the field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from sessionledger.errors import DecodeError, InvalidRecordError
from sessionledger.protocol.driver import Driver
from sessionledger.records import AgentSwitch, Message, Run, RunStatus, Session, SessionKind, ToolCall, Usage
from sessionledger.store import Store
from sessionledger.testing import rows
from sessionledger.testing.builders import answer, as_given, ask, exactly, run
from sessionledger.testing.suite.bench import Bench

__all__ = ["FaithfulTests"]


def nested(depth: int, kind: type = list) -> Any:
    value: Any = [] if kind is list else {}
    for _ in range(depth - 1):
        value = [value] if kind is list else {"k": value}
    return value


#: By name, so that a failing test says which.
VALUES: dict[str, Any] = {
    "nul": "a\0b",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 é e\u0301 \u202e \ufeff \U0010ffff",
    "controls": "".join(map(chr, range(0x20))) + "\x7f\x80\u2028\u2029",
    "quotes": "'\"`\\ \\u0000 %s {} $1 ; -- /* */ </script>",
    "blank": " \t\r\n ",
    "empty text": "",
    "empty list": [],
    "empty dict": {},
    "empties": [[], {}, "", None, [[]], {"": ""}, {"": {}}],
    "none": None,
    "booleans": [True, False, 0, 1, None],
    "integers": [0, -1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, 2**200, -(2**200)],
    "largest integer": [10**4300 - 1, -(10**4299) + 1],
    "floats": [0.0, -0.0, 1.0, 0.1, 1e-7, 1e16, 5e-324, 1.7976931348623157e308, -1.5, 1e100, 123456789.123456789],
    "one and one point zero": {"int": 1, "float": 1.0, "true": True, "text": "1"},
    "minus zero": -0.0,
    "nested lists": nested(100),
    "nested dicts": nested(100, dict),
    "odd keys": {"": 1, "\0": 2, "a.b": 3, "$set": 4, "a b": 5, "é": 6, "e\u0301": 7, "__proto__": 8, "0": 9, "\n": 10},
    "many keys": {f"key {number}": number for number in range(500)},
    "wide list": list(range(5000)),
    "number texts": ["1", "1.0", "1e5", "null", "true", "NaN", "Infinity", "-0"],
    "markup": {"$oid": "000000000000000000000000", "__class__": "x", "type": "Decimal", "\\u0000": "\\u0000"},
    "long text": "ä" * 100_000,
}

#: A value, and what the path of its refusal ends with.
REFUSED: dict[str, tuple[Any, str]] = {
    "nan": (float("nan"), ""),
    "infinity": (float("inf"), ""),
    "minus infinity": ([1, float("-inf")], "[1]"),
    "lone surrogate": ("a\ud800b", ""),
    "lone surrogate in a key": ({"a": {"\udfff": 1}}, "['a']"),
    "depth 101": (nested(101), ""),
    "depth 200": (nested(200, dict), ""),
    "depth 100000": (nested(100_000), ""),
    "bytes": (b"x", ""),
    "bytes in a list": ([[b"x"]], "[0][0]"),
    "set": ({"a": {1}}, "['a']"),
    "tuple": ({"a": [(1, 2)]}, "['a'][0]"),
    "integer key": ({"a": {1: "x"}}, "['a']"),
    "none as a key": ({None: "x"}, ""),
    "integer of 4,301 digits": (10**4300, ""),
    "negative integer of 4,300 digits": (-(10**4299), ""),
    "object": (object(), ""),
    "datetime": ({"at": datetime(2024, 1, 1, tzinfo=UTC)}, "['at']"),
    "decimal": ([Decimal("1.5")], "[0]"),
    "struct": (Usage(), ""),
}

NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001
#: In UTC, they are of the years 10000 and 0.
LATE = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-5)))
EARLY = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))
LONG = "x" * 257
BAD_IDS = ["", LONG, "é" * 129, "a\nb", "a\0b", "\x7f", "\x85", "a\ud800"]
GOOD_IDS = ["x" * 256, "é" * 128, "🙂" * 64, " ", "a b", "}x", "'; DROP TABLE runs; --", "a/../b", "%_\\", "\u202e"]


async def untouched(store: Store) -> None:
    """Nothing was stored: no session, no run."""
    assert await store.sessions(include_deleted=True).collect() == []
    assert await store.get_session("s") is None
    assert await store.get_run("r1") is None


class FaithfulTests(Bench):
    @pytest.mark.parametrize("name", VALUES)
    async def test_content_comes_back_equal(self, store: Store, name: str) -> None:
        message = Message(role="user", content=VALUES[name])
        await store.append(run("r1", message))
        (stored,) = await store.messages("s").collect()
        assert exactly(stored.content) == exactly(message.content)
        assert as_given(stored, message) == message

    @pytest.mark.parametrize("name", VALUES)
    async def test_json_fields_of_a_run_come_back_equal(self, store: Store, name: str) -> None:
        value = VALUES[name]
        if name.startswith("nested"):
            value = value[0] if isinstance(value, list) else value["k"]
        held = {"value": value}
        call = ToolCall(tool_call_id="c", name="n", arguments=value)
        message = Message(role="assistant", tool_calls=[call], metadata=held, extra=held)
        given = run("r1", message, input=value, output=value, error=value, metadata=held, extra=held)
        await store.append(given)
        stored = await store.get_run("r1")
        assert stored is not None
        for field in ("input", "output", "error", "metadata", "extra"):
            assert exactly(getattr(stored, field)) == exactly(getattr(given, field)), field
        assert exactly(as_given(stored.messages[0], message)) == exactly(message)

    @pytest.mark.parametrize("name", VALUES)
    async def test_json_fields_of_a_session_come_back_equal(self, store: Store, name: str) -> None:
        value = VALUES[name]
        if name.startswith("nested"):
            value = value[0] if isinstance(value, list) else value["k"]
        held = {"value": value}
        given = Session(session_id="s", state=held, summary=value, metadata=held, extra=held)
        await store.create_session(given)
        stored = await store.get_session("s")
        assert stored is not None
        for field in ("state", "summary", "metadata", "extra"):
            assert exactly(getattr(stored, field)) == exactly(getattr(given, field)), field

    async def test_a_text_of_ten_megabytes_comes_back_equal(self, store: Store) -> None:
        text = "0123456789abcdé🙂\0\n" * (10 * 1024 * 1024 // 22)
        assert len(text.encode()) > 10_000_000
        await store.append(run("r1", "before", text, "after"))
        stored = await store.messages("s").collect()
        assert [len(one.content) for one in stored] == [6, len(text), 5]
        assert stored[1].content == text

    async def test_every_field_of_a_message_comes_back(self, store: Store) -> None:
        message = Message(
            message_id="m-1",
            role="any role",
            kind="reasoning",
            content=[{"type": "text", "text": "x"}],
            format="openai.responses",
            name="name\0",
            tool_calls=[
                ToolCall(tool_call_id="", name=""),
                ToolCall(tool_call_id="c\n" * 200, name="ü", arguments="{ }"),
            ],
            tool_call_id="c",
            error="e" * 1000,
            duration=0.1,
            model="m" * 1000,
            finish_reason="stop",
            created_at=datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=-7))),
            usage=Usage(
                input_tokens=2**63 - 1,
                output_tokens=1,
                cache_read_input_tokens=2,
                cache_creation_input_tokens=3,
                reasoning_tokens=4,
                requests=5,
                cost=Decimal("0.00000000000000000000123456789012345678901234567890"),
                currency="EUR",
                details={"audio/\0": 2**63 - 1},
            ),
            metadata={"a": 1},
            extra={"b": 2},
        )
        await store.append(run("r1", message))
        (stored,) = await store.messages("s").collect()
        assert as_given(stored, message) == message
        assert stored.usage is not None and message.usage is not None
        assert str(stored.usage.cost) == str(message.usage.cost)
        assert (stored.position, stored.run_id, stored.run_seq) == (1, "r1", 1)
        assert await store.get_message("s", message_id="m-1") == stored

    async def test_every_field_of_a_run_comes_back(self, store: Store) -> None:
        moment = datetime(1969, 7, 20, 20, 17, 40, 1, tzinfo=UTC)
        given = Run(
            run_id="r1",
            session_id="s",
            user_id="u",
            agent_id="a",
            agent_name="Agent\0",
            kind="workflow",
            parent_run_id="p",
            model="m" * 1000,
            provider="p",
            status=RunStatus.FAILED,
            input={"q": 1},
            output="out",
            error={"type": "E"},
            messages=[ask("q"), answer("a")],
            usage=Usage(input_tokens=7, cost=Decimal("1.50"), currency="USD"),
            metadata={"m": 1},
            extra={"x": 2},
            created_at=moment,
            updated_at=moment + timedelta(microseconds=1),
            finished_at=moment + timedelta(days=20_000),
        )
        await store.append(given)
        stored = await store.get_run("r1", session_id="s")
        assert stored is not None
        assert (stored.seq, stored.revision, stored.message_count) == (1, 1, 2)
        bare = msgspec.structs.replace(stored, messages=(), seq=None, revision=None, message_count=None)
        assert bare == msgspec.structs.replace(given, messages=())
        assert as_given(stored.messages, given.messages) == list(given.messages)
        assert await store.runs("s").collect() == [msgspec.structs.replace(stored, messages=())]
        assert await store.runs("s", include_messages=True).collect() == [stored]

    async def test_every_field_of_a_session_comes_back(self, store: Store) -> None:
        moment = datetime(2001, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
        given = Session(
            session_id="s",
            kind=SessionKind.TEAM,
            user_id="u",
            agent_id="a",
            current_agent="b",
            name="name\0" * 100,
            state={"n": 1},
            summary=["s"],
            metadata={"m": 1},
            extra={"x": 2},
            parent_session_id="p",
            created_at=moment,
            updated_at=moment,
        )
        made = await store.create_session(given)
        stored = await store.get_session("s")
        assert stored == made
        assert stored is not None and stored.last_activity_at is not None
        assert (stored.version, stored.state_version, stored.run_count, stored.message_count) == (1, 1, 0, 0)
        bare = msgspec.structs.replace(stored, last_activity_at=None, version=0, state_version=0)
        assert bare == given

    async def test_what_was_not_given_is_filled_in_by_the_append(self, store: Store) -> None:
        before = datetime.now(UTC) - timedelta(minutes=5)
        receipt = await store.append(Run(session_id="s", messages=[ask("q")]))
        stored = await store.get_run(receipt.run_id)
        assert stored is not None and stored.created_at and stored.updated_at and stored.finished_at
        assert before < stored.created_at <= stored.updated_at <= stored.finished_at < before + timedelta(hours=1)
        (message,) = stored.messages
        assert message.message_id and message.created_at is not None and message.created_at > before
        assert await store.get_message("s", message_id=message.message_id) == message

    async def test_what_comes_back_can_be_stored_again(self, store: Store) -> None:
        await store.append(run("r1", "q", answer("a", usage=Usage(input_tokens=1)), agent_id="a"))
        stored = await store.get_run("r1")
        assert stored is not None
        await store.append(msgspec.structs.replace(stored, session_id="t"))
        again = await store.get_run("r1", session_id="t")
        assert again == msgspec.structs.replace(stored, session_id="t")

    @pytest.mark.parametrize("name", GOOD_IDS)
    async def test_ids_may_be_any_printable_text(self, store: Store, name: str) -> None:
        message = ask("q", message_id=name)
        given = Run(run_id=name, session_id=name, user_id=name, agent_id=name, parent_run_id=name, messages=[message])
        await store.append(given)
        stored = await store.get_run(name, session_id=name)
        assert stored is not None
        assert (stored.run_id, stored.user_id, stored.agent_id, stored.parent_run_id) == (name,) * 4
        found = await store.get_message(name, message_id=name)
        assert found is not None and (found.message_id, found.content) == (name, "q")
        assert [one.session_id for one in await store.sessions(user_id=name, agent_id=name).collect()] == [name]
        assert [one.run_id for one in await store.runs(agent_id=name).collect()] == [name]

    # refusals

    @pytest.mark.parametrize("name", REFUSED)
    @pytest.mark.parametrize("field", ["content", "metadata", "extra", "arguments"])
    async def test_a_message_that_cannot_be_kept_is_refused(self, store: Store, name: str, field: str) -> None:
        value, end = REFUSED[name]
        path = f"run.messages[1].{field}"
        if field == "arguments":
            path = "run.messages[1].tool_calls[0].arguments"
            message = Message(role="user", tool_calls=[ToolCall(tool_call_id="c", name="n", arguments=value)])
        elif field == "content":
            message = Message(role="user", content=value)
        else:
            fields: dict[str, Any] = {field: {"x": value}}
            message = Message(role="user", **fields)
            path += "" if "depth" in name else "['x']"
        with pytest.raises(InvalidRecordError) as raised:
            await store.append(run("r1", "fine", message))
        assert raised.value.path == path + end
        assert raised.value.path in str(raised.value)
        await untouched(store)

    @pytest.mark.parametrize("name", REFUSED)
    @pytest.mark.parametrize("field", ["input", "output", "error"])
    async def test_a_run_that_cannot_be_kept_is_refused(self, store: Store, name: str, field: str) -> None:
        value, end = REFUSED[name]
        with pytest.raises(InvalidRecordError) as raised:
            await store.append(run("r1", "fine", **{field: value}))
        assert raised.value.path == f"run.{field}{end}"
        await untouched(store)

    @pytest.mark.parametrize("name", REFUSED)
    async def test_a_session_that_cannot_be_kept_is_refused(self, store: Store, name: str) -> None:
        value, end = REFUSED[name]
        with pytest.raises(InvalidRecordError) as raised:
            await store.create_session(Session(session_id="s", summary=value))
        assert raised.value.path == f"session.summary{end}"
        with pytest.raises(InvalidRecordError):
            await store.upsert_session(Session(session_id="s", state={"x": value}))
        with pytest.raises(InvalidRecordError):
            await store.append(run("r1", "fine"), state={"x": value})
        await untouched(store)

    @pytest.mark.parametrize("name", REFUSED)
    async def test_a_change_that_cannot_be_kept_is_refused(self, store: Store, name: str) -> None:
        value, _ = REFUSED[name]
        await store.append(run("r1", "fine", status="running"))
        before = await store.get_session("s"), await store.get_run("r1")
        with pytest.raises(InvalidRecordError):
            await store.update_session("s", change={"state": {"x": value}})
        with pytest.raises(InvalidRecordError):
            await store.update_session("s", change=lambda s: msgspec.structs.replace(s, summary=value))
        for fields in (
            {"output": value},
            {"metadata": {"x": value}},
            {"messages": [ask("y"), Message(role="a", content=value)]},
        ):
            with pytest.raises(InvalidRecordError):
                await store.update_run("s", run_id="r1", **fields)
        assert (await store.get_session("s"), await store.get_run("r1")) == before

    @pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
    async def test_a_bad_id_is_refused(self, store: Store, bad: str) -> None:
        for field in ("session_id", "run_id", "user_id", "agent_id", "parent_run_id"):
            fields: dict[str, Any] = {"session_id": "s", "run_id": "r1", field: bad}
            with pytest.raises(InvalidRecordError) as raised:
                await store.append(Run(**fields))
            assert raised.value.path == f"run.{field}"
        with pytest.raises(InvalidRecordError) as raised:
            await store.append(run("r1", ask("q"), ask("q", message_id=bad)))
        assert raised.value.path == "run.messages[1].message_id"
        for field in ("session_id", "user_id", "agent_id", "current_agent", "parent_session_id"):
            with pytest.raises(InvalidRecordError) as raised:
                await store.create_session(msgspec.structs.replace(Session(session_id="s"), **{field: bad}))
            assert raised.value.path == f"session.{field}"
        with pytest.raises(InvalidRecordError):
            await store.append(run("r1"), switch=AgentSwitch(to_agent=bad))
        with pytest.raises(InvalidRecordError):
            await store.append(run("r1"), operation_id=bad)
        for call in (
            store.get_session(bad),
            store.get_run(bad),
            store.delete_session(bad),
            store.fork(bad),
            store.stats(bad),
        ):
            with pytest.raises(InvalidRecordError):
                await call
        await untouched(store)

    async def test_a_message_is_not_found_by_what_is_no_id(self, store: Store) -> None:
        await store.append(run("r1", "q"))
        for bad in ("\ud800", "r1#\ud800", "a\0b", "", "r1#99", "x" * 5000):
            assert await store.get_message("s", message_id=bad) is None

    @pytest.mark.parametrize(
        ("fields", "path"),
        [
            ({"messages": [ask("x"), {"role": "user"}]}, "run.messages[1]"),
            ({"messages": [Message(role="user", created_at=NAIVE)]}, "run.messages[0].created_at"),
            ({"messages": [Message(role="user", duration=float("nan"))]}, "run.messages[0].duration"),
            ({"messages": [Message(role=5)]}, "run.messages[0].role"),  # type: ignore[arg-type]
            ({"messages": [Message(role="user", tool_calls=["x"])]}, "run.messages[0].tool_calls[0]"),  # type: ignore[list-item]
            ({"messages": [Message(role="user", name="\ud800")]}, "run.messages[0].name"),
            ({"status": "asleep"}, "run.status"),
            ({"created_at": NAIVE}, "run.created_at"),
            ({"usage": Usage(input_tokens=-1)}, "run.usage.input_tokens"),
            ({"usage": Usage(input_tokens=2**63)}, "run.usage.input_tokens"),
            ({"created_at": EARLY}, "run.created_at"),
            ({"updated_at": LATE}, "run.updated_at"),
            ({"finished_at": LATE}, "run.finished_at"),
            ({"messages": [ask("x"), ask("x", created_at=EARLY)]}, "run.messages[1].created_at"),
            ({"usage": Usage(cost=Decimal("NaN"))}, "run.usage.cost"),
            ({"usage": Usage(cost=Decimal("sNaN"))}, "run.usage.cost"),
            ({"usage": Usage(cost=Decimal("Infinity"))}, "run.usage.cost"),
            ({"messages": [ask("x", usage=Usage(cost=Decimal("-Infinity")))]}, "run.messages[0].usage.cost"),
            ({"messages": [ask("x", usage=Usage(cost=Decimal("sNaN")))]}, "run.messages[0].usage.cost"),
            ({"usage": Usage(cost=Decimal("1E+5000"))}, "run.usage.cost"),
            ({"usage": Usage(cost=Decimal("1E-5000"))}, "run.usage.cost"),
            ({"messages": [ask("x", usage=Usage(cost=Decimal("7" * 5000)))]}, "run.messages[0].usage.cost"),
            ({"usage": Usage(details={"x": -1})}, "run.usage.details"),
            ({"metadata": None}, "run.metadata"),
            ({"metadata": [1]}, "run.metadata"),
            ({"agent_name": 5}, "run.agent_name"),
            ({"kind": None}, "run.kind"),
        ],
    )
    async def test_a_field_of_another_type_is_refused(self, store: Store, fields: dict[str, Any], path: str) -> None:
        with pytest.raises(InvalidRecordError) as raised:
            await store.append(Run(**{"run_id": "r1", "session_id": "s", **fields}))
        assert raised.value.path.startswith(path)
        await untouched(store)

    @pytest.mark.parametrize("moment", [LATE, EARLY], ids=["late", "early"])
    async def test_a_time_that_utc_cannot_name_is_refused(self, store: Store, moment: datetime) -> None:
        for name in ("created_at", "updated_at"):
            with pytest.raises(InvalidRecordError) as raised:
                await store.create_session(msgspec.structs.replace(Session(session_id="s"), **{name: moment}))
            assert raised.value.path == f"session.{name}"
        with pytest.raises(InvalidRecordError) as raised:
            await store.append(run("r1", "q"), switch=AgentSwitch(to_agent="a", switched_at=moment))
        assert raised.value.path == "switch.switched_at"
        await untouched(store)
        await store.append(run("r1", "q", status="running"))
        with pytest.raises(InvalidRecordError) as raised:
            await store.update_run("s", run_id="r1", messages=[ask("x", created_at=moment)])
        assert raised.value.path == "update.messages[0].created_at"

    async def test_the_first_and_the_last_moment_come_back(self, store: Store) -> None:
        moments = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
        given = [ask("x", created_at=moment) for moment in moments]
        await store.append(Run(run_id="r1", session_id="s", messages=given, created_at=moments[0]))
        await store.create_session(Session(session_id="t", created_at=moments[0], updated_at=moments[1]))
        assert [one.created_at for one in await store.messages("s").collect()] == moments
        assert [one.created_at for one in await store.runs("s").collect()] == moments[:1]
        made = await store.get_session("t")
        assert made is not None and [made.created_at, made.updated_at] == moments

    async def test_one_bad_run_of_several_refuses_all(self, store: Store) -> None:
        with pytest.raises(InvalidRecordError) as raised:
            await store.append([run("r1", "fine"), run("r2", output=b"x")])
        assert raised.value.path == "run[1].output"
        await untouched(store)

    async def test_a_depth_of_100_is_the_last_that_is_kept(self, store: Store) -> None:
        await store.append(run("r1", Message(role="user", content=nested(100, dict), metadata={"x": nested(99)})))
        with pytest.raises(InvalidRecordError):
            await store.append(run("r2", Message(role="user", metadata={"x": nested(100)})))
        assert [one.run_id async for one in store.runs("s")] == ["r1"]

    # damage, planted past the store

    async def test_a_damaged_message_is_named_when_it_is_read(self, store: Store, driver: Driver) -> None:
        bodies = ['{"role":"user","content":"a"}', '{"role":1}', '{"role":"user","content":"c"}']
        planted = [rows.message(body=body, index=index) for index, body in enumerate(bodies)]
        await rows.send(driver, rows.put("r1", planted))
        with pytest.raises(DecodeError) as raised:
            await store.messages("s").collect()
        assert (raised.value.session_id, raised.value.run_seq, raised.value.position) == ("s", 1, 2)
        assert (await store.messages("s", after=2).collect())[0].content == "c"

    async def test_a_body_of_an_unknown_format_is_an_error(self, store: Store, driver: Driver) -> None:
        await rows.send(driver, rows.put("r1", [rows.message(body=b"\xfe{}")]))
        await rows.send(driver, rows.put("r2", body=b"\xfe{}"))
        for read in (store.messages("s").collect(), store.get_run("r2"), store.runs("s").collect()):
            with pytest.raises(DecodeError):
                await read

    async def test_a_damaged_session_is_named_when_it_is_read(self, store: Store, driver: Driver) -> None:
        await rows.send(driver, create=rows.new_session(state="[]"))
        with pytest.raises(DecodeError) as raised:
            await store.get_session("s")
        assert raised.value.session_id == "s"

    async def test_a_damaged_time_is_named_when_it_is_read(self, store: Store, driver: Driver) -> None:
        await rows.send(driver, rows.put("r1", created_at=2**62), create=rows.new_session(created_at=2**62))
        for read in (
            store.get_session("s"),
            store.sessions().collect(),
            store.get_run("r1"),
            store.runs("s").collect(),
        ):
            with pytest.raises(DecodeError) as raised:
                await read
            assert raised.value.session_id == "s"
