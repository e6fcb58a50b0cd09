"""The snapshot that a cursor takes: what happens to its session later changes nothing of the walk, but a deletion ends
it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sessionledger.errors import SessionDeletedError
from sessionledger.protocol.store import Cursor
from sessionledger.records import AgentSwitch, Session
from sessionledger.store import Store
from sessionledger.testing.builders import ask, run, texts, turn
from sessionledger.testing.suite.bench import Bench, interrupt, small_pages

__all__ = ["SnapshotTests"]


#: What happens to a session under an open cursor; none of it changes what the cursor hands out.
CHANGES: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "append": lambda store: store.append([turn("new1"), turn("new2")]),
    "retract runs": lambda store: store.retract("s", last_runs=4),
    "retract messages": lambda store: store.retract("s", last_messages=7),
    "retract a run": lambda store: store.retract("s", run_id="r3"),
    "unretract": lambda store: store.unretract("s", retract_id="before"),
    "revise": lambda store: store.append([run(f"r{n}", f"r{n} again", "and again") for n in (5, 2, 4)], revise=True),
    "revise twice": lambda store: _revise_twice(store),
    "extend": lambda store: store.update_run("s", run_id="open", messages=[ask("more")], status="failed"),
    "rename": lambda store: store.update_session("s", change={"name": "n", "state": {"a": 1}}),
    "fork": lambda store: store.fork("s", at="r2"),
    "delete and restore": lambda store: _delete_and_restore(store),
}


async def _revise_twice(store: Store) -> None:
    for text in ("one", "two"):
        await store.append([run(f"r{n}", text) for n in range(1, 6)], revise=True)


async def _delete_and_restore(store: Store) -> None:
    await store.delete_session("s")
    await store.restore_session("s")


async def session_with_all(store: Store) -> None:
    await store.append([turn(f"r{number}") for number in range(1, 6)])
    await store.append(run("open", "q", status="running"))
    await store.append(run("r1", "first again", "and again"), revise=True)
    await store.retract("s", run_id="r2", operation_id="before")
    await store.update_run("s", run_id="open", messages=[ask("q2")])


async def _make_again(store: Store) -> None:
    await store.delete_session("s", soft=False)
    await store.create_session(Session(session_id="s"))
    await session_with_all(store)


async def _fork_again(store: Store) -> None:
    await store.delete_session("s", soft=False)
    await store.append([turn(f"r{number}", session_id="p") for number in range(1, 9)])
    await store.fork("p", new_session_id="s")


#: Ways in which a session goes under an open cursor.
DELETIONS: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "softly": lambda store: store.delete_session("s"),
    "for good": lambda store: store.delete_session("s", soft=False),
    "made again": _make_again,
    "forked again": _fork_again,
}


async def _switch(store: Store, agents: str) -> None:
    for agent in agents:
        await store.append(run(f"to {agent}", "x"), switch=AgentSwitch(to_agent=agent))


WALKS: dict[str, Callable[[Store], Cursor[Any]]] = {
    "messages": lambda store: store.messages("s", page_size=2),
    "messages reversed": lambda store: store.messages("s", page_size=2, reverse=True),
    "last messages": lambda store: store.messages("s", page_size=2, last=7),
    "messages of a run": lambda store: store.messages("s", page_size=1, run_id="r4"),
    "user's messages": lambda store: store.messages("s", page_size=2, roles=["user"]),
    "history": lambda store: store.history("s", page_size=2),
    "last history": lambda store: store.history("s", page_size=2, last_runs=3),
    "runs": lambda store: store.runs("s", page_size=1),
    "runs reversed": lambda store: store.runs("s", page_size=1, reverse=True),
    "runs with messages": lambda store: store.runs("s", page_size=1, include_messages=True),
}


class SnapshotTests(Bench):
    @pytest.mark.parametrize("rows", [1, 3])
    @pytest.mark.parametrize("walk", WALKS)
    @pytest.mark.parametrize("change", CHANGES)
    async def test_a_walk_that_has_begun_goes_on_as_it_was(
        self, store: Store, change: str, walk: str, rows: int
    ) -> None:
        await session_with_all(store)
        small_pages(store, rows=rows)
        expected = await WALKS[walk](store).collect()
        cursor = WALKS[walk](store)
        walked: list[Any] = [await cursor.first()]
        await CHANGES[change](store)
        walked += await cursor.collect()
        if walk.startswith("runs"):
            # a run's status is read as it is
            assert [(one.run_id, one.revision, texts(one.messages)) for one in walked] == [
                (one.run_id, one.revision, texts(one.messages)) for one in expected
            ]
        else:
            assert walked == expected

    @pytest.mark.parametrize("walk", WALKS)
    async def test_a_walk_over_a_fork_goes_on_as_it_was(self, store: Store, walk: str) -> None:
        await store.create_session(Session(session_id="p"))
        await store.append([turn(f"r{number}", session_id="p") for number in range(1, 6)])
        await store.fork("p", new_session_id="s")
        await store.append([turn("own1"), turn("own2")])
        small_pages(store, rows=1)
        expected = await WALKS[walk](store).collect()
        cursor = WALKS[walk](store)
        walked = [await cursor.first()]
        await store.retract("p", last_runs=3)
        await store.append(run("r2", "again", session_id="p"), revise=True)
        await store.retract("s", last_runs=6)
        await store.append(run("own1", "again"), revise=True)
        walked += await cursor.collect()
        assert walked == expected

    @pytest.mark.parametrize("walk", WALKS)
    @pytest.mark.parametrize("how", DELETIONS)
    async def test_a_session_that_is_deleted_under_a_cursor_is_an_error(
        self, store: Store, walk: str, how: str
    ) -> None:
        await session_with_all(store)
        small_pages(store, rows=1)
        cursor = WALKS[walk](store)
        assert await cursor.first() is not None
        await DELETIONS[how](store)
        with pytest.raises(SessionDeletedError) as raised:
            await cursor.collect()
        assert raised.value.session_id == "s"

    @pytest.mark.parametrize("last", [None, 3])
    async def test_switches_that_are_walked_over_stay_as_they_were(self, store: Store, last: int | None) -> None:
        await _switch(store, "abcde")
        small_pages(store, rows=1)
        cursor = store.switches("s", last=last)
        walked = [await cursor.first()]
        await _switch(store, "xyz")
        await store.retract("s", last_runs=5)
        walked += await cursor.collect()
        assert "".join(one.to_agent for one in walked if one is not None) == "abcde"[-(last or 5) :]

    @pytest.mark.parametrize("last", [None, 3])
    @pytest.mark.parametrize("how", DELETIONS)
    async def test_a_session_that_is_deleted_under_a_walk_over_its_switches_is_an_error(
        self, store: Store, how: str, last: int | None
    ) -> None:
        await _switch(store, "abcde")
        small_pages(store, rows=1)
        cursor = store.switches("s", last=last)
        assert await cursor.first() is not None
        await DELETIONS[how](store)
        if how.endswith("again"):
            await _switch(store, "uvwxyz")
        with pytest.raises(SessionDeletedError) as raised:
            await cursor.collect()
        assert raised.value.session_id == "s"

    @pytest.mark.parametrize("walk", WALKS)
    @pytest.mark.parametrize("how", DELETIONS)
    async def test_what_was_retracted_does_not_show_when_its_session_goes_under_a_page(
        self, store: Store, walk: str, how: str
    ) -> None:
        """A page and what hides some of it are two reads; in between, the rows that hid it were erased."""
        await session_with_all(store)
        interrupt(store, "hidden", lambda: DELETIONS[how](store))
        with pytest.raises(SessionDeletedError) as raised:
            await WALKS[walk](store).first()
        assert raised.value.session_id == "s"

    @pytest.mark.parametrize("how", DELETIONS)
    async def test_a_run_of_a_session_that_goes_under_it_is_not_mixed_up(self, store: Store, how: str) -> None:
        await store.append(run("r1", output="old"))
        interrupt(store, "runs", lambda: DELETIONS[how](store))
        with pytest.raises(SessionDeletedError):
            await store.get_run("r1", session_id="s")
