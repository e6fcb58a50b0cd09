"""Views: nothing of another user's or namespace's is found, changed, deleted or appended to, by any public method."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from sessionledger.errors import InvalidRecordError, SessionExistsError, SessionLedgerError, SessionNotFoundError
from sessionledger.protocol.driver import Driver
from sessionledger.protocol.store import SessionStore
from sessionledger.records import AgentSwitch, Session
from sessionledger.store import Store
from sessionledger.testing.builders import ask, run, texts, turn
from sessionledger.testing.rows import Dump, dump, key
from sessionledger.testing.suite.bench import Bench

__all__ = ["ScopeTests"]

SECRET = "SECRET"

Attack = Callable[[Store], Awaitable[Any]]


async def record(store: Store) -> None:
    async with store.recording(run("new", ask("mine"), session_id="s")) as recorder:
        await recorder.add(ask("more"))


def pages(call: Callable[[Store], Any]) -> list[Attack]:
    """All ways to read a cursor."""
    return [
        lambda store: call(store).collect(),
        lambda store: call(store).first(),
        lambda store: call(store).count(),
        lambda store: call(store).page(),
    ]


def change(session: Session) -> Session:
    return msgspec.structs.replace(session, name="stolen")


#: Every public method of a store, and what somebody may try by it at the session "s", its run "r1", its message "m".
ATTACKS: dict[str, list[Attack]] = {
    "create_session": [lambda store: store.create_session(Session(session_id="s", name="mine"))],
    "upsert_session": [
        lambda store: store.upsert_session(Session(session_id="s", name="mine")),
        lambda store: store.upsert_session(Session(session_id="deleted", name="mine")),
    ],
    "get_session": [lambda store: store.get_session("s"), lambda store: store.get_session("f")],
    "sessions": [
        *pages(lambda store: store.sessions()),
        *pages(lambda store: store.sessions(include_deleted=True, reverse=True)),
        lambda store: store.sessions(user_id="owner").collect(),
        lambda store: store.sessions(agent_id=SECRET, include_deleted=True).collect(),
        lambda store: store.sessions(name=SECRET).collect(),
    ],
    "update_session": [
        lambda store: store.update_session("s", change={"name": "stolen", "state": {}}),
        lambda store: store.update_session("s", change=change),
        lambda store: store.update_session("s", change=change, expected_state_version=2),
    ],
    "delete_session": [
        lambda store: store.delete_session("s"),
        lambda store: store.delete_session("f", soft=False),
        lambda store: store.delete_session("s", soft=False, forks=True),
        lambda store: store.delete_session("deleted", soft=False),
    ],
    "restore_session": [lambda store: store.restore_session("deleted")],
    "fork": [
        lambda store: store.fork("s"),
        lambda store: store.fork("s", at="r1", new_session_id="copy"),
        lambda store: store.fork("f", at=1),
    ],
    "append": [
        lambda store: store.append(run("new", ask("mine"))),
        lambda store: store.append(run("r1", ask(SECRET, message_id="m"), ask("b"), agent_id=SECRET)),
        lambda store: store.append([run("r1", ask("mine")), run("new", ask("mine"))]),
        lambda store: store.append(run("new", ask("mine")), state={"a": 1}, switch=AgentSwitch(to_agent="b")),
        lambda store: store.append(run("r1", ask("mine")), revise=True),
        lambda store: store.append(run("new", ask("mine")), expected_version=6),
        lambda store: store.append(run("new", session_id="deleted")),
        lambda store: store.append(run("new", session_id="f")),
    ],
    "update_run": [
        lambda store: store.update_run("s", run_id="open", messages=[ask("mine")]),
        lambda store: store.update_run("s", run_id="open", status="cancelled", output="mine"),
        lambda store: store.update_run("s", run_id="open", metadata={"mine": 1}),
    ],
    "recording": [record],
    "retract": [
        lambda store: store.retract("s", last_runs=1),
        lambda store: store.retract("s", last_messages=1),
        lambda store: store.retract("s", run_id="r1"),
        lambda store: store.retract("s", from_run_id="r1"),
        lambda store: store.retract("s", from_position=1),
        lambda store: store.retract("f", run_id="r1"),
    ],
    "unretract": [lambda store: store.unretract("s", retract_id="hidden")],
    "get_run": [
        lambda store: store.get_run("open"),
        lambda store: store.get_run("open", session_id="s"),
        lambda store: store.get_run("r1", session_id="f"),
        lambda store: store.get_run("r1", session_id="s", revision=1),
    ],
    "runs": [
        *pages(lambda store: store.runs("s")),
        *pages(lambda store: store.runs("s", include_messages=True, last=2)),
        *pages(lambda store: store.runs(agent_id=SECRET)),
        lambda store: store.runs("f", reverse=True).collect(),
        lambda store: store.runs(status=["running", "completed"]).collect(),
        lambda store: store.runs(user_id="owner").collect(),
        lambda store: store.runs(parent_run_id="parent").collect(),
    ],
    "messages": [
        *pages(lambda store: store.messages("s")),
        lambda store: store.messages("s", last=2).collect(),
        lambda store: store.messages("s", run_id="r1").collect(),
        lambda store: store.messages("f", reverse=True).collect(),
        lambda store: store.messages("s", include_retracted=True, offset=1).collect(),
    ],
    "history": [
        *pages(lambda store: store.history("s")),
        lambda store: store.history("s", for_run="open").collect(),
        lambda store: store.history("f", last_runs=1).collect(),
    ],
    "get_message": [
        lambda store: store.get_message("s", message_id="m"),
        lambda store: store.get_message("s", message_id="r1#1"),
        lambda store: store.get_message("f", message_id="m"),
    ],
    "switches": [*pages(lambda store: store.switches("s")), lambda store: store.switches("s", last=1).collect()],
    "stats": [lambda store: store.stats("s"), lambda store: store.stats("f")],
}

#: They are about the store alone.
HARMLESS = {"open", "close", "health", "schema_version", "upgrade_schema", "durability", "scoped"}

CASES = [
    pytest.param(attack, id=f"{name}-{n}") for name, attacks in ATTACKS.items() for n, attack in enumerate(attacks)
]


async def victim(view: Store) -> None:
    """Sessions "s", its fork "f", and "deleted"."""
    await view.append(
        run("r1", ask(SECRET, message_id="m"), ask("b"), agent_id=SECRET),
        state={SECRET: SECRET},
        switch=AgentSwitch(to_agent=SECRET, reason=SECRET),
    )
    await view.append(
        run("open", ask(SECRET), status="running", parent_run_id="parent", agent_id=SECRET, user_id="owner")
    )
    await view.append(run("open2", ask(SECRET), agent_id=SECRET))
    await view.update_session("s", change={"name": SECRET})
    await view.retract("s", run_id="open2", operation_id="hidden")
    await view.fork("s", new_session_id="f")
    await view.append(turn("own", session_id="f"))
    await view.append(run("r9", ask(SECRET), session_id="deleted"))
    await view.delete_session("deleted")


async def everything(driver: Driver, namespace: str) -> list[Dump]:
    return [await dump(driver, key(session_id, namespace)) for session_id in ("s", "f", "deleted", "copy")]


async def tried(attack: Attack, view: Store) -> tuple[Any, SessionLedgerError | None]:
    """What it found, or why it was refused."""
    try:
        return await attack(view), None
    except SessionLedgerError as error:
        return None, error


def told(error: SessionLedgerError | None) -> str:
    return "" if error is None else f"{error!r} {vars(error)}"


def public_names() -> set[str]:
    return {name for name in dir(SessionStore) if not name.startswith("_")}


class ScopeTests(Bench):
    async def test_every_public_method_is_attacked(self) -> None:
        assert public_names() == set(ATTACKS) | HARMLESS

    @pytest.mark.parametrize("attack", CASES)
    @pytest.mark.parametrize("owner", ["owner", None])
    async def test_nothing_of_another_users_is_reached(
        self, store: Store, driver: Driver, attack: Attack, owner: str | None
    ) -> None:
        await victim(store if owner is None else store.scoped(user_id=owner))
        before = await everything(driver, "")
        found, error = await tried(attack, store.scoped(user_id="somebody"))
        assert found in (None, False, [], 0) or not list(found.items)
        assert error is None or isinstance(error, LookupError | SessionExistsError)
        assert SECRET not in told(error)
        assert await everything(driver, "") == before

    @pytest.mark.parametrize("attack", CASES)
    @pytest.mark.parametrize("namespace", [None, "other"])
    async def test_nothing_of_another_namespace_is_reached(
        self, store: Store, driver: Driver, attack: Attack, namespace: str | None
    ) -> None:
        await victim(store.scoped(namespace="theirs"))
        before = await everything(driver, "theirs")
        found, error = await tried(attack, store if namespace is None else store.scoped(namespace=namespace))
        # what it has written itself may come back
        assert SECRET not in repr(found) or "mine" in repr(found)
        assert SECRET not in told(error)
        assert await everything(driver, "theirs") == before

    @pytest.mark.parametrize("attack", CASES)
    async def test_the_owner_is_refused_nothing(self, store: Store, attack: Attack) -> None:
        view = store.scoped(namespace="theirs", user_id="owner")
        await victim(view)
        found, error = await tried(attack, view)
        # what is deleted, there already, or at another version is refused for what it is, not for whose it is
        assert not isinstance(error, SessionNotFoundError)
        assert found not in (False, [], 0)

    async def test_a_view_makes_what_it_sees(self, store: Store) -> None:
        view = store.scoped(namespace="n", user_id="u")
        await view.append(turn("r1"))
        made = await view.create_session(Session(session_id="t"))
        forked = await view.fork("s", new_session_id="f")
        assert (made.namespace, made.user_id, forked.namespace, forked.user_id) == ("n", "u", "n", "u")
        session = await view.get_session("s")
        assert session is not None and (session.namespace, session.user_id) == ("n", "u")
        assert {one.session_id for one in await view.sessions().collect()} == {"s", "t", "f"}
        assert [one.user_id for one in await view.runs("s").collect()] == ["u"]
        assert await store.sessions().collect() == []
        assert len(await store.scoped(namespace="n").sessions().collect()) == 3

    async def test_one_id_in_many_namespaces_is_many_sessions(self, store: Store) -> None:
        views = [store, store.scoped(namespace="a"), store.scoped(namespace="A"), store.scoped(namespace="ab")]
        for number, view in enumerate(views):
            await view.append(run("r1", str(number)))
        for number, view in enumerate(views):
            assert texts(await view.messages("s").collect()) == [str(number)]
            found = await view.get_run("r1")
            assert found is not None and texts(found.messages) == [str(number)]
        await views[1].delete_session("s", soft=False)
        assert [len(await view.sessions().collect()) for view in views] == [1, 0, 1, 1]

    async def test_a_view_of_a_view_is_narrower(self, store: Store) -> None:
        view = store.scoped(namespace="n").scoped(user_id="u")
        await view.append(turn("r1"))
        assert await view.scoped(namespace="n", user_id="u").get_session("s") is not None
        for wider in ({"namespace": ""}, {"namespace": "m"}, {"user_id": "v"}, {"namespace": "n", "user_id": "v"}):
            with pytest.raises(InvalidRecordError):
                view.scoped(**wider)
        for bad in ({"namespace": "a\0"}, {"user_id": ""}, {"user_id": "x" * 257}):
            with pytest.raises(InvalidRecordError):
                store.scoped(**bad)

    async def test_a_view_refuses_what_says_it_is_anothers(self, store: Store) -> None:
        view = store.scoped(namespace="n", user_id="u")
        with pytest.raises(InvalidRecordError):
            await view.append(run("r1", user_id="v"))
        with pytest.raises(InvalidRecordError):
            await view.create_session(Session(session_id="s", user_id="v"))
        with pytest.raises(InvalidRecordError):
            await view.upsert_session(Session(session_id="s", namespace="m"))
        assert await view.sessions().collect() == []

    async def test_a_tombstone_stays_its_owners(self, store: Store) -> None:
        await store.scoped(user_id="u").append(turn("r1"))
        await store.scoped(user_id="u").delete_session("s", soft=False)
        other = store.scoped(user_id="v")
        for call in (other.append(turn("r2")), other.create_session(Session(session_id="s"))):
            with pytest.raises(SessionExistsError):
                await call
        assert await other.get_session("s") is None
        await store.scoped(user_id="u").create_session(Session(session_id="s"))
