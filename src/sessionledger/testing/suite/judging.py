"""What a driver judges before it writes, and in which order: every `Reason`, and which of two comes first."""

from __future__ import annotations

from typing import Any

from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import Commit, Committed, CountForks, Hide, Reason, Refused, Seal, SetDeleted, Show
from sessionledger.testing.rows import (
    ALL,
    commit,
    digest_of,
    dump,
    key,
    new_session,
    outcome_of,
    patch,
    patch_session,
    put,
    send,
)
from sessionledger.testing.suite.bench import Bench

__all__ = ["JudgingTests"]


async def refused(driver: Driver, one: Commit) -> Refused:
    """Its refusal, which left everything as it was."""
    before = await dump(driver, one.key)
    outcome = await outcome_of(driver, one)
    assert isinstance(outcome, Refused), "it was done"
    assert await dump(driver, one.key) == before
    return outcome


async def reason(driver: Driver, one: Commit) -> Reason:
    return (await refused(driver, one)).reason


class JudgingTests(Bench):
    # each reason alone

    async def test_another_owner_is_refused(self, driver: Driver) -> None:
        done = await send(driver, create=new_session(user_id="u"))
        outcome = await refused(driver, commit(put(), owner="v"))
        assert outcome == Refused(Reason.NOT_OWNER, done.head)
        assert isinstance(await outcome_of(driver, commit(put(), owner="u")), Committed)

    async def test_a_session_without_owner_is_nobodys(self, driver: Driver) -> None:
        await send(driver)
        assert await reason(driver, commit(put(), owner="v")) is Reason.NOT_OWNER

    async def test_an_owner_may_make_a_session(self, driver: Driver) -> None:
        await send(driver, owner="u", create=new_session(user_id="u"))

    async def test_a_session_that_is_not_there_is_missing(self, driver: Driver) -> None:
        outcome = await refused(driver, commit(put(), create=False))
        assert outcome == Refused(Reason.MISSING)

    async def test_a_session_that_is_there_exists(self, driver: Driver) -> None:
        done = await send(driver, put())
        assert await refused(driver, commit(must_create=True)) == Refused(Reason.EXISTS, done.head)

    async def test_a_softly_deleted_session_exists(self, driver: Driver) -> None:
        await send(driver, SetDeleted(1))
        assert await reason(driver, commit(must_create=True)) is Reason.EXISTS

    async def test_a_softly_deleted_session_takes_nothing(self, driver: Driver) -> None:
        done = await send(driver, SetDeleted(1))
        assert await refused(driver, commit(put())) == Refused(Reason.DELETED, done.head)
        assert await reason(driver, commit(patch_session(), create=False)) is Reason.DELETED
        assert isinstance(await outcome_of(driver, commit(CountForks(1), on_deleted=True)), Committed)

    async def test_a_tombstone_takes_nothing(self, driver: Driver) -> None:
        await send(driver, put())
        done = await send(driver, Seal())
        assert await refused(driver, commit(put())) == Refused(Reason.ERASED, done.head)
        assert await reason(driver, commit(put("r2"), on_deleted=True)) is Reason.ERASED
        assert await reason(driver, commit(SetDeleted(None), on_deleted=True, create=False)) is Reason.ERASED
        assert await reason(driver, commit(Seal(), on_deleted=True, create=False)) is Reason.ERASED

    async def test_a_softly_deleted_session_is_sealed(self, driver: Driver) -> None:
        await send(driver, put(), SetDeleted(1))
        assert (await send(driver, Seal(), on_deleted=True)).head.erased

    async def test_another_incarnation_is_refused(self, driver: Driver) -> None:
        await send(driver, put())
        assert await reason(driver, commit(put("r2"), incarnation=2)) is Reason.INCARNATION
        await send(driver, put("r2"), incarnation=1)
        await send(driver, Seal())
        await send(driver, must_create=True)
        assert await reason(driver, commit(put("r3"), incarnation=1)) is Reason.INCARNATION
        await send(driver, put("r3"), incarnation=2)

    async def test_another_version_is_refused(self, driver: Driver) -> None:
        done = await send(driver, put())
        assert await refused(driver, commit(put("r2"), expected_version=0)) == Refused(Reason.VERSION, done.head)
        assert await reason(driver, commit(put("r2"), expected_version=2)) is Reason.VERSION
        await send(driver, put("r2"), expected_version=1)

    async def test_version_0_means_no_session(self, driver: Driver) -> None:
        assert await reason(driver, commit(put(), expected_version=1)) is Reason.VERSION
        await send(driver, put(), expected_version=0)

    async def test_version_0_means_a_tombstone_too(self, driver: Driver) -> None:
        await send(driver, put())
        await send(driver, Seal())
        assert await reason(driver, commit(must_create=True, expected_version=2)) is Reason.VERSION
        await send(driver, must_create=True, expected_version=0)

    async def test_another_state_version_is_refused(self, driver: Driver) -> None:
        assert await reason(driver, commit(expected_state_version=1)) is Reason.STATE_VERSION
        await send(driver, put(), expected_state_version=0)
        done = await send(driver, put("r2"), expected_state_version=1)
        expected = Refused(Reason.STATE_VERSION, done.head)
        assert await refused(driver, commit(patch_session(), expected_state_version=2)) == expected
        await send(driver, patch_session(), expected_state_version=1)
        assert await reason(driver, commit(patch_session(), expected_state_version=1)) is Reason.STATE_VERSION

    async def test_a_run_with_another_digest_conflicts(self, driver: Driver) -> None:
        done = await send(driver, put("r0"), put("r1"))
        outcome = await refused(driver, commit(put("r1", digest=digest_of("other"))))
        assert outcome == Refused(Reason.RUN_CONFLICT, done.head, "r1")

    async def test_an_operation_with_another_digest_conflicts(self, driver: Driver) -> None:
        done = await send(driver, patch_session(name="a"), operation_id="o", digest=digest_of(1))
        outcome = await refused(driver, commit(patch_session(name="b"), operation_id="o", digest=digest_of(2)))
        assert outcome == Refused(Reason.OPERATION_CONFLICT, done.head)

    async def test_a_patch_of_an_unknown_run_is_refused(self, driver: Driver) -> None:
        done = await send(driver, put("r1", status="running"))
        assert await refused(driver, commit(patch("r2"))) == Refused(Reason.RUN_CHANGED, done.head, "r2")

    async def test_a_patch_behind_another_is_refused(self, driver: Driver) -> None:
        await send(driver, put("r1", status="running"))
        await send(driver, patch("r1", 1))
        assert await reason(driver, commit(patch("r1", 1))) is Reason.RUN_CHANGED
        assert await reason(driver, commit(patch("r1", 1, expected_patch=2))) is Reason.RUN_CHANGED
        assert await reason(driver, commit(patch("r1", 1, expected_patch=-1))) is Reason.RUN_CHANGED
        await send(driver, patch("r1", 1, expected_patch=1))

    async def test_a_patch_of_an_old_revision_is_refused(self, driver: Driver) -> None:
        await send(driver, put("r1", status="running"))
        await send(driver, put("r1", revision=2, status="running"))
        assert await reason(driver, commit(patch("r1", 1))) is Reason.RUN_CHANGED
        assert await reason(driver, commit(patch("r1", 1, revision=3))) is Reason.RUN_CHANGED
        await send(driver, patch("r1", 1, revision=2))

    async def test_a_revision_of_an_unknown_run_is_refused(self, driver: Driver) -> None:
        done = await send(driver, put("r1"))
        outcome = await refused(driver, commit(put("r2", revision=2), create=False))
        assert outcome == Refused(Reason.RUN_CHANGED, done.head, "r2")

    async def test_a_revision_that_leaves_one_out_is_refused(self, driver: Driver) -> None:
        await send(driver, put("r1"))
        assert await reason(driver, commit(put("r1", revision=3), create=False)) is Reason.RUN_CHANGED

    async def test_a_revision_that_is_taken_conflicts(self, driver: Driver) -> None:
        await send(driver, put("r1"))
        await send(driver, put("r1", revision=2))
        outcome = await refused(driver, commit(put("r1", revision=2, digest=digest_of("other"))))
        assert (outcome.reason, outcome.run_id) == (Reason.RUN_CONFLICT, "r1")

    async def test_showing_what_nobody_hid_is_refused(self, driver: Driver) -> None:
        done = await send(driver, Hide([(ALL, (1, 1))]), operation_id="h")
        assert await refused(driver, commit(Show("other"))) == Refused(Reason.HIDE_MISSING, done.head)

    async def test_what_another_session_hid_is_not_shown(self, driver: Driver) -> None:
        await send(driver, Hide([(ALL, (1, 1))]), operation_id="h", session_id="other")
        await send(driver)
        assert await reason(driver, commit(Show("h"))) is Reason.HIDE_MISSING

    async def test_a_session_with_forks_is_not_sealed(self, driver: Driver) -> None:
        done = await send(driver, CountForks(2))
        assert await refused(driver, commit(Seal())) == Refused(Reason.FORKS, done.head)
        assert await refused(driver, commit(Seal(abandoned=1))) == Refused(Reason.FORKS, done.head)

    async def test_a_session_is_sealed_whose_forks_were_never_made(self, driver: Driver) -> None:
        await send(driver, CountForks(2))
        head = (await send(driver, Seal(abandoned=2))).head
        assert (head.erased, head.forks) == (True, 0)

    # their order

    async def test_the_owner_comes_before_a_replay(self, driver: Driver) -> None:
        await send(driver, put("r1"), create=new_session(user_id="u"))
        await send(driver, patch_session(), operation_id="o")
        assert await reason(driver, commit(put("r1"), owner="v")) is Reason.NOT_OWNER
        assert await reason(driver, commit(patch_session(), operation_id="o", owner="v")) is Reason.NOT_OWNER
        await send(driver, Seal())
        assert await reason(driver, commit(put("r1"), owner="v")) is Reason.NOT_OWNER

    async def test_a_replay_comes_before_a_soft_deletion(self, driver: Driver) -> None:
        await send(driver, put("r1"))
        await send(driver, patch_session(), operation_id="o")
        await send(driver, SetDeleted(1))
        assert (await send(driver, put("r1"))).replayed
        assert (await send(driver, patch_session(), operation_id="o")).replayed
        conflict = commit(put("r1", digest=digest_of("other")))
        assert await reason(driver, conflict) is Reason.RUN_CONFLICT
        conflict = commit(patch_session(), operation_id="o", digest=digest_of("other"))
        assert await reason(driver, conflict) is Reason.OPERATION_CONFLICT

    async def test_a_replay_comes_before_the_versions(self, driver: Driver) -> None:
        await send(driver, put("r1"), expected_version=0)
        await send(driver, patch_session(), operation_id="o")
        wrong: dict[str, Any] = {"expected_version": 0, "expected_state_version": 77, "incarnation": 5}
        assert (await send(driver, put("r1"), **wrong)).replayed
        assert (await send(driver, patch_session(), operation_id="o", **wrong)).replayed

    async def test_a_replay_comes_before_what_exists(self, driver: Driver) -> None:
        made = await send(driver, must_create=True, operation_id="o")
        again = await send(driver, must_create=True, operation_id="o")
        assert again.replayed and again.head == made.head

    async def test_a_replay_comes_before_what_a_change_asks_for(self, driver: Driver) -> None:
        await send(driver, put("r1", status="running"))
        await send(driver, patch("r1", 1), operation_id="o")
        await send(driver, patch("r1", 1, expected_patch=1))
        assert (await send(driver, patch("r1", 1), operation_id="o")).replayed

    async def test_nothing_of_an_erased_session_is_replayed(self, driver: Driver) -> None:
        await send(driver, put("r1"))
        await send(driver, patch_session(), operation_id="o")
        await send(driver, Seal(), operation_id="seal")
        assert await reason(driver, commit(put("r1"))) is Reason.ERASED
        assert await reason(driver, commit(patch_session(), operation_id="o")) is Reason.ERASED
        await send(driver, must_create=True)
        again = await send(driver, put("r1", digest=digest_of("other")))
        assert not again.replayed
        assert not (await send(driver, patch_session(), operation_id="o", digest=digest_of("other"))).replayed

    async def test_presence_comes_before_the_versions(self, driver: Driver) -> None:
        wrong: dict[str, Any] = {"expected_version": 7, "expected_state_version": 77, "incarnation": 5}
        assert await reason(driver, commit(patch_session(), create=False, **wrong)) is Reason.MISSING
        await send(driver, SetDeleted(1))
        assert await reason(driver, commit(patch_session(), **wrong)) is Reason.DELETED
        assert await reason(driver, commit(must_create=True, on_deleted=True, **wrong)) is Reason.EXISTS
        await send(driver, Seal(), on_deleted=True)
        assert await reason(driver, commit(patch_session(), **wrong)) is Reason.ERASED

    async def test_the_versions_come_in_order(self, driver: Driver) -> None:
        await send(driver, put("r1"))
        wrong: dict[str, Any] = {"expected_version": 7, "expected_state_version": 77}
        assert await reason(driver, commit(patch_session(), incarnation=5, **wrong)) is Reason.INCARNATION
        assert await reason(driver, commit(patch_session(), incarnation=1, **wrong)) is Reason.VERSION

    async def test_the_versions_come_before_what_a_change_asks_for(self, driver: Driver) -> None:
        await send(driver, put("r1"), CountForks(1))
        for change in (patch("unknown"), Show("unknown"), Seal(), put("unknown", revision=2)):
            assert await reason(driver, commit(change, incarnation=5)) is Reason.INCARNATION
            assert await reason(driver, commit(change, expected_version=7)) is Reason.VERSION
            assert await reason(driver, commit(change, expected_state_version=7)) is Reason.STATE_VERSION

    async def test_a_run_that_conflicts_comes_before_the_versions(self, driver: Driver) -> None:
        await send(driver, put("r1"))
        conflict = commit(put("r2"), put("r1", digest=digest_of("other")), expected_version=7)
        assert await reason(driver, conflict) is Reason.RUN_CONFLICT

    async def test_runs_that_are_there_in_part_are_judged_as_new(self, driver: Driver) -> None:
        await send(driver, put("r1"))
        assert await reason(driver, commit(put("r1"), put("r2"), expected_version=0)) is Reason.VERSION
        await send(driver, SetDeleted(1))
        assert await reason(driver, commit(put("r1"), put("r2"))) is Reason.DELETED

    async def test_a_refusal_brings_the_actual_head(self, driver: Driver) -> None:
        await send(driver, put("r1"))
        await send(driver, patch_session())
        outcome = await refused(driver, commit(put("r2"), expected_version=1))
        row = await driver.session(key(), state=False)
        assert row is not None and outcome.head == row.head and row.head.version == 2
