"""Forks that are made while their parent, or their own id, is taken away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import pytest

from sessionledger.errors import DecodeError, DriverError, SessionDeletedError, SessionHasForksError
from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import Commit, Outcome, Seal
from sessionledger.records import Session
from sessionledger.store import Store
from sessionledger.testing.builders import turn
from sessionledger.testing.suite.bench import Bench, Storage

__all__ = ["ForkRaceTests"]


async def three_turns(store: Store) -> None:
    await store.append([turn("r1"), turn("r2"), turn("r3")])


class Interrupted:
    """A driver that lets something else happen just before, or behind, the first commit that is of interest."""

    def __init__(
        self, driver: Driver, wanted: Callable[[Commit], bool], act: Callable[[], Awaitable[Any]], *, behind: bool
    ) -> None:
        self._driver, self._wanted, self._act, self._behind = driver, wanted, act, behind
        self.acted = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Outcome | DriverError | DecodeError]:
        now = not self.acted and any(map(self._wanted, commits))
        self.acted = self.acted or now
        if now and not self._behind:
            await self._act()
        outcomes = await self._driver.commit(commits)
        if now and self._behind:
            await self._act()
        return outcomes


def makes_a_fork(commit: Commit) -> bool:
    return commit.create is not None and commit.create.fork is not None


def gives_up_forks(commit: Commit) -> bool:
    return any(isinstance(change, Seal) and change.abandoned for change in commit.changes)


def interrupted(
    storage: Storage, wanted: Callable[[Commit], bool], act: Callable[[], Awaitable[Any]], *, behind: bool = False
) -> Store:
    return Store.on(Interrupted(storage.driver(), wanted, act, behind=behind))  # type: ignore[arg-type]


class ForkRaceTests(Bench):
    async def test_a_fork_keeps_its_parent_though_its_id_came_and_went_meanwhile(
        self, store: Store, storage: Storage
    ) -> None:
        async def repeat() -> None:
            await store.fork("s", new_session_id="f", operation_id="o")
            await store.delete_session("f", soft=False)

        await three_turns(store)
        async with interrupted(storage, makes_a_fork, repeat) as other:
            await other.fork("s", new_session_id="f", operation_id="o")
        with pytest.raises(SessionHasForksError):
            await store.delete_session("s", soft=False)
        assert await store.messages("f").count() == 6
        assert await store.delete_session("f", soft=False)
        assert await store.delete_session("s", soft=False)

    @pytest.mark.parametrize("again", [False, True])
    @pytest.mark.parametrize("behind", [False, True])
    async def test_a_fork_of_what_is_erased_meanwhile_is_not_made(
        self, store: Store, storage: Storage, behind: bool, again: bool
    ) -> None:
        async def erase() -> None:
            assert await store.delete_session("s", soft=False, forks=True)
            if again:
                await store.create_session(Session(session_id="s"))

        await three_turns(store)
        async with interrupted(storage, makes_a_fork, erase, behind=behind) as other:
            with pytest.raises(SessionDeletedError) as raised:
                await other.fork("s", new_session_id="f")
        assert raised.value.session_id == "s"
        assert await store.get_session("f") is None
        assert [one.session_id for one in await store.sessions(include_deleted=True).collect()] == ["s"] * again

    @pytest.mark.parametrize("behind", [False, True])
    async def test_a_fork_of_what_is_softly_deleted_meanwhile_is_kept(
        self, store: Store, storage: Storage, behind: bool
    ) -> None:
        await three_turns(store)
        async with interrupted(storage, makes_a_fork, lambda: store.delete_session("s"), behind=behind) as other:
            await other.fork("s", new_session_id="f")
        assert await store.messages("f").count() == 6
        with pytest.raises(SessionHasForksError):
            await store.delete_session("s", soft=False)

    async def test_an_erasure_finds_a_fork_that_is_made_while_it_looks(self, store: Store, storage: Storage) -> None:
        looked, made = anyio.Event(), anyio.Event()

        async def wait_for_the_fork() -> None:
            looked.set()
            await made.wait()

        async def begin_to_erase() -> None:
            tasks.start_soon(lambda: eraser.delete_session("s", soft=False, forks=True))
            await looked.wait()

        await three_turns(store)
        async with (
            interrupted(storage, gives_up_forks, wait_for_the_fork) as eraser,
            interrupted(storage, makes_a_fork, begin_to_erase) as forker,
            anyio.create_task_group() as tasks,
        ):
            await forker.fork("s", new_session_id="f")
            made.set()
        assert await store.sessions(include_deleted=True).collect() == []
