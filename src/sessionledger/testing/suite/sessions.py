"""Sessions: making them, changing them, listing them, and what their statistics say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import anyio
import msgspec
import pytest

from sessionledger.codec import column_of_name
from sessionledger.errors import (
    ConflictError,
    InvalidCursorError,
    InvalidRecordError,
    SessionDeletedError,
    SessionExistsError,
    SessionNotFoundError,
)
from sessionledger.records import Message, Session, SessionKind, SessionStats, Usage
from sessionledger.store import Store
from sessionledger.testing.builders import answer, ask, call, exactly, result, run, turn
from sessionledger.testing.suite.bench import Bench, Storage, small_pages

__all__ = ["SessionTests"]


async def ids(store: Store, **filters: Any) -> list[str]:
    return [one.session_id for one in await store.sessions(**filters).collect()]


async def there(store: Store, session_id: str = "s") -> Session:
    session = await store.get_session(session_id)
    assert session is not None
    return session


def counted(session: Session) -> Session:
    """With one more in its state."""
    return msgspec.structs.replace(session, state={**session.state, "n": session.state.get("n", 0) + 1})


class SessionTests(Bench):
    # making

    async def test_a_session_is_made_once(self, store: Store) -> None:
        made = await store.create_session(Session(session_id="s", name="first"))
        assert (made.name, made.version, made.state_version) == ("first", 1, 1)
        assert made.created_at is not None and made.created_at == made.updated_at == made.last_activity_at
        with pytest.raises(SessionExistsError) as raised:
            await store.create_session(Session(session_id="s", name="second"))
        assert raised.value.session_id == "s"
        await store.delete_session("s")
        with pytest.raises(SessionExistsError):
            await store.create_session(Session(session_id="s", name="third"))
        await store.restore_session("s")
        assert (await there(store)).name == "first"

    async def test_making_is_recognised_by_its_operation(self, store: Store) -> None:
        first = await store.create_session(Session(session_id="s", state={"a": 1}), operation_id="o")
        assert await store.create_session(Session(session_id="s", state={"a": 1}), operation_id="o") == first
        with pytest.raises(ConflictError):
            await store.create_session(Session(session_id="s", state={"a": 2}), operation_id="o")

    async def test_what_the_store_keeps_is_not_taken_over(self, store: Store) -> None:
        given = Session(
            session_id="s", version=7, state_version=8, run_count=9, message_count=10, deleted_at=datetime.now(UTC)
        )
        made = await store.create_session(given)
        assert (made.version, made.state_version, made.run_count, made.message_count) == (1, 1, 0, 0)
        assert made.deleted_at is None

    async def test_of_many_who_make_a_session_one_does(self, store: Store) -> None:
        made: list[str] = []

        async def make(number: int) -> None:
            try:
                await store.create_session(Session(session_id="s", name=str(number)))
                made.append(str(number))
            except SessionExistsError:
                pass

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(make, number)
        assert made == [(await there(store)).name]

    async def test_an_upsert_makes_or_replaces(self, store: Store) -> None:
        made = await store.upsert_session(
            Session(session_id="s", user_id="u", name="a", state={"x": 1}, metadata={"m": 1})
        )
        await store.append(turn("r1"))
        changed = await store.upsert_session(Session(session_id="s", user_id="u", name="b", state={"y": 2}))
        assert (changed.name, changed.state, changed.metadata, changed.user_id) == ("b", {"y": 2}, {}, "u")
        assert (changed.created_at, changed.run_count) == (made.created_at, 1)
        assert changed == await there(store)
        assert changed.state_version == 2

    async def test_an_upsert_keeps_the_owner(self, store: Store) -> None:
        await store.create_session(Session(session_id="s", user_id="u"))
        with pytest.raises(SessionExistsError):
            await store.upsert_session(Session(session_id="s", user_id="v", name="mine"))
        after = await store.upsert_session(Session(session_id="s", name="n"))
        assert (after.user_id, after.name) == ("u", "n")
        await store.delete_session("s")
        with pytest.raises(SessionDeletedError):
            await store.upsert_session(Session(session_id="s"))

    async def test_an_upsert_is_recognised_by_its_operation(self, store: Store) -> None:
        first = await store.upsert_session(Session(session_id="s", name="a"), operation_id="o")
        await store.update_session("s", change={"name": "b"})
        again = await store.upsert_session(Session(session_id="s", name="a"), operation_id="o")
        assert (first.name, again.name, again.version) == ("a", "b", 2)
        with pytest.raises(ConflictError):
            await store.upsert_session(Session(session_id="s", name="c"), operation_id="o")

    # changing

    async def test_a_mapping_replaces_the_fields_it_names(self, store: Store) -> None:
        await store.create_session(Session(session_id="s", name="a", state={"x": 1}, agent_id="a"))
        change = {
            "name": None,
            "state": {"y": [1.0, -0.0]},
            "summary": "sum",
            "current_agent": "b",
            "kind": SessionKind.TEAM,
        }
        after = await store.update_session("s", change=change)
        assert after == await there(store)
        assert (after.name, after.summary, after.current_agent, after.agent_id) == (None, "sum", "b", "a")
        assert (after.kind, exactly(after.state)) == (SessionKind.TEAM, exactly({"y": [1.0, -0.0]}))
        assert (after.version, after.state_version) == (2, 2)

    async def test_a_function_changes_what_it_gets(self, store: Store) -> None:
        await store.create_session(Session(session_id="s", name="a", state={"n": 1}))
        after = await store.update_session("s", change=counted)
        assert (after.state, after.name) == ({"n": 2}, "a")

    async def test_a_change_leaves_the_order_of_sessions(self, store: Store) -> None:
        for session_id in ("s", "t"):
            await store.append(turn("r1", session_id=session_id))
        before = await there(store)
        after = await store.update_session("s", change={"name": "n"})
        assert after.last_activity_at == before.last_activity_at
        assert after.updated_at is not None and before.updated_at is not None and after.updated_at >= before.updated_at
        assert await ids(store) == ["t", "s"]

    async def test_values_that_compare_equal_are_changed(self, store: Store) -> None:
        await store.create_session(Session(session_id="s", state={"n": 1}))
        after = await store.update_session("s", change={"state": {"n": 1.0}})
        assert exactly(after.state) == exactly({"n": 1.0}) == exactly((await there(store)).state)

    async def test_64_increments_at_once_end_at_64(self, store: Store) -> None:
        await store.create_session(Session(session_id="s"))
        async with anyio.create_task_group() as group:
            for _ in range(64):
                group.start_soon(lambda: store.update_session("s", change=counted))
        assert (await there(store)).state == {"n": 64}

    async def test_increments_of_two_stores_lose_nothing(self, store: Store, storage: Storage) -> None:
        await store.create_session(Session(session_id="s"))

        async def increment(one: Store) -> None:
            for _ in range(8):
                await one.update_session("s", change=counted)

        async with storage.store() as other, anyio.create_task_group() as group:
            group.start_soon(increment, store)
            group.start_soon(increment, other)
        assert (await there(store)).state == {"n": 16}

    async def test_increments_and_appends_with_state_lose_nothing(self, store: Store) -> None:
        await store.create_session(Session(session_id="s"))
        async with anyio.create_task_group() as group:
            for number in range(16):
                group.start_soon(lambda: store.update_session("s", change=counted))
                group.start_soon(partial(store.append, turn(f"r{number}"), state={f"k{number}": number}))
        assert (await there(store)).state == {"n": 16, **{f"k{n}": n for n in range(16)}}

    async def test_the_expected_state_version_is_judged(self, store: Store) -> None:
        await store.create_session(Session(session_id="s"))
        await store.update_session("s", change={"name": "a"}, expected_state_version=1)
        with pytest.raises(ConflictError) as raised:
            await store.update_session("s", change={"name": "b"}, expected_state_version=1)
        assert (raised.value.session_id, raised.value.state_version) == ("s", 2)
        await store.append(turn("r1"))
        assert (await store.update_session("s", change={"name": "c"}, expected_state_version=2)).state_version == 3

    async def test_an_update_is_recognised_though_it_forbids_its_own_repetition(self, store: Store) -> None:
        def take(session: Session) -> Session:
            if session.state["seat"] is not None:
                raise LookupError("taken")
            return msgspec.structs.replace(session, state={"seat": "A"})

        await store.create_session(Session(session_id="s", state={"seat": None}))
        first = await store.update_session("s", change=take, operation_id="o")
        assert await store.update_session("s", change=take, operation_id="o") == first
        for operation_id in (None, "p"):
            with pytest.raises(LookupError):
                await store.update_session("s", change=take, operation_id=operation_id)
        assert await store.get_session("s") == first

    async def test_a_change_is_recognised_by_its_operation(self, store: Store) -> None:
        await store.create_session(Session(session_id="s"))
        await store.update_session("s", change=counted, operation_id="o")
        after = await store.update_session("s", change=counted, operation_id="o")
        assert (after.state, after.version) == ({"n": 1}, 2)
        await store.update_session("s", change={"name": "a"}, operation_id="p")
        with pytest.raises(ConflictError):
            await store.update_session("s", change={"name": "b"}, operation_id="p")

    async def test_an_operation_id_names_one_write(self, store: Store) -> None:
        await store.append(run("r1", "x", status="running"))
        writes: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.update_session("s", change={"name": "n"}, operation_id="o"),
            lambda: store.update_run("s", run_id="r1", output=1, operation_id="o"),
            lambda: store.retract("s", last_runs=1, operation_id="o"),
            lambda: store.upsert_session(Session(session_id="s"), operation_id="o"),
        ]
        await writes[0]()
        before = await there(store)
        for write in writes[1:]:
            with pytest.raises(ConflictError):
                await write()
        assert await there(store) == before

    @pytest.mark.parametrize(
        "change",
        [
            {"session_id": "t"},
            {"namespace": "n"},
            {"user_id": "v"},
            {"version": 9},
            {"state_version": 9},
            {"run_count": 9},
            {"created_at": datetime(2020, 1, 1, tzinfo=UTC)},
            {"last_activity_at": None},
            {"deleted_at": datetime(2020, 1, 1, tzinfo=UTC)},
            {"forked_from": "x"},
            {"unknown": 1},
            {"kind": "robot"},
            {"name": 5},
            {"state": []},
            {5: 1},
        ],
        ids=str,
    )
    async def test_what_the_store_keeps_is_not_changed(self, store: Store, change: dict[str, Any]) -> None:
        before = await store.create_session(Session(session_id="s", user_id="u"))
        with pytest.raises(InvalidRecordError):
            await store.update_session("s", change=change)
        assert await there(store) == before

    async def test_a_change_that_raises_changes_nothing(self, store: Store) -> None:
        before = await store.create_session(Session(session_id="s"))

        def broken(session: Session) -> Session:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await store.update_session("s", change=broken)
        wrong: list[Any] = [lambda s: None, lambda s: {"name": "n"}, 5, None, "name"]
        for change in wrong:
            with pytest.raises(InvalidRecordError):
                await store.update_session("s", change=change)
        assert await there(store) == before

    async def test_what_is_not_there_is_not_changed(self, store: Store) -> None:
        with pytest.raises(SessionNotFoundError):
            await store.update_session("s", change={"name": "n"})
        assert await store.get_session("s") is None

    # listing

    async def test_sessions_come_latest_activity_first_without_their_state(self, store: Store) -> None:
        for session_id in ("a", "b", "c"):
            await store.append(turn("r1", session_id=session_id), state={"x": 1})
        await store.append(turn("r2", session_id="a"))
        await store.update_session("b", change={"name": "n"})
        listed = await store.sessions().collect()
        assert [one.session_id for one in listed] == ["a", "c", "b"]
        assert await ids(store, reverse=True) == ["b", "c", "a"]
        for one in listed:
            assert msgspec.structs.replace(await there(store, one.session_id), state={}) == one

    async def test_listed_sessions_are_filtered(self, store: Store) -> None:
        await store.create_session(Session(session_id="a", user_id="u", agent_id="x", name="one"))
        await store.create_session(Session(session_id="b", user_id="u", kind=SessionKind.TEAM, name="\0"))
        await store.create_session(Session(session_id="c", user_id="v", agent_id="x"))
        assert await ids(store, user_id="u") == ["b", "a"]
        assert await ids(store, agent_id="x") == ["c", "a"]
        assert await ids(store, kind="team") == await ids(store, kind=SessionKind.TEAM) == ["b"]
        assert await ids(store, name="one") == ["a"]
        assert await ids(store, user_id="u", agent_id="x") == ["a"]
        assert await ids(store, user_id="none") == []
        with pytest.raises(InvalidRecordError):
            store.sessions(kind="robot")
        with pytest.raises(InvalidRecordError):
            store.sessions(active_after=datetime(2024, 1, 1))  # noqa: DTZ001

    async def test_sessions_are_found_by_any_name(self, store: Store) -> None:
        names = ["n", "N", "", " ", "é" * 129, "é" * 256, "x" * 256, "x" * 257, "x" * 5000, "x\0y", "\0", "x", "\ufffc"]
        # what a column has in place of a name is the name of no other session
        names += [column_of_name(name) or "" for name in ("x" * 257, "x\0y")]
        for number, name in enumerate(names):
            await store.create_session(Session(session_id=str(number), name=name))
        await store.create_session(Session(session_id="without"))
        for number, name in enumerate(names):
            (found,) = await store.sessions(name=name).collect()
            assert (found.session_id, found.name) == (str(number), name)
        assert await ids(store, name="x" * 258) == []
        for session_id, before, after in (("0", "n", "y" * 300), ("8", "x" * 5000, "y" * 301)):
            await store.update_session(session_id, change={"name": after})
            assert (await ids(store, name=after), await ids(store, name=before)) == ([session_id], [])
            assert (await there(store, session_id)).name == after
        for bad in ("a\ud800", 5):
            with pytest.raises(InvalidRecordError) as raised:
                store.sessions(name=bad)  # type: ignore[arg-type]
            assert raised.value.path == "name"

    async def test_listed_sessions_lie_between_their_bounds(self, store: Store) -> None:
        moments = []
        for session_id in ("a", "b", "c"):
            await store.append(turn("r1", session_id=session_id))
            moments.append((await there(store, session_id)).last_activity_at)
        assert await ids(store, active_after=moments[0]) == ["c", "b"]
        assert await ids(store, active_before=moments[2]) == ["b", "a"]
        assert await ids(store, active_after=moments[0], active_before=moments[2], reverse=True) == ["b"]
        assert moments[0] is not None
        assert await ids(store, active_before=moments[0] - timedelta(days=1)) == []

    @pytest.mark.parametrize("size", [1, 2, 3, 10])
    @pytest.mark.parametrize("reverse", [False, True])
    async def test_sessions_go_on_from_a_token(self, store: Store, size: int, reverse: bool) -> None:
        names = [f"s{number}" for number in range(7)]
        for name in names:
            await store.append(turn("r1", session_id=name))
        walked: list[str] = []
        token: str | None = None
        while True:
            page = await store.sessions(page_size=size, reverse=reverse, after=token).page()
            walked += [one.session_id for one in page.items]
            token = page.next_token
            if token is None:
                break
        assert walked == (names if reverse else names[::-1])
        assert await store.sessions(reverse=reverse).count() == 7

    @pytest.mark.parametrize("reverse", [False, True])
    async def test_a_walk_gives_each_session_at_most_once(self, store: Store, reverse: bool) -> None:
        small_pages(store, rows=2)
        names = [f"s{number}" for number in range(8)]
        for name in names:
            await store.create_session(Session(session_id=name))
        walked: list[str] = []
        async for one in store.sessions(reverse=reverse, page_size=2):
            walked.append(one.session_id)
            await store.append(turn(f"r{len(walked)}", session_id=walked[0]))
            await store.append(turn(f"r{len(walked)}", session_id=names[3]))
            assert len(walked) <= len(names)
        assert len(set(walked)) == len(walked)
        assert set(names) - set(walked) <= {names[3]}

    async def test_a_token_of_another_list_is_refused(self, store: Store) -> None:
        await store.append(turn("r1"))
        cursor = store.sessions()
        await cursor.first()
        assert await ids(store, after=cursor.token) == []
        others: list[dict[str, Any]] = [{"user_id": "u"}, {"reverse": True}, {"include_deleted": True}]
        for filters in others:
            with pytest.raises(InvalidCursorError):
                await store.sessions(after=cursor.token, **filters).collect()

    # statistics

    async def test_statistics_are_what_counting_gives(self, store: Store) -> None:
        usage = Usage(
            input_tokens=5,
            output_tokens=4,
            cache_read_input_tokens=3,
            cache_creation_input_tokens=2,
            reasoning_tokens=1,
            requests=1,
            cost=Decimal("0.0000123"),
            currency="USD",
            details={"audio\0": 7},
        )
        messages = [
            Message(role="system", content="be"),
            ask("q"),
            call("a", "b", usage=usage),
            result("a"),
            result("b"),
            answer("done", usage=usage),
        ]
        await store.append(run("r1", *messages))
        await store.append(
            run("r2", "q", usage=Usage(input_tokens=2**62, cost=Decimal("1.1"), currency="USD"), status="failed")
        )
        await store.append(run("r3", "q", status="running"))
        await store.update_run("s", run_id="r3", messages=[answer("x", usage=usage), call("c")], status="cancelled")
        session = await there(store)
        kept = await store.messages("s").collect()
        stats = await store.stats("s")
        runs = await store.runs("s").collect()
        assert stats == SessionStats(
            session_id="s",
            runs=3,
            runs_by_status={"completed": 1, "failed": 1, "cancelled": 1},
            messages=len(kept),
            messages_by_role=dict(Counter(one.role for one in kept)),
            tool_calls=sum(len(one.tool_calls) for one in kept),
            usage=sum((one.usage for one in runs if one.usage is not None), Usage()),
            costs={"USD": Decimal("1.1000369")},
            first_activity_at=session.created_at,
            last_activity_at=session.last_activity_at,
        )
        assert stats.usage.cost == Decimal("1.1000369")
        assert stats.usage.details == {"audio\0": 21}

    async def test_costs_of_several_currencies_are_kept_apart(self, store: Store) -> None:
        costs = [("1.10", "USD"), ("2", "EUR"), ("-0.05", "USD"), ("1E+3", None), ("0.1", "EUR/x"), ("1E-30", "EUR")]
        for number, (cost, currency) in enumerate(costs):
            await store.append(run(f"r{number}", "q", usage=Usage(cost=Decimal(cost), currency=currency)))
        stats = await store.stats("s")
        assert stats.usage.cost is None
        assert stats.costs == {
            "USD": Decimal("1.05"),
            "EUR": Decimal("2.000000000000000000000000000001"),
            "": Decimal(1000),
            "EUR/x": Decimal("0.1"),
        }

    async def test_a_cost_of_many_digits_is_counted_exactly(self, store: Store) -> None:
        cost = Decimal("0.1000000000000000055511151231257827021181583404541015625")  # Decimal(0.1)
        assert len(cost.as_tuple().digits) > 50
        for number in range(3):
            await store.append(run(f"r{number}", usage=Usage(cost=cost, currency="USD", input_tokens=2**63 - 1)))
        stats = await store.stats("s")
        assert str(stats.costs["USD"]) == "0.3000000000000000166533453693773481063544750213623046875"

    async def test_more_tokens_than_a_run_can_have_are_counted(self, store: Store) -> None:
        for number in range(3):
            await store.append(run(f"r{number}", usage=Usage(input_tokens=2**63 - 1, details={"x": 2**63 - 1})))
        stats = await store.stats("s")
        assert stats.usage.input_tokens == stats.usage.details["x"] == 3 * (2**63 - 1)

    async def test_statistics_follow_revisions_and_finishes(self, store: Store) -> None:
        await store.append([run("r1", "q", status="running"), run("r2", "q", status="failed", usage=Usage(requests=1))])
        await store.update_run("s", run_id="r1", usage=Usage(requests=5))
        await store.update_run("s", run_id="r1", usage=Usage(requests=2), status="completed")
        await store.append(run("r2", "q", usage=Usage(requests=10)), revise=True)
        stats = await store.stats("s")
        assert stats.usage.requests == 13
        assert {name: n for name, n in stats.runs_by_status.items() if n} == {"completed": 2}
        assert stats.messages_by_role == {"user": 3}
        await store.append(run("r2", "q", usage=Usage(requests=10)), revise=True)
        assert await store.stats("s") == stats
