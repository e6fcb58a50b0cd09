"""Groups of commits: in order, each failing alone, those of one session seeing each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import Commit, Committed, Hide, Outcome, Refused, Seal, SetDeleted, Show
from sessionledger.testing.rows import (
    ALL,
    all_hidden,
    all_messages,
    all_runs,
    commit,
    digest_of,
    dump,
    key,
    new_session,
    patch,
    patch_session,
    put,
    send,
    send_group,
)
from sessionledger.testing.suite.bench import Bench, Storage

__all__ = ["GroupTests"]


def said(outcomes: Sequence[Outcome]) -> list[str]:
    """Each outcome in a word."""
    words = []
    for outcome in outcomes:
        if isinstance(outcome, Refused):
            words.append(outcome.reason.name)
        else:
            words.append("replayed" if outcome.replayed else "done")
    return words


class GroupTests(Bench):
    async def test_an_outcome_for_each_in_order(self, driver: Driver) -> None:
        group = [commit(put("r1", n), session_id=f"s{n}") for n in range(5)]
        outcomes = await send_group(driver, group)
        assert said(outcomes) == ["done"] * 5
        for one, outcome in zip(group, outcomes, strict=True):
            assert isinstance(outcome, Committed) and outcome.head.key == one.key
        for number in range(5):
            assert len(await all_messages(driver, key(f"s{number}"))) == number

    async def test_each_fails_alone(self, driver: Driver) -> None:
        await send(driver, put("r1"), session_id="a")
        await send(driver, put("r1"), session_id="deleted")
        await send(driver, SetDeleted(1), session_id="deleted")
        outcomes = await send_group(
            driver,
            [
                commit(put("r2"), session_id="a"),
                commit(put("r2"), session_id="deleted"),
                commit(put("r1", digest=digest_of("other")), session_id="a"),
                commit(put("r3", 2), session_id="a"),
                commit(patch_session(), session_id="missing", create=False),
                commit(put("r1", 1), session_id="b"),
                commit(put("r4"), patch("unknown"), session_id="a"),
                commit(put("r1"), session_id="a"),
                commit(put("r5"), session_id="a"),
            ],
        )
        assert said(outcomes) == [
            "done",
            "DELETED",
            "RUN_CONFLICT",
            "done",
            "MISSING",
            "done",
            "RUN_CHANGED",
            "replayed",
            "done",
        ]
        assert [row.run_id for row in await all_runs(driver, key("a"))] == ["r1", "r2", "r3", "r5"]
        assert [row.position for row in await all_messages(driver, key("a"))] == [1, 2, 3, 4, 5]
        assert [row.run_id for row in await all_runs(driver, key("b"))] == ["r1"]
        assert await driver.session(key("missing"), state=False) is None

    @pytest.mark.parametrize("status", ["completed", "running"])
    async def test_one_run_in_each_of_many_sessions_is_judged_alone(self, driver: Driver, status: str) -> None:
        """Sessions that the driver has just written, of which it may remember something."""
        names = ["plain", "replayed", "conflict", "owned", "deleted", "other", "last"]
        names = names[: driver.info.max_group]
        await send_group(driver, [commit(put("r1", 2, counters={"a": 1}), session_id=name) for name in names])
        await send(driver, SetDeleted(1), session_id="deleted")
        group = [
            commit(put("r2", 1, counters={"a": 2, "b": 1}), session_id="plain"),
            commit(put("r1", 2, counters={"a": 1}), session_id="replayed"),
            commit(put("r1", 1, digest=digest_of("other")), session_id="conflict"),
            commit(put("r2", 1), session_id="owned", owner="somebody"),
            commit(put("r2", 1), session_id="deleted"),
            commit(put("r2", 3, status=status), session_id="other"),
            commit(put("r2", 0, counters={"a": -1}), session_id="last"),
        ][: len(names)]
        outcomes = await send_group(driver, group)
        expected = ["done", "replayed", "RUN_CONFLICT", "NOT_OWNER", "DELETED", "done", "done"]
        assert said(outcomes) == expected[: len(names)]
        for name in names:
            rows = [(row.position, row.run_seq, row.index) for row in await all_messages(driver, key(name))]
            added = {"plain": [(3, 2, 0)], "other": [(3, 2, 0), (4, 2, 1), (5, 2, 2)]}.get(name, [])
            assert rows == [(1, 1, 0), (2, 1, 1), *added], name
        for name, counters in {"plain": {"a": 3, "b": 1}, "replayed": {"a": 1}, "last": {}}.items():
            if name in names:
                row = await driver.session(key(name), state=False)
                assert row is not None and dict(row.counters) == counters

    async def test_sessions_that_another_driver_wrote_to_meanwhile(self, driver: Driver, storage: Storage) -> None:
        names = ["a", "b", "c"][: driver.info.max_group]
        await send_group(driver, [commit(put("r1", 1, counters={"a": 1}), session_id=name) for name in names])
        other = storage.driver()
        await other.open()
        await send_group(other, [commit(put("r2", 2, counters={"a": 4}), session_id=name) for name in names[:2]])
        await other.close()
        group = [commit(put("r3", 1, counters={"a": 2, "b": 1}), session_id=name) for name in names]
        assert said(await send_group(driver, group)) == ["done"] * len(names)
        for name in names:
            row = await driver.session(key(name), state=False)
            assert row is not None
            assert dict(row.counters) == ({"a": 3, "b": 1} if name == "c" else {"a": 7, "b": 1})
            seqs = [row.run_seq for row in await all_messages(driver, key(name))]
            assert seqs == ([1, 2] if name == "c" else [1, 2, 2, 3])

    async def test_commits_of_one_session_see_those_before(self, driver: Driver) -> None:
        outcomes = await send_group(
            driver,
            [
                commit(put("r1", 2, status="running")),
                commit(put("r2", 1)),
                commit(patch("r1", 1, start=2)),
                commit(patch("r1", 1, expected_patch=1, start=3)),
                commit(put("r3", 1)),
            ],
        )
        assert said(outcomes) == ["done"] * 5
        places = [(o.receipts[0].run_seq, o.receipts[0].first_position) for o in outcomes if isinstance(o, Committed)]
        assert places == [(1, 1), (2, 3), (1, 4), (1, 5), (3, 6)]
        assert [o.head.version for o in outcomes if isinstance(o, Committed)] == [1, 2, 3, 4, 5]
        rows = await all_messages(driver)
        assert [(row.position, row.run_seq) for row in rows] == [(1, 1), (2, 1), (3, 2), (4, 1), (5, 1), (6, 3)]

    async def test_versions_are_judged_in_the_group(self, driver: Driver) -> None:
        outcomes = await send_group(
            driver,
            [
                commit(put("r1"), expected_version=0),
                commit(put("r2"), expected_version=0),
                commit(put("r3"), expected_version=1),
                commit(put("r4"), expected_version=1),
                commit(patch_session(), expected_state_version=1, expected_version=2),
                commit(patch_session(), expected_state_version=1),
            ],
        )
        assert said(outcomes) == ["done", "VERSION", "done", "VERSION", "done", "STATE_VERSION"]
        refusal = outcomes[3]
        assert isinstance(refusal, Refused) and refusal.head is not None and refusal.head.version == 2

    async def test_a_run_that_comes_twice_in_a_group_is_replayed(self, driver: Driver) -> None:
        outcomes = await send_group(
            driver,
            [commit(put("r1", 2)), commit(put("r1", 2)), commit(put("r1", digest=digest_of("x"))), commit(put("r2"))],
        )
        assert said(outcomes) == ["done", "replayed", "RUN_CONFLICT", "done"]
        first, second = outcomes[:2]
        assert isinstance(first, Committed) and isinstance(second, Committed)
        assert second.receipts[0].first_position == first.receipts[0].first_position
        assert [row.run_id for row in await all_runs(driver)] == ["r1", "r2"]

    async def test_an_operation_that_comes_twice_in_a_group_is_replayed(self, driver: Driver) -> None:
        group = [
            commit(patch_session(name="n"), operation_id="o"),
            commit(patch_session(name="n"), operation_id="o"),
            commit(patch_session(name="n"), operation_id="o", digest=digest_of("x")),
        ]
        assert said(await send_group(driver, group)) == ["done", "replayed", "OPERATION_CONFLICT"]

    async def test_a_session_is_made_once_in_a_group(self, driver: Driver) -> None:
        group = [commit(must_create=True, create=new_session(name=name)) for name in ("first", "second")]
        assert said(await send_group(driver, group)) == ["done", "EXISTS"]
        row = await driver.session(key(), state=False)
        assert row is not None and row.header.name == "first"

    async def test_a_deletion_in_a_group_counts_for_what_follows(self, driver: Driver) -> None:
        outcomes = await send_group(
            driver,
            [
                commit(put("r1")),
                commit(SetDeleted(1)),
                commit(put("r2")),
                commit(SetDeleted(None), on_deleted=True),
                commit(put("r3")),
                commit(Seal()),
                commit(put("r4")),
                commit(put("r1"), must_create=True),
                commit(put("r5")),
            ],
        )
        assert said(outcomes) == ["done", "done", "DELETED", "done", "done", "done", "ERASED", "done", "done"]
        row = await driver.session(key(), state=False)
        assert row is not None and (row.head.incarnation, row.head.run_count) == (2, 2)
        assert [run.run_id for run in await all_runs(driver)] == ["r1", "r5"]

    async def test_revisions_of_a_group_follow_each_other(self, driver: Driver) -> None:
        outcomes = await send_group(
            driver,
            [
                commit(put("r1", 1)),
                commit(put("r1", 1, revision=2)),
                commit(put("r1", 1, revision=3)),
                commit(put("r1", 1, revision=5)),
                commit(patch("r1", 1, revision=3)),
            ],
        )
        assert said(outcomes) == ["done", "done", "done", "RUN_CHANGED", "done"]
        assert [(row.revision, row.since, row.reach) for row in await all_hidden(driver)] == [(1, 2, 2), (2, 3, 3)]

    async def test_hiding_and_showing_in_a_group(self, driver: Driver) -> None:
        outcomes = await send_group(
            driver,
            [
                commit(put("r1", 1)),
                commit(Show("h")),
                commit(Hide([(ALL, (1, 1))]), operation_id="h"),
                commit(Show("h")),
            ],
        )
        assert said(outcomes) == ["done", "HIDE_MISSING", "done", "done"]
        assert [(row.since, row.until) for row in await all_hidden(driver)] == [(2, 3)]

    async def test_a_lost_patch_in_a_group_is_refused(self, driver: Driver) -> None:
        await send(driver, put("r1", status="running"))
        group = [commit(patch("r1", parts={"output": str(n)})) for n in range(3)]
        assert said(await send_group(driver, group)) == ["done", "RUN_CHANGED", "RUN_CHANGED"]
        (run,) = await all_runs(driver)
        assert (run.patch, dict(run.parts)) == (1, {"output": "0"})

    async def test_counters_and_activity_add_up_in_a_group(self, driver: Driver) -> None:
        outcomes = await send_group(driver, [commit(put(f"r{n}", counters={"a": 1, f"b{n}": n})) for n in range(1, 5)])
        row = await driver.session(key(), state=False)
        assert row is not None and dict(row.counters) == {"a": 4, "b1": 1, "b2": 2, "b3": 3, "b4": 4}
        last = outcomes[-1]
        assert isinstance(last, Committed) and last.head == row.head

    async def test_a_group_is_what_its_commits_are_one_by_one(self, driver: Driver) -> None:
        def commits(session_id: str) -> list[Commit]:
            given: dict[str, Any] = {"session_id": session_id, "at": 2_000_000_000_000_000}
            return [
                commit(put("r1", 2, counters={"a": 1}, status="running"), operation_id="1", **given),
                commit(patch("r1", 2, parts={"output": "1"}), operation_id="2", **given),
                commit(put("r1", 1, revision=2), put("r2", 3), operation_id="3", **given),
                commit(patch_session(state='{"a":1}'), operation_id="4", **given),
                commit(Hide([((2, 3), ALL)]), operation_id="5", **given),
                commit(put("r2", 3), put("r3", 0), expected_version=5, operation_id="6", **given),
                commit(Show("5"), operation_id="7", **given),
            ]

        together = said(await send_group(driver, commits("group")))
        alone = [said(await send_group(driver, [one]))[0] for one in commits("alone")]
        assert together == alone == ["done"] * 7
        group, single = await dump(driver, key("group")), await dump(driver, key("alone"))
        assert (group.runs, group.messages, group.hidden) == (single.runs, single.messages, single.hidden)
        assert group.session is not None and single.session is not None
        assert (group.session.counters, group.session.state) == (single.session.counters, single.session.state)

    async def test_a_group_of_the_largest_size(self, driver: Driver) -> None:
        size = driver.info.max_group
        outcomes = await send_group(driver, [commit(put(f"r{n}", 1), session_id=f"s{n % 7}") for n in range(size)])
        assert said(outcomes) == ["done"] * size
        total = 0
        for number in range(min(7, size)):
            rows = await all_messages(driver, key(f"s{number}"))
            assert [row.position for row in rows] == list(range(1, len(rows) + 1))
            total += len(rows)
        assert total == size

    async def test_groups_of_different_sessions_run_side_by_side(self, driver: Driver) -> None:
        async def write(name: str) -> None:
            for number in range(5):
                outcomes = await send_group(
                    driver, [commit(put(f"r{number}-{n}", 1), session_id=name) for n in range(3)]
                )
                assert said(outcomes) == ["done"] * 3

        async with anyio.create_task_group() as group:
            for writer in range(min(driver.info.writers, 4)):
                group.start_soon(write, f"s{writer}")
        for writer in range(min(driver.info.writers, 4)):
            rows = await all_messages(driver, key(f"s{writer}"))
            assert [row.position for row in rows] == list(range(1, 16))

    async def test_readers_see_whole_commits_alone(self, driver: Driver) -> None:
        await send(driver, put("r0", 3))
        done = False

        async def read() -> None:
            while not done:
                head_and_rows = await all_messages(driver)
                assert len(head_and_rows) % 3 == 0
                await checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            for number in range(1, 21):
                await send(driver, put(f"r{number}", 3))
            done = True
