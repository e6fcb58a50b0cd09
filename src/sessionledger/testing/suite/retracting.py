"""Revisions, retracts and their undoing: what shows, and what stays."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from sessionledger.errors import (
    ConflictError,
    InvalidRecordError,
    RunConflictError,
    RunNotFoundError,
    SessionDeletedError,
    SessionNotFoundError,
)
from sessionledger.records import AgentSwitch, Usage
from sessionledger.store import Store
from sessionledger.testing.builders import answer, ask, run, texts, turn
from sessionledger.testing.suite.bench import Bench, Storage, small_pages

__all__ = ["RetractTests"]


async def four_turns(store: Store) -> None:
    """Positions 1 to 8."""
    await store.append([turn(f"r{number}") for number in range(1, 5)])


async def shown(store: Store, **filters: object) -> list[str]:
    return texts(await store.messages("s", **filters).collect())  # type: ignore[arg-type]


async def shown_runs(store: Store) -> list[str | None]:
    return [one.run_id async for one in store.runs("s")]


class RetractTests(Bench):
    # revisions

    async def test_a_revision_takes_the_place_of_the_run(self, store: Store) -> None:
        await store.append([turn("r1"), turn("r2")])
        receipt = await store.append(run("r1", "again?", answer("again!"), output=1), revise=True)
        assert (receipt.run_seq, receipt.revision, receipt.first_position, receipt.last_position) == (1, 2, 5, 6)
        assert await shown(store) == ["r2?", "r2!", "again?", "again!"]
        assert texts(await store.history("s").collect()) == ["again?", "again!", "r2?", "r2!"]
        assert await shown(store, include_retracted=True) == ["r1?", "r1!", "r2?", "r2!", "again?", "again!"]
        assert [(one.run_id, one.seq, one.revision) async for one in store.runs("s")] == [("r1", 1, 2), ("r2", 2, 1)]

    async def test_an_old_revision_stays_for_audit(self, store: Store) -> None:
        await store.append(run("r1", "one", output=1))
        for number in (2, 3):
            await store.append(run("r1", str(number), output=number), revise=True)
        for number, text in ((1, "one"), (2, "2"), (3, "3")):
            old = await store.get_run("r1", session_id="s", revision=number)
            assert old is not None and (old.output, old.revision, texts(old.messages)) == (number, number, [text])
        newest = await store.get_run("r1")
        assert newest is not None and newest.revision == 3
        assert await store.get_run("r1", revision=4) is None

    async def test_ids_of_messages_are_unique_per_revision(self, store: Store) -> None:
        await store.append(run("r1", "one", ask("given", message_id="m")))
        (first, _) = await store.messages("s").collect()
        await store.append(run("r1", "two", ask("given again", message_id="m")), revise=True)
        second, given = await store.messages("s").collect()
        assert first.message_id and second.message_id and first.message_id != second.message_id
        assert await store.get_message("s", message_id=first.message_id) is None
        assert await store.get_message("s", message_id=second.message_id) == second
        assert await store.get_message("s", message_id="m") == given

    async def test_the_same_revision_again_is_a_replay(self, store: Store) -> None:
        await store.append(turn("r1"))
        first = await store.append(run("r1", "again"), revise=True)
        assert await store.append(run("r1", "again"), revise=True) == msgspec.structs.replace(first, replayed=True)
        assert (await store.append(turn("r1"))).replayed
        with pytest.raises(RunConflictError):
            await store.append(run("r1", "third"))
        third = await store.append(run("r1", "third"), revise=True)
        assert third.revision == 3

    async def test_a_revision_is_recognised_by_its_operation(self, store: Store, storage: Storage) -> None:
        await store.append(turn("r1"))
        again = run("r1", "again")
        first = await store.append(again, revise=True, operation_id="one")
        await store.append(run("r1", "third"), revise=True, operation_id="two")
        fourth = await store.append(again, revise=True, operation_id="three")
        assert (first.revision, fourth.revision) == (2, 4)
        async with storage.store() as other:
            for anyone in (store, other):
                repeated = await anyone.append(again, revise=True, operation_id="one", expected_version=1)
                assert repeated == msgspec.structs.replace(first, replayed=True)
        with pytest.raises(ConflictError):
            await store.append(run("r1", "fifth"), revise=True, operation_id="one")
        # without an operation it is the newest that counts
        assert await store.append(again, revise=True) == msgspec.structs.replace(fourth, replayed=True)
        assert await shown(store) == ["again"]

    async def test_an_operation_stores_a_revision_though_the_content_is_there(self, store: Store) -> None:
        await store.append(run("r1", "same"))
        first = await store.append(run("r1", "same"), revise=True, operation_id="one")
        second = await store.append(run("r1", "same"), revise=True, operation_id="two")
        assert [(one.revision, one.replayed) for one in (first, second)] == [(2, False), (3, False)]
        for operation_id, receipt in (("one", first), ("two", second)):
            repeated = await store.append(run("r1", "same"), revise=True, operation_id=operation_id)
            assert repeated == msgspec.structs.replace(receipt, replayed=True)
        assert await shown(store) == ["same"]

    async def test_operations_that_revise_at_once_store_one_revision_each(self, store: Store, storage: Storage) -> None:
        await store.append([turn("r1"), turn("r2")])
        receipts: dict[str, set[int]] = {}

        async def revise(through: Store, operation_id: str) -> None:
            runs = [run("r1", "same"), run("r2", "same")]
            stored = await through.append(runs, revise=True, operation_id=operation_id)
            receipts.setdefault(operation_id, set()).update(one.revision for one in stored)

        async with storage.store() as other, anyio.create_task_group() as group:
            for through in (store, other, store):
                for operation_id in ("one", "two", "three"):
                    group.start_soon(revise, through, operation_id)
        assert sorted(map(sorted, receipts.values())) == [[2], [3], [4]]
        assert await shown(store) == ["same", "same"]

    async def test_what_was_updated_since_is_revised_by_its_first_content(self, store: Store) -> None:
        first = run("r1", "question", status="running")
        await store.append(first)
        for revision in (2, 3):
            await store.update_run("s", run_id="r1", messages=[answer("bad")], status="completed")
            regenerated = await store.append(first, revise=True)
            assert (regenerated.revision, regenerated.replayed) == (revision, False)
            assert await shown(store) == ["question"]
            assert (await store.append(first, revise=True)).replayed
        await store.update_run("s", run_id="r1", messages=[answer("good")], status="completed")
        assert await shown(store) == ["question", "good"]
        assert (await store.stats("s")).runs_by_status == {"completed": 1}

    async def test_what_is_not_there_is_not_revised(self, store: Store) -> None:
        with pytest.raises(RunNotFoundError):
            await store.append(turn("r1"), revise=True)
        assert await store.get_session("s") is None
        await store.append(turn("r1"))
        with pytest.raises(RunNotFoundError):
            await store.append([turn("r1"), turn("r2")], revise=True)
        with pytest.raises(InvalidRecordError):
            await store.append(run(None, "x"), revise=True)
        await store.delete_session("s")
        with pytest.raises(SessionDeletedError):
            await store.append(run("r1", "x"), revise=True)

    async def test_an_open_run_is_revised_and_goes_on(self, store: Store) -> None:
        await store.append(run("r1", "one", status="running"))
        await store.update_run("s", run_id="r1", messages=[ask("more")])
        await store.append(run("r1", "two", status="running"), revise=True)
        await store.update_run("s", run_id="r1", messages=[ask("and more")], status="completed")
        assert await shown(store) == ["two", "and more"]
        old = await store.get_run("r1", revision=1)
        assert old is not None and (old.status, texts(old.messages)) == ("running", ["one", "more"])

    async def test_several_runs_are_revised_at_once(self, store: Store) -> None:
        await four_turns(store)
        receipts = await store.append([run("r3", "three"), run("r1", "one")], revise=True, state={"a": 1})
        assert [(one.run_seq, one.revision) for one in receipts] == [(3, 2), (1, 2)]
        assert texts(await store.history("s").collect()) == ["one", "r2?", "r2!", "three", "r4?", "r4!"]
        session = await store.get_session("s")
        assert session is not None and session.state == {"a": 1}

    async def test_a_revision_is_judged_by_the_expected_version(self, store: Store) -> None:
        await store.append(turn("r1"))
        with pytest.raises(ConflictError):
            await store.append(run("r1", "x"), revise=True, expected_version=0)
        await store.append(run("r1", "x"), revise=True, expected_version=1, switch=AgentSwitch(to_agent="b"))

    async def test_usage_of_revised_runs_has_been_paid_for(self, store: Store) -> None:
        await store.append(run("r1", "x", usage=Usage(input_tokens=1), status="failed"))
        await store.append(run("r1", "x", usage=Usage(input_tokens=10)), revise=True)
        stats = await store.stats("s")
        assert (stats.usage.input_tokens, stats.runs, stats.messages) == (11, 1, 2)
        assert {name: n for name, n in stats.runs_by_status.items() if n} == {"completed": 1}

    # retracts

    @pytest.mark.parametrize("count", [1, 2, 4, 9])
    async def test_the_last_runs_are_retracted(self, store: Store, count: int) -> None:
        await four_turns(store)
        await store.retract("s", last_runs=count)
        left = max(0, 4 - count)
        assert await shown_runs(store) == ["r1", "r2", "r3", "r4"][:left]
        assert len(await shown(store)) == 2 * left

    @pytest.mark.parametrize("count", [1, 2, 3, 8, 9])
    async def test_the_last_messages_are_retracted(self, store: Store, count: int) -> None:
        await four_turns(store)
        await store.retract("s", last_messages=count)
        everything = await shown(store, include_retracted=True)
        assert len(everything) == 8
        assert await shown(store) == everything[: max(0, 8 - count)]

    async def test_runs_that_lie_in_the_last_messages_are_retracted(self, store: Store) -> None:
        await four_turns(store)
        await store.retract("s", last_messages=3)
        assert await shown(store) == ["r1?", "r1!", "r2?", "r2!", "r3?"]
        assert await shown_runs(store) == ["r1", "r2", "r3"]

    async def test_one_run_is_retracted(self, store: Store) -> None:
        await four_turns(store)
        await store.retract("s", run_id="r2")
        assert await shown(store) == ["r1?", "r1!", "r3?", "r3!", "r4?", "r4!"]
        assert await shown_runs(store) == ["r1", "r3", "r4"]
        assert texts(await store.history("s", last_runs=3).collect()) == ["r1?", "r1!", "r3?", "r3!", "r4?", "r4!"]

    async def test_a_run_and_what_followed_is_retracted(self, store: Store) -> None:
        await four_turns(store)
        await store.retract("s", from_run_id="r3")
        assert await shown(store) == ["r1?", "r1!", "r2?", "r2!"]
        assert await shown_runs(store) == ["r1", "r2"]

    async def test_messages_from_a_position_on_are_retracted(self, store: Store) -> None:
        await four_turns(store)
        await store.retract("s", from_position=4)
        assert await shown(store) == ["r1?", "r1!", "r2?"]
        assert await shown_runs(store) == ["r1", "r2"]

    async def test_a_run_that_began_there_is_retracted_though_it_was_revised(self, store: Store) -> None:
        await store.append([turn("r1"), turn("r2"), run("r3", "x", status="running")])
        await store.append([run("r2", "again"), run("r3", "again", status="running")], revise=True)
        retract_id = await store.retract("s", from_position=3)
        await store.update_run("s", run_id="r3", messages=[ask("more")])
        assert await shown_runs(store) == ["r1"]
        assert await shown(store) == ["r1?", "r1!"]
        await store.unretract("s", retract_id=retract_id)
        assert await shown(store) == ["r1?", "r1!", "again", "again", "more"]

    async def test_a_position_behind_the_end_retracts_nothing(self, store: Store) -> None:
        await four_turns(store)
        retract_id = await store.retract("s", from_position=9)
        assert len(await shown(store)) == 8
        await store.unretract("s", retract_id=retract_id)

    async def test_what_follows_a_retract_shows(self, store: Store) -> None:
        await four_turns(store)
        await store.retract("s", from_position=3)
        receipt = await store.append(turn("r5"))
        assert (receipt.run_seq, receipt.first_position) == (5, 9)
        assert await shown(store) == ["r1?", "r1!", "r5?", "r5!"]
        assert await shown_runs(store) == ["r1", "r5"]

    async def test_a_run_that_is_hidden_hides_what_it_is_extended_by(self, store: Store) -> None:
        await store.append(run("r1", "a", status="running"))
        retract_id = await store.retract("s", run_id="r1")
        await store.update_run("s", run_id="r1", messages=[ask("b")])
        assert await shown(store) == []
        await store.append(run("r1", "c"), revise=True)
        assert await shown(store) == [] and await shown_runs(store) == []
        await store.unretract("s", retract_id=retract_id)
        assert await shown(store) == ["c"]

    async def test_a_run_that_is_hidden_in_part_shows_what_it_is_extended_by(self, store: Store) -> None:
        await store.append(run("r1", "a", "b", status="running"))
        await store.retract("s", last_messages=1)
        await store.update_run("s", run_id="r1", messages=[ask("c")])
        assert await shown(store) == ["a", "c"]
        assert texts(await store.messages("s", run_id="r1").collect()) == ["a", "c"]

    async def test_what_is_hidden_between_open_runs_stays_hidden(self, store: Store) -> None:
        await store.append([run("r1", "a", status="running"), run("r2", "b", status="running")])
        await store.update_run("s", run_id="r1", messages=[ask("c")], status="completed")
        await store.retract("s", last_messages=1)
        await store.update_run("s", run_id="r2", status="completed")
        assert texts(await store.history("s").collect()) == ["a", "b"]
        runs = await store.runs("s", include_messages=True).collect()
        assert [texts(one.messages) for one in runs] == [["a"], ["b"]]

    async def test_retracts_count_what_shows(self, store: Store) -> None:
        await four_turns(store)
        await store.retract("s", last_runs=1)
        await store.retract("s", last_runs=1)
        assert await shown_runs(store) == ["r1", "r2"]
        await store.retract("s", last_messages=1)
        await store.retract("s", last_messages=1)
        assert await shown(store) == ["r1?", "r1!"]

    async def test_the_runs_that_belong_to_the_last_run_are_retracted_with_it(self, store: Store) -> None:
        await store.append([turn("r1"), turn("r2"), turn("child", parent_run_id="r2")])
        await store.retract("s", last_runs=1)
        assert await shown_runs(store) == ["r1"]

    async def test_retracted_runs_are_still_found_by_their_id(self, store: Store) -> None:
        await four_turns(store)
        await store.retract("s", run_id="r2")
        found = await store.get_run("r2")
        assert found is not None and texts(found.messages) == ["r2?", "r2!"]
        message_id = found.messages[0].message_id
        assert message_id and await store.get_message("s", message_id=message_id) is None
        assert (await store.append(turn("r2"))).replayed
        assert await shown(store, include_retracted=True) == [f"r{n}{mark}" for n in range(1, 5) for mark in "?!"]

    @pytest.mark.parametrize(("rows", "size"), [(1, 1 << 20), (500, 10)])
    async def test_a_message_is_found_behind_retracted_ones_of_its_id(self, store: Store, rows: int, size: int) -> None:
        for number in range(5):
            await store.append(run(f"r{number}", ask(f"text {number}", message_id="m")))
        small_pages(store, rows=rows, size=size)
        for number in range(4, 0, -1):
            await store.retract("s", run_id=f"r{number}")
            found = await store.get_message("s", message_id="m")
            assert found is not None and found.content == f"text {number - 1}"
        await store.fork("s", new_session_id="f")
        found = await store.get_message("f", message_id="m")
        assert found is not None and found.content == "text 0"
        await store.retract("s", run_id="r0")
        assert await store.get_message("s", message_id="m") is None

    async def test_runs_are_retracted_with_their_messages(self, store: Store) -> None:
        await four_turns(store)
        await store.retract("s", last_messages=1)
        runs = await store.runs("s", include_messages=True).collect()
        assert [texts(one.messages) for one in runs] == [["r1?", "r1!"], ["r2?", "r2!"], ["r3?", "r3!"], ["r4?"]]

    async def test_an_unretract_shows_again_what_that_retract_hid(self, store: Store) -> None:
        await four_turns(store)
        one = await store.retract("s", run_id="r2")
        two = await store.retract("s", from_run_id="r2")
        assert one != two
        await store.unretract("s", retract_id=two)
        assert await shown_runs(store) == ["r1", "r3", "r4"]
        await store.unretract("s", retract_id=one)
        assert await shown_runs(store) == ["r1", "r2", "r3", "r4"]
        await store.unretract("s", retract_id=one)
        assert len(await shown(store)) == 8

    async def test_what_was_shown_again_can_be_retracted_again(self, store: Store) -> None:
        await four_turns(store)
        for _ in range(3):
            retract_id = await store.retract("s", last_runs=2)
            assert await shown_runs(store) == ["r1", "r2"]
            await store.unretract("s", retract_id=retract_id)
            assert len(await shown_runs(store)) == 4

    async def test_a_retract_is_recognised_by_its_operation(self, store: Store, storage: Storage) -> None:
        await four_turns(store)
        first = await store.retract("s", last_runs=1, operation_id="o")
        assert await store.retract("s", last_runs=1, operation_id="o") == first
        async with storage.store() as other:
            assert await other.retract("s", last_runs=1, operation_id="o") == first
        assert await shown_runs(store) == ["r1", "r2", "r3"]
        with pytest.raises(ConflictError):
            await store.retract("s", last_runs=2, operation_id="o")
        await store.unretract("s", retract_id=first, operation_id="u")
        await store.retract("s", run_id="r1")
        await store.unretract("s", retract_id=first, operation_id="u")
        assert await shown_runs(store) == ["r2", "r3", "r4"]

    async def test_positions_stay(self, store: Store) -> None:
        await four_turns(store)
        await store.retract("s", run_id="r2")
        assert [one.position async for one in store.messages("s")] == [1, 2, 5, 6, 7, 8]
        assert [one.position async for one in store.messages("s", offset=2)] == [5, 6, 7, 8]
        assert [one.position async for one in store.messages("s", limit=3)] == [1, 2, 5]
        session = await store.get_session("s")
        assert session is not None and (session.run_count, session.message_count) == (4, 8)

    async def test_retracted_messages_have_been_paid_for(self, store: Store) -> None:
        await four_turns(store)
        before = await store.stats("s")
        await store.retract("s", last_runs=3)
        assert await store.stats("s") == before

    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"last_runs": 1, "last_messages": 1},
            {"last_runs": 0},
            {"last_messages": 0},
            {"last_runs": -1},
            {"last_runs": "1"},
            {"from_position": 0},
            {"run_id": ""},
            {"run_id": 5},
        ],
        ids=str,
    )
    async def test_wrong_arguments_are_refused(self, store: Store, arguments: dict[str, object]) -> None:
        await four_turns(store)
        with pytest.raises(InvalidRecordError):
            await store.retract("s", **arguments)  # type: ignore[arg-type]
        assert len(await shown(store)) == 8

    async def test_what_is_not_there_is_not_retracted(self, store: Store) -> None:
        with pytest.raises(SessionNotFoundError):
            await store.retract("s", last_runs=1)
        with pytest.raises(SessionNotFoundError):
            await store.unretract("s", retract_id="x")
        await four_turns(store)
        for name in ("run_id", "from_run_id"):
            with pytest.raises(RunNotFoundError):
                await store.retract("s", **{name: "unknown"})  # type: ignore[arg-type]
        with pytest.raises(ConflictError):
            await store.unretract("s", retract_id="unknown")
        await store.append(run("r1", "x"), revise=True, operation_id="revise")
        with pytest.raises(ConflictError):
            await store.unretract("s", retract_id="revise")
