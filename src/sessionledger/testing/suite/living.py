"""A store's life, and many at once: opening, closing, health, concurrent writers."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from sessionledger.errors import ConflictError, StoreClosedError, WrongLoopError
from sessionledger.protocol.store import SessionStore
from sessionledger.records import Session
from sessionledger.store import Store
from sessionledger.testing.builders import ask, run, texts, turn
from sessionledger.testing.suite.bench import Bench, Storage

__all__ = ["LifeTests"]


async def append_all(store: Store, writer: str, count: int, session_id: str = "s") -> None:
    for number in range(count):
        await store.append(turn(f"{writer}-{number}", session_id=session_id))


async def check_dense(store: Store, runs: int, session_id: str = "s") -> None:
    """Turns of two messages, in whichever order: seqs and positions 1, 2, 3 …, nothing lost, nothing mixed."""
    found = await store.runs(session_id, include_messages=True).collect()
    assert [one.seq for one in found] == list(range(1, runs + 1))
    assert len({one.run_id for one in found}) == runs
    messages = await store.messages(session_id).collect()
    assert [one.position for one in messages] == list(range(1, 2 * runs + 1))
    for one in found:
        assert texts(one.messages) == [f"{one.run_id}?", f"{one.run_id}!"]
        assert [message.position for message in one.messages] == [2 * (one.seq or 0) - 1, 2 * (one.seq or 0)]
    session = await store.get_session(session_id)
    assert session is not None
    assert (session.run_count, session.message_count, session.version) == (runs, 2 * runs, runs)


class LifeTests(Bench):
    async def test_a_store_has_the_whole_protocol(self, store: Store) -> None:
        assert isinstance(store, SessionStore)
        assert isinstance(store.scoped(namespace="n"), SessionStore)

    async def test_a_store_tells_how_it_is(self, store: Store) -> None:
        health = await store.health()
        assert health.driver == type(self).factory.info.name  # type: ignore[attr-defined]
        assert health.latency >= 0
        assert health.durability == store.durability
        assert health.schema_version == await store.schema_version() == await store.upgrade_schema()

    async def test_a_store_that_is_not_open_does_nothing(self, storage: Storage) -> None:
        store = storage.store()
        calls: list[Any] = [
            lambda: store.get_session("s"),
            lambda: store.append(turn("r1")),
            lambda: store.health(),
            lambda: store.messages("s").collect(),
            lambda: store.sessions().first(),
        ]
        for call in calls:
            with pytest.raises(StoreClosedError):
                await call()
        async with store:
            await store.append(turn("r1"))
            cursor = store.messages("s", page_size=1)
            await cursor.first()
        for call in calls:
            with pytest.raises(StoreClosedError):
                await call()
        with pytest.raises(StoreClosedError):
            store.scoped(user_id="u").durability  # noqa: B018
        await store.close()

    async def test_a_store_is_opened_again(self, storage: Storage) -> None:
        async with storage.store() as store:
            await store.append(turn("r1"))
            view = store.scoped(user_id="u")
        async with storage.store() as store:
            assert texts(await store.messages("s").collect()) == ["r1?", "r1!"]
            assert (await store.append(turn("r1"))).replayed
        with pytest.raises(StoreClosedError):
            await view.get_session("s")

    async def test_closing_waits_for_what_is_being_written(self, storage: Storage) -> None:
        async with storage.store() as store, anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(store.append, turn(f"r{number}"))
            await checkpoint()
            group.cancel_scope.cancel()
        async with storage.store() as store:
            runs = await store.runs("s").collect()
            assert [one.seq for one in runs] == list(range(1, len(runs) + 1))

    async def test_a_store_of_another_loop_is_refused(self, store: Store) -> None:
        async def use() -> None:
            await store.get_session("s")

        with pytest.raises(WrongLoopError):
            await anyio.to_thread.run_sync(asyncio.run, use())

    # many at once

    async def test_64_tasks_append_to_one_session_densely(self, store: Store) -> None:
        async with anyio.create_task_group() as group:
            for writer in range(64):
                group.start_soon(append_all, store, f"w{writer}", 3)
        await check_dense(store, 192)

    async def test_64_tasks_append_to_eight_sessions_densely(self, store: Store) -> None:
        async with anyio.create_task_group() as group:
            for writer in range(64):
                group.start_soon(append_all, store, f"w{writer}", 2, f"s{writer % 8}")
        for number in range(8):
            await check_dense(store, 16, f"s{number}")
        assert len(await store.sessions().collect()) == 8

    async def test_several_stores_append_to_one_session_densely(self, store: Store, storage: Storage) -> None:
        async with storage.store() as two, storage.store() as three, anyio.create_task_group() as group:
            for writer in range(12):
                group.start_soon(append_all, (store, two, three)[writer % 3], f"w{writer}", 3)
        await check_dense(store, 36)

    async def test_the_same_run_from_many_tasks_is_stored_once(self, store: Store, storage: Storage) -> None:
        receipts = []

        async def append(one: Store) -> None:
            receipts.append(await one.append(turn("r1")))

        async with storage.store() as other, anyio.create_task_group() as group:
            for number in range(16):
                group.start_soon(append, (store, other)[number % 2])
        assert len([one for one in receipts if not one.replayed]) == 1
        assert {(one.run_seq, one.first_position, one.version) for one in receipts} == {(1, 1, 1)}
        await check_dense(store, 1)

    async def test_of_many_who_expect_a_version_one_is_right(self, store: Store) -> None:
        done, lost = [], []

        async def append(number: int) -> None:
            try:
                done.append(await store.append(turn(f"r{number}"), expected_version=0))
            except ConflictError as error:
                lost.append(error.version)

        async with anyio.create_task_group() as group:
            for number in range(16):
                group.start_soon(append, number)
        assert (len(done), set(lost)) == (1, {1})
        await check_dense(store, 1)

    async def test_one_bad_append_among_many_fails_alone(self, store: Store) -> None:
        await store.append(run("taken", "x", session_id="t"))
        failed = []

        async def append(number: int) -> None:
            try:
                if number % 4:
                    await store.append(turn(f"r{number}"))
                else:
                    await store.append(run("taken", str(number), session_id="t"))
            except Exception as error:
                failed.append(type(error).__name__)

        async with anyio.create_task_group() as group:
            for number in range(32):
                group.start_soon(append, number)
        assert failed == ["RunConflictError"] * 8
        await check_dense(store, 24)

    async def test_readers_never_see_half_a_commit(self, store: Store) -> None:
        done = False
        seen = 0

        async def read() -> None:
            nonlocal seen
            while not done:
                found = await store.messages("s").collect()
                assert [one.position for one in found] == list(range(1, len(found) + 1))
                assert len(found) % 3 == 0
                runs = await store.runs("s", include_messages=True).collect()
                assert all(len(one.messages) == 3 for one in runs)
                seen += 1
                await checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            for number in range(30):
                await store.append(run(f"r{number}", "a", "b", "c"))
            done = True
        assert seen

    async def test_everything_at_once_leaves_a_sound_session(self, store: Store) -> None:
        await store.create_session(Session(session_id="s"))

        async def live(number: int) -> None:
            await store.append(run(f"r{number}", "q", status="running"), state={f"k{number}": number})
            await store.update_run("s", run_id=f"r{number}", messages=[ask("more")])
            if number % 3 == 0:
                retract_id = await store.retract("s", run_id=f"r{number}")
                await store.unretract("s", retract_id=retract_id)
            if number % 4 == 0:
                await store.append(run(f"r{number}", "again", status="running"), revise=True)
            if number % 5 == 0:
                await store.fork("s", at=f"r{number}", new_session_id=f"f{number}")
            await store.update_run("s", run_id=f"r{number}", status="completed")

        async with anyio.create_task_group() as group:
            for number in range(24):
                group.start_soon(live, number)
        runs = await store.runs("s", include_messages=True).collect()
        assert [one.seq for one in runs] == list(range(1, 25))
        for one in runs:
            number = int((one.run_id or "")[1:])
            assert one.status == "completed"
            assert texts(one.messages) == (["again"] if number % 4 == 0 else ["q", "more"])
        positions = [one.position for one in await store.messages("s", include_retracted=True).collect()]
        assert positions == list(range(1, 24 * 2 + 6 + 1))
        session = await store.get_session("s")
        assert session is not None and session.state == {f"k{number}": number for number in range(24)}
        for number in range(0, 24, 5):
            assert (await store.get_run(f"r{number}", session_id=f"f{number}")) is not None
