"""Lists of sessions and searches for runs: order, filters, pages."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import ForkLink, RunSearch, Seal, SessionQuery, SetDeleted
from sessionledger.testing.rows import (
    MANY_BYTES,
    all_sessions,
    commit,
    find_all_runs,
    new_session,
    patch,
    patch_session,
    put,
    run_header,
    send,
)
from sessionledger.testing.suite.bench import Bench

__all__ = ["ListingTests"]


async def ids(driver: Driver, **filters: Any) -> list[str]:
    return [row.head.key.session_id for row in await all_sessions(driver, **filters)]


async def found(driver: Driver, **filters: Any) -> set[tuple[str, str]]:
    """Session and run of each."""
    return {(head.key.session_id, row.run_id) for head, row in await find_all_runs(driver, **filters)}


async def some_runs(driver: Driver) -> None:
    """Of three users' sessions."""
    await send(driver, put("r1", agent_id="a", user_id="u"), session_id="s1", create=new_session(user_id="u"))
    await send(driver, put("r2", status="running", agent_id="b", parent_run_id="r1"), session_id="s1")
    await send(driver, put("r1", status="running", agent_id="a"), session_id="s2", create=new_session(user_id="v"))
    await send(
        driver, put("r3", status="failed", user_id="v", header=run_header("failed", updated_at=5)), session_id="s2"
    )
    await send(driver, put("r4", status="paused", agent_id="a", user_id="u"), session_id="s3")


