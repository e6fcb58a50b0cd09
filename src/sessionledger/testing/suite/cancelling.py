"""Cancellation at every await of every public call: all or nothing, the store still works, a repetition settles it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, cast

import msgspec
import pytest
from anyio.lowlevel import checkpoint

from sessionledger.errors import SessionDeletedError, SessionNotFoundError
from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import Commit, Seal
from sessionledger.protocol.store import Cursor
from sessionledger.records import AgentSwitch, Session
from sessionledger.store import Store
from sessionledger.testing import rows
from sessionledger.testing.builders import ask, run, texts, turn
from sessionledger.testing.stepping import SteppedDriver, Steps
from sessionledger.testing.suite.bench import Bench, Storage, small_pages

__all__ = ["CancelTests"]

Write = Callable[[Store, str], Coroutine[Any, Any, Any]]


async def prepare(store: Store, session_id: str) -> None:
    await store.append(run("r1", "a", "b", session_id=session_id), state={"n": 1})
    await store.append(run("open", "c", session_id=session_id, status="running"))
    await store.append(run("r3", "d", session_id=session_id))
    await store.retract(session_id, run_id="r3", operation_id="hidden")


def increment(session: Session) -> Session:
    return msgspec.structs.replace(session, state={"n": session.state.get("n", 0) + 1})


#: By name: a write that can be repeated, on a session that was prepared.
WRITES: dict[str, Write] = {
    "append": lambda store, s: store.append(turn("new", session_id=s)),
    "append several": lambda store, s: store.append([turn("new1", session_id=s), turn("new2", session_id=s)]),
    "append with state": lambda store, s: store.append(
        turn("new", session_id=s), state={"m": 2}, switch=AgentSwitch(switch_id="w", to_agent="b")
    ),
    "append to a new session": lambda store, s: store.append(turn("new", session_id=f"{s}-new")),
    "revise": lambda store, s: store.append(run("r1", "again", session_id=s), revise=True, operation_id="o"),
    "update_run": lambda store, s: store.update_run(
        s, run_id="open", messages=[ask("more")], metadata={"k": 1}, status="paused", operation_id="o"
    ),
    "update_session": lambda store, s: store.update_session(s, change={"name": "n"}, operation_id="o"),
    "update_session by a function": lambda store, s: store.update_session(s, change=increment, operation_id="o"),
    "create_session": lambda store, s: store.create_session(Session(session_id=f"{s}-new"), operation_id="o"),
    "upsert_session": lambda store, s: store.upsert_session(Session(session_id=s, name="n"), operation_id="o"),
    "retract": lambda store, s: store.retract(s, last_messages=1, operation_id="o"),
    "unretract": lambda store, s: store.unretract(s, retract_id="hidden", operation_id="o"),
    "fork": lambda store, s: store.fork(s, at="r1", new_session_id=f"{s}-new", operation_id="o"),
    "delete_session": lambda store, s: store.delete_session(s, operation_id="o"),
    "delete_session for good": lambda store, s: store.delete_session(s, soft=False, operation_id="o"),
    "restore_session": lambda store, s: store.restore_session(s, operation_id="o"),
}

READS: dict[str, Callable[[Store, str], Coroutine[Any, Any, Any]]] = {
    "get_session": lambda store, s: store.get_session(s),
    "get_run": lambda store, s: store.get_run("r1", session_id=s),
    "get_run anywhere": lambda store, s: store.get_run("open"),
    "get_message": lambda store, s: store.get_message(s, message_id="r1#1"),
    "stats": lambda store, s: store.stats(s),
    "messages": lambda store, s: store.messages(s).collect(),
    "last messages": lambda store, s: store.messages(s, last=3).collect(),
    "history": lambda store, s: store.history(s).collect(),
    "runs": lambda store, s: store.runs(s, include_messages=True).collect(),
    "sessions": lambda store, s: store.sessions().collect(),
    "count": lambda store, s: store.messages(s).count(),
    "health": lambda store, s: _health(store),
    "schema_version": lambda store, s: store.schema_version(),
    "upgrade_schema": lambda store, s: store.upgrade_schema(),
}


async def _health(store: Store) -> str:
    return (await store.health()).driver


async def look(store: Store, session_id: str) -> Any:
    """All that a user sees of a session and of what was made beside it, but for ids and times."""
    seen: list[Any] = []
    for name in (session_id, f"{session_id}-new"):
        try:
            session = await store.get_session(name)
            runs = await store.runs(name, include_messages=True).collect()
            everything = await store.messages(name, include_retracted=True).collect()
            switches = await store.switches(name).collect()
        except (SessionDeletedError, SessionNotFoundError):
            seen.append("deleted")
            continue
        if session is not None:
            fields = ("name", "state", "current_agent", "state_version", "run_count", "message_count", "forked_at")
            seen.append([getattr(session, field) for field in fields])
        seen.append(
            [(one.seq, one.revision, one.run_id, one.status, one.metadata, texts(one.messages)) for one in runs]
        )
        seen.append([(one.position, one.run_seq, one.content) for one in everything])
        seen.append([one.to_agent for one in switches])
    return seen


async def settled(store: Store) -> None:
    """What was sent to the driver goes on when its caller is cancelled: wait for it."""
    await checkpoint()
    await store._context._grouper.drain()


async def walk_on(cursor: Cursor[Any], walked: list[Any]) -> None:
    """Each item is kept as soon as it comes."""
    async for item in cursor:
        walked.append(item)  # noqa: PERF401


class CancelTests(Bench):
    @pytest.fixture
    def steps(self) -> Steps:
        return Steps()

    @pytest.fixture
    async def stepped(self, storage: Storage, steps: Steps) -> AsyncIterator[Store]:
        """A store whose driver's awaits count."""
        async with Store.on(cast("Driver", SteppedDriver(storage.driver(), steps))) as store:
            yield store

    async def test_a_commit_that_is_cancelled_is_whole_or_absent(
        self, driver: Driver, steps: Steps, anyio_backend_name: str
    ) -> None:
        """Past the store, which lets a commit that was sent go on."""

        def group(name: str) -> list[Commit]:
            changes = (rows.put("new", 3), rows.patch("open", 2), rows.patch_session(state='{"n":1}'))
            one = rows.commit(*changes, session_id=f"{name}a", operation_id=name)
            return [one, rows.commit(rows.put("new", 2), session_id=f"{name}b", operation_id=name)]

        async def begin(name: str) -> None:
            await rows.send(driver, rows.put("open", 1, status="running"), session_id=f"{name}a")

        async def held(name: str) -> list[Any]:
            dumps = [await rows.dump(driver, rows.key(f"{name}{letter}")) for letter in "ab"]
            return [([row.body for row in one.messages], [row.patch for row in one.runs]) for one in dumps]

        await begin("whole")
        before = await held("whole")
        count = await steps.counted(lambda: rows.send_group(driver, group("whole")))
        after = await held("whole")
        for number, way in enumerate(steps.ways(anyio_backend_name)):
            for at in range(1, count + 1):
                name = f"s{number}-{at}"
                await begin(name)
                await way(partial(rows.send_group, driver, group(name)), at)
                # what was cancelled may go on inside the driver: a commit behind it comes after it
                await rows.send(driver, rows.put("fence", 1), session_id=f"{name}b-fence")
                for one, absent, whole in zip(await held(name), before, after, strict=True):
                    assert one in (absent, whole), f"half done when cancelled at await {at}"
                await rows.send_group(driver, group(name))
                assert await held(name) == after, f"not settled when cancelled at await {at}"

    async def test_an_erasure_that_is_cancelled_goes_on(
        self, driver: Driver, steps: Steps, anyio_backend_name: str
    ) -> None:
        async def erase(name: str) -> None:
            while await driver.erase(rows.key(name), limit=10):
                pass

        async def begin(name: str) -> None:
            await rows.send(driver, rows.put("r1", 40), session_id=name)
            await rows.send(driver, Seal(), session_id=name)

        await begin("whole")
        count = await steps.counted(lambda: erase("whole"))
        for number, way in enumerate(steps.ways(anyio_backend_name)):
            for at in range(1, count + 1):
                name = f"s{number}-{at}"
                await begin(name)
                await way(partial(erase, name), at)
                await erase(name)
                left = await rows.dump(driver, rows.key(name))
                assert left.messages == [] and left.session is not None and left.session.head.erased

    @pytest.mark.parametrize("name", WRITES)
    async def test_a_write_that_is_cancelled_is_whole_or_absent(
        self, stepped: Store, steps: Steps, name: str, anyio_backend_name: str
    ) -> None:
        store, write = stepped, WRITES[name]

        async def begin(session_id: str) -> None:
            await prepare(store, session_id)
            if name == "restore_session":
                await store.delete_session(session_id)

        await begin("whole")
        before = await look(store, "whole")
        count = await steps.counted(lambda: write(store, "whole"))
        after = await look(store, "whole")
        assert count > 0 and before != after
        for number, way in enumerate(steps.ways(anyio_backend_name)):
            for at in range(1, count + 1):
                session_id = f"s{number}-{at}"
                await begin(session_id)
                await way(partial(write, store, session_id), at)
                await settled(store)
                assert await look(store, session_id) in (before, after), f"half done when cancelled at await {at}"
                await write(store, session_id)
                assert await look(store, session_id) == after, f"not settled when cancelled at await {at}"
                await store.append(turn("last", session_id="other"))

    @pytest.mark.parametrize("name", READS)
    async def test_a_read_that_is_cancelled_leaves_the_store_usable(
        self, stepped: Store, steps: Steps, name: str, anyio_backend_name: str
    ) -> None:
        store, read = stepped, READS[name]
        small_pages(store, rows=2)
        await prepare(store, "s")
        expected = await read(store, "s")
        count = await steps.counted(lambda: read(store, "s"))
        for way in steps.ways(anyio_backend_name):
            for at in range(1, count + 1):
                await way(partial(read, store, "s"), at)
                assert await read(store, "s") == expected
        await store.append(turn("last"))

    @pytest.mark.parametrize("walk", ["messages", "last", "history", "runs", "sessions"])
    async def test_a_cursor_goes_on_where_it_was_cancelled(
        self, stepped: Store, steps: Steps, walk: str, anyio_backend_name: str
    ) -> None:
        store = stepped
        small_pages(store, rows=2)
        for number in range(5):
            await store.append(turn(f"r{number}"))
            await store.append(turn("r", session_id=f"s{number}"))
        await store.retract("s", run_id="r1")
        walks: dict[str, Callable[[], Any]] = {
            "messages": lambda: store.messages("s"),
            "last": lambda: store.messages("s", last=5),
            "history": lambda: store.history("s"),
            "runs": lambda: store.runs("s", include_messages=True),
            "sessions": lambda: store.sessions(),
        }
        expected = await walks[walk]().collect()
        count = await steps.counted(lambda: walks[walk]().collect())
        for way in steps.ways(anyio_backend_name):
            for at in range(1, count + 1):
                cursor, walked = walks[walk](), list[Any]()
                await way(partial(walk_on, cursor, walked), at)
                await walk_on(cursor, walked)
                assert walked == expected, f"cancelled at await {at}"

    async def test_a_recording_that_is_cancelled_keeps_what_was_acknowledged(
        self, stepped: Store, steps: Steps, anyio_backend_name: str
    ) -> None:
        store = stepped
        acknowledged: list[str] = []

        async def record(session_id: str) -> None:
            async with store.recording(run("r1", "q", session_id=session_id)) as recorder:
                acknowledged.append("q")
                for text in ("a", "b"):
                    await recorder.add(ask(text))
                    acknowledged.append(text)

        count = await steps.counted(lambda: record("whole"))
        for number, way in enumerate(steps.ways(anyio_backend_name)):
            for at in range(1, count + 1):
                session_id = f"s{number}-{at}"
                acknowledged.clear()
                await way(partial(record, session_id), at)
                await settled(store)
                found = await store.get_run("r1", session_id=session_id)
                kept = [] if found is None else texts(found.messages)
                assert kept[: len(acknowledged)] == acknowledged
                assert kept == ["q", "a", "b"][: len(kept)]
                assert len(kept) <= len(acknowledged) + 1
                await store.append(turn("last", session_id=session_id))

    async def test_a_cancelled_fork_does_not_keep_its_parent(
        self, stepped: Store, steps: Steps, anyio_backend_name: str
    ) -> None:
        store = stepped
        await prepare(store, "whole")
        count = await steps.counted(lambda: store.fork("whole", new_session_id="f"))
        for number, way in enumerate(steps.ways(anyio_backend_name)):
            for at in range(1, count + 1):
                session_id = f"s{number}-{at}"
                await prepare(store, session_id)
                await way(partial(store.fork, session_id), at)
                await settled(store)
                assert await store.delete_session(session_id, soft=False, forks=True), f"cancelled at await {at}"

    async def test_a_cancelled_deletion_of_a_fork_does_not_keep_its_parent(
        self, stepped: Store, steps: Steps, anyio_backend_name: str
    ) -> None:
        store = stepped

        async def begin(session_id: str) -> None:
            await prepare(store, session_id)
            await store.fork(session_id, new_session_id=f"{session_id}-f")

        await begin("whole")
        count = await steps.counted(lambda: store.delete_session("whole-f", soft=False))
        for number, way in enumerate(steps.ways(anyio_backend_name)):
            for at in range(1, count + 1):
                session_id = f"s{number}-{at}"
                await begin(session_id)
                await way(partial(store.delete_session, f"{session_id}-f", soft=False), at)
                await settled(store)
                await store.delete_session(f"{session_id}-f", soft=False)
                assert await store.delete_session(session_id, soft=False), f"cancelled at await {at}"

    async def test_opening_and_closing_are_cancelled_cleanly(
        self, storage: Storage, steps: Steps, anyio_backend_name: str
    ) -> None:
        async def live() -> None:
            async with Store.on(cast("Driver", SteppedDriver(storage.driver(), steps))) as store:
                await store.append(turn("r1"))

        count = await steps.counted(live)
        for way in steps.ways(anyio_backend_name):
            for at in range(1, count + 1):
                await way(live, at)
                async with storage.store() as store:
                    assert (await store.append(turn("r1"))).replayed

    async def test_a_store_whose_opening_was_cancelled_is_opened_again(
        self, storage: Storage, steps: Steps, anyio_backend_name: str
    ) -> None:
        async def live(store: Store) -> None:
            async with store:
                await store.append(turn("r1"))

        count = await steps.counted(lambda: live(Store.on(cast("Driver", SteppedDriver(storage.driver(), steps)))))
        for way in steps.ways(anyio_backend_name):
            for at in range(1, count + 1):
                store = Store.on(cast("Driver", SteppedDriver(storage.driver(), steps)))
                await way(partial(live, store), at)
                async with store:
                    assert (await store.append(turn("r1"))).replayed, f"cancelled at await {at}"
