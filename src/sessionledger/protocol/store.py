"""What users call. `open_store` returns an implementation; the docstrings here are the specification."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol, Self, TypeVar, overload, runtime_checkable

from sessionledger.records import (
    AgentSwitch,
    AppendReceipt,
    Durability,
    Health,
    Message,
    Page,
    Run,
    RunStatus,
    Session,
    SessionKind,
    SessionStats,
    Usage,
)

__all__ = ["CONTEXT_STATUSES", "UNSET", "Cursor", "RunRecorder", "SessionStore", "Unset"]

T = TypeVar("T")

#: The runs whose messages a model should see again.
CONTEXT_STATUSES = (RunStatus.COMPLETED, RunStatus.CANCELLED)


class Unset:
    """The type of `UNSET`: an argument that was not given, where None is a value."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


@runtime_checkable
class Cursor(Protocol[T]):
    """A lazy read: nothing is fetched before the first item is asked for.

    A cursor of one session's messages, runs or switches fixes its head at its first fetch: what is appended, revised or
    retracted later does not change a walk that has begun (a run's status is read as it is). It pages by key, holds no
    connection, transaction or server cursor between pages, and at most two pages in memory. A cursor is read by one
    task.

    Every fetch raises `SessionDeletedError` when the session was deleted meanwhile, `DriverTimeoutError` when a page
    takes longer than the store's timeout, `DecodeError` for stored data that is damaged.
    """

    def __aiter__(self) -> AsyncIterator[T]: ...

    async def page(self) -> Page[T]:
        """The next page; its `next_token` is None when there is no more. Behind the end: a page without items.

        Of `history` and `switches`, `next_token` says no more than that: see `token`.
        """
        ...

    async def collect(self) -> list[T]:
        """All that is left, in memory."""
        ...

    async def first(self) -> T | None:
        """The next item, or None."""
        ...

    async def count(self) -> int:
        """How many items a cursor made by the same call hands out, counted page by page; this one stays where it is."""
        ...

    @property
    def token(self) -> str | None:
        """The place behind the last item handed out, for `after=` (or `before=` of a reverse cursor) in any process.

        None before the first item. It is a place, not a snapshot: the cursor that starts there takes a new one.
        `history` and `switches` take no place, so no call takes a token of theirs: go on with the cursor itself.
        """
        ...


