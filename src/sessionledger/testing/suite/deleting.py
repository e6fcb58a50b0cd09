"""Deleting and restoring: what each call says of a session that is unknown, softly deleted, or deleted for good."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sessionledger.errors import RunFinishedError, SessionDeletedError, SessionExistsError, SessionNotFoundError
from sessionledger.records import AgentSwitch, Run, Session
from sessionledger.store import Store
from sessionledger.testing.builders import ask, run, texts, turn
from sessionledger.testing.suite.bench import Bench

__all__ = ["DeleteTests"]

Call = Callable[[Store], Awaitable[Any]]

#: By name: a call, and what it gives for an unknown, a softly deleted and an erased session; a class is what it raises.
_LOST = (SessionNotFoundError, SessionDeletedError, SessionNotFoundError)
_EMPTY: tuple[Any, Any, Any] = ([], SessionDeletedError, [])
TABLE: dict[str, tuple[Call, tuple[Any, Any, Any]]] = {
    "get_session": (lambda store: store.get_session("s"), (None, None, None)),
    "get_run": (lambda store: store.get_run("r1", session_id="s"), (None, None, None)),
    "get_run anywhere": (lambda store: store.get_run("r1"), (None, None, None)),
    "get_message": (lambda store: store.get_message("s", message_id="m"), (None, None, None)),
    "get_message derived": (lambda store: store.get_message("s", message_id="r1#1"), (None, None, None)),
    "messages": (lambda store: store.messages("s").collect(), _EMPTY),
    "messages last": (lambda store: store.messages("s", last=3).collect(), _EMPTY),
    "messages of a run": (lambda store: store.messages("s", run_id="r1").collect(), _EMPTY),
    "history": (lambda store: store.history("s").collect(), _EMPTY),
    "history for a run": (lambda store: store.history("s", last_runs=2).collect(), _EMPTY),
    "runs": (lambda store: store.runs("s").collect(), _EMPTY),
    "runs last": (lambda store: store.runs("s", last=1, include_messages=True).collect(), _EMPTY),
    "switches": (lambda store: store.switches("s").collect(), _EMPTY),
    "switches last": (lambda store: store.switches("s", last=1).collect(), _EMPTY),
    "runs anywhere": (lambda store: store.runs(agent_id="a").collect(), ([], [], [])),
    "sessions": (lambda store: store.sessions().collect(), ([], [], [])),
    "stats": (lambda store: store.stats("s"), _LOST),
    "append": (lambda store: store.append(turn("r9")), (Run, SessionDeletedError, SessionDeletedError)),
    "append with state": (
        lambda store: store.append(turn("r9"), state={"a": 1}),
        (Run, SessionDeletedError, SessionDeletedError),
    ),
    "append with a switch": (
        lambda store: store.append(turn("r9"), switch=AgentSwitch(to_agent="b")),
        (Run, SessionDeletedError, SessionDeletedError),
    ),
    "update_session": (lambda store: store.update_session("s", change={"name": "n"}), _LOST),
    "update_run": (lambda store: store.update_run("s", run_id="r2", messages=[ask("x")]), _LOST),
    "retract": (lambda store: store.retract("s", last_runs=1), _LOST),
    "unretract": (lambda store: store.unretract("s", retract_id="hidden"), _LOST),
    "fork": (lambda store: store.fork("s"), _LOST),
    "delete_session": (lambda store: store.delete_session("s"), (False, True, False)),
    "delete_session for good": (lambda store: store.delete_session("s", soft=False), (False, True, False)),
    "restore_session": (lambda store: store.restore_session("s"), (False, True, False)),
    "create_session": (
        lambda store: store.create_session(Session(session_id="s")),
        (Session, SessionExistsError, Session),
    ),
    "upsert_session": (
        lambda store: store.upsert_session(Session(session_id="s")),
        (Session, SessionDeletedError, SessionDeletedError),
    ),
}


async def full(store: Store) -> None:
    """A session with something of everything."""
    await store.append(run("r1", ask("a", message_id="m"), "b", agent_id="a"), switch=AgentSwitch(to_agent="b"))
    await store.append(run("r2", "c", status="running"))
    await store.retract("s", last_messages=1, operation_id="hidden")


class DeleteTests(Bench):
    @pytest.mark.parametrize("state", ["unknown", "softly deleted", "hard-deleted"])
    @pytest.mark.parametrize("name", TABLE)
    async def test_what_a_call_says_of_a_session_that_is_gone(self, store: Store, name: str, state: str) -> None:
        call, expected = TABLE[name]
        if state != "unknown":
            await full(store)
            assert await store.delete_session("s", soft=state == "softly deleted")
        wanted = expected[["unknown", "softly deleted", "hard-deleted"].index(state)]
        if isinstance(wanted, type) and issubclass(wanted, Exception):
            with pytest.raises(wanted) as raised:
                await call(store)
            assert raised.value.session_id == "s"  # type: ignore[attr-defined]
        else:
            found = await call(store)
            assert isinstance(wanted, type) or found == wanted

    @pytest.mark.parametrize("name", TABLE)
    async def test_every_call_finds_a_session_that_is_there(self, store: Store, name: str) -> None:
        call, _ = TABLE[name]
        await full(store)
        if name == "create_session":
            with pytest.raises(SessionExistsError):
                await call(store)
        else:
            assert await call(store) not in (False, [], {}) or name == "runs anywhere"

    async def test_a_soft_deletion_is_undone(self, store: Store) -> None:
        await full(store)
        before = await store.get_session("s")
        messages = await store.messages("s").collect()
        assert await store.delete_session("s")
        assert await store.delete_session("s")
        (listed,) = await store.sessions(include_deleted=True).collect()
        assert listed.session_id == "s" and listed.deleted_at is not None
        assert await store.restore_session("s")
        assert await store.restore_session("s")
        after = await store.get_session("s")
        assert before is not None and after is not None
        assert (after.deleted_at, after.name, after.state, after.run_count) == (None, None, {}, 2)
        assert after.last_activity_at == before.last_activity_at
        assert await store.messages("s").collect() == messages
        await store.append(turn("r3"))

    async def test_deletions_are_recognised_by_their_operation(self, store: Store) -> None:
        await full(store)
        assert await store.delete_session("s", operation_id="d1")
        assert await store.restore_session("s", operation_id="r1")
        session = await store.get_session("s")
        assert await store.delete_session("s", operation_id="d1")
        assert await store.get_session("s") == session

    async def test_a_hard_deletion_leaves_no_content(self, store: Store) -> None:
        await full(store)
        assert await store.delete_session("s", soft=False)
        assert not await store.delete_session("s", soft=False)
        assert await store.sessions(include_deleted=True).collect() == []
        assert await store.runs(status=["running", "completed"]).collect() == []
        assert await store.messages("s", include_retracted=True).collect() == []

    async def test_a_session_is_made_again(self, store: Store) -> None:
        await store.append(run("r1", "a", "b", user_id="u", agent_id="a"), state={"x": 1})
        await store.delete_session("s", soft=False)
        made = await store.create_session(Session(session_id="s", user_id="v"))
        assert (made.user_id, made.state, made.run_count, made.version) == ("v", {}, 0, 1)
        assert await store.messages("s").collect() == []
        receipt = await store.append(run("r1", "c"))
        assert (receipt.run_seq, receipt.first_position, receipt.version, receipt.replayed) == (1, 1, 2, False)
        assert texts(await store.messages("s").collect()) == ["c"]
        stats = await store.stats("s")
        assert (stats.runs, stats.messages, stats.messages_by_role) == (1, 1, {"user": 1})

    async def test_an_operation_of_an_erased_session_is_forgotten(self, store: Store) -> None:
        await store.append(run("r1", status="running"))
        await store.update_run("s", run_id="r1", messages=[ask("a")], operation_id="o")
        await store.delete_session("s", soft=False)
        await store.create_session(Session(session_id="s"))
        await store.append(run("r1", status="running"))
        assert not (await store.update_run("s", run_id="r1", messages=[ask("b")], operation_id="o")).replayed
        assert texts(await store.messages("s").collect()) == ["b"]

    async def test_a_large_session_is_erased_in_steps(self, store: Store) -> None:
        await store.append([run(f"r{number}", *map(str, range(100))) for number in range(50)])
        assert await store.delete_session("s", soft=False)
        await store.create_session(Session(session_id="s"))
        assert await store.messages("s").collect() == []

    async def test_others_stay(self, store: Store) -> None:
        for session_id in ("s", "S", "s ", "t"):
            await store.append(turn("r1", session_id=session_id))
        await store.delete_session("s", soft=False)
        await store.delete_session("t")
        assert {one.session_id for one in await store.sessions().collect()} == {"S", "s "}
        assert len(await store.messages("S").collect()) == 2

    async def test_deleting_while_a_run_is_recorded_tells_its_worker(self, store: Store) -> None:
        with pytest.raises(SessionDeletedError):
            async with store.recording(run("r1", "q")) as recorder:
                await store.delete_session("s")
                await recorder.add(ask("late"))
        await store.restore_session("s")
        found = await store.get_run("r1")
        assert found is not None and texts(found.messages) == ["q"]
        with pytest.raises((SessionNotFoundError, SessionDeletedError, RunFinishedError)):
            async with store.recording(run("r2", "q")):
                await store.delete_session("s", soft=False)
