"""Pages of messages, runs, hidden rows and switches: their bounds, their order, and whether there is more."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import (
    FIRST,
    LAST,
    HiddenQuery,
    Hide,
    MessageQuery,
    MessageRow,
    RunQuery,
    RunRow,
    Show,
    SwitchQuery,
)
from sessionledger.testing.rows import (
    ALL,
    MANY_BYTES,
    all_hidden,
    all_messages,
    all_runs,
    all_switches,
    key,
    message,
    patch,
    plain_message,
    plain_run,
    put,
    send,
    switch,
)
from sessionledger.testing.suite.bench import Bench

__all__ = ["PageTests"]


async def ten_messages(driver: Driver) -> None:
    """Positions 1 to 10, in runs of 3, 3, 3 and 1."""
    for name, texts in (("a", 3), ("b", 3), ("c", 3), ("d", 1)):
        await send(driver, put(name, texts))


def positions(rows: Sequence[MessageRow]) -> list[int]:
    return [row.position for row in rows]


def numbered(rows: Sequence[RunRow]) -> list[tuple[int, int]]:
    return [(row.seq, row.revision) for row in rows]


class PageTests(Bench):
    # messages

    @pytest.mark.parametrize("limit", [1, 3, 9, 10, 11])
    @pytest.mark.parametrize("reverse", [False, True])
    async def test_a_page_of_messages_ends_at_its_limit(self, driver: Driver, limit: int, reverse: bool) -> None:
        await ten_messages(driver)
        page = await driver.messages(MessageQuery(key(), (ALL,), limit, MANY_BYTES, reverse))
        expected = list(range(10, 0, -1) if reverse else range(1, 11))
        assert positions(page.rows) == expected[:limit]
        assert page.more == (limit < 10)

    @pytest.mark.parametrize("limit", [1, 2, 3, 5, 10])
    @pytest.mark.parametrize("reverse", [False, True])
    async def test_pages_of_messages_join_without_a_seam(self, driver: Driver, limit: int, reverse: bool) -> None:
        await ten_messages(driver)
        walked: list[MessageRow] = []
        first, last = FIRST, LAST
        for _ in range(11):
            page = await driver.messages(MessageQuery(key(), ((first, last),), limit, MANY_BYTES, reverse))
            walked += page.rows
            if not page.more:
                break
            place = page.rows[-1].position
            first, last = (first, place - 1) if reverse else (place + 1, last)
        whole = await all_messages(driver, reverse=reverse)
        assert list(map(plain_message, walked)) == list(map(plain_message, whole))
        assert positions(walked) == list(range(10, 0, -1) if reverse else range(1, 11))

    @pytest.mark.parametrize(("size", "count"), [(1, 1), (100, 1), (101, 2), (200, 2), (201, 3), (599, 6), (600, 6)])
    @pytest.mark.parametrize("reverse", [False, True])
    async def test_a_page_of_messages_ends_with_its_bytes(
        self, driver: Driver, size: int, count: int, reverse: bool
    ) -> None:
        rows = [message(body=b"x" * 100, index=index) for index in range(6)]
        await send(driver, put("r1", rows))
        page = await driver.messages(MessageQuery(key(), (ALL,), 100, size, reverse))
        expected = list(range(6, 0, -1) if reverse else range(1, 7))
        assert positions(page.rows) == expected[:count]
        # one that reaches its bytes with the very last row may leave that to an empty page
        assert page.more or count == 6

    async def test_a_row_larger_than_a_page_comes_alone(self, driver: Driver) -> None:
        rows = [message("x" * size, index=index) for index, size in enumerate((10_000, 1, 10_000))]
        await send(driver, put("r1", rows))
        page = await driver.messages(MessageQuery(key(), (ALL,), 100, 10))
        assert positions(page.rows) == [1] and page.more
        page = await driver.messages(MessageQuery(key(), ((3, LAST),), 100, 10))
        assert positions(page.rows) == [3]
        page = await driver.messages(MessageQuery(key(), ((4, LAST),), 100, 10))
        assert positions(page.rows) == [] and not page.more

    async def test_both_ends_of_a_range_are_included(self, driver: Driver) -> None:
        await ten_messages(driver)
        assert positions(await all_messages(driver, ranges=((4, 7),))) == [4, 5, 6, 7]
        assert positions(await all_messages(driver, ranges=((4, 7),), reverse=True)) == [7, 6, 5, 4]
        assert positions(await all_messages(driver, ranges=((4, 4),))) == [4]
        assert positions(await all_messages(driver, ranges=((9, 20),))) == [9, 10]
        assert positions(await all_messages(driver, ranges=((11, 20),))) == []

    async def test_ranges_come_in_the_order_given(self, driver: Driver) -> None:
        await ten_messages(driver)
        ranges = ((8, 9), (1, 2), (5, 5))
        assert positions(await all_messages(driver, ranges=ranges)) == [8, 9, 1, 2, 5]
        assert positions(await all_messages(driver, ranges=ranges, reverse=True)) == [9, 8, 2, 1, 5]

    @pytest.mark.parametrize(
        ("limit", "expected", "more"),
        [(1, [8], True), (2, [8, 9], True), (3, [8, 9, 1], True), (4, [8, 9, 1, 2], True), (5, [8, 9, 1, 2, 5], False)],
    )
    async def test_a_limit_runs_across_ranges(
        self, driver: Driver, limit: int, expected: list[int], more: bool
    ) -> None:
        await ten_messages(driver)
        page = await driver.messages(MessageQuery(key(), ((8, 9), (1, 2), (5, 5)), limit, MANY_BYTES))
        assert (positions(page.rows), page.more) == (expected, more)

    async def test_bytes_run_across_ranges(self, driver: Driver) -> None:
        await send(driver, put("r1", [message(body=b"x" * 100, index=index) for index in range(6)]))
        page = await driver.messages(MessageQuery(key(), ((5, 6), (1, 2)), 100, 250))
        assert (positions(page.rows), page.more) == ([5, 6, 1], True)
        page = await driver.messages(MessageQuery(key(), ((5, 6), (1, 1)), 100, 301))
        assert (positions(page.rows), page.more) == ([5, 6, 1], False)

    async def test_ranges_without_rows_are_no_more(self, driver: Driver) -> None:
        await ten_messages(driver)
        page = await driver.messages(MessageQuery(key(), ((9, 10), (11, 12), (40, LAST)), 2, MANY_BYTES))
        assert (positions(page.rows), page.more) == ([9, 10], False)

    async def test_as_many_ranges_as_the_core_asks_for(self, driver: Driver) -> None:
        await send(driver, put("r1", 200))
        ranges = [(place, place) for place in range(199, 71, -2)]
        assert len(ranges) == 64
        assert positions(await all_messages(driver, ranges=ranges)) == list(range(199, 71, -2))

    async def test_a_page_of_messages_names_their_runs(self, driver: Driver) -> None:
        await ten_messages(driver)
        page = await driver.messages(MessageQuery(key(), ((3, 7),), 100, MANY_BYTES))
        assert {seq: page.run_ids[seq] for seq in {row.run_seq for row in page.rows}} == {1: "a", 2: "b", 3: "c"}

    async def test_messages_are_found_by_a_given_id(self, driver: Driver) -> None:
        rows = [message(str(index), index=index, message_id=f"m{index % 2}") for index in range(4)]
        await send(driver, put("r1", rows), put("r2", 2))
        assert positions(await all_messages(driver, message_id="m0")) == [1, 3]
        assert positions(await all_messages(driver, message_id="m1", reverse=True)) == [4, 2]
        assert positions(await all_messages(driver, message_id="m1", ranges=((3, 6),))) == [4]
        assert positions(await all_messages(driver, message_id="M0")) == []
        assert positions(await all_messages(driver, message_id="r2#0")) == []
        page = await driver.messages(MessageQuery(key(), (ALL,), 1, MANY_BYTES, message_id="m0"))
        assert (positions(page.rows), page.more) == ([1], True)

    async def test_every_page_brings_the_head(self, driver: Driver) -> None:
        await ten_messages(driver)
        row = await driver.session(key(), state=False)
        assert row is not None
        for query in (
            MessageQuery(key(), (ALL,), 1, MANY_BYTES),
            MessageQuery(key(), ((50, 60),), 1, MANY_BYTES),
            MessageQuery(key(), (ALL,), 1, MANY_BYTES, message_id="none"),
        ):
            assert (await driver.messages(query)).head == row.head
        assert (await driver.runs(RunQuery(key(), 1, MANY_BYTES))).head == row.head
        assert (await driver.runs(RunQuery(key(), 1, MANY_BYTES, run_id="none"))).head == row.head
        assert (await driver.switches(SwitchQuery(key(), 1))).head == row.head
        assert (await driver.hidden(HiddenQuery(key(), ALL, ALL))).head == row.head

    async def test_a_page_and_its_head_are_of_one_instant(self, driver: Driver) -> None:
        await send(driver, put("r0"), switch("w0", "a"), Hide([(ALL, ALL)]))
        done = False

        async def read() -> None:
            while not done:
                messages = await driver.messages(MessageQuery(key(), (ALL,), 100, MANY_BYTES))
                assert messages.head is not None and messages.head.message_count == len(messages.rows)
                runs = await driver.runs(RunQuery(key(), 100, MANY_BYTES))
                assert runs.head is not None and runs.head.run_count == len(runs.rows)
                switches = await driver.switches(SwitchQuery(key(), 100))
                assert switches.head is not None and switches.head.version == len(switches.rows)
                hidden = await driver.hidden(HiddenQuery(key(), ALL, ALL))
                assert hidden.head is not None and hidden.head.version == len(hidden.rows)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            for number in range(1, 30):
                await send(driver, put(f"r{number}"), switch(f"w{number}", "a"), Hide([(ALL, ALL)]))
            done = True

    async def test_pages_of_an_unknown_session_are_empty(self, driver: Driver) -> None:
        await ten_messages(driver)
        other = key("other")
        messages = await driver.messages(MessageQuery(other, (ALL,), 5, MANY_BYTES))
        runs = await driver.runs(RunQuery(other, 5, MANY_BYTES))
        switches = await driver.switches(SwitchQuery(other, 5))
        assert (messages.head, list(messages.rows), messages.more) == (None, [], False)
        assert (runs.head, list(runs.rows), runs.more) == (None, [], False)
        assert (switches.head, list(switches.rows), switches.more) == (None, [], False)
        hidden = await driver.hidden(HiddenQuery(other, ALL, ALL))
        assert (hidden.head, list(hidden.rows)) == (None, [])

    # runs

    async def test_runs_come_with_all_revisions_in_order(self, driver: Driver) -> None:
        await send(driver, put("a"), put("b"), put("c"))
        await send(driver, put("b", revision=2))
        await send(driver, put("a", revision=2))
        await send(driver, put("b", revision=3))
        expected = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 1)]
        assert numbered(await all_runs(driver)) == expected
        assert numbered(await all_runs(driver, reverse=True)) == expected[::-1]
        assert numbered(await all_runs(driver, run_id="b")) == [(2, 1), (2, 2), (2, 3)]
        assert numbered(await all_runs(driver, run_id="b", reverse=True)) == [(2, 3), (2, 2), (2, 1)]
        assert numbered(await all_runs(driver, first_seq=2, last_seq=2)) == [(2, 1), (2, 2), (2, 3)]
        assert numbered(await all_runs(driver, first_seq=2)) == expected[2:]
        assert numbered(await all_runs(driver, last_seq=1, reverse=True)) == [(1, 2), (1, 1)]
        assert numbered(await all_runs(driver, first_seq=4)) == []
        assert numbered(await all_runs(driver, run_id="none")) == []

    async def test_no_other_than_plain_runs_are_left_out(self, driver: Driver) -> None:
        """A driver leaves out as many of them as it likes."""
        await send(driver, put("plain"))
        await send(driver, put("failed", status="failed"))
        await send(driver, put("child", parent_run_id="plain"))
        await send(driver, put("patched", status="running"))
        await send(driver, patch("patched", 2, status="completed"))
        await send(driver, put("open", status="running"))
        await send(driver, put("revised"))
        await send(driver, put("revised", revision=2))
        await send(driver, put("also plain", status="cancelled"))
        every = await all_runs(driver)
        plain = ("completed", "cancelled")
        page = await driver.runs(RunQuery(key(), 100, MANY_BYTES, plain=plain))
        assert not page.more and [row for row in every if row in page.rows] == page.rows
        left_out = {(row.run_id, row.revision) for row in every if row not in page.rows}
        assert left_out <= {("plain", 1), ("also plain", 1), ("revised", 1)}
        some = await driver.runs(RunQuery(key(), 2, MANY_BYTES, first_seq=2, plain=plain))
        assert some.more and some.rows == [row for row in page.rows if row.seq > 1][:2]

    @pytest.mark.parametrize("limit", [1, 2, 4, 5, 6])
    @pytest.mark.parametrize("reverse", [False, True])
    async def test_a_page_of_runs_ends_at_its_limit(self, driver: Driver, limit: int, reverse: bool) -> None:
        for number in range(5):
            await send(driver, put(f"r{number}"))
        page = await driver.runs(RunQuery(key(), limit, MANY_BYTES, reverse=reverse))
        expected = [5, 4, 3, 2, 1] if reverse else [1, 2, 3, 4, 5]
        assert [row.seq for row in page.rows] == expected[:limit]
        assert page.more == (limit < 5)

    async def test_a_page_of_runs_may_end_between_revisions(self, driver: Driver) -> None:
        await send(driver, put("a"))
        for revision in (2, 3):
            await send(driver, put("a", revision=revision))
        page = await driver.runs(RunQuery(key(), 2, MANY_BYTES))
        assert (numbered(page.rows), page.more) == ([(1, 1), (1, 2)], True)
        page = await driver.runs(RunQuery(key(), 1, MANY_BYTES, run_id="a", reverse=True))
        assert (numbered(page.rows), page.more) == ([(1, 3)], True)

    @pytest.mark.parametrize(("size", "count"), [(1, 1), (100, 1), (101, 2), (250, 3), (500, 5), (1000, 5)])
    @pytest.mark.parametrize("reverse", [False, True])
    async def test_a_page_of_runs_ends_with_its_bytes(
        self, driver: Driver, size: int, count: int, reverse: bool
    ) -> None:
        for number in range(5):
            await send(driver, put(f"r{number}", body=b"x" * 100))
        page = await driver.runs(RunQuery(key(), 100, size, reverse=reverse))
        expected = [5, 4, 3, 2, 1] if reverse else [1, 2, 3, 4, 5]
        assert [row.seq for row in page.rows] == expected[:count]
        assert page.more if count < 5 else size == 500 or not page.more

    async def test_parts_count_as_bytes_of_a_run(self, driver: Driver) -> None:
        for number in range(3):
            await send(driver, put(f"r{number}", body="{}", status="running"))
            await send(driver, patch(f"r{number}", parts={"output": b"x" * 100}))
        page = await driver.runs(RunQuery(key(), 100, 100))
        assert ([row.seq for row in page.rows], page.more) == ([1], True)

    async def test_runs_come_without_bodies(self, driver: Driver) -> None:
        await send(driver, put("a", body='{"output":1}', status="running"), put("b"))
        await send(driver, patch("a", 1, parts={"output": "2"}))
        whole = await all_runs(driver)
        bare = await all_runs(driver, bodies=False)
        assert [(plain_run(row).header, row.segments, row.patch) for row in bare] == [
            (plain_run(row).header, row.segments, row.patch) for row in whole
        ]
        assert not any(row.body for row in bare) and not any(row.parts for row in bare)

    # hidden rows

    async def test_hidden_rows_overlap_both_ranges(self, driver: Driver) -> None:
        await send(driver, put("a", 10))
        await send(driver, Hide([((3, 5), ALL)]), operation_id="some")
        await send(driver, Hide([(ALL, (7, 9))]), operation_id="runs")
        await send(driver, Hide([((6, 6), (2, 2))]), operation_id="one")

        async def found(positions: tuple[int, int], runs: tuple[int, int]) -> set[str]:
            return {row.hide_id for row in await all_hidden(driver, positions=positions, runs=runs)}

        assert await found(ALL, ALL) == {"some", "runs", "one"}
        assert await found((1, 2), ALL) == {"runs"}
        assert await found((1, 3), (1, 6)) == {"some"}
        assert await found((5, 6), (1, 2)) == {"some", "one"}
        assert await found((6, 10), (3, 7)) == {"runs"}
        assert await found((6, 6), (1, 1)) == set()
        assert await found((6, 10), (10, 20)) == set()
        assert await found((4, 4), (8, 8)) == {"some", "runs"}

    async def test_ended_hidden_rows_come_too(self, driver: Driver) -> None:
        await send(driver, put("a", 3))
        await send(driver, Hide([((2, 2), ALL)]), operation_id="h")
        await send(driver, Show("h"))
        assert [(row.since, row.until) for row in await all_hidden(driver, positions=(2, 3))] == [(2, 3)]

    async def test_many_hidden_rows_come_at_once(self, driver: Driver) -> None:
        await send(driver, put("a", 3))
        for number in range(300):
            await send(driver, Hide([((2, 2), ALL)]), operation_id=f"h{number}")
        assert len(await all_hidden(driver)) == 300

    # switches

    async def test_switches_come_by_version(self, driver: Driver) -> None:
        for name in "dbca":
            await send(driver, switch(name, name))
        assert [row.switch_id for row in await all_switches(driver)] == ["d", "b", "c", "a"]
        assert [row.switch_id for row in await all_switches(driver, reverse=True)] == ["a", "c", "b", "d"]
        assert [row.switch_id for row in await all_switches(driver, first_version=2, last_version=3)] == ["b", "c"]

    @pytest.mark.parametrize("limit", [1, 3, 4, 5])
    async def test_a_page_of_switches_ends_at_its_limit(self, driver: Driver, limit: int) -> None:
        for name in "abcd":
            await send(driver, switch(name, name))
        page = await driver.switches(SwitchQuery(key(), limit))
        assert ([row.switch_id for row in page.rows], page.more) == (["a", "b", "c", "d"][:limit], limit < 4)
        page = await driver.switches(SwitchQuery(key(), limit, reverse=True))
        assert ([row.switch_id for row in page.rows], page.more) == (["d", "c", "b", "a"][:limit], limit < 4)