class ListingTests(Bench):
    # sessions

    async def test_sessions_come_latest_activity_first(self, driver: Driver) -> None:
        for created_at, name in enumerate("bca"):
            await send(driver, session_id=name, create=new_session(created_at=9 - created_at))
        await send(driver, put(), session_id="c")
        await send(driver, patch_session(name="renamed"), session_id="b")
        assert await ids(driver) == ["c", "a", "b"]
        assert await ids(driver, reverse=True) == ["b", "a", "c"]

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
    @pytest.mark.parametrize("reverse", [False, True])
    async def test_pages_of_sessions_join_without_a_seam(self, driver: Driver, limit: int, reverse: bool) -> None:
        # one moment for all: ties are told apart by id
        names = ["b", "a", "B", "é", "d", "c", "a "]
        await driver.commit([commit(put("r1"), session_id=name, at=2_000_000_000_000_000) for name in names])
        rows = await all_sessions(driver, limit=limit, reverse=reverse)
        places = [(row.head.last_activity_at, row.head.key.session_id) for row in rows]
        assert places == sorted(places, reverse=not reverse)
        assert sorted(name for _, name in places) == sorted(names)

    @pytest.mark.parametrize("reverse", [False, True])
    async def test_many_sessions_of_one_moment_are_all_listed(self, driver: Driver, reverse: bool) -> None:
        names = [f"s{number:03}" for number in range(250)]
        await driver.commit([commit(put("r1"), session_id=name, at=2_000_000_000_000_000) for name in names])
        rows = await all_sessions(driver, limit=7, reverse=reverse)
        assert [row.head.key.session_id for row in rows] == sorted(names, reverse=not reverse)

    @pytest.mark.parametrize("limit", [1, 2, 3, 4])
    async def test_a_page_of_sessions_tells_whether_there_is_more(self, driver: Driver, limit: int) -> None:
        for name in "abc":
            await send(driver, session_id=name)
        page = await driver.sessions(SessionQuery("", limit))
        assert ([row.head.key.session_id for row in page.rows], page.more) == (["c", "b", "a"][:limit], limit < 3)

    async def test_listed_sessions_are_whole_but_for_their_state(self, driver: Driver) -> None:
        await send(driver, put("r1", 2), create=new_session(user_id="u", name="n", body='{"x":1}', state='{"a":1}'))
        (listed,) = await all_sessions(driver)
        row = await driver.session(listed.head.key, state=False)
        assert row is not None
        assert (listed.head, listed.header, listed.state) == (row.head, row.header, None)

    async def test_sessions_are_filtered(self, driver: Driver) -> None:
        await send(driver, session_id="a", create=new_session(user_id="u", agent_id="x", name="one"))
        await send(driver, session_id="b", create=new_session(user_id="u", agent_id="y", kind="team"))
        await send(driver, session_id="c", create=new_session(user_id="v", agent_id="x", name="two"))
        await send(driver, session_id="d", create=new_session(name="one"))
        assert await ids(driver, user_id="u") == ["b", "a"]
        assert await ids(driver, agent_id="x") == ["c", "a"]
        assert await ids(driver, kind="team") == ["b"]
        assert await ids(driver, kind="agent") == ["d", "c", "a"]
        assert await ids(driver, name="one") == ["d", "a"]
        assert await ids(driver, user_id="u", agent_id="x", kind="agent", name="one") == ["a"]
        assert await ids(driver, user_id="u", name="two") == []
        assert await ids(driver, user_id="U") == []

    async def test_filters_follow_a_change(self, driver: Driver) -> None:
        await send(driver, create=new_session(name="old", agent_id="x"))
        await send(driver, patch_session(name="new", agent_id="y"))
        assert await ids(driver, name="old") == await ids(driver, agent_id="x") == []
        assert await ids(driver, name="new", agent_id="y") == ["s"]

    async def test_filters_hold_over_pages(self, driver: Driver) -> None:
        for number in range(12):
            await send(driver, session_id=f"s{number:02}", create=new_session(user_id="u" if number % 3 else "v"))
        expected = [f"s{number:02}" for number in range(11, -1, -1) if number % 3 == 0]
        assert await ids(driver, user_id="v", limit=1) == expected
        assert await ids(driver, user_id="v", limit=2, reverse=True) == expected[::-1]

    @pytest.mark.parametrize("reverse", [False, True])
    async def test_bounds_of_activity_are_exclusive(self, driver: Driver, reverse: bool) -> None:
        times = [(await send(driver, session_id=name)).head.last_activity_at for name in "abc"]
        assert times == sorted(set(times))
        assert await ids(driver, active_after=times[1], reverse=reverse) == ["c"]
        assert await ids(driver, active_before=times[1], reverse=reverse) == ["a"]
        assert await ids(driver, active_after=times[0], active_before=times[2], reverse=reverse) == ["b"]
        assert await ids(driver, active_after=times[2], reverse=reverse) == []

    async def test_deleted_sessions_are_listed_on_request(self, driver: Driver) -> None:
        for name in "abc":
            await send(driver, session_id=name)
        await send(driver, SetDeleted(5), session_id="b")
        await send(driver, Seal(), session_id="c")
        assert await ids(driver) == ["a"]
        assert await ids(driver, include_deleted=True) == ["b", "a"]

    async def test_forks_of_a_session_are_found(self, driver: Driver) -> None:
        await send(driver, session_id="parent")
        for name, parent in (("a", "parent"), ("b", "parent"), ("c", "a")):
            await send(driver, session_id=name, create=new_session(fork=ForkLink(parent, 1, 0, 0, 1)))
        await send(driver, SetDeleted(5), session_id="a")
        assert await ids(driver, forked_from="parent") == ["b"]
        assert await ids(driver, forked_from="parent", include_deleted=True) == ["b", "a"]
        assert await ids(driver, forked_from="b") == []

    async def test_lists_are_of_one_namespace(self, driver: Driver) -> None:
        await send(driver, session_id="a")
        await send(driver, session_id="b", namespace="n")
        assert await ids(driver) == ["a"]
        assert await ids(driver, namespace="n") == ["b"]
        assert await ids(driver, namespace="N") == []

    # searches for runs

    async def test_runs_are_found_by_each_filter(self, driver: Driver) -> None:
        await some_runs(driver)
        assert await found(driver, run_id="r1") == {("s1", "r1"), ("s2", "r1")}
        assert await found(driver, statuses=["running"]) == {("s1", "r2"), ("s2", "r1")}
        assert await found(driver, statuses=["failed", "paused"]) == {("s2", "r3"), ("s3", "r4")}
        assert await found(driver, agent_id="a") == {("s1", "r1"), ("s2", "r1"), ("s3", "r4")}
        assert await found(driver, user_id="u") == {("s1", "r1"), ("s3", "r4")}
        assert await found(driver, parent_run_id="r1") == {("s1", "r2")}
        assert await found(driver, owner="u", agent_id="a") == {("s1", "r1")}
        assert await found(driver, owner="v", statuses=["running", "failed"]) == {("s2", "r1"), ("s2", "r3")}
        assert await found(driver, run_id="none") == set()

    async def test_filters_of_runs_combine(self, driver: Driver) -> None:
        await some_runs(driver)
        assert await found(driver, agent_id="a", statuses=["running", "paused"], user_id="u") == {("s3", "r4")}
        assert await found(driver, agent_id="a", user_id="v") == set()

    async def test_the_bound_of_an_update_is_exclusive(self, driver: Driver) -> None:
        await send(driver, put("r1", header=run_header("running", updated_at=10)))
        await send(driver, put("r2", header=run_header("running", updated_at=20)))
        assert await found(driver, statuses=["running"], updated_before=10) == set()
        assert await found(driver, statuses=["running"], updated_before=20) == {("s", "r1")}
        await send(driver, patch("r1", header=run_header("running", updated_at=30)))
        assert await found(driver, statuses=["running"], updated_before=21) == {("s", "r2")}

    async def test_searches_follow_a_patch(self, driver: Driver) -> None:
        await send(driver, put("r1", status="running"))
        await send(driver, patch("r1", 1, status="completed"))
        assert await found(driver, statuses=["running"]) == set()
        ((_, row),) = await find_all_runs(driver, statuses=["completed"])
        assert (row.patch, list(row.segments)) == (1, [(2, 2)])

    async def test_the_newest_revision_is_found(self, driver: Driver) -> None:
        await send(driver, put("r1", status="failed", agent_id="a"))
        await send(driver, put("r1", 2, revision=2, status="running", agent_id="b"))
        assert await found(driver, statuses=["failed"]) == await found(driver, agent_id="a") == set()
        ((head, row),) = await find_all_runs(driver, run_id="r1")
        assert (head.version, row.revision, row.agent_id, row.header.status) == (2, 2, "b", "running")

    async def test_found_runs_are_whole(self, driver: Driver) -> None:
        await send(driver, put("r1", 2, agent_id="a", body='{"output":1}', status="running"))
        done = await send(driver, patch("r1", parts={"extra": "{}"}))
        ((head, row),) = await find_all_runs(driver, run_id="r1")
        assert head == done.head
        assert (row.body, dict(row.parts), row.first_position, row.last_position) == (
            '{"output":1}',
            {"extra": "{}"},
            1,
            2,
        )

    async def test_runs_of_deleted_sessions_are_not_found(self, driver: Driver) -> None:
        for name in "abc":
            await send(driver, put("r1", agent_id="x"), session_id=name)
        await send(driver, SetDeleted(5), session_id="a")
        await send(driver, Seal(), session_id="b")
        assert await found(driver, agent_id="x") == {("c", "r1")}
        assert await found(driver, run_id="r1") == {("c", "r1")}

    async def test_runs_of_another_namespace_are_not_found(self, driver: Driver) -> None:
        await send(driver, put("r1"))
        await send(driver, put("r1"), namespace="n", session_id="t")
        assert await found(driver, run_id="r1") == {("s", "r1")}
        assert await found(driver, run_id="r1", namespace="n") == {("t", "r1")}

    @pytest.mark.parametrize("limit", [1, 2, 5, 12, 13])
    @pytest.mark.parametrize("reverse", [False, True])
    async def test_pages_of_found_runs_join_without_a_seam(self, driver: Driver, limit: int, reverse: bool) -> None:
        for number in range(12):
            await send(driver, put(f"r{number}", agent_id="a"), put(f"x{number}"), session_id=f"s{number % 5}")
        walked = await find_all_runs(driver, agent_id="a", limit=limit, reverse=reverse)
        places = [(head.key.session_id, row.run_id) for head, row in walked]
        whole = [(head.key.session_id, row.run_id) for head, row in await find_all_runs(driver, agent_id="a")]
        assert len(set(whole)) == 12
        assert places == (whole[::-1] if reverse else whole)

    async def test_a_search_tells_whether_there_is_more(self, driver: Driver) -> None:
        for number in range(3):
            await send(driver, put(f"r{number}", agent_id="a"))
        for limit, more in ((2, True), (3, False), (4, False)):
            assert (await driver.find_runs(RunSearch("", limit, MANY_BYTES, agent_id="a"))).more == more

    @pytest.mark.parametrize(("size", "count"), [(1, 1), (100, 1), (101, 2), (250, 3), (500, 5), (1000, 5)])
    @pytest.mark.parametrize("reverse", [False, True])
    async def test_a_page_of_found_runs_ends_with_its_bytes(
        self, driver: Driver, size: int, count: int, reverse: bool
    ) -> None:
        for number in range(5):
            await send(driver, put(f"r{number}", body=b"x" * 100, agent_id="a"), session_id=f"s{number % 2}")
        page = await driver.find_runs(RunSearch("", 100, size, agent_id="a", reverse=reverse))
        whole = await find_all_runs(driver, agent_id="a", reverse=reverse)
        assert [(head, row) for head, row, _ in page.rows] == whole[:count]
        # one that reaches its bytes with the very last row may leave that to an empty page
        assert page.more if count < 5 else size == 500 or not page.more
        walked = await find_all_runs(driver, agent_id="a", reverse=reverse, max_bytes=size)
        assert walked == whole

    async def test_parts_count_as_bytes_of_a_found_run(self, driver: Driver) -> None:
        for number in range(3):
            await send(driver, put(f"r{number}", body="{}", status="running", agent_id="a"))
            await send(driver, patch(f"r{number}", parts={"output": b"x" * 100}))
        page = await driver.find_runs(RunSearch("", 100, 100, agent_id="a"))
        assert ([row.run_id for _, row, _ in page.rows], page.more) == (["r0"], True)

    async def test_a_search_goes_on_from_each_place(self, driver: Driver) -> None:
        for number in range(6):
            await send(driver, put(f"r{number}", agent_id="a"), session_id=f"s{number % 2}")
        search = RunSearch("", 100, MANY_BYTES, agent_id="a")
        whole = (await driver.find_runs(search)).rows
        for index, (_, _, place) in enumerate(whole):
            rest = await driver.find_runs(msgspec.structs.replace(search, after=place))
            assert [row.run_id for _, row, _ in rest.rows] == [row.run_id for _, row, _ in whole[index + 1 :]]
