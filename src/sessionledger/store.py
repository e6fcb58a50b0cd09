"""The one `SessionStore`. It checks what it is given and hands it to the part whose job it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from time import perf_counter
from typing import Any, Self, overload

import msgspec

from sessionledger.arguments import micros_of, one_of, passes, place_of, statuses_of, texts_of, wider
from sessionledger.codec import column_of_name
from sessionledger.context import Context, Scope
from sessionledger.counters import stats_from_row
from sessionledger.cursor import PagedCursor
from sessionledger.errors import InvalidRecordError
from sessionledger.forking import fork
from sessionledger.history import HistoryWalk, Window
from sessionledger.lookup import get_message, get_run, get_session, live_session
from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import LAST, RunSearch, SessionQuery
from sessionledger.protocol.store import CONTEXT_STATUSES, UNSET, Cursor, RunRecorder, Unset
from sessionledger.recording import recording
from sessionledger.records import (
    AgentSwitch,
    AppendReceipt,
    Durability,
    Health,
    Message,
    Run,
    RunStatus,
    Session,
    SessionKind,
    SessionStats,
    Usage,
)
from sessionledger.retracting import retract, unretract
from sessionledger.retry import retried
from sessionledger.run_writes import RunUpdate, RunWrites
from sessionledger.session_writes import SessionWrites
from sessionledger.token import decode_token
from sessionledger.validate import check_count, check_id, check_text, checked_run
from sessionledger.walks import MessageWalk, RunSearchWalk, RunWalk, SessionWalk, SwitchWalk

__all__ = ["Store"]


class Store:
    """Implements `SessionStore`, whose docstrings say what each method does."""

    def __init__(self, context: Context, scope: Scope) -> None:
        self._context, self._scope = context, scope
        self._run_writes = RunWrites(context, scope)
        self._session_writes = SessionWrites(context, scope)

    @classmethod
    def on(cls, driver: Driver, *, timeout: float | None = 30.0, **options: Any) -> Store:
        """A store on a driver that was made already; it opens and closes it."""
        return cls(Context(driver, timeout=timeout, **options), Scope())

    def __repr__(self) -> str:
        return f"<Store {self._context.driver.info.name} {self._scope}>"

    @property
    def durability(self) -> Durability:
        self._context.check()
        return self._context.driver.durability

    # sessions

    async def create_session(self, session: Session, *, operation_id: str | None = None) -> Session:
        self._check_operation(operation_id)
        with self._context.writing():
            return await self._session_writes.create(session, operation_id)

    async def upsert_session(self, session: Session, *, operation_id: str | None = None) -> Session:
        self._check_operation(operation_id)
        with self._context.writing():
            return await self._session_writes.upsert(session, operation_id)

    async def get_session(self, session_id: str) -> Session | None:
        check_id(session_id, "session_id")
        with self._context.reading():
            return await get_session(self._context, self._scope, session_id)

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
        for value, path in ((user_id, "user_id"), (agent_id, "agent_id")):
            if value is not None:
                check_id(value, path)
        if name is not None:
            check_text(name, "name")
        query = SessionQuery(
            self._scope.namespace,
            0,
            user_id if self._scope.user_id is None else self._scope.user_id,
            agent_id,
            None if kind is None else one_of(SessionKind, kind, "kind"),
            column_of_name(name),
            micros_of(active_after, "active_after"),
            micros_of(active_before, "active_before"),
            include_deleted,
            reverse=reverse,
        )
        over = msgspec.json.encode(query).decode()
        if after is not None:
            place = decode_token(after, "sessions", over, tuple[int, str])
            query = msgspec.structs.replace(query, after=place)
        if user_id not in (None, query.user_id):
            # somebody else's sessions are not found in a view
            query = msgspec.structs.replace(query, active_before=0)
        return PagedCursor(self._context, lambda: SessionWalk(self._context, query, over), page_size)

    async def update_session(
        self,
        session_id: str,
        *,
        change: Mapping[str, Any] | Callable[[Session], Session],
        expected_state_version: int | None = None,
        operation_id: str | None = None,
    ) -> Session:
        self._check_operation(operation_id)
        check_id(session_id, "session_id")
        if expected_state_version is not None:
            check_count(expected_state_version, "expected_state_version")
        if not isinstance(change, Mapping) and not callable(change):
            raise InvalidRecordError(f"change is {change!r}: give a mapping of fields, or a function", path="change")
        with self._context.writing():
            return await self._session_writes.update(session_id, change, expected_state_version, operation_id)

    async def delete_session(
        self, session_id: str, *, soft: bool = True, forks: bool = False, operation_id: str | None = None
    ) -> bool:
        self._check_operation(operation_id)
        check_id(session_id, "session_id")
        with self._context.writing():
            return await self._session_writes.delete(session_id, soft=soft, forks=forks, operation_id=operation_id)

    async def restore_session(self, session_id: str, *, operation_id: str | None = None) -> bool:
        self._check_operation(operation_id)
        check_id(session_id, "session_id")
        with self._context.writing():
            return await self._session_writes.restore(session_id, operation_id)

    async def fork(
        self,
        session_id: str,
        *,
        at: int | str | None = None,
        new_session_id: str | None = None,
        operation_id: str | None = None,
    ) -> Session:
        self._check_operation(operation_id)
        check_id(session_id, "session_id")
        if new_session_id is not None:
            check_id(new_session_id, "new_session_id")
        with self._context.writing():
            return await fork(
                self._context,
                self._scope,
                session_id,
                at=at,
                new_session_id=new_session_id,
                operation_id=operation_id,
            )

    def scoped(self, *, namespace: str | None = None, user_id: str | None = None) -> Store:
        scope = self._scope
        if namespace is not None:
            check_id(namespace, "namespace", empty=True)
            if scope.namespace not in ("", namespace):
                raise wider("namespace", namespace, scope.namespace)
        if user_id is not None:
            check_id(user_id, "user_id")
            if scope.user_id not in (None, user_id):
                raise wider("user_id", user_id, scope.user_id)
        return Store(
            self._context,
            Scope(scope.namespace if namespace is None else namespace, user_id or scope.user_id),
        )

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
        one = isinstance(run, Run)
        runs = (run,) if isinstance(run, Run) else tuple(run)
        if expected_version is not None:
            check_count(expected_version, "expected_version")
        self._check_operation(operation_id)
        if state is None and switch is None and not revise:
            receipts = await self._run_writes.append(runs, expected_version, operation_id)
        else:
            with self._context.writing():
                receipts = await self._run_writes.append_reading(
                    runs, expected_version, state=state, switch=switch, revise=revise, operation_id=operation_id
                )
        return receipts[0] if one else receipts

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
        self._check_operation(operation_id)
        check_id(session_id, "session_id")
        check_id(run_id, "run_id")
        given = {"output": output, "error": error, "usage": usage}
        fields = {name: value for name, value in given.items() if not isinstance(value, Unset)}
        # a run of just these fields: what may be stored is said in one place
        trial = Run(
            session_id="",
            messages=messages,
            metadata={} if metadata is None else dict(metadata),
            extra={} if extra is None else dict(extra),
            **fields,
        )
        checked_run(trial, "update")
        update = RunUpdate(
            run_id=run_id,
            messages=tuple(trial.messages),
            status=None if status is None else RunStatus(one_of(RunStatus, status, "status")),
            fields=fields,
            metadata=None if metadata is None else trial.metadata,
            extra=None if extra is None else trial.extra,
            expected_status=None if expected_status is None else statuses_of(expected_status, "expected_status"),
        )
        with self._context.writing():
            return await self._run_writes.update(session_id, update, operation_id)

    def recording(self, run: Run) -> AbstractAsyncContextManager[RunRecorder]:
        return recording(self, self._context.background, run)

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
        self._check_operation(operation_id)
        check_id(session_id, "session_id")
        given = {
            "last_runs": last_runs,
            "last_messages": last_messages,
            "run_id": run_id,
            "from_run_id": from_run_id,
            "from_position": from_position,
        }
        with self._context.writing():
            return await retract(self._context, self._scope, session_id, given, operation_id)

    async def unretract(self, session_id: str, *, retract_id: str, operation_id: str | None = None) -> None:
        self._check_operation(operation_id)
        check_id(session_id, "session_id")
        with self._context.writing():
            await unretract(self._context, self._scope, session_id, retract_id, operation_id)

    async def get_run(self, run_id: str, *, session_id: str | None = None, revision: int | None = None) -> Run | None:
        check_id(run_id, "run_id")
        if session_id is not None:
            check_id(session_id, "session_id")
        if revision is not None:
            check_count(revision, "revision", least=1)
        with self._context.reading():
            return await get_run(self._context, self._scope, run_id, session_id, revision)

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
        statuses = None if status is None else statuses_of(status, "status")
        for value, path in ((agent_id, "agent_id"), (user_id, "user_id"), (parent_run_id, "parent_run_id")):
            if value is not None:
                check_id(value, path)
        search = RunSearch(
            self._scope.namespace,
            0,
            0,
            self._scope.user_id,
            None,
            None if statuses is None else sorted(statuses),
            agent_id,
            user_id,
            parent_run_id,
            micros_of(updated_before, "updated_before"),
            reverse,
        )
        if session_id is None:
            return self._search_runs(search, last, after, before, include_messages, page_size)
        check_id(session_id, "session_id")
        if last is not None:
            check_count(last, "last")
        start, end = self._place("runs", session_id, after, 0), self._place("runs", session_id, before, LAST)
        walk = partial(
            RunWalk,
            self._context,
            self._scope,
            session_id,
            after=start,
            before=end,
            last=last,
            passes=partial(passes, search),
            reverse=reverse,
            include_messages=include_messages,
        )
        return PagedCursor(self._context, walk, page_size)

    def _search_runs(
        self,
        search: RunSearch,
        last: int | None,
        after: int | str | None,
        before: int | str | None,
        include_messages: bool,
        page_size: int | None,
    ) -> Cursor[Run]:
        filters = (search.statuses, search.agent_id, search.user_id, search.parent_run_id)
        if all(value is None for value in filters):
            raise InvalidRecordError(
                "runs without a session need a filter: give status, agent_id, user_id or parent_run_id"
            )
        place = before if search.reverse else after
        wrong = after if search.reverse else before
        if last is not None or include_messages or wrong is not None or isinstance(place, int):
            raise InvalidRecordError(
                "runs without a session take no last, include_messages or seq: go on with a token, read each by get_run"
            )
        # a place is in the driver's own words, which no other one reads
        over = msgspec.json.encode((self._context.driver.info.name, search)).decode()
        if place is not None:
            search = msgspec.structs.replace(search, after=decode_token(place, "run-search", over, str))
        return PagedCursor(self._context, lambda: RunSearchWalk(self._context, search, over), page_size)

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
        check_id(session_id, "session_id")
        for count, name in ((last, "last"), (offset, "offset"), (limit, "limit")):
            if count is not None:
                check_count(count, name)
        if (last is not None) + (limit is not None) > 1 or (offset is not None and after is not None):
            raise InvalidRecordError("last and limit, or offset and after, exclude each other: give one of them")
        if run_id is not None:
            check_id(run_id, "run_id")
        start = self._place("messages", session_id, after, offset or 0)
        end = self._place("messages", session_id, before, LAST)
        wanted = None if roles is None else texts_of(roles, "roles")
        walk = partial(
            MessageWalk,
            self._context,
            self._scope,
            session_id,
            after=start,
            before=end,
            last=last,
            limit=limit,
            roles=wanted,
            run_id=run_id,
            reverse=reverse,
            include_retracted=include_retracted,
        )
        return PagedCursor(self._context, walk, page_size, pages_collected=self._context.limits.collected)

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
        check_id(session_id, "session_id")
        for count, name in ((last_runs, "last_runs"), (last_messages, "last_messages")):
            if count is not None:
                check_count(count, name)
        if for_run is not None:
            check_id(for_run, "for_run")
        window = Window(
            last_runs=last_runs,
            last_messages=last_messages,
            roles=None if roles is None else texts_of(roles, "roles"),
            skip_roles=texts_of(skip_roles, "skip_roles"),
            statuses=statuses_of(statuses, "statuses"),
            for_run=for_run,
            nested=nested,
        )
        return PagedCursor(
            self._context,
            lambda: HistoryWalk(self._context, self._scope, session_id, window),
            page_size,
            pages_collected=self._context.limits.collected,
        )

    async def get_message(self, session_id: str, *, message_id: str) -> Message | None:
        check_id(session_id, "session_id")
        with self._context.reading():
            return await get_message(self._context, self._scope, session_id, message_id)

    def switches(self, session_id: str, *, last: int | None = None) -> Cursor[AgentSwitch]:
        check_id(session_id, "session_id")
        if last is not None:
            check_count(last, "last")
        return PagedCursor(self._context, lambda: SwitchWalk(self._context, self._scope, session_id, last), None)

    async def stats(self, session_id: str) -> SessionStats:
        check_id(session_id, "session_id")
        with self._context.reading():
            return stats_from_row(await live_session(self._context, self._scope, session_id))

    # the store

    async def open(self) -> Self:
        await self._context.open(scoped=False)
        return self

    async def close(self) -> None:
        await self._context.close()

    async def __aenter__(self) -> Self:
        await self._context.open(scoped=True)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._context.close()

    async def health(self) -> Health:
        driver = self._context.driver
        with self._context.reading():
            begun = perf_counter()
            await driver.ping()
            latency = perf_counter() - begun
            version = await driver.schema_version()
        return Health(driver=driver.info.name, latency=latency, durability=driver.durability, schema_version=version)

    async def schema_version(self) -> int:
        with self._context.reading():
            return await retried(self._context.driver.schema_version)

    async def upgrade_schema(self) -> int:
        with self._context.writing():
            return await retried(self._context.driver.upgrade_schema)

    # arguments

    def _check_operation(self, operation_id: str | None) -> None:
        if operation_id is not None:
            check_id(operation_id, "operation_id")

    def _place(self, kind: str, session_id: str, place: int | str | None, default: int) -> int:
        over = msgspec.json.encode((self._scope.namespace, session_id)).decode()
        return default if place is None else place_of(place, kind, over)