class RunRecorder(Protocol):
    """A run while it lasts. Each method is durable when it returns and costs what is new.

    When the run was finished elsewhere ("stop" was pressed), they raise `RunFinishedError`.
    """

    @property
    def run_id(self) -> str: ...

    @property
    def receipt(self) -> AppendReceipt:
        """The receipt of the append that began the run."""
        ...

    async def add(self, *messages: Message) -> AppendReceipt:
        """Store messages; forgets the partial one."""
        ...

    def partial(self, message: Message | None) -> None:
        """Keep the answer as far as it has come, in memory: it is stored if the run ends by an exception."""
        ...

    async def update(
        self,
        *,
        status: RunStatus | str | None = None,
        output: Any = UNSET,
        error: Any = UNSET,
        usage: Usage | Unset | None = UNSET,
        metadata: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> AppendReceipt:
        """As `SessionStore.update_run`. A terminal status ends the recording; without one it ends as completed."""
        ...


@runtime_checkable
class SessionStore(Protocol):
    """Sessions, their runs and messages. All arguments after the first are keyword-only.

    Every call may raise `InvalidRecordError` (before any I/O), `StoreClosedError`, `WrongLoopError`,
    `WrongProcessError` and a `DriverError`: `UnavailableError` and `PoolTimeoutError` (nothing was done),
    `StorageFullError`, `DriverTimeoutError`. Writes are retried by the store while that is safe. A write that was
    cancelled or timed out is wholly stored or not at all; repeating it with the same run_id or operation_id settles it.

    `operation_id` names a write. A second write to the session with the same id returns what the first returned; with
    another content it raises `ConflictError`. An append is recognised by its run ids, which derive from the operation
    id where they are not given; a revision by the id, where it is given.

    Ids are text of 1 to 256 bytes in UTF-8, without control characters; a namespace may be empty.
    """

    @property
    def durability(self) -> Durability:
        """What an acknowledged write survives, as it was read from the storage at open."""
        ...

    # sessions

    async def create_session(self, session: Session, *, operation_id: str | None = None) -> Session:
        """Store a new session. `SessionExistsError` when there is one of that id, softly deleted ones included.

        Where one was deleted for good, it begins a new incarnation, whose runs and positions start at 1.
        """
        ...

    async def upsert_session(self, session: Session, *, operation_id: str | None = None) -> Session:
        """Create the session or replace its fields; keeps `created_at` and what the store keeps.

        `SessionExistsError` when it belongs to another user; `SessionDeletedError` when it was deleted.
        """
        ...

    async def get_session(self, session_id: str) -> Session | None:
        """The session with its state, or None when it is unknown or deleted."""
        ...

    def sessions(
        self,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        kind: SessionKind | str | None = None,
        name: str | None = None,
        active_after: datetime | None = None,
        active_before: datetime | None = None,
        include_deleted: bool = False,
        reverse: bool = False,
        after: str | None = None,
        page_size: int | None = None,
    ) -> Cursor[Session]:
        """Sessions, latest activity first, ties by id; `reverse` turns the order round. Without their `state`.

        Each session comes at most once; one that is active during the walk may be missed. `active_after` is exclusive,
        `active_before` too. `after` is a token of a cursor made with the same filters and direction.
        """
        ...

    async def update_session(
        self,
        session_id: str,
        *,
        change: Mapping[str, Any] | Callable[[Session], Session],
        expected_state_version: int | None = None,
        operation_id: str | None = None,
    ) -> Session:
        """Change fields of a session; returns it as it is stored.

        A mapping replaces the fields that it names. A function gets the session and returns the changed one; it is
        called again when somebody else changed the session meanwhile, or when the call is repeated, so it must have no
        other effect: no update is lost. What it raises is raised, unless an update of that `operation_id` was done
        before; then that is what is returned. Fields that the store keeps, the session's id, namespace and user cannot
        be changed (`InvalidRecordError`).

        `SessionNotFoundError`, `SessionDeletedError`; `ConflictError` when `expected_state_version` is not the actual
        one.
        """
        ...

    async def delete_session(
        self, session_id: str, *, soft: bool = True, forks: bool = False, operation_id: str | None = None
    ) -> bool:
        """Delete a session; False when there is none.

        Softly: it disappears from lists and reads until `restore_session`. For good (`soft=False`): its content is
        erased in batches, and a tombstone stays, so that a late append raises `SessionDeletedError`; only
        `create_session` makes the session again. `SessionHasForksError` when others share its messages, unless
        `forks=True` deletes them too.
        """
        ...

    async def restore_session(self, session_id: str, *, operation_id: str | None = None) -> bool:
        """Undo a soft deletion; True when the session is there now."""
        ...

    async def fork(
        self,
        session_id: str,
        *,
        at: int | str | None = None,
        new_session_id: str | None = None,
        operation_id: str | None = None,
    ) -> Session:
        """A new session that shares the messages up to `at` and copies none.

        `at` is a position, a run_id (to the end of that run), or None: all there is. A position inside a run keeps the
        run's beginning. Inherited runs are read-only in the fork: `update_run` and `revise` raise `RunNotFoundError`,
        `retract` hides them there only. Positions and run seqs go on from the parent's. Of an inherited run that goes
        on, the fork has the messages that it had, and the fields (status, output, usage …) as they are now. An
        inherited run_id may be used again for a run of the fork's own, which is found by it then.

        `SessionNotFoundError`; `SessionDeletedError`, also when the session is erased while it is forked, and no fork
        is left then; `RunNotFoundError`; `SessionExistsError` for the new id; `InvalidRecordError` for a position
        behind the head.
        """
        ...

    def scoped(self, *, namespace: str | None = None, user_id: str | None = None) -> SessionStore:
        """A view that sees and touches only that namespace's, or that user's, sessions; others are not found.

        A view of a view can only be narrower (`InvalidRecordError`). It is open as long as the store is.
        """
        ...

    # runs

    @overload
    async def append(
        self,
        run: Run,
        *,
        expected_version: int | None = None,
        state: Mapping[str, Any] | None = None,
        switch: AgentSwitch | None = None,
        revise: bool = False,
        operation_id: str | None = None,
    ) -> AppendReceipt: ...

    @overload
    async def append(
        self,
        run: Sequence[Run],
        *,
        expected_version: int | None = None,
        state: Mapping[str, Any] | None = None,
        switch: AgentSwitch | None = None,
        revise: bool = False,
        operation_id: str | None = None,
    ) -> list[AppendReceipt]: ...

    async def append(
        self,
        run: Run | Sequence[Run],
        *,
        expected_version: int | None = None,
        state: Mapping[str, Any] | None = None,
        switch: AgentSwitch | None = None,
        revise: bool = False,
        operation_id: str | None = None,
    ) -> AppendReceipt | list[AppendReceipt]:
        """Store a run, or several of one session in one commit; makes the session when there is none.

        The same run again returns its first receipt, `replayed=True`, and changes nothing; of several, those that were
        there are replays and the rest is stored. `state` merges its top-level keys into the session's state, and
        `switch` moves the word to another agent, in the same step; an append that is a replay as a whole changes
        neither. `revise=True` stores a new revision of a run that is there: it keeps the run's seq and its place in
        `history`, its messages take new positions, and the old revision stays for audit. A revision that is stored with
        an `operation_id` is recognised by it, whatever came after; without one, the content of the newest revision is a
        replay as long as no update has changed that.

        `expected_version` is the version of the session's log (0: there is no session), judged after replays:
        `ConflictError`. `RunConflictError` when the run is there with another content; `RunNotFoundError` when there is
        none to revise; `SessionDeletedError`.
        """
        ...

    async def update_run(
        self,
        session_id: str,
        *,
        run_id: str,
        messages: Sequence[Message] = (),
        status: RunStatus | str | None = None,
        output: Any = UNSET,
        error: Any = UNSET,
        usage: Usage | Unset | None = UNSET,
        metadata: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        expected_status: RunStatus | str | Collection[RunStatus | str] | None = None,
        operation_id: str | None = None,
    ) -> AppendReceipt:
        """Extend a run that was appended with status pending, running or paused; durable when it returns, at the cost
        of what is new.

        `output`, `error` and `usage` replace; `metadata` and `extra` merge their top-level keys. The first terminal
        status wins: later calls raise `RunFinishedError`, whatever they bring. `ConflictError` when the status is none
        of `expected_status`. `SessionNotFoundError`, `SessionDeletedError`, `RunNotFoundError`.
        """
        ...

    def recording(self, run: Run) -> AbstractAsyncContextManager[RunRecorder]:
        """Append the run as running, extend it inside the block, finish it at the end.

        A block that ends normally finishes it as completed; by cancellation as cancelled; by another exception as
        failed, with the exception as its `error`; the last two with the partial message. The finish is shielded from
        cancellation. After a crash the run is there with every message that was acknowledged, status running. A run of
        which it is not known whether it was stored, because the append timed out, is finished as failed if it was.
        """
        ...

    async def retract(
        self,
        session_id: str,
        *,
        last_runs: int | None = None,
        last_messages: int | None = None,
        run_id: str | None = None,
        from_run_id: str | None = None,
        from_position: int | None = None,
        operation_id: str | None = None,
    ) -> str:
        """Hide runs or messages from all reads; returns the id for `unretract`. Nothing is erased, positions stay.

        Exactly one of: the last n visible runs; the last n visible messages; one run, whatever its revision; a run and
        all that began after it; all messages from a position on and the runs that began there. A run that is hidden
        hides what it is extended by. `SessionNotFoundError`, `SessionDeletedError`, `RunNotFoundError`.
        """
        ...

    async def unretract(self, session_id: str, *, retract_id: str, operation_id: str | None = None) -> None:
        """Show again what that retract hid; a second time it does nothing. `LookupError` subclasses as for `retract`,
        `ConflictError` when there is no such retract."""
        ...

    async def get_run(self, run_id: str, *, session_id: str | None = None, revision: int | None = None) -> Run | None:
        """A run with its messages, retracted ones included; the newest revision, or the one asked for; None: unknown.

        Without a session it is looked for in all of them; `ConflictError` names the sessions when several have it.
        """
        ...

    def runs(
        self,
        session_id: str | None = None,
        *,
        last: int | None = None,
        after: int | str | None = None,
        before: int | str | None = None,
        status: RunStatus | str | Collection[RunStatus | str] | None = None,
        agent_id: str | None = None,
        user_id: str | None = None,
        parent_run_id: str | None = None,
        updated_before: datetime | None = None,
        reverse: bool = False,
        include_messages: bool = False,
        page_size: int | None = None,
    ) -> Cursor[Run]:
        """Runs by seq, the newest revision of each, without those that are retracted.

        `after` and `before` are exclusive: a seq or a token. `last` counts runs that pass the filters; they come oldest
        first unless `reverse`. Without a session: those of all sessions that are not deleted, in a fixed order of the
        storage, at least one of `status`, `agent_id`, `user_id`, `parent_run_id` given; `after` and `before` are then
        tokens, and `last` is refused.
        """
        ...

    # messages

    def messages(
        self,
        session_id: str,
        *,
        last: int | None = None,
        offset: int | None = None,
        limit: int | None = None,
        after: int | str | None = None,
        before: int | str | None = None,
        roles: Collection[str] | None = None,
        run_id: str | None = None,
        reverse: bool = False,
        include_retracted: bool = False,
        page_size: int | None = None,
    ) -> Cursor[Message]:
        """Messages by position.

        `after` and `before` are exclusive: a position or a token; `offset=n` means behind position n and is found in
        O(log n). `limit` and `last` count messages that are visible and pass the filters; the last ones come oldest
        first unless `reverse`. `include_retracted` shows retracted and revised messages too.
        """
        ...

    def history(
        self,
        session_id: str,
        *,
        last_runs: int | None = None,
        last_messages: int | None = None,
        roles: Collection[str] | None = None,
        skip_roles: Collection[str] = (),
        statuses: Collection[RunStatus | str] = CONTEXT_STATUSES,
        for_run: str | None = None,
        nested: bool = False,
        page_size: int | None = None,
    ) -> Cursor[Message]:
        """What belongs into a model's context, oldest first.

        The visible messages of top-level runs (with `nested`, of all) of those statuses, each run's messages together,
        from the last message of kind "summary" on. Never a tool call without its result, nor a result without its call;
        calls that a structured content holds in a dialect of its own, not in `tool_calls`, are not looked for.
        `for_run` is the view of a run that goes on: what was before it, and itself whatever its status.
        """
        ...

    async def get_message(self, session_id: str, *, message_id: str) -> Message | None:
        """The visible message of that id, or None."""
        ...

    def switches(self, session_id: str, *, last: int | None = None) -> Cursor[AgentSwitch]:
        """Switches of the agent, oldest first; the session's own, without those of the one that it was forked from."""
        ...

    async def stats(self, session_id: str) -> SessionStats:
        """Counts of the whole session, at the cost of one read. `SessionNotFoundError`, `SessionDeletedError`.

        A fork's go on from those of the messages that it shares.
        """
        ...

    # the store

    async def open(self) -> Self:
        """Connect; make or upgrade the schema. `async with` does it. Opening twice is fine.

        `UnavailableError`, `SchemaTooNewError`, `DriverIncompatibleError`.
        """
        ...

    async def close(self) -> None:
        """Finish what is being written, then let go of the storage. Closing twice is fine."""
        ...

    async def health(self) -> Health:
        """One round trip to the storage; a `DriverError` when it fails."""
        ...

    async def schema_version(self) -> int:
        """Of the stored schema."""
        ...

    async def upgrade_schema(self) -> int:
        """Bring the stored schema to this release's, under a lock, once; returns its version. `open` has done it."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...
