"""Appends: receipts, order, what is recognised, what is judged, and what an append does to its session."""

from __future__ import annotations

import msgspec
import pytest

from sessionledger.errors import (
    ConflictError,
    InvalidRecordError,
    RunConflictError,
    SessionDeletedError,
    SessionExistsError,
)
from sessionledger.records import (
    AgentSwitch,
    AppendReceipt,
    Message,
    Run,
    RunStatus,
    Session,
    SessionKind,
    ToolCall,
    Usage,
)
from sessionledger.store import Store
from sessionledger.testing.builders import answer, ask, call, result, run, texts, turn
from sessionledger.testing.suite.bench import Bench, Storage, small_pages

__all__ = ["AppendTests"]


class AppendTests(Bench):
    async def test_a_receipt_says_what_was_stored(self, store: Store) -> None:
        first = await store.append(run("r1", "a", "b"))
        second = await store.append(run("r2", "c"))
        assert first == AppendReceipt(run_id="r1", run_seq=1, revision=1, first_position=1, last_position=2, version=1)
        assert second == AppendReceipt(run_id="r2", run_seq=2, revision=1, first_position=3, last_position=3, version=2)

    async def test_a_run_without_messages_has_no_positions(self, store: Store) -> None:
        receipt = await store.append(run("r1"))
        assert (receipt.run_seq, receipt.first_position, receipt.last_position) == (1, None, None)
        replayed = await store.append(run("r1"))
        assert (replayed.first_position, replayed.last_position, replayed.replayed) == (None, None, True)

    async def test_messages_come_back_in_order(self, store: Store) -> None:
        for number in range(5):
            await store.append(run(f"r{number}", *(f"{number}.{index}" for index in range(number))))
        found = await store.messages("s").collect()
        assert texts(found) == [f"{number}.{index}" for number in range(5) for index in range(number)]
        assert [one.position for one in found] == list(range(1, 11))
        assert [one.run_seq for one in found] == [2, 3, 3, 4, 4, 4, 5, 5, 5, 5]
        assert {one.run_id for one in found} == {"r1", "r2", "r3", "r4"}

    async def test_ids_of_messages_are_unique_and_find_them(self, store: Store) -> None:
        await store.append([run("r1", "a", ask("b", message_id="given")), run("r#1", "c"), run("r1#0", "d")])
        found = await store.messages("s").collect()
        assert len({one.message_id for one in found}) == 4
        for one in found:
            assert one.message_id is not None
            assert await store.get_message("s", message_id=one.message_id) == one
        assert await store.get_message("s", message_id="r1#7") is None
        assert await store.get_message("s", message_id="none") is None
        assert await store.get_message("other", message_id="given") is None

    async def test_a_run_id_is_made_where_none_is_given(self, store: Store) -> None:
        receipts = [await store.append(run(None, "x")) for _ in range(3)]
        assert [receipt.run_seq for receipt in receipts] == [1, 2, 3]
        ids = [receipt.run_id for receipt in receipts]
        assert len(set(ids)) == 3 and ids == sorted(ids)

    async def test_what_was_given_stays_as_it_was(self, store: Store) -> None:
        given = run(None, ask("x"))
        before = msgspec.json.encode(given)
        await store.append(given)
        assert msgspec.json.encode(given) == before

    # several at once

    async def test_several_runs_are_one_commit(self, store: Store) -> None:
        receipts = await store.append([turn("r1"), run("r2"), turn("r3")])
        assert [(one.run_id, one.run_seq, one.first_position, one.last_position) for one in receipts] == [
            ("r1", 1, 1, 2),
            ("r2", 2, None, None),
            ("r3", 3, 3, 4),
        ]
        assert {one.version for one in receipts} == {1}

    async def test_an_empty_sequence_is_refused(self, store: Store) -> None:
        with pytest.raises(InvalidRecordError):
            await store.append([])

    async def test_runs_of_several_sessions_are_refused(self, store: Store) -> None:
        with pytest.raises(InvalidRecordError):
            await store.append([run("r1"), run("r2", session_id="t")])
        assert await store.sessions().collect() == []

    async def test_a_run_that_comes_twice_is_refused(self, store: Store) -> None:
        with pytest.raises(InvalidRecordError):
            await store.append([run("r1", "a"), run("r1", "a")])
        assert await store.sessions().collect() == []

    # replays

    async def test_the_same_run_again_is_a_replay(self, store: Store) -> None:
        first = await store.append(turn("r1"))
        await store.append(turn("r2"))
        session = await store.get_session("s")
        again = await store.append(turn("r1"))
        assert again == msgspec.structs.replace(first, replayed=True)
        assert await store.get_session("s") == session
        assert texts(await store.messages("s").collect()) == ["r1?", "r1!", "r2?", "r2!"]

    async def test_a_replay_is_recognised_by_another_store(self, store: Store, storage: Storage) -> None:
        first = await store.append(turn("r1"))
        async with storage.store() as other:
            assert await other.append(turn("r1")) == msgspec.structs.replace(first, replayed=True)
            with pytest.raises(RunConflictError):
                await other.append(run("r1", "else"))

    async def test_of_several_runs_the_new_ones_are_stored(self, store: Store) -> None:
        (old,) = await store.append([turn("r2")])
        receipts = await store.append([turn("r1"), turn("r2"), turn("r3")])
        assert [(one.run_id, one.run_seq, one.replayed) for one in receipts] == [
            ("r1", 2, False),
            ("r2", 1, True),
            ("r3", 3, False),
        ]
        assert receipts[1] == msgspec.structs.replace(old, replayed=True)
        again = await store.append([turn("r3"), turn("r1")])
        assert [(one.run_seq, one.replayed) for one in again] == [(3, True), (2, True)]

    async def test_the_order_of_keys_makes_no_other_content(self, store: Store) -> None:
        one = run("r1", Message(role="user", content={"a": 1, "b": {"c": 2, "d": 3}}), metadata={"x": 1, "y": 2})
        other = run("r1", Message(role="user", content={"b": {"d": 3, "c": 2}, "a": 1}), metadata={"y": 2, "x": 1})
        await store.append(one)
        assert (await store.append(other)).replayed

    async def test_defaults_make_no_other_content(self, store: Store) -> None:
        await store.append(run("r1", "a"))
        spelled = Run(
            run_id="r1",
            session_id="s",
            kind="agent",
            status=RunStatus.COMPLETED,
            messages=[Message(role="user", kind="message", content="a", tool_calls=[], metadata={})],
            metadata={},
        )
        assert (await store.append(spelled)).replayed

    @pytest.mark.parametrize(
        "other",
        [
            run("r1", "b"),
            run("r1", "a", "b"),
            run("r1"),
            run("r1", ask("a", name="n")),
            run("r1", answer("a")),
            run("r1", "a", output="x"),
            run("r1", "a", status="failed"),
            run("r1", "a", metadata={"a": 1}),
            run("r1", "a", agent_id="x"),
            run("r1", "a", usage=Usage(input_tokens=1)),
        ],
        ids=range(10),
    )
    async def test_another_content_conflicts(self, store: Store, other: Run) -> None:
        await store.append(run("r1", "a"))
        before = await store.get_session("s")
        with pytest.raises(RunConflictError) as raised:
            await store.append(other)
        assert (raised.value.session_id, raised.value.run_id) == ("s", "r1")
        assert await store.get_session("s") == before
        assert texts(await store.messages("s").collect()) == ["a"]

    @pytest.mark.parametrize(("one", "other"), [(1, 1.0), (0.0, -0.0), (1, True), (0, False), ("1", 1), (None, "")])
    async def test_values_that_compare_equal_are_told_apart(self, store: Store, one: object, other: object) -> None:
        await store.append(run("r1", Message(role="user", content={"value": one})))
        with pytest.raises(RunConflictError):
            await store.append(run("r1", Message(role="user", content={"value": other})))

    async def test_a_conflict_of_one_run_refuses_all(self, store: Store) -> None:
        await store.append(turn("r1"))
        with pytest.raises(RunConflictError):
            await store.append([turn("r0"), run("r1", "else"), turn("r2")])
        assert [one.run_id async for one in store.runs("s")] == ["r1"]

    async def test_run_ids_are_a_sessions_own(self, store: Store) -> None:
        await store.append(run("r1", "a"))
        assert not (await store.append(run("r1", "b", session_id="t"))).replayed
        for size in (1 << 20, 1):
            small_pages(store, size=size)
            with pytest.raises(ConflictError) as raised:
                await store.get_run("r1")
            assert sorted(raised.value.sessions) == ["s", "t"]
        for session_id, text in (("s", "a"), ("t", "b")):
            found = await store.get_run("r1", session_id=session_id)
            assert found is not None and texts(found.messages) == [text]

    async def test_an_operation_id_makes_run_ids_that_are_recognised(self, store: Store) -> None:
        runs = [run(None, "a"), run("given", "b"), run(None, "c")]
        first = await store.append(runs, operation_id="o")
        again = await store.append(runs, operation_id="o")
        assert [one.run_id for one in again] == [one.run_id for one in first]
        assert all(one.replayed for one in again) and not any(one.replayed for one in first)
        with pytest.raises(RunConflictError):
            await store.append([run(None, "x")], operation_id="o")
        assert not (await store.append(run(None, "a"), operation_id="p")).replayed
        assert not (await store.append(run(None, "a", session_id="t"), operation_id="o")).replayed

    # expected_version

    async def test_the_expected_version_is_judged(self, store: Store) -> None:
        with pytest.raises(ConflictError) as raised:
            await store.append(turn("r1"), expected_version=1)
        assert await store.get_session("s") is None
        await store.append(turn("r1"), expected_version=0)
        with pytest.raises(ConflictError) as raised:
            await store.append(turn("r2"), expected_version=0)
        assert (raised.value.session_id, raised.value.version) == ("s", 1)
        assert (await store.append(turn("r2"), expected_version=1)).version == 2

    async def test_a_replay_comes_before_the_expected_version(self, store: Store) -> None:
        await store.append(turn("r1"), expected_version=0)
        await store.append(turn("r2"))
        assert (await store.append(turn("r1"), expected_version=0)).replayed

    @pytest.mark.parametrize("version", [-1, 1.0, "1", True])
    async def test_an_expected_version_is_a_count(self, store: Store, version: int) -> None:
        with pytest.raises(InvalidRecordError):
            await store.append(turn("r1"), expected_version=version)

    # the session

    async def test_an_append_makes_the_session(self, store: Store) -> None:
        await store.append(run("r1", "a", user_id="u", agent_id="a", kind="team"))
        session = await store.get_session("s")
        assert session is not None
        assert (session.user_id, session.agent_id, session.kind) == ("u", "a", SessionKind.TEAM)
        assert (session.version, session.run_count, session.message_count) == (1, 1, 1)
        assert session.created_at is not None and session.created_at == session.last_activity_at

    async def test_a_later_run_leaves_the_sessions_owner(self, store: Store) -> None:
        await store.append(run("r1", "a", user_id="u", agent_id="a"))
        await store.append(run("r2", "a", user_id="v", agent_id="b"))
        session = await store.get_session("s")
        assert session is not None and (session.user_id, session.agent_id) == ("u", "a")
        assert [one.user_id for one in await store.runs("s").collect()] == ["u", "v"]
        assert await store.sessions(user_id="v").collect() == []

    async def test_counts_follow(self, store: Store) -> None:
        await store.create_session(Session(session_id="s"))
        await store.append([turn("r1"), turn("r2")])
        await store.append(turn("r2"))
        session = await store.get_session("s")
        assert session is not None
        assert (session.version, session.run_count, session.message_count) == (2, 2, 4)

    async def test_an_append_merges_the_state(self, store: Store) -> None:
        await store.append(turn("r1"), state={"a": 1, "b": {"x": 1}})
        await store.append(turn("r2"), state={"b": {"y": 2}, "c": None})
        session = await store.get_session("s")
        assert session is not None and session.state == {"a": 1, "b": {"y": 2}, "c": None}
        assert session.state_version == 2 and session.version == 2

    async def test_an_append_switches_the_agent(self, store: Store) -> None:
        await store.append(run("r1", "a", agent_id="first"))
        await store.append(turn("r2"), switch=AgentSwitch(to_agent="second", reason="asked\0"))
        await store.append(turn("r3"), switch=AgentSwitch(switch_id="w", from_agent="x", to_agent="third"))
        session = await store.get_session("s")
        assert session is not None and (session.current_agent, session.agent_id) == ("third", "first")
        one, two = await store.switches("s").collect()
        assert (one.from_agent, one.to_agent, one.reason) == ("first", "second", "asked\0")
        assert one.switch_id and one.switched_at is not None
        assert (two.switch_id, two.from_agent, two.to_agent) == ("w", "x", "third")

    async def test_the_first_append_may_bring_state_and_switch(self, store: Store) -> None:
        await store.append(run("r1", "a", agent_id="a"), state={"n": 1}, switch=AgentSwitch(to_agent="b"))
        session = await store.get_session("s")
        assert session is not None and (session.state, session.current_agent) == ({"n": 1}, "b")
        assert [one.to_agent for one in await store.switches("s").collect()] == ["b"]

    async def test_a_replay_changes_neither_state_nor_agent(self, store: Store) -> None:
        await store.append(turn("r1"), state={"n": 1}, switch=AgentSwitch(to_agent="a"))
        await store.update_session("s", change={"state": {"n": 2}})
        before = await store.get_session("s")
        assert (await store.append(turn("r1"), state={"n": 1}, switch=AgentSwitch(to_agent="b"))).replayed
        assert await store.get_session("s") == before
        assert len(await store.switches("s").collect()) == 1

    async def test_an_append_that_is_refused_leaves_the_state(self, store: Store) -> None:
        await store.append(turn("r1"), state={"n": 1})
        before = await store.get_session("s")
        with pytest.raises(RunConflictError):
            await store.append(run("r1", "else"), state={"n": 2}, switch=AgentSwitch(to_agent="b"))
        with pytest.raises(ConflictError):
            await store.append(turn("r2"), state={"n": 2}, expected_version=7)
        assert await store.get_session("s") == before
        assert await store.switches("s").collect() == []

    async def test_the_activity_follows_appends(self, store: Store) -> None:
        await store.append(turn("r1"))
        one = await store.get_session("s")
        await store.append(turn("r2"))
        two = await store.get_session("s")
        assert one is not None and two is not None and one.last_activity_at and two.last_activity_at
        assert one.last_activity_at < two.last_activity_at

    async def test_a_deleted_session_takes_no_append(self, store: Store) -> None:
        await store.append(turn("r1"))
        await store.delete_session("s")
        with pytest.raises(SessionDeletedError) as raised:
            await store.append(turn("r2"))
        assert raised.value.session_id == "s"
        assert (await store.append(turn("r1"))).replayed
        await store.delete_session("s", soft=False)
        for late in (turn("r1"), turn("r2")):
            with pytest.raises(SessionDeletedError):
                await store.append(late)
        with pytest.raises(SessionDeletedError):
            await store.append(turn("r3"), state={"a": 1})
        assert await store.get_session("s") is None

    async def test_a_run_of_a_user_of_his_own_is_no_other_session(self, store: Store) -> None:
        view = store.scoped(user_id="u")
        await view.append(turn("r1"))
        with pytest.raises(SessionExistsError):
            await store.scoped(user_id="v").append(turn("r2"))

    # usage

    async def test_the_usage_of_a_run_is_the_sum_of_its_messages(self, store: Store) -> None:
        messages = [
            ask("q"),
            answer("a", usage=Usage(input_tokens=1)),
            answer("b", usage=Usage(input_tokens=2, requests=1)),
        ]
        await store.append(run("r1", *messages))
        await store.append(run("r2", *messages, usage=Usage(input_tokens=50)))
        await store.append(run("r3", "q"))
        usages = [one.usage async for one in store.runs("s")]
        assert usages == [Usage(input_tokens=3, requests=1), Usage(input_tokens=50), None]

    async def test_tool_calls_come_back(self, store: Store) -> None:
        arguments = ' {"a" : 1.0,\n"b":1e5} '
        message = Message(role="assistant", tool_calls=[ToolCall(tool_call_id="c", name="n", arguments=arguments)])
        await store.append(run("r1", "q", message, result("c", error="boom", duration=1.5), call("x", "y")))
        found = await store.messages("s").collect()
        assert found[1].tool_calls == message.tool_calls
        assert (found[2].tool_call_id, found[2].error, found[2].duration) == ("c", "boom", 1.5)
        assert [one.tool_call_id for one in found[3].tool_calls] == ["x", "y"]
