"""History: what belongs into a model's context."""

from __future__ import annotations

from typing import Any

import pytest

from sessionledger.errors import InvalidRecordError, RunNotFoundError
from sessionledger.records import Message
from sessionledger.store import Store
from sessionledger.testing.builders import answer, ask, call, result, run, texts, turn
from sessionledger.testing.suite.bench import Bench, small_pages

__all__ = ["HistoryTests"]


def summary(text: str) -> Message:
    return Message(role="system", kind="summary", content=text)


async def remembered(store: Store, **window: Any) -> list[str]:
    return texts(await store.history("s", **window).collect())


class HistoryTests(Bench):
    async def test_history_is_all_messages_of_finished_runs(self, store: Store) -> None:
        await store.append([turn("r1"), turn("r2"), turn("r3")])
        found = await store.history("s").collect()
        assert found == await store.messages("s").collect()

    async def test_each_runs_messages_come_together(self, store: Store) -> None:
        await store.append(run("a", "a1", status="running"))
        await store.append(run("b", "b1", status="running"))
        for text in ("2", "3"):
            await store.update_run("s", run_id="a", messages=[ask(f"a{text}")])
            await store.update_run("s", run_id="b", messages=[ask(f"b{text}")])
        await store.update_run("s", run_id="b", status="completed")
        await store.update_run("s", run_id="a", status="completed")
        assert texts(await store.messages("s").collect()) == ["a1", "b1", "a2", "b2", "a3", "b3"]
        assert await remembered(store) == ["a1", "a2", "a3", "b1", "b2", "b3"]
        assert await remembered(store, last_messages=4) == ["a3", "b1", "b2", "b3"]
        assert await remembered(store, last_runs=1) == ["b1", "b2", "b3"]

    async def test_only_some_statuses_are_remembered(self, store: Store) -> None:
        for status in ("completed", "failed", "cancelled", "running", "paused", "pending"):
            await store.append(run(status, status, status=status))
        assert await remembered(store) == ["completed", "cancelled"]
        assert await remembered(store, statuses=["failed", "running"]) == ["failed", "running"]
        assert await remembered(store, statuses=[]) == []
        assert await remembered(store, last_runs=1) == ["cancelled"]
        assert await remembered(store, last_messages=2) == ["completed", "cancelled"]

    async def test_runs_of_members_are_left_out(self, store: Store) -> None:
        await store.append([turn("r1"), turn("child", parent_run_id="r1"), turn("r2")])
        assert await remembered(store) == ["r1?", "r1!", "r2?", "r2!"]
        assert await remembered(store, nested=True) == ["r1?", "r1!", "child?", "child!", "r2?", "r2!"]
        assert await remembered(store, last_runs=2) == ["r1?", "r1!", "r2?", "r2!"]
        assert await remembered(store, last_runs=2, nested=True) == ["child?", "child!", "r2?", "r2!"]

    @pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 9])
    async def test_the_last_runs_are_remembered(self, store: Store, count: int) -> None:
        names = ["r1", "r2", "r3", "r4"]
        await store.append([turn(name) for name in names])
        last = names[len(names) - min(count, 4) :]
        assert await remembered(store, last_runs=count) == [f"{name}{mark}" for name in last for mark in "?!"]

    @pytest.mark.parametrize("count", [0, 1, 2, 3, 6, 7])
    async def test_the_last_messages_are_remembered(self, store: Store, count: int) -> None:
        await store.append([turn("r1"), turn("r2"), turn("r3")])
        whole = await remembered(store)
        assert await remembered(store, last_messages=count) == whole[len(whole) - min(count, 6) :]

    async def test_the_stricter_window_wins(self, store: Store) -> None:
        await store.append([turn("r1"), turn("r2"), turn("r3")])
        assert await remembered(store, last_runs=2, last_messages=3) == ["r2!", "r3?", "r3!"]
        assert await remembered(store, last_runs=1, last_messages=3) == ["r3?", "r3!"]

    async def test_runs_without_messages_count_as_runs(self, store: Store) -> None:
        await store.append([turn("r1"), run("empty"), turn("r3")])
        assert await remembered(store, last_runs=2) == ["r3?", "r3!"]
        assert await remembered(store, last_messages=3) == ["r1!", "r3?", "r3!"]

    async def test_roles_are_chosen(self, store: Store) -> None:
        await store.append([run("r1", Message(role="system", content="be"), "q1", answer("a1")), turn("r2")])
        assert await remembered(store, roles=["user"]) == ["q1", "r2?"]
        assert await remembered(store, skip_roles=["system", "user"]) == ["a1", "r2!"]
        assert await remembered(store, roles=["user", "system"], skip_roles=["user"]) == ["be"]
        assert await remembered(store, roles=["user"], last_messages=1) == ["r2?"]
        assert await remembered(store, skip_roles=["assistant"], last_messages=2) == ["q1", "r2?"]

    # summaries

    async def test_history_begins_at_the_last_summary(self, store: Store) -> None:
        await store.append(
            [turn("r1"), run("r2", "q", summary("first"), "q2", summary("second"), answer("a")), turn("r3")]
        )
        assert await remembered(store) == ["second", "a", "r3?", "r3!"]
        assert await remembered(store, last_runs=9) == ["second", "a", "r3?", "r3!"]
        assert await remembered(store, last_runs=1) == ["r3?", "r3!"]
        assert await remembered(store, last_messages=3) == ["a", "r3?", "r3!"]
        assert await remembered(store, last_messages=30) == ["second", "a", "r3?", "r3!"]

    async def test_a_summary_that_is_retracted_does_not_count(self, store: Store) -> None:
        await store.append([turn("r1"), run("r2", summary("sum")), turn("r3")])
        retract_id = await store.retract("s", run_id="r2")
        assert await remembered(store) == ["r1?", "r1!", "r3?", "r3!"]
        await store.unretract("s", retract_id=retract_id)
        assert await remembered(store) == ["sum", "r3?", "r3!"]

    async def test_a_summary_of_a_failed_run_does_not_count(self, store: Store) -> None:
        await store.append([turn("r1"), run("r2", summary("sum"), status="failed"), turn("r3")])
        assert await remembered(store) == ["r1?", "r1!", "r3?", "r3!"]

    async def test_a_summary_that_was_added_later_counts(self, store: Store) -> None:
        await store.append([turn("r1"), run("r2", "q", status="running")])
        await store.update_run("s", run_id="r2", messages=[summary("sum"), answer("a")], status="completed")
        assert await remembered(store) == ["sum", "a"]

    async def test_an_inherited_summary_counts_in_a_fork(self, store: Store) -> None:
        await store.append([turn("r1"), run("r2", summary("sum"), "q"), turn("r3")])
        await store.fork("s", new_session_id="f")
        assert texts(await store.history("f").collect()) == ["sum", "q", "r3?", "r3!"]
        await store.fork("s", at=2, new_session_id="g")
        assert texts(await store.history("g").collect()) == ["r1?", "r1!"]

    # the view of a run

    async def test_a_run_sees_what_was_before_it_and_itself(self, store: Store) -> None:
        await store.append([turn("r1"), turn("r2"), run("r3", "q", status="running"), turn("r4")])
        await store.update_run("s", run_id="r3", messages=[call("c"), result("c")])
        assert await remembered(store, for_run="r3") == ["r1?", "r1!", "r2?", "r2!", "q", None, "done"]
        assert await remembered(store, for_run="r3", last_runs=1) == ["r2?", "r2!", "q", None, "done"]
        assert await remembered(store, for_run="r3", last_runs=0) == ["q", None, "done"]
        assert await remembered(store, for_run="r1") == ["r1?", "r1!"]

    async def test_the_view_of_an_unknown_run_is_refused(self, store: Store) -> None:
        await store.append(turn("r1"))
        with pytest.raises(RunNotFoundError):
            await store.history("s", for_run="unknown").collect()
        assert await store.history("unknown", for_run="r1").collect() == []

    async def test_a_member_sees_itself(self, store: Store) -> None:
        await store.append(
            [turn("r1"), run("r2", "q", status="running"), run("m", "x", parent_run_id="r2", status="running")]
        )
        assert await remembered(store, for_run="m") == ["r1?", "r1!", "x"]

    # tool calls

    async def test_calls_and_results_come_in_pairs(self, store: Store) -> None:
        await store.append(run("r1", "q", call("a", "b"), result("b", "B"), result("a", "A"), answer("done")))
        assert await remembered(store) == ["q", None, "B", "A", "done"]

    async def test_a_call_without_its_result_is_left_out(self, store: Store) -> None:
        await store.append(run("r1", "q", call("a")))
        assert await remembered(store) == ["q"]
        await store.append(run("r2", "q2", call("b", text="let me see")))
        (_, _, last) = await store.history("s").collect()
        assert (last.content, last.tool_calls) == ("let me see", ())
        await store.append(turn("r3"))
        assert await remembered(store) == ["q", "q2", "let me see", "r3?", "r3!"]

    async def test_a_result_without_its_call_is_left_out(self, store: Store) -> None:
        await store.append(run("r1", result("x"), "q", call("a"), result("a", "A"), result("a", "again"), result("y")))
        assert await remembered(store) == ["q", None, "A"]

    async def test_a_call_answered_in_part_is_left_out_with_its_results(self, store: Store) -> None:
        await store.append(run("r1", "q", call("a", "b"), result("a", "A"), "q2", result("b", "late")))
        assert await remembered(store) == ["q", "q2"]

    async def test_a_result_answers_one_call(self, store: Store) -> None:
        """Models that make up ids use one twice, and a call that failed is made again under its id."""
        await store.append(run("r1", "q", call("a"), call("a", text="again"), result("a", "A"), answer("done")))
        found = await store.history("s").collect()
        assert texts(found) == ["q", "again", "A", "done"]
        assert [len(one.tool_calls) for one in found] == [0, 1, 0, 0]
        await store.append(run("r2", "q2", call("b", text="first"), call("b"), result("b", "B"), result("b", "B2")))
        assert texts(await store.history("s", last_runs=1).collect()) == ["q2", "first", None, "B", "B2"]

    async def test_two_calls_of_one_id_need_two_results(self, store: Store) -> None:
        await store.append(run("r1", "q", call("a", "a"), result("a", "A"), result("a", "B")))
        assert await remembered(store) == ["q", None, "A", "B"]
        await store.append(run("r2", "q2", call("b", "b"), result("b", "B")))
        assert await remembered(store, last_runs=1) == ["q2"]

    async def test_results_of_a_call_that_is_left_out_go_with_it_alone(self, store: Store) -> None:
        messages = [call("a"), result("a", "A"), call("a", "b"), result("a", "A2"), answer("done")]
        await store.append(run("r1", "q", *messages, "q2"))
        assert await remembered(store) == ["q", None, "A", "done", "q2"]

    @pytest.mark.parametrize(
        ("count", "expected"),
        [(1, []), (2, ["r2?"]), (3, ["r2?"]), (4, [None, "A", "r2?"]), (5, ["q", None, "A", "r2?"])],
    )
    async def test_no_pair_is_cut_at_the_edge(self, store: Store, count: int, expected: list[str | None]) -> None:
        await store.append([run("r1", "q", call("a"), result("a", "A")), run("r2", "r2?", call("b"))])
        assert await remembered(store, last_messages=count) == expected

    async def test_skipped_tools_leave_no_calls(self, store: Store) -> None:
        await store.append(run("r1", "q", call("a", text="hm"), result("a", "A"), answer("done")))
        found = await store.history("s", skip_roles=["tool"]).collect()
        assert texts(found) == ["q", "hm", "done"]
        assert not any(one.tool_calls for one in found)

    async def test_a_pair_may_span_runs(self, store: Store) -> None:
        await store.append(run("r1", "q", call("a")))
        await store.append(run("r2", result("a", "A"), answer("done")))
        assert await remembered(store) == ["q", None, "A", "done"]

    async def test_a_run_that_waits_for_its_tools_sees_its_question(self, store: Store) -> None:
        await store.append(run("r1", "q", call("a", "b"), status="running"))
        assert await remembered(store, for_run="r1") == ["q"]
        await store.update_run("s", run_id="r1", messages=[result("a", "A")])
        await store.update_run("s", run_id="r1", messages=[result("b", "B")])
        assert await remembered(store, for_run="r1") == ["q", None, "A", "B"]

    # pages

    @pytest.mark.parametrize("rows", [1, 2, 3, 7])
    async def test_history_does_not_depend_on_its_pages(self, store: Store, rows: int) -> None:
        for number in range(6):
            name = f"r{number}"
            messages = [
                ask(f"{name}?"),
                call(f"{name}a", f"{name}b"),
                result(f"{name}b"),
                result(f"{name}a"),
                answer(f"{name}!"),
            ]
            await store.append(run(name, *messages, status="failed" if number == 2 else "completed"))
        await store.append(run("r6", "open?", call("x"), result("x"), status="running"))
        await store.append(run("r3", "revised?", summary("sum"), answer("revised!")), revise=True)
        await store.retract("s", run_id="r4")
        windows: list[dict[str, Any]] = [
            {},
            {"last_runs": 2},
            {"last_messages": 6},
            {"for_run": "r6"},
            {"statuses": ["failed", "completed"], "last_runs": 9},
            {"roles": ["user", "assistant"]},
        ]
        expected = [await remembered(store, **window) for window in windows]
        assert expected[0] == ["sum", "revised!", "r5?", None, "done", "done", "r5!"]
        small_pages(store, rows=rows)
        assert [await remembered(store, **window) for window in windows] == expected
        walked: list[Message] = []
        cursor = store.history("s", page_size=rows)
        while (page := await cursor.page()).items:
            assert len(page.items) <= rows
            walked += page.items
        assert texts(walked) == expected[0]

    async def test_a_long_history_is_read_to_its_end(self, store: Store) -> None:
        await store.append([run(f"r{n}", *(f"{n}.{m}" for m in range(40))) for n in range(40)])
        small_pages(store, rows=100)
        found = await store.history("s").collect()
        assert texts(found) == [f"{n}.{m}" for n in range(40) for m in range(40)]
        assert len(await remembered(store, last_messages=1234)) == 1234
        assert len(await remembered(store, last_runs=33)) == 33 * 40

    @pytest.mark.parametrize(
        "window",
        [{"last_runs": -1}, {"last_messages": "1"}, {"roles": "user"}, {"statuses": ["asleep"]}, {"for_run": ""}],
        ids=str,
    )
    async def test_a_wrong_window_is_refused(self, store: Store, window: dict[str, Any]) -> None:
        with pytest.raises(InvalidRecordError):
            store.history("s", **window)
