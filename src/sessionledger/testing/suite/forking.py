"""Forks: what they share, what is their own, and how they keep their parent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sessionledger.errors import (
    ConflictError,
    InvalidRecordError,
    RunNotFoundError,
    SessionDeletedError,
    SessionExistsError,
    SessionHasForksError,
    SessionNotFoundError,
)
from sessionledger.records import AgentSwitch, Session, Usage
from sessionledger.store import Store
from sessionledger.testing.builders import answer, ask, run, texts, turn
from sessionledger.testing.suite.bench import Bench, Storage, small_pages

__all__ = ["ForkTests"]


async def shown(store: Store, session_id: str, **filters: Any) -> list[str]:
    return texts(await store.messages(session_id, **filters).collect())


async def shown_runs(store: Store, session_id: str, **filters: Any) -> list[str | None]:
    return [one.run_id async for one in store.runs(session_id, **filters)]


async def three_turns(store: Store) -> None:
    """Positions 1 to 6."""
    await store.append([turn("r1"), turn("r2"), turn("r3")])


class ForkTests(Bench):
    async def test_a_fork_shares_everything(self, store: Store) -> None:
        parent = Session(
            session_id="s", user_id="u", agent_id="a", name="n", state={"x": 1}, metadata={"m": 1}, summary="s"
        )
        await store.create_session(parent)
        await three_turns(store)
        made = await store.fork("s", new_session_id="f")
        assert made == await store.get_session("f")
        assert (made.session_id, made.forked_from, made.forked_at) == ("f", "s", 6)
        assert (made.user_id, made.agent_id, made.name, made.state) == ("u", "a", "n", {"x": 1})
        assert (made.metadata, made.summary, made.version, made.state_version) == ({"m": 1}, "s", 1, 1)
        assert (made.run_count, made.message_count) == (3, 6)
        assert await shown(store, "f") == await shown(store, "s")
        assert await shown_runs(store, "f") == ["r1", "r2", "r3"]
        assert texts(await store.history("f").collect()) == texts(await store.history("s").collect())

    async def test_a_fork_makes_an_id_of_its_own(self, store: Store) -> None:
        await three_turns(store)
        one, two = await store.fork("s"), await store.fork("s")
        assert len({"s", one.session_id, two.session_id}) == 3

    @pytest.mark.parametrize(
        ("at", "count", "runs"),
        [(0, 0, 0), (1, 1, 1), (2, 2, 1), (3, 3, 2), (6, 6, 3), ("r1", 2, 1), ("r2", 4, 2), ("r3", 6, 3), (None, 6, 3)],
    )
    async def test_a_fork_ends_where_it_was_asked_to(
        self, store: Store, at: int | str | None, count: int, runs: int
    ) -> None:
        await three_turns(store)
        whole = await shown(store, "s")
        made = await store.fork("s", at=at, new_session_id="f")
        assert (made.forked_at, made.message_count, made.run_count) == (count, count, runs)
        assert await shown(store, "f") == whole[:count]
        assert await shown(store, "f", reverse=True) == whole[:count][::-1]
        assert await shown_runs(store, "f") == ["r1", "r2", "r3"][:runs]
        receipt = await store.append(turn("own", session_id="f"))
        assert (receipt.run_seq, receipt.first_position) == (runs + 1, count + 1)
        assert await shown(store, "f") == [*whole[:count], "own?", "own!"]
        assert texts(await store.history("f").collect()) == [*whole[:count], "own?", "own!"]
        stats = await store.stats("f")
        assert (stats.runs, stats.messages) == (runs + 1, count + 2)

    async def test_a_position_inside_a_run_keeps_its_beginning(self, store: Store) -> None:
        await store.append(run("r1", "a", "b", "c"))
        await store.fork("s", at=2, new_session_id="f")
        found = await store.get_run("r1", session_id="f")
        assert found is not None and (texts(found.messages), found.message_count) == (["a", "b"], 2)
        (listed,) = await store.runs("f", include_messages=True).collect()
        assert (texts(listed.messages), listed.message_count) == (["a", "b"], 2)

    async def test_both_go_their_own_way(self, store: Store) -> None:
        await three_turns(store)
        await store.fork("s", new_session_id="f")
        await store.append(turn("p", session_id="s"), state={"p": 1})
        await store.append(turn("c", session_id="f"), state={"c": 1}, switch=AgentSwitch(to_agent="b"))
        assert (await shown(store, "s"))[6:] == ["p?", "p!"]
        assert (await shown(store, "f"))[6:] == ["c?", "c!"]
        parent, fork = await store.get_session("s"), await store.get_session("f")
        assert parent is not None and fork is not None
        assert (parent.state, fork.state, parent.current_agent, fork.current_agent) == ({"p": 1}, {"c": 1}, None, "b")
        assert await store.switches("s").collect() == []

    async def test_messages_of_a_fork_are_found_one_by_one(self, store: Store) -> None:
        await store.append([run("r1", ask("a", message_id="m")), turn("r2")])
        await store.fork("s", at="r1", new_session_id="f")
        await store.append(run("own", ask("b", message_id="n"), session_id="f"))
        for one in await store.messages("f").collect():
            assert one.message_id and await store.get_message("f", message_id=one.message_id) == one
        for one in (await store.messages("s", after=1).collect())[:1]:
            assert one.message_id and await store.get_message("f", message_id=one.message_id) is None
        assert await store.get_run("r2", session_id="f") is None
        assert texts(await store.messages("f", run_id="r1").collect()) == ["a"]

    async def test_the_end_of_a_run_leaves_out_what_began_later(self, store: Store) -> None:
        await store.append(run("a", "a1", status="running"))
        await store.append(run("b", "b1", status="running"))
        await store.update_run("s", run_id="a", messages=[ask("a2")], status="completed")
        await store.update_run("s", run_id="b", messages=[ask("b2")], status="completed")
        await store.fork("s", at="a", new_session_id="f")
        assert await shown(store, "f") == ["a1", "a2"]
        assert await shown_runs(store, "f") == ["a"]
        await store.fork("s", at=3, new_session_id="g")
        assert await shown(store, "g") == ["a1", "b1", "a2"]
        assert await shown_runs(store, "g") == ["a", "b"]

    async def test_a_run_that_goes_on_is_shared_as_it_was(self, store: Store) -> None:
        await store.append(run("r1", "a", status="running"))
        await store.fork("s", new_session_id="f")
        await store.update_run("s", run_id="r1", messages=[ask("b")])
        assert await shown(store, "f") == ["a"]
        found = await store.get_run("r1", session_id="f")
        assert found is not None and texts(found.messages) == ["a"]

    async def test_inherited_runs_are_read_only(self, store: Store) -> None:
        await store.append(run("r1", "a", status="running"))
        await store.fork("s", new_session_id="f")
        with pytest.raises(RunNotFoundError):
            await store.update_run("f", run_id="r1", messages=[ask("b")])
        with pytest.raises(RunNotFoundError):
            await store.append(run("r1", "b", session_id="f"), revise=True)
        assert await shown(store, "f") == await shown(store, "s") == ["a"]

    async def test_an_inherited_run_id_is_free_in_the_fork(self, store: Store) -> None:
        await three_turns(store)
        await store.fork("s", at="r2", new_session_id="f")
        receipt = await store.append(run("r1", "own", session_id="f"))
        assert (receipt.run_seq, receipt.replayed) == (3, False)
        found = await store.get_run("r1", session_id="f")
        assert found is not None and texts(found.messages) == ["own"]
        assert len(await shown(store, "f")) == 5 and len(await shown(store, "s")) == 6

    async def test_the_forks_own_message_is_found_by_an_id_that_two_have(self, store: Store) -> None:
        await three_turns(store)
        await store.fork("s", new_session_id="f")
        await store.append(run("r1", "own", session_id="f"))
        found = [one.content for one in await store.messages("f").collect() if one.message_id == "r1#0"]
        assert found == ["r1?", "own"]
        one = await store.get_message("f", message_id="r1#0")
        assert one is not None and one.content == "own"

    async def test_the_fields_of_a_run_that_goes_on_are_shared_as_they_are(self, store: Store) -> None:
        await store.append(run("r1", "a", status="running"))
        await store.fork("s", new_session_id="f")
        await store.update_run("s", run_id="r1", output="late", messages=[ask("b")], status="completed")
        found = await store.get_run("r1", session_id="f")
        assert found is not None
        assert (found.output, found.status, texts(found.messages)) == ("late", "completed", ["a"])

    # hiding

    async def test_what_was_retracted_before_stays_hidden_in_the_fork(self, store: Store) -> None:
        await three_turns(store)
        retract_id = await store.retract("s", run_id="r1")
        await store.append(run("r2", "again"), revise=True)
        await store.fork("s", new_session_id="f")
        assert await shown(store, "f") == ["r3?", "r3!", "again"]
        await store.unretract("s", retract_id=retract_id)
        assert await shown(store, "f") == ["r3?", "r3!", "again"]
        assert len(await shown(store, "s")) == 5

    async def test_what_is_retracted_later_stays_in_the_fork(self, store: Store) -> None:
        await three_turns(store)
        await store.fork("s", new_session_id="f")
        await store.retract("s", last_runs=2)
        await store.append(run("r1", "again"), revise=True)
        assert await shown(store, "f") == ["r1?", "r1!", "r2?", "r2!", "r3?", "r3!"]
        found = await store.get_run("r1", session_id="f")
        assert found is not None and (found.revision, texts(found.messages)) == (1, ["r1?", "r1!"])

    async def test_a_retract_in_the_fork_hides_there_alone(self, store: Store) -> None:
        await three_turns(store)
        await store.fork("s", new_session_id="f")
        await store.append(turn("own", session_id="f"))
        retract_id = await store.retract("f", from_run_id="r2")
        assert await shown(store, "f") == ["r1?", "r1!"]
        assert await shown_runs(store, "f") == ["r1"]
        assert len(await shown(store, "s")) == 6
        await store.unretract("f", retract_id=retract_id)
        assert len(await shown(store, "f")) == 8
        await store.retract("f", last_messages=5)
        assert await shown(store, "f") == ["r1?", "r1!", "r2?"]

    async def test_a_fork_before_a_revision_shows_what_was_revised(self, store: Store) -> None:
        await store.append([turn("r1"), turn("r2")])
        await store.append(run("r1", "again"), revise=True)
        await store.fork("s", at=3, new_session_id="f")
        assert await shown(store, "f") == ["r1?", "r1!", "r2?"]
        found = await store.get_run("r1", session_id="f")
        assert found is not None and found.revision == 1
        stats = await store.stats("f")
        assert (stats.runs, stats.messages) == (2, 3)
        await store.fork("s", at="r1", new_session_id="g")
        assert await shown(store, "g") == ["again"]

    async def test_retracts_of_the_parent_have_no_id_in_the_fork(self, store: Store) -> None:
        await three_turns(store)
        retract_id = await store.retract("s", last_runs=1)
        await store.fork("s", new_session_id="f")
        with pytest.raises(ConflictError):
            await store.unretract("f", retract_id=retract_id)

    # forks of forks

    async def test_forks_of_forks_share_what_they_shared(self, store: Store) -> None:
        await three_turns(store)
        await store.fork("s", at="r2", new_session_id="f")
        await store.append([turn("f1", session_id="f"), turn("f2", session_id="f")])
        await store.fork("f", at="f1", new_session_id="g")
        await store.append(turn("g1", session_id="g"))
        await store.fork("g", at=1, new_session_id="h")
        expected = {
            "f": ["r1", "r2", "f1", "f2"],
            "g": ["r1", "r2", "f1", "g1"],
            "h": ["r1"],
        }
        for session_id, runs in expected.items():
            assert await shown_runs(store, session_id) == runs
            assert await shown_runs(store, session_id, reverse=True) == runs[::-1]
        assert await shown(store, "g") == [f"{name}{mark}" for name in expected["g"] for mark in "?!"]
        assert await shown(store, "h") == ["r1?"]
        fork = await store.get_session("h")
        assert fork is not None and (fork.forked_from, fork.forked_at) == ("g", 1)
        assert (await store.append(turn("h1", session_id="h"))).first_position == 2

    @pytest.mark.parametrize("rows", [1, 2, 3, 5])
    async def test_pages_run_across_forks(self, store: Store, rows: int) -> None:
        small_pages(store, rows=rows)
        names = []
        session_id = "s"
        for depth in range(4):
            for number in range(2):
                names.append(f"{depth}.{number}")
                await store.append(turn(names[-1], session_id=session_id))
            await store.retract(session_id, run_id=names[-2])
            del names[-2]
            child = f"f{depth}"
            await store.fork(session_id, new_session_id=child)
            session_id = child
        expected = [f"{name}{mark}" for name in names for mark in "?!"]
        assert await shown(store, session_id) == expected
        assert await shown(store, session_id, reverse=True) == expected[::-1]
        assert await shown(store, session_id, last=3) == expected[-3:]
        assert await shown(store, session_id, offset=6, limit=2) == expected[2:4]
        assert await shown_runs(store, session_id) == names
        assert await shown_runs(store, session_id, last=2) == names[-2:]
        assert texts(await store.history(session_id, last_runs=3).collect()) == expected[-6:]

    # life

    async def test_a_softly_deleted_parent_is_still_shared(self, store: Store) -> None:
        await three_turns(store)
        await store.fork("s", at="r2", new_session_id="f")
        assert await store.delete_session("s")
        assert await shown_runs(store, "f") == ["r1", "r2"]
        assert len(await shown(store, "f")) == 4
        await store.append(turn("own", session_id="f"))
        with pytest.raises(SessionDeletedError):
            await store.fork("s")

    async def test_a_parent_is_not_erased_under_its_forks(self, store: Store) -> None:
        await three_turns(store)
        await store.fork("s", new_session_id="f")
        await store.fork("s", new_session_id="g")
        with pytest.raises(SessionHasForksError) as raised:
            await store.delete_session("s", soft=False)
        assert (raised.value.session_id, sorted(raised.value.forks)) == ("s", ["f", "g"])
        assert len(await shown(store, "s")) == 6
        assert await store.delete_session("f", soft=False)
        with pytest.raises(SessionHasForksError):
            await store.delete_session("s", soft=False)
        assert await store.delete_session("g", soft=False)
        assert await store.delete_session("s", soft=False)

    async def test_a_softly_deleted_fork_keeps_its_parent(self, store: Store) -> None:
        await three_turns(store)
        await store.fork("s", new_session_id="f")
        await store.delete_session("f")
        with pytest.raises(SessionHasForksError):
            await store.delete_session("s", soft=False)
        await store.restore_session("f")
        assert len(await shown(store, "f")) == 6

    async def test_a_parent_is_erased_with_its_forks(self, store: Store) -> None:
        await three_turns(store)
        for parent, child in (("s", "f"), ("f", "g"), ("g", "h"), ("s", "i")):
            await store.fork(parent, new_session_id=child)
        await store.delete_session("g")
        assert await store.delete_session("s", soft=False, forks=True)
        for session_id in "sfghi":
            assert await store.get_session(session_id) is None
            with pytest.raises(SessionDeletedError):
                await store.append(turn("late", session_id=session_id))
        assert await store.sessions(include_deleted=True).collect() == []

    async def test_a_fork_of_many_is_erased_with_its_parent(self, store: Store) -> None:
        small_pages(store, rows=2)
        await three_turns(store)
        for number in range(7):
            await store.fork("s", new_session_id=f"f{number}")
        with pytest.raises(SessionHasForksError) as raised:
            await store.delete_session("s", soft=False)
        assert len(raised.value.forks) == 7
        assert await store.delete_session("s", soft=False, forks=True)

    async def test_a_fork_is_recognised_by_its_operation(self, store: Store, storage: Storage) -> None:
        await three_turns(store)
        first = await store.fork("s", at="r1", operation_id="o")
        assert await store.fork("s", at="r1", operation_id="o") == first
        async with storage.store() as other:
            assert (await other.fork("s", at="r1", operation_id="o")).session_id == first.session_id
        assert [one.session_id for one in await store.sessions().collect() if one.forked_from] == [first.session_id]
        assert await store.delete_session(first.session_id, soft=False)
        assert await store.delete_session("s", soft=False)

    async def test_a_fork_that_was_refused_does_not_keep_its_parent(self, store: Store) -> None:
        await three_turns(store)
        await store.append(turn("r1", session_id="taken"))
        with pytest.raises(SessionExistsError) as raised:
            await store.fork("s", new_session_id="taken")
        assert raised.value.session_id == "taken"
        assert await store.delete_session("s", soft=False)

    async def test_a_fork_that_is_made_again_keeps_its_parent(self, store: Store) -> None:
        await three_turns(store)
        for _ in range(3):
            assert (await store.fork("s", new_session_id="f", operation_id="o")).run_count == 3
            with pytest.raises(SessionHasForksError):
                await store.delete_session("s", soft=False)
            assert len(await shown(store, "f")) == 6
            assert await store.delete_session("f", soft=False)
        assert await store.delete_session("s", soft=False)

    async def test_a_fork_that_was_refused_at_first_keeps_its_parent(self, store: Store) -> None:
        await three_turns(store)
        await store.append(turn("r1", session_id="f"))
        for _ in range(2):
            with pytest.raises(SessionExistsError):
                await store.fork("s", new_session_id="f", operation_id="o")
        assert await store.delete_session("f", soft=False)
        await store.fork("s", new_session_id="f", operation_id="o")
        with pytest.raises(SessionHasForksError):
            await store.delete_session("s", soft=False)
        assert len(await shown(store, "f")) == 6
        assert await store.delete_session("f", soft=False)
        assert await store.delete_session("s", soft=False)

    async def test_what_is_not_there_is_not_forked(self, store: Store) -> None:
        with pytest.raises(SessionNotFoundError):
            await store.fork("s")
        await three_turns(store)
        with pytest.raises(RunNotFoundError):
            await store.fork("s", at="unknown")
        for at in (7, -1, 1.5, True, ""):
            with pytest.raises(InvalidRecordError):
                await store.fork("s", at=at)  # type: ignore[arg-type]
        assert len(await store.sessions().collect()) == 1
        assert await store.delete_session("s", soft=False)

    async def test_an_id_that_was_erased_is_free_for_a_fork(self, store: Store) -> None:
        await three_turns(store)
        await store.append(run("old", "x", session_id="f"))
        await store.delete_session("f", soft=False)
        made = await store.fork("s", new_session_id="f")
        assert made.run_count == 3
        assert await shown_runs(store, "f") == ["r1", "r2", "r3"]

    async def test_the_usage_of_a_fork_goes_on_from_what_it_shares(self, store: Store) -> None:
        for number in range(1, 4):
            message = answer(str(number), usage=Usage(input_tokens=10**number))
            await store.append(run(f"r{number}", "q", message, status="failed" if number == 2 else "completed"))
        await store.fork("s", at="r2", new_session_id="f")
        stats = await store.stats("f")
        assert stats.usage == Usage(input_tokens=110)
        assert (stats.runs, stats.messages, stats.runs_by_status) == (2, 4, {"completed": 1, "failed": 1})
        assert stats.messages_by_role == {"user": 2, "assistant": 2}
        await store.append(msgspec.structs.replace(turn("own"), session_id="f"))
        assert (await store.stats("f")).usage.input_tokens == 113
