"""Runs that last: updating them, recording them, finishing them once."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import anyio
import msgspec
import pytest

from sessionledger.errors import (
    ConflictError,
    InvalidRecordError,
    RunFinishedError,
    RunNotFoundError,
    SessionDeletedError,
    SessionNotFoundError,
)
from sessionledger.records import Run, RunStatus, Session, Usage
from sessionledger.store import Store
from sessionledger.testing.builders import answer, ask, run, texts, turn
from sessionledger.testing.suite.bench import Bench, Storage

__all__ = ["UpdateTests"]


async def stored(store: Store, run_id: str = "r1") -> Run:
    found = await store.get_run(run_id, session_id="s")
    assert found is not None
    return found


class UpdateTests(Bench):
    async def test_a_run_grows(self, store: Store) -> None:
        await store.append(run("r1", "a", status="running"))
        await store.append(turn("r2"))
        receipt = await store.update_run("s", run_id="r1", messages=[ask("b"), ask("c")])
        assert (receipt.run_id, receipt.run_seq, receipt.revision) == ("r1", 1, 1)
        assert (receipt.first_position, receipt.last_position, receipt.version) == (4, 5, 3)
        await store.update_run("s", run_id="r1", messages=[ask("d")])
        assert texts(await store.messages("s").collect()) == ["a", "r2?", "r2!", "b", "c", "d"]
        grown = await stored(store)
        assert (texts(grown.messages), grown.message_count) == (["a", "b", "c", "d"], 4)
        assert len({one.message_id for one in grown.messages}) == 4
        for one in grown.messages:
            assert one.message_id and await store.get_message("s", message_id=one.message_id) == one

    async def test_an_update_without_messages_has_no_positions(self, store: Store) -> None:
        await store.append(run("r1", "a", status="running"))
        receipt = await store.update_run("s", run_id="r1", output="x")
        assert (receipt.first_position, receipt.last_position, receipt.version) == (None, None, 2)

    async def test_fields_replace_and_mappings_merge(self, store: Store) -> None:
        given = run("r1", status="running", output=1, error=2, metadata={"a": 1, "b": {"x": 1}}, extra={"k": 1})
        await store.append(given)
        await store.update_run("s", run_id="r1", output={"o": 1}, metadata={"b": {"y": 2}, "c": 3}, extra={"l": 2})
        one = await stored(store)
        assert (one.output, one.error) == ({"o": 1}, 2)
        assert (one.metadata, one.extra) == ({"a": 1, "b": {"y": 2}, "c": 3}, {"k": 1, "l": 2})
        await store.update_run("s", run_id="r1", output=None, error=None, usage=None, metadata={})
        one = await stored(store)
        assert (one.output, one.error, one.usage) == (None, None, None)
        assert one.metadata == {"a": 1, "b": {"y": 2}, "c": 3}

    async def test_usage_is_summed_until_it_is_given(self, store: Store) -> None:
        await store.append(run("r1", answer("a", usage=Usage(input_tokens=1)), status="running"))
        await store.update_run(
            "s", run_id="r1", messages=[answer("b", usage=Usage(input_tokens=2, cost=Decimal("0.10")))]
        )
        assert (await stored(store)).usage == Usage(input_tokens=3, cost=Decimal("0.10"))
        await store.update_run("s", run_id="r1", usage=Usage(input_tokens=9))
        await store.update_run("s", run_id="r1", messages=[answer("c", usage=Usage(input_tokens=5))])
        assert (await stored(store)).usage == Usage(input_tokens=9)
        assert (await store.stats("s")).usage == Usage(input_tokens=9)

    @pytest.mark.parametrize("status", ["pending", "running", "paused"])
    async def test_an_open_run_takes_updates(self, store: Store, status: str) -> None:
        await store.append(run("r1", "a", status=status))
        await store.update_run("s", run_id="r1", messages=[ask("b")])
        one = await stored(store)
        assert (one.status, one.finished_at) == (RunStatus(status), None)

    @pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
    async def test_the_first_terminal_status_wins(self, store: Store, status: str) -> None:
        await store.append(run("r1", "a", status="running"))
        await store.update_run("s", run_id="r1", status=status, messages=[ask("b")])
        finished = await stored(store)
        assert finished.status == status and finished.finished_at is not None
        late: list[dict[str, Any]] = [{"status": "completed"}, {"messages": [ask("c")]}, {"output": 1}, {}]
        for fields in late:
            with pytest.raises(RunFinishedError) as raised:
                await store.update_run("s", run_id="r1", **fields)
            assert (raised.value.session_id, raised.value.run_id, raised.value.status) == ("s", "r1", status)
        assert await stored(store) == finished

    async def test_a_run_that_was_appended_finished_takes_no_updates(self, store: Store) -> None:
        await store.append(turn("r1"))
        with pytest.raises(RunFinishedError):
            await store.update_run("s", run_id="r1", messages=[ask("b")])
        assert texts(await store.messages("s").collect()) == ["r1?", "r1!"]

    async def test_a_worker_learns_that_stop_was_pressed_elsewhere(self, store: Store, storage: Storage) -> None:
        await store.append(run("r1", "a", status="running"))
        await store.update_run("s", run_id="r1", messages=[ask("b")])
        async with storage.store() as other:
            await other.update_run("s", run_id="r1", status="cancelled")
        with pytest.raises(RunFinishedError):
            await store.update_run("s", run_id="r1", messages=[ask("c")])
        assert texts((await stored(store)).messages) == ["a", "b"]

    async def test_two_stores_update_one_run(self, store: Store, storage: Storage) -> None:
        await store.append(run("r1", status="running", metadata={}))
        async with storage.store() as other:
            for number in range(6):
                writer = (store, other)[number % 2]
                await writer.update_run("s", run_id="r1", messages=[ask(str(number))], metadata={str(number): number})
        one = await stored(store)
        assert texts(one.messages) == ["0", "1", "2", "3", "4", "5"]
        assert one.metadata == {str(number): number for number in range(6)}

    async def test_updates_at_once_lose_nothing(self, store: Store) -> None:
        await store.append(run("r1", status="running"))

        async def update(number: int) -> None:
            await store.update_run("s", run_id="r1", messages=[ask(str(number))], metadata={str(number): number})

        async with anyio.create_task_group() as group:
            for number in range(32):
                group.start_soon(update, number)
        one = await stored(store)
        assert sorted(texts(one.messages), key=int) == [str(number) for number in range(32)]
        assert len(one.metadata) == 32

    async def test_of_many_finishes_at_once_one_wins(self, store: Store) -> None:
        await store.append(run("r1", status="running"))
        won: list[str] = []
        lost: list[str] = []

        async def finish(status: str) -> None:
            try:
                await store.update_run("s", run_id="r1", status=status, output=status)
                won.append(status)
            except RunFinishedError as error:
                lost.append(error.status)

        async with anyio.create_task_group() as group:
            for status in ("completed", "failed", "cancelled") * 3:
                group.start_soon(finish, status)
        one = await stored(store)
        assert (len(won), set(lost)) == (1, {won[0]})
        assert (one.status, one.output) == (won[0], won[0])

    async def test_the_expected_status_is_judged(self, store: Store) -> None:
        await store.append(run("r1", status="paused"))
        with pytest.raises(ConflictError):
            await store.update_run("s", run_id="r1", status="running", expected_status="pending")
        with pytest.raises(ConflictError):
            await store.update_run("s", run_id="r1", status="running", expected_status=["pending", "running"])
        await store.update_run("s", run_id="r1", status="running", expected_status=RunStatus.PAUSED)
        await store.update_run("s", run_id="r1", status="completed", expected_status={"running", "paused"})
        with pytest.raises(RunFinishedError):
            await store.update_run("s", run_id="r1", expected_status="completed")

    async def test_one_of_many_claims_a_pending_run(self, store: Store) -> None:
        await store.append(run("r1", status="pending"))
        claimed: list[int] = []

        async def claim(number: int) -> None:
            try:
                await store.update_run("s", run_id="r1", status="running", expected_status="pending")
                claimed.append(number)
            except ConflictError:
                pass

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(claim, number)
        assert len(claimed) == 1

    async def test_an_update_is_recognised_by_its_operation(self, store: Store, storage: Storage) -> None:
        await store.append(run("r1", status="running"))
        first = await store.update_run("s", run_id="r1", messages=[ask("a")], operation_id="o")
        await store.update_run("s", run_id="r1", messages=[ask("b")])
        again = await store.update_run("s", run_id="r1", messages=[ask("a")], operation_id="o")
        assert again == msgspec.structs.replace(first, replayed=True)
        await store.update_run("s", run_id="r1", status="completed", operation_id="end")
        assert (await store.update_run("s", run_id="r1", status="completed", operation_id="end")).replayed
        async with storage.store() as other:
            assert (await other.update_run("s", run_id="r1", messages=[ask("a")], operation_id="o")).replayed
        with pytest.raises(ConflictError):
            await store.update_run("s", run_id="r1", messages=[ask("x")], operation_id="o")
        assert texts((await stored(store)).messages) == ["a", "b"]

    async def test_an_update_of_what_is_not_there_is_refused(self, store: Store) -> None:
        with pytest.raises(SessionNotFoundError):
            await store.update_run("s", run_id="r1")
        await store.append(turn("r1"))
        with pytest.raises(RunNotFoundError) as raised:
            await store.update_run("s", run_id="r2")
        assert (raised.value.session_id, raised.value.run_id) == ("s", "r2")
        await store.append(run("r3", status="running"))
        await store.delete_session("s")
        with pytest.raises(SessionDeletedError):
            await store.update_run("s", run_id="r3", messages=[ask("a")])
        await store.delete_session("s", soft=False)
        with pytest.raises(SessionNotFoundError):
            await store.update_run("s", run_id="r3", messages=[ask("a")])

    async def test_a_run_that_was_known_before_a_deletion_is_not_updated(self, store: Store) -> None:
        await store.append(run("r1", status="running"))
        await store.update_run("s", run_id="r1", messages=[ask("a")])
        await store.delete_session("s")
        with pytest.raises(SessionDeletedError):
            await store.update_run("s", run_id="r1", messages=[ask("b")])
        await store.restore_session("s")
        await store.update_run("s", run_id="r1", messages=[ask("b")])
        await store.delete_session("s", soft=False)
        with pytest.raises(SessionNotFoundError):
            await store.update_run("s", run_id="r1", messages=[ask("c")])

    async def test_a_run_of_the_same_name_in_a_session_made_again_is_read_anew(
        self, store: Store, storage: Storage
    ) -> None:
        await store.append(run("r1", *[answer("old", usage=Usage(input_tokens=1000))] * 3, status="running"))
        await store.update_run("s", run_id="r1", messages=[answer("more", usage=Usage(input_tokens=1000))])
        async with storage.store() as other:
            await other.delete_session("s", soft=False)
            await other.create_session(Session(session_id="s"))
            await other.append(run("r1", "q", status="running"))
            # as many patches as the one that the store knows
            await other.update_run("s", run_id="r1", messages=[answer("a", usage=Usage(input_tokens=1))])
        await store.update_run("s", run_id="r1", messages=[answer("b", usage=Usage(input_tokens=2))], operation_id="o")
        one = await stored(store)
        assert texts(one.messages) == ["q", "a", "b"]
        assert one.usage == (await store.stats("s")).usage == Usage(input_tokens=3)
        for message in one.messages:
            assert await store.get_message("s", message_id=message.message_id or "") == message
        again = await store.update_run(
            "s", run_id="r1", messages=[answer("b", usage=Usage(input_tokens=2))], operation_id="o"
        )
        assert again.replayed

    async def test_a_wrong_status_is_refused(self, store: Store) -> None:
        await store.append(run("r1", status="running"))
        with pytest.raises(InvalidRecordError):
            await store.update_run("s", run_id="r1", status="asleep")
        with pytest.raises(InvalidRecordError):
            await store.update_run("s", run_id="r1", expected_status="asleep")

    # recording

    async def test_a_recording_appends_extends_and_completes(self, store: Store) -> None:
        async with store.recording(run("r1", "q")) as recorder:
            assert (recorder.run_id, recorder.receipt.run_seq) == ("r1", 1)
            running = await stored(store)
            assert (running.status, texts(running.messages)) == (RunStatus.RUNNING, ["q"])
            receipt = await recorder.add(answer("a"), answer("b"))
            assert (receipt.first_position, receipt.last_position) == (2, 3)
            await recorder.update(output="done", metadata={"x": 1})
            assert texts((await stored(store)).messages) == ["q", "a", "b"]
        one = await stored(store)
        assert (one.status, one.output, one.metadata) == (RunStatus.COMPLETED, "done", {"x": 1})
        assert one.finished_at is not None

    async def test_a_recording_makes_a_run_id(self, store: Store) -> None:
        async with store.recording(run(None, "q")) as recorder:
            run_id = recorder.run_id
        assert (await stored(store, run_id)).status == RunStatus.COMPLETED

    async def test_a_recording_that_fails_is_kept_as_failed(self, store: Store) -> None:
        with pytest.raises(ZeroDivisionError):
            async with store.recording(run("r1", "q")) as recorder:
                await recorder.add(answer("a"))
                recorder.partial(answer("half an an"))
                raise ZeroDivisionError("boom \ud800")
        one = await stored(store)
        assert (one.status, texts(one.messages)) == (RunStatus.FAILED, ["q", "a", "half an an"])
        assert one.error["type"] == "ZeroDivisionError" and "boom" in one.error["message"]

    async def test_a_recording_that_is_cancelled_is_kept_as_cancelled(self, store: Store) -> None:
        with anyio.CancelScope() as scope:
            async with store.recording(run("r1", "q")) as recorder:
                recorder.partial(answer("half"))
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        one = await stored(store)
        assert (one.status, texts(one.messages), one.error) == (RunStatus.CANCELLED, ["q", "half"], None)

    async def test_what_was_added_is_no_longer_partial(self, store: Store) -> None:
        with pytest.raises(KeyError):
            async with store.recording(run("r1", "q")) as recorder:
                recorder.partial(answer("whol"))
                await recorder.add(answer("whole"))
                raise KeyError
        assert texts((await stored(store)).messages) == ["q", "whole"]

    async def test_a_partial_message_is_not_stored_at_a_normal_end(self, store: Store) -> None:
        async with store.recording(run("r1", "q")) as recorder:
            recorder.partial(answer("half"))
            recorder.partial(None)
        assert texts((await stored(store)).messages) == ["q"]

    async def test_a_partial_message_that_cannot_be_stored_is_left_out(self, store: Store) -> None:
        with pytest.raises(KeyError):
            async with store.recording(run("r1", "q")) as recorder:
                recorder.partial(answer("half \ud83d"))
                raise KeyError("x")
        one = await stored(store)
        assert (one.status, texts(one.messages)) == (RunStatus.FAILED, ["q"])

    async def test_a_recording_that_was_finished_elsewhere_tells_its_worker(self, store: Store) -> None:
        with pytest.raises(RunFinishedError):
            async with store.recording(run("r1", "q")) as recorder:
                await store.update_run("s", run_id="r1", status="cancelled")
                await recorder.add(answer("late"))
        one = await stored(store)
        assert (one.status, texts(one.messages)) == (RunStatus.CANCELLED, ["q"])

    async def test_a_recording_that_was_finished_elsewhere_tells_at_its_end(self, store: Store) -> None:
        with pytest.raises(RunFinishedError):
            async with store.recording(run("r1", "q")):
                await store.update_run("s", run_id="r1", status="failed")
        assert (await stored(store)).status == RunStatus.FAILED

    async def test_an_exception_says_more_than_a_finish_elsewhere(self, store: Store) -> None:
        with pytest.raises(KeyError):
            async with store.recording(run("r1", "q")):
                await store.update_run("s", run_id="r1", status="cancelled")
                raise KeyError("x")
        assert (await stored(store)).status == RunStatus.CANCELLED

    async def test_a_recording_may_end_itself(self, store: Store) -> None:
        async with store.recording(run("r1", "q")) as recorder:
            await recorder.update(status="paused", output=1)
            await recorder.update(status="failed", error="why")
        one = await stored(store)
        assert (one.status, one.error, one.output) == (RunStatus.FAILED, "why", 1)

    async def test_a_run_that_cannot_be_kept_is_not_recorded(self, store: Store) -> None:
        with pytest.raises(InvalidRecordError):
            async with store.recording(run("r1", output=b"x")):
                raise AssertionError("the block must not run")
        assert await store.get_session("s") is None
