"""What type checkers say of the public names. Read by mypy and basedpyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any, assert_type

from sessionledger import (
    AgentSwitch,
    AppendReceipt,
    ConflictError,
    Cursor,
    Durability,
    Health,
    InstalledDriver,
    InvalidRecordError,
    Message,
    MissingDependencyError,
    Page,
    Run,
    RunFinishedError,
    RunRecorder,
    RunStatus,
    Session,
    SessionKind,
    SessionNotFoundError,
    SessionStats,
    SessionStore,
    ToolCall,
    Usage,
    drivers,
    open_store,
)
from sessionledger.drivers.memory import MemoryDriver
from sessionledger.protocol import Driver, DriverFactory


async def opening() -> None:
    async with open_store("sqlite:///agents.db", timeout=5, durability="process") as store:
        as_protocol: SessionStore = store
        assert_type(as_protocol.durability, Durability)
    other: SessionStore = await open_store("memory://", timeout=None).open()
    assert_type(await other.health(), Health)
    assert_type(await other.upgrade_schema(), int)
    assert_type(drivers(), list[InstalledDriver])
    await other.close()


async def records(messages: list[Message], calls: list[ToolCall]) -> None:
    """Sequences take lists, tuples and anything else of the kind."""
    run = Run(session_id="s1", messages=messages)
    Run(session_id="s1", messages=tuple(messages), status=RunStatus.RUNNING)
    Message(role="assistant", tool_calls=calls, usage=Usage(input_tokens=1, cost=Decimal("0.1"), currency="USD"))
    Message(role="assistant", content=[{"type": "text", "content": "hi"}], tool_calls=(calls[0],))
    assert_type(run.messages, Sequence[Message])
    assert_type(run.seq, int | None)
    assert_type(run.status, RunStatus)
    assert_type(run.status.terminal, bool)
    assert_type(Usage() + Usage(), Usage)
    assert_type(Usage().total_tokens, int)
    assert_type(Session(session_id="s1").kind, SessionKind)
    assert_type(Session(session_id="s1").state, dict[str, Any])

    Message("user")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Run(messages=messages)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    run.status = RunStatus.FAILED  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def writes(store: SessionStore, run: Run, more: list[Run]) -> None:
    assert_type(await store.append(run), AppendReceipt)
    assert_type(await store.append(run, expected_version=3, state={"n": 1}, revise=True), AppendReceipt)
    assert_type(await store.append(more, switch=AgentSwitch(to_agent="b")), list[AppendReceipt])
    assert_type(await store.append((run, run)), list[AppendReceipt])
    assert_type(await store.update_run("s1", run_id="r1", messages=[Message(role="user")]), AppendReceipt)
    assert_type(await store.update_run("s1", run_id="r1", status="failed", error=None, usage=None), AppendReceipt)
    assert_type(await store.update_run("s1", run_id="r1", expected_status={RunStatus.RUNNING, "paused"}), AppendReceipt)
    assert_type(await store.create_session(Session(session_id="s1")), Session)
    assert_type(await store.update_session("s1", change={"name": "Lisbon"}), Session)
    assert_type(await store.update_session("s1", change=lambda session: session), Session)
    assert_type(await store.delete_session("s1", soft=False), bool)
    assert_type(await store.fork("s1", at=4), Session)
    assert_type(await store.fork("s1", at="r1"), Session)
    assert_type(await store.retract("s1", last_runs=1), str)
    assert_type(store.scoped(user_id="u1"), SessionStore)

    await store.append(run, 3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await store.append("s1", messages=[])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await store.delete_session("s1", False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def recorder(store: SessionStore, run: Run, chunks: AsyncIterator[str]) -> None:
    async with store.recording(run) as recorder:
        assert_type(recorder, RunRecorder)
        assert_type(recorder.receipt, AppendReceipt)
        text = ""
        async for chunk in chunks:
            text += chunk
            recorder.partial(Message(role="assistant", content=text))
        assert_type(await recorder.add(Message(role="assistant", content=text)), AppendReceipt)
        assert_type(await recorder.update(status="completed", output=text), AppendReceipt)


async def reads(store: SessionStore) -> None:
    assert_type(store.messages("s1", last=10, roles={"user"}), Cursor[Message])
    assert_type(store.messages("s1", after="a token"), Cursor[Message])
    assert_type(store.messages("s1", after=3, before=9, reverse=True), Cursor[Message])
    assert_type(store.history("s1", last_runs=3, statuses=["completed", RunStatus.FAILED]), Cursor[Message])
    assert_type(store.runs("s1", last=1), Cursor[Run])
    assert_type(store.runs(status=RunStatus.RUNNING), Cursor[Run])
    assert_type(store.sessions(user_id="u1", kind="team"), Cursor[Session])
    assert_type(store.switches("s1"), Cursor[AgentSwitch])
    assert_type(await store.get_session("s1"), Session | None)
    assert_type(await store.get_run("r1"), Run | None)
    assert_type(await store.get_message("s1", message_id="m1"), Message | None)
    assert_type(await store.stats("s1"), SessionStats)


async def cursor(store: SessionStore) -> None:
    messages = store.messages("s1")
    async for message in messages:
        assert_type(message, Message)
    assert_type([message async for message in messages], list[Message])
    assert_type(await messages.page(), Page[Message])
    assert_type((await messages.page()).items, Sequence[Message])
    assert_type((await messages.page()).next_token, str | None)
    assert_type(await messages.collect(), list[Message])
    assert_type(await messages.first(), Message | None)
    assert_type(await messages.count(), int)
    assert_type(messages.token, str | None)


async def errors(store: SessionStore) -> None:
    try:
        await store.stats("s1")
    except ConflictError as error:
        assert_type(error.version, int | None)
    except RunFinishedError as error:
        assert_type(error.status, str)
    except InvalidRecordError as error:
        as_value_error: ValueError = error
        assert_type(error.path, str)
        raise as_value_error from None
    except SessionNotFoundError as error:
        as_lookup_error: LookupError = error
        raise as_lookup_error from None
    except MissingDependencyError as error:
        as_import_error: ImportError = error
        raise as_import_error from None


def seams(driver: MemoryDriver) -> None:
    """A class is a factory, its instances are drivers."""
    factory: DriverFactory = MemoryDriver
    as_protocol: Driver = driver
    del factory, as_protocol
