"""Replays: what is sent again is recognised, and changes nothing."""

from __future__ import annotations

import msgspec

from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import Commit, Committed, Hide, Reason, Refused, RunReceipt, SetDeleted, Show
from sessionledger.testing.rows import (
    ALL,
    commit,
    digest_of,
    dump,
    outcome_of,
    patch,
    patch_session,
    put,
    run_header,
    send,
    switch,
)
from sessionledger.testing.suite.bench import Bench

__all__ = ["ReplayTests"]


async def replayed(driver: Driver, one: Commit) -> Committed:
    """Its replay, which left everything as it was."""
    before = await dump(driver, one.key)
    outcome = await outcome_of(driver, one)
    assert isinstance(outcome, Committed) and outcome.replayed, f"no replay: {outcome}"
    after = await dump(driver, one.key)
    assert after == before
    assert after.session is not None and outcome.head == after.session.head, "a replay brings the present head"
    return outcome


def again(receipts: object) -> list[RunReceipt]:
    """The receipts as a replay gives them."""
    assert isinstance(receipts, list | tuple)
    return [msgspec.structs.replace(receipt, replayed=True) for receipt in receipts]


class ReplayTests(Bench):
    async def test_a_run_that_is_there_is_replayed(self, driver: Driver) -> None:
        one = commit(put("r1", 2, counters={"a": 1}))
        first = await outcome_of(driver, one)
        assert isinstance(first, Committed) and not first.replayed
        outcome = await replayed(driver, one)
        assert list(outcome.receipts) == again(first.receipts)

    async def test_a_replay_has_the_first_receipt_after_later_commits(self, driver: Driver) -> None:
        await send(driver, put("r0", 3))
        first = await send(driver, put("r1", 2, status="running"))
        await send(driver, put("r2", 5))
        await send(driver, patch("r1", 4))
        await send(driver, patch_session())
        outcome = await replayed(driver, commit(put("r1", 2, status="running")))
        assert list(outcome.receipts) == again(first.receipts)
        assert outcome.head.version == 5

    async def test_a_run_is_recognised_whatever_its_operation(self, driver: Driver) -> None:
        first = await send(driver, put("r1"), operation_id="one", digest=digest_of(1))
        outcome = await replayed(driver, commit(put("r1"), operation_id="two", digest=digest_of(2)))
        assert list(outcome.receipts) == again(first.receipts)

    async def test_a_run_without_messages_is_replayed(self, driver: Driver) -> None:
        first = await send(driver, put("r1", 0))
        await send(driver, put("r2", 2))
        outcome = await replayed(driver, commit(put("r1", 0)))
        assert list(outcome.receipts) == again(first.receipts)

    async def test_runs_put_one_by_one_are_replayed_together(self, driver: Driver) -> None:
        receipts = [(await send(driver, put(name))).receipts[0] for name in ("a", "b", "c")]
        outcome = await replayed(driver, commit(put("c"), put("a"), put("b")))
        assert list(outcome.receipts) == again([receipts[2], receipts[0], receipts[1]])

    async def test_of_several_runs_the_new_ones_are_written(self, driver: Driver) -> None:
        old = (await send(driver, put("b", 2))).receipts[0]
        outcome = await send(driver, put("a", 1), put("b", 2), put("c", 1, counters={"n": 1}))
        assert not outcome.replayed
        assert [receipt.run_id for receipt in outcome.receipts] == ["a", "b", "c"]
        a, b, c = outcome.receipts
        assert [b] == again([old])
        assert (a.run_seq, a.first_position, a.version, a.replayed) == (2, 3, 2, False)
        assert (c.run_seq, c.first_position, c.version, c.replayed) == (3, 4, 2, False)
        assert (outcome.head.run_count, outcome.head.message_count, outcome.head.version) == (3, 4, 2)
        stored = await dump(driver)
        assert [row.run_id for row in stored.runs] == ["b", "a", "c"]
        assert stored.session is not None and stored.session.counters["n"] == 1

    async def test_of_several_runs_one_that_conflicts_refuses_all(self, driver: Driver) -> None:
        await send(driver, put("b", 2))
        before = await dump(driver)
        outcome = await outcome_of(driver, commit(put("a"), put("b", digest=digest_of("other")), put("c")))
        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.run_id) == (Reason.RUN_CONFLICT, "b")
        assert await dump(driver) == before

    async def test_a_replayed_append_leaves_the_session_alone(self, driver: Driver) -> None:
        await send(driver, put("r1"))
        one = commit(put("r1"), patch_session(state='{"a":1}', name="n"), switch("w", "b"))
        await replayed(driver, one)

    async def test_of_several_runs_a_new_one_takes_the_session_along(self, driver: Driver) -> None:
        await send(driver, put("r1"))
        await send(driver, put("r1"), put("r2"), patch_session(state='{"a":1}'), switch("w", "b"))
        stored = await dump(driver)
        assert stored.session is not None and stored.session.state == '{"a":1}'
        assert [row.version for row in stored.switches] == [2]

    async def test_a_revision_is_replayed(self, driver: Driver) -> None:
        await send(driver, put("r1", 1))
        one = commit(put("r1", 2, revision=2))
        first = await outcome_of(driver, one)
        assert isinstance(first, Committed)
        await send(driver, put("r1", 1, revision=3))
        assert list((await replayed(driver, one)).receipts) == again(first.receipts)

    async def test_the_first_revision_is_replayed_behind_the_second(self, driver: Driver) -> None:
        first = await send(driver, put("r1", 1))
        await send(driver, put("r1", 2, revision=2))
        assert list((await replayed(driver, commit(put("r1", 1)))).receipts) == again(first.receipts)

    async def test_a_patch_is_replayed(self, driver: Driver) -> None:
        await send(driver, put("r1", 1, status="running"))
        one = commit(patch("r1", 2, counters={"a": 1}, parts={"output": "1"}), operation_id="o")
        first = await outcome_of(driver, one)
        assert isinstance(first, Committed)
        await send(driver, put("r2", 3))
        await send(driver, patch("r1", 1, expected_patch=1, header=run_header("completed"), start=3))
        outcome = await replayed(driver, one)
        assert list(outcome.receipts) == again(first.receipts)

    async def test_a_patch_is_recognised_though_it_was_planned_anew(self, driver: Driver) -> None:
        await send(driver, put("r1", 1, status="running"))
        first = await send(driver, patch("r1", 2), operation_id="o", digest=digest_of("same"))
        anew = commit(patch("r1", 2, expected_patch=1, status="failed"), operation_id="o", digest=digest_of("same"))
        assert list((await replayed(driver, anew)).receipts) == again(first.receipts)

    async def test_each_kind_of_commit_is_recognised_by_its_operation(self, driver: Driver) -> None:
        made = commit(must_create=True, operation_id="made")
        kinds = [
            commit(patch_session(name="n", state='{"a":1}'), operation_id="patched"),
            commit(switch("w", "b"), operation_id="switched"),
            commit(Hide([(ALL, (1, 1))]), operation_id="hidden"),
            commit(Show("hidden"), operation_id="shown"),
            commit(SetDeleted(5), operation_id="deleted"),
            commit(SetDeleted(None), operation_id="restored", on_deleted=True),
        ]
        for one in [made, *kinds]:
            assert isinstance(await outcome_of(driver, one), Committed)
        for one in [*kinds, made]:
            await replayed(driver, one)

    async def test_operations_are_a_sessions_own(self, driver: Driver) -> None:
        for session_id in ("a", "b"):
            outcome = await send(driver, patch_session(name=session_id), operation_id="o", session_id=session_id)
            assert not outcome.replayed

    async def test_runs_are_a_sessions_own(self, driver: Driver) -> None:
        await send(driver, put("r1"), session_id="a")
        outcome = await send(driver, put("r1", digest=digest_of("other")), session_id="b")
        assert not outcome.replayed
        outcome = await send(driver, put("r1", digest=digest_of("third")), namespace="n", session_id="a")
        assert not outcome.replayed

    async def test_a_refused_operation_is_not_remembered(self, driver: Driver) -> None:
        await send(driver)
        assert isinstance(
            await outcome_of(driver, commit(patch_session(), expected_version=7, operation_id="o")), Refused
        )
        outcome = await send(driver, patch_session(name="n"), operation_id="o", digest=digest_of("other"))
        assert not outcome.replayed

    async def test_a_refused_run_is_not_remembered(self, driver: Driver) -> None:
        await send(driver)
        assert isinstance(await outcome_of(driver, commit(put("r1"), expected_version=7)), Refused)
        outcome = await send(driver, put("r1", digest=digest_of("other")))
        assert not outcome.replayed and outcome.receipts[0].run_seq == 1
