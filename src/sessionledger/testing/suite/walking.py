"""Cursors: order, filters, windows, pages, tokens, and the snapshot that each of them takes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sessionledger.errors import InvalidCursorError, InvalidRecordError
from sessionledger.protocol.store import Cursor
from sessionledger.records import AgentSwitch, Message
from sessionledger.store import Store
from sessionledger.testing.builders import answer, ask, run, texts, turn
from sessionledger.testing.suite.bench import Bench, Storage, small_pages

__all__ = ["CursorTests"]


async def ten_messages(store: Store) -> list[int]:
    """In five runs."""
    await store.append([turn(f"r{number}") for number in range(1, 6)])
    return list(range(1, 11))


async def places(cursor: Cursor[Message]) -> list[int | None]:
    return [one.position for one in await cursor.collect()]


async def seqs(store: Store, **filters: Any) -> list[int | None]:
    return [one.seq for one in await store.runs("s", **filters).collect()]


class CursorTests(Bench):
    # windows of messages

    async def test_messages_come_by_position(self, store: Store) -> None:
        whole = await ten_messages(store)
        assert await places(store.messages("s")) == whole
        assert await places(store.messages("s", reverse=True)) == whole[::-1]

    async def test_places_are_exclusive(self, store: Store) -> None:
        whole = await ten_messages(store)
        assert await places(store.messages("s", after=3)) == whole[3:]
        assert await places(store.messages("s", before=3)) == whole[:2]
        assert await places(store.messages("s", after=3, before=6)) == [4, 5]
        assert await places(store.messages("s", after=3, before=6, reverse=True)) == [5, 4]
        assert await places(store.messages("s", after=3, before=4)) == []
        assert await places(store.messages("s", after=10)) == await places(store.messages("s", after=100)) == []
        assert await places(store.messages("s", before=0)) == []

    async def test_an_offset_is_a_position(self, store: Store) -> None:
        whole = await ten_messages(store)
        assert await places(store.messages("s", offset=0)) == whole
        assert await places(store.messages("s", offset=7)) == [8, 9, 10]
        assert await places(store.messages("s", offset=7, limit=2)) == [8, 9]
        assert await places(store.messages("s", offset=10)) == []

    @pytest.mark.parametrize("count", [0, 1, 3, 10, 11])
    async def test_a_limit_counts_what_shows(self, store: Store, count: int) -> None:
        whole = await ten_messages(store)
        await store.retract("s", run_id="r2")
        showing = [place for place in whole if place not in (3, 4)]
        assert await places(store.messages("s", limit=count)) == showing[:count]
        assert await places(store.messages("s", limit=count, reverse=True)) == showing[::-1][:count]

    @pytest.mark.parametrize("count", [0, 1, 3, 8, 11])
    @pytest.mark.parametrize("rows", [1, 2, 3, 500])
    async def test_the_last_come_oldest_first(self, store: Store, count: int, rows: int) -> None:
        small_pages(store, rows=rows)
        whole = await ten_messages(store)
        await store.retract("s", run_id="r4")
        showing = [place for place in whole if place not in (7, 8)]
        last = showing[len(showing) - min(count, 8) :]
        assert await places(store.messages("s", last=count)) == last
        assert await places(store.messages("s", last=count, reverse=True)) == last[::-1]
        early = [place for place in showing if place < 6]
        assert await places(store.messages("s", last=count, before=6)) == early[len(early) - min(count, len(early)) :]
        late = [place for place in last if place > 5]
        assert await places(store.messages("s", last=count, after=5)) == late

    @pytest.mark.parametrize("rows", [1, 3, 500])
    async def test_roles_are_filtered(self, store: Store, rows: int) -> None:
        small_pages(store, rows=rows)
        await ten_messages(store)
        assert await places(store.messages("s", roles=["user"])) == [1, 3, 5, 7, 9]
        assert await places(store.messages("s", roles=["assistant"], limit=2)) == [2, 4]
        assert await places(store.messages("s", roles=["assistant"], last=2)) == [8, 10]
        assert await places(store.messages("s", roles=["assistant"], last=2, reverse=True)) == [10, 8]
        assert await places(store.messages("s", roles=["tool"])) == []
        assert await places(store.messages("s", roles=["tool"], last=2)) == []
        assert await places(store.messages("s", roles=[])) == []

    @pytest.mark.parametrize("rows", [1, 2, 500])
    async def test_messages_of_one_run_are_filtered(self, store: Store, rows: int) -> None:
        small_pages(store, rows=rows)
        await store.append(run("a", "1", status="running"))
        for text in ("3", "5", "7"):
            await store.append(turn(f"between {text}"))
            await store.update_run("s", run_id="a", messages=[ask(text)])
        assert await places(store.messages("s", run_id="a")) == [1, 4, 7, 10]
        assert await places(store.messages("s", run_id="a", reverse=True)) == [10, 7, 4, 1]
        assert await places(store.messages("s", run_id="a", last=2)) == [7, 10]
        assert await places(store.messages("s", run_id="a", last=3, reverse=True)) == [10, 7, 4]
        assert await places(store.messages("s", run_id="a", limit=2)) == [1, 4]
        assert await places(store.messages("s", run_id="a", after=3, before=10)) == [4, 7]
        assert await places(store.messages("s", run_id="a", offset=4)) == [7, 10]
        assert await places(store.messages("s", run_id="unknown")) == []
        await store.append(run("a", "again"), revise=True)
        assert await places(store.messages("s", run_id="a")) == [11]
        assert await places(store.messages("s", run_id="a", include_retracted=True)) == [1, 4, 7, 10, 11]
        assert await places(store.messages("s", run_id="a", include_retracted=True, last=2)) == [10, 11]

    async def test_what_was_retracted_comes_on_request(self, store: Store) -> None:
        whole = await ten_messages(store)
        await store.retract("s", last_runs=2)
        assert await places(store.messages("s", include_retracted=True)) == whole
        assert await places(store.messages("s", include_retracted=True, last=3)) == [8, 9, 10]
        assert await places(store.messages("s")) == whole[:6]

    # windows of runs

    @pytest.mark.parametrize("rows", [1, 2, 500])
    async def test_runs_come_by_seq(self, store: Store, rows: int) -> None:
        small_pages(store, rows=rows)
        await ten_messages(store)
        assert await seqs(store) == [1, 2, 3, 4, 5]
        assert await seqs(store, reverse=True) == [5, 4, 3, 2, 1]
        assert await seqs(store, after=2) == [3, 4, 5]
        assert await seqs(store, before=3) == [1, 2]
        assert await seqs(store, after=1, before=4, reverse=True) == [3, 2]
        assert await seqs(store, last=2) == [4, 5]
        assert await seqs(store, last=2, reverse=True) == [5, 4]
        assert await seqs(store, last=2, before=4) == [2, 3]
        assert await seqs(store, last=0) == []
        assert await seqs(store, last=9) == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize("rows", [1, 2, 500])
    async def test_runs_are_filtered(self, store: Store, rows: int) -> None:
        small_pages(store, rows=rows)
        await store.append(
            [
                run("r1", agent_id="a", user_id="u"),
                run("r2", status="failed", agent_id="b"),
                run("r3", agent_id="a", parent_run_id="r1"),
                run("r4", status="running", agent_id="a"),
                run("r5", status="failed", agent_id="a"),
            ]
        )
        assert await seqs(store, agent_id="a") == [1, 3, 4, 5]
        assert await seqs(store, user_id="u") == [1]
        assert await seqs(store, status="failed") == [2, 5]
        assert await seqs(store, status=["failed", "running"], agent_id="a") == [4, 5]
        assert await seqs(store, parent_run_id="r1") == [3]
        assert await seqs(store, agent_id="a", last=2) == [4, 5]
        assert await seqs(store, agent_id="a", last=3, reverse=True) == [5, 4, 3]
        assert await seqs(store, agent_id="a", last=2, before=4) == [1, 3]
        (third,) = await store.runs("s", after=2, before=4).collect()
        assert await seqs(store, updated_before=third.updated_at) == []

    @pytest.mark.parametrize("rows", [1, 2, 3])
    async def test_runs_bring_their_messages_on_request(self, store: Store, rows: int) -> None:
        small_pages(store, rows=rows, size=60)
        await store.append([run(f"r{number}", *(f"{number}.{m}" for m in range(number))) for number in range(5)])
        found = await store.runs("s", include_messages=True).collect()
        assert [texts(one.messages) for one in found] == [[f"{n}.{m}" for m in range(n)] for n in range(5)]
        assert [one.message_count for one in found] == [0, 1, 2, 3, 4]
        bare = await store.runs("s").collect()
        assert not any(one.messages for one in bare)
        assert [one.message_count for one in bare] == [0, 1, 2, 3, 4]

    async def test_runs_of_all_sessions_are_found(self, store: Store) -> None:
        for session_id in ("a", "b", "c"):
            await store.append(
                [
                    run("r1", agent_id="x", session_id=session_id),
                    run("r2", status="running", user_id="u", session_id=session_id),
                ]
            )
        await store.append(run("r1", "again", status="failed", session_id="b", agent_id="x"), revise=True)
        await store.delete_session("c")

        async def found(**filters: Any) -> list[tuple[str, str | None]]:
            return sorted((one.session_id, one.run_id) for one in await store.runs(**filters).collect())

        assert await found(agent_id="x") == [("a", "r1"), ("b", "r1")]
        assert await found(status="running") == [("a", "r2"), ("b", "r2")]
        assert await found(status="failed") == [("b", "r1")]
        assert await found(user_id="u", status=["running", "failed"]) == [("a", "r2"), ("b", "r2")]
        assert await found(agent_id="x", status="running") == []
        assert await found(parent_run_id="r1") == []

    @pytest.mark.parametrize("reverse", [False, True])
    async def test_a_search_goes_on_from_its_token(self, store: Store, reverse: bool) -> None:
        for number in range(9):
            await store.append(run(f"r{number}", agent_id="x", session_id=f"s{number % 4}"))
        whole = [(one.session_id, one.run_id) for one in await store.runs(agent_id="x", reverse=reverse).collect()]
        assert len(set(whole)) == 9
        walked: list[tuple[str, str | None]] = []
        token = None
        while True:
            place: dict[str, Any] = {"before" if reverse else "after": token}
            page = await store.runs(agent_id="x", page_size=2, reverse=reverse, **place).page()
            walked += [(one.session_id, one.run_id) for one in page.items]
            token = page.next_token
            if token is None:
                break
        assert walked == whole

    @pytest.mark.parametrize(("rows", "size"), [(2, 1 << 20), (500, 10)])
    async def test_a_search_that_is_read_in_small_pieces_goes_on_from_its_token(
        self, store: Store, rows: int, size: int
    ) -> None:
        await store.append([run(f"r{number}", agent_id="x", output="x" * 20) for number in range(7)])
        small_pages(store, rows=rows, size=size)
        walked: list[str | None] = []
        page = await store.runs(agent_id="x", page_size=2).page()
        while page.next_token is not None:
            walked += [one.run_id for one in page.items]
            page = await store.runs(agent_id="x", page_size=2, after=page.next_token).page()
        assert [*walked, *(one.run_id for one in page.items)] == [f"r{number}" for number in range(7)]

    @pytest.mark.parametrize("status", ["running", "completed"])
    @pytest.mark.parametrize("page_size", [5, 32])
    async def test_a_search_goes_through_many_runs_of_one_append(
        self, store: Store, status: str, page_size: int
    ) -> None:
        runs = [
            run(f"{n:03}", agent_id="x", session_id=name)
            for name, count in (("a", 32), ("b", 1), ("c", 70))
            for n in range(count)
        ]
        for name in "abc":
            await store.append([msgspec.structs.replace(one, status=status) for one in runs if one.session_id == name])
        for reverse in (False, True):
            cursor = store.runs(agent_id="x", page_size=page_size, reverse=reverse)
            found = [(one.session_id, one.seq) async for one in cursor]
            assert len(found) == len(runs)
            for name, count in (("a", 32), ("b", 1), ("c", 70)):
                own = [seq for session_id, seq in found if session_id == name]
                assert own == sorted(range(1, count + 1), reverse=reverse)

    @pytest.mark.parametrize(
        "arguments",
        [{}, {"last": 1, "agent_id": "x"}, {"agent_id": "x", "after": 3}, {"agent_id": "x", "include_messages": True}],
        ids=str,
    )
    async def test_a_search_without_a_filter_is_refused(self, store: Store, arguments: dict[str, Any]) -> None:
        with pytest.raises(InvalidRecordError):
            store.runs(**arguments)

    # the cursor itself

    async def test_pages_have_their_size(self, store: Store) -> None:
        await ten_messages(store)
        cursor = store.messages("s", page_size=4)
        sizes, tokens = [], []
        for _ in range(4):
            page = await cursor.page()
            sizes.append(len(page.items))
            tokens.append(page.next_token is not None)
        assert (sizes, tokens) == ([4, 4, 2, 0], [True, True, False, False])

    async def test_a_page_that_is_just_full_is_the_last(self, store: Store) -> None:
        await ten_messages(store)
        page = await store.messages("s", page_size=10).page()
        assert (len(page.items), page.next_token) == (10, None)

    async def test_a_cursor_is_read_in_any_way(self, store: Store) -> None:
        await ten_messages(store)
        cursor = store.messages("s", page_size=3)
        first = await cursor.first()
        assert first is not None and first.position == 1
        assert [one.position for one in (await cursor.page()).items] == [2, 3, 4]
        async for one in cursor:
            assert one.position == 5
            break
        assert await cursor.count() == 10
        assert [one.position for one in await cursor.collect()] == [6, 7, 8, 9, 10]
        assert await cursor.first() is None
        assert await cursor.collect() == []
        assert list((await cursor.page()).items) == []

    async def test_a_cursor_counts(self, store: Store) -> None:
        small_pages(store, rows=3)
        await ten_messages(store)
        assert await store.messages("s").count() == 10
        assert await store.messages("s", roles=["user"], limit=4).count() == 4
        assert await store.messages("s", last=3).count() == 3
        assert await store.runs("s").count() == 5
        assert await store.history("s", last_runs=2).count() == 4
        assert await store.sessions().count() == 1
        assert await store.messages("unknown").count() == 0

    async def test_nothing_is_fetched_before_the_first_item(self, store: Store) -> None:
        cursor = store.messages("s")
        runs = store.runs("s")
        await ten_messages(store)
        assert await cursor.count() == 10
        assert len(await cursor.collect()) == 10
        assert len(await runs.collect()) == 5

    async def test_an_empty_cursor_ends(self, store: Store) -> None:
        for cursor in (store.messages("s"), store.runs("s"), store.history("s"), store.sessions(), store.switches("s")):
            assert cursor.token is None
            assert await cursor.first() is None
            page = await cursor.page()
            assert (list(page.items), page.next_token) == ([], None)

    async def test_pages_of_what_has_no_places_say_whether_there_is_more(self, store: Store) -> None:
        await ten_messages(store)
        for number in range(5):
            await store.append(run(f"w{number}"), switch=AgentSwitch(to_agent=f"a{number}"))
        small_pages(store, rows=2)
        cursors: list[Cursor[Any]] = [store.history("s", page_size=4), store.switches("s")]
        for cursor, expected in zip(cursors, ([4, 4, 2], [2, 2, 1]), strict=True):
            sizes = []
            more: str | None = ""
            while more is not None:
                page = await cursor.page()
                sizes.append(len(page.items))
                more = page.next_token
            assert sizes == expected
            with pytest.raises(InvalidCursorError):
                await store.messages("s", after=cursor.token).collect()

    # tokens

    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    @pytest.mark.parametrize("reverse", [False, True])
    async def test_messages_go_on_from_a_token(self, store: Store, storage: Storage, size: int, reverse: bool) -> None:
        whole = await ten_messages(store)
        await store.retract("s", run_id="r2")
        walked: list[int | None] = []
        token: str | None = None
        async with storage.store() as other:
            for number in range(12):
                place: dict[str, Any] = {"before" if reverse else "after": token}
                reader = (store, other)[number % 2]
                page = await reader.messages("s", page_size=size, reverse=reverse, **place).page()
                walked += [one.position for one in page.items]
                token = page.next_token
                if token is None:
                    break
        showing = [place for place in whole if place not in (3, 4)]
        assert walked == (showing[::-1] if reverse else showing)

    @pytest.mark.parametrize("reverse", [False, True])
    async def test_runs_go_on_from_a_token(self, store: Store, reverse: bool) -> None:
        await ten_messages(store)
        cursor = store.runs("s", reverse=reverse)
        assert cursor.token is None
        first = await cursor.first()
        place: dict[str, Any] = {"before" if reverse else "after": cursor.token}
        rest = await store.runs("s", reverse=reverse, **place).collect()
        assert first is not None
        assert [first.seq, *(one.seq for one in rest)] == ([5, 4, 3, 2, 1] if reverse else [1, 2, 3, 4, 5])

    async def test_a_token_stands_behind_the_last_item(self, store: Store) -> None:
        await ten_messages(store)
        cursor = store.messages("s", page_size=5)
        async for one in cursor:
            assert one.position is not None
            assert await places(store.messages("s", after=cursor.token)) == list(range(one.position + 1, 11))

    async def test_a_token_is_a_place_and_no_snapshot(self, store: Store) -> None:
        await ten_messages(store)
        cursor = store.messages("s", page_size=10)
        await cursor.page()
        assert cursor.token is not None
        await store.append(turn("r6"))
        assert await places(store.messages("s", after=cursor.token)) == [11, 12]
        assert await cursor.first() is None

    async def test_a_search_takes_no_token_of_another_driver(self, store: Store, storage: Storage) -> None:
        for number in range(3):
            await store.append(run(f"r{number}", agent_id="a"))
        driver = storage.driver()
        driver.info = msgspec.structs.replace(driver.info, name="other")  # type: ignore[misc]
        async with Store.on(driver) as other:
            token = (await other.runs(agent_id="a", page_size=1).page()).next_token
        assert token is not None
        with pytest.raises(InvalidCursorError):
            store.runs(agent_id="a", after=token)

    async def test_a_token_of_another_cursor_is_refused(self, store: Store) -> None:
        await ten_messages(store)
        await store.append(turn("r1", session_id="t"))
        cursor = store.messages("s")
        await cursor.first()
        runs = store.runs("s")
        await runs.first()
        assert cursor.token is not None and runs.token is not None
        damaged = cursor.token[:-1] + ("A" if cursor.token[-1] != "A" else "B")
        for token in (runs.token, damaged, "", "x", "€", cursor.token + "AAAA", "A" * 5000, "\ud800"):
            with pytest.raises(InvalidCursorError):
                await store.messages("s", after=token).collect()
        with pytest.raises(InvalidCursorError):
            await store.messages("t", after=cursor.token).collect()
        with pytest.raises(InvalidCursorError):
            await store.scoped(namespace="n").messages("s", after=cursor.token).collect()
        with pytest.raises(InvalidCursorError):
            await store.sessions(after=cursor.token).collect()
        with pytest.raises(InvalidCursorError):
            await store.runs("s", after=cursor.token).collect()
        with pytest.raises(InvalidCursorError):
            await store.runs(agent_id="a", after=cursor.token).collect()

    @pytest.mark.parametrize(
        "arguments",
        [
            {"last": 1, "limit": 1},
            {"offset": 1, "after": 1},
            {"last": -1},
            {"limit": 1.0},
            {"offset": True},
            {"after": -1},
            {"before": 1.5},
            {"roles": "user"},
            {"run_id": ""},
            {"page_size": 0},
            {"page_size": "9"},
        ],
        ids=str,
    )
    async def test_wrong_arguments_of_a_cursor_are_refused(self, store: Store, arguments: dict[str, Any]) -> None:
        with pytest.raises(InvalidRecordError):
            store.messages("s", **arguments)

    # bounds

    async def test_pages_are_bounded_by_bytes(self, store: Store) -> None:
        small_pages(store, rows=500, size=10_000)
        sizes = [1, 20_000, 1, 5_000, 5_000, 5_000, 1, 30_000]
        await store.append(run("r1", *("x" * size for size in sizes)))
        assert [len(one.content) async for one in store.messages("s")] == sizes
        assert [len(one.content) async for one in store.messages("s", reverse=True)] == sizes[::-1]
        assert [len(one.content) async for one in store.messages("s", last=3)] == sizes[-3:]
        assert [len(one.content) async for one in store.history("s")] == sizes

    async def test_runs_are_bounded_by_bytes(self, store: Store) -> None:
        small_pages(store, rows=500, size=1_000)
        sizes = [1, 2_000, 1, 500, 500, 500, 1, 3_000]
        outputs = ["x" * size for size in sizes]
        await store.append([run(f"r{n}", output=output, agent_id="x") for n, output in enumerate(outputs)])
        assert [one.output async for one in store.runs("s")] == outputs
        assert [one.output async for one in store.runs("s", reverse=True)] == outputs[::-1]
        assert [one.output async for one in store.runs("s", last=3)] == outputs[-3:]
        assert [one.output async for one in store.runs(agent_id="x")] == outputs

    @pytest.mark.parametrize("open_run", [False, True])
    @pytest.mark.parametrize("letter", ["x", "世", "😀"])
    async def test_pages_lose_nothing_however_their_bytes_are_measured(
        self, store: Store, letter: str, open_run: bool
    ) -> None:
        """A storage may count bytes, characters, or what is compressed, against the bound of a page."""
        outputs = [letter * 30] * 6
        runs = [run(f"r{n}", letter * 30, output=output, agent_id="x") for n, output in enumerate(outputs)]
        if open_run:
            runs = [msgspec.structs.replace(one, status="running") for one in runs]
        await store.append(runs)
        for size in range(30, 600, 29):
            small_pages(store, rows=500, size=size)
            assert [one.output async for one in store.runs("s")] == outputs, size
            assert [one.output async for one in store.runs("s", reverse=True)] == outputs, size
            assert [one.output async for one in store.runs(agent_id="x")] == outputs, size
            assert [one.content async for one in store.messages("s")] == outputs, size

    async def test_a_page_may_be_larger_than_one_fetch(self, store: Store) -> None:
        small_pages(store, rows=3)
        await ten_messages(store)
        page = await store.messages("s", page_size=8).page()
        assert [one.position for one in page.items] == list(range(1, 9))
        assert page.next_token is not None

    async def test_switches_are_read_as_they_were(self, store: Store) -> None:
        small_pages(store, rows=2)
        for number in range(5):
            await store.append(run(f"r{number}", answer("x")), switch=AgentSwitch(to_agent=f"a{number}"))
        cursor = store.switches("s")
        first = await cursor.first()
        await store.append(run("r5"), switch=AgentSwitch(to_agent="a5"))
        rest = await cursor.collect()
        assert first is not None
        assert [first.to_agent, *(one.to_agent for one in rest)] == ["a0", "a1", "a2", "a3", "a4"]
        assert [one.to_agent for one in await store.switches("s", last=2).collect()] == ["a4", "a5"]
        for last in (3, 4, 5, 6, 9, 2**63, 2**70):
            expected = [f"a{n}" for n in range(6)][-min(last, 6) :]
            assert [one.to_agent for one in await store.switches("s", last=last).collect()] == expected
        assert await store.switches("s", last=0).collect() == []
