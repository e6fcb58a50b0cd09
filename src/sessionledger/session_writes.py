"""Creating, changing, deleting and restoring sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import anyio
import msgspec

from sessionledger.codec import header_of_session, session_from_row, state_of, to_micros
from sessionledger.context import Context, Scope
from sessionledger.digest import canonical, digest
from sessionledger.errors import InvalidRecordError, SessionHasForksError
from sessionledger.ids import derived_uuid, new_id
from sessionledger.protocol.rows import (
    Body,
    Change,
    Commit,
    Committed,
    CountForks,
    Head,
    NewSession,
    Outcome,
    PatchSession,
    Reason,
    Refused,
    Seal,
    SessionQuery,
    SessionRow,
    SetDeleted,
)
from sessionledger.records import Session
from sessionledger.refusals import deleted, error_of, not_found
from sessionledger.retry import backoff, retried
from sessionledger.validate import checked_session

__all__ = ["SessionWrites", "release_parent"]

replace = msgspec.structs.replace

#: What the store keeps, and what a session is: no update changes it.
_KEPT: Final = (
    "session_id",
    "namespace",
    "user_id",
    "forked_from",
    "forked_at",
    "created_at",
    "updated_at",
    "last_activity_at",
    "deleted_at",
    "version",
    "state_version",
    "run_count",
    "message_count",
)
_ERASE_ROWS: Final = 2000  #: of one step of an erasure


class SessionWrites:
    def __init__(self, context: Context, scope: Scope) -> None:
        self._context, self._scope = context, scope

    async def create(self, session: Session, operation_id: str | None) -> Session:
        session, text = self._own(session)
        commit = self._creation(session, digest(text), operation_id)
        outcome = await self._context.commit(commit)
        if isinstance(outcome, Refused):
            raise error_of(outcome, commit)
        return await self._stored(outcome, commit)

    def _own(self, session: Session) -> tuple[Session, bytes]:
        """The session as one of this scope, without what the store keeps, and its canonical JSON."""
        checked_session(session)
        scope = self._scope
        if session.namespace not in ("", scope.namespace):
            raise InvalidRecordError(
                f"session.namespace is {session.namespace!r} in a view of namespace {scope.namespace!r}: leave it out",
                path="session.namespace",
            )
        if scope.user_id is not None and session.user_id not in (None, scope.user_id):
            raise InvalidRecordError(
                f"session.user_id is {session.user_id!r} in a view of user {scope.user_id!r}: leave it out",
                path="session.user_id",
            )
        own = replace(
            session,
            namespace=scope.namespace,
            user_id=session.user_id or scope.user_id,
            forked_from=None,
            forked_at=None,
            last_activity_at=None,
            deleted_at=None,
            version=0,
            state_version=0,
            run_count=0,
            message_count=0,
        )
        return own, canonical(own)

    def _creation(self, session: Session, request: bytes, operation_id: str | None) -> Commit:
        at = self._context.now()
        created_at = at if session.created_at is None else to_micros(session.created_at)
        new = NewSession(header_of_session(session, at), state_of(session), session.user_id, created_at)
        return Commit(
            self._scope.key(session.session_id),
            operation_id or new_id(),
            request,
            at,
            (),
            create=new,
            must_create=True,
            owner=self._scope.user_id,
        )

    async def _stored(self, outcome: Committed, commit: Commit, before: Body | None = None) -> Session:
        """The session as a commit made or changed it; `before` is the state that it left alone. A replay reads what is
        there.
        """
        if outcome.replayed:
            row = await retried(lambda: self._context.driver.session(commit.key, state=True))
            if row is None or self._scope.visible(row.head) is None:
                raise not_found(commit.key.session_id)
            return session_from_row(row)
        new = commit.changes[0] if commit.changes else commit.create
        assert isinstance(new, PatchSession | NewSession)
        state = before if new.state is None else new.state
        return session_from_row(SessionRow(outcome.head, new.header, state, {}))

    async def upsert(self, session: Session, operation_id: str | None) -> Session:
        session, text = self._own(session)
        request, operation = digest(text), operation_id or new_id()
        async with self._context.lock(self._scope.key(session.session_id)):
            attempt = 0
            while True:
                commit = await self._upsertion(session, request, operation)
                outcome = await self._context.commit(commit)
                if isinstance(outcome, Committed):
                    return await self._stored(outcome, commit)
                if outcome.reason not in (Reason.EXISTS, Reason.STATE_VERSION, Reason.INCARNATION):
                    raise error_of(
                        outcome, replace(commit, create=commit.create or self._creation(session, b"", None).create)
                    )
                attempt += 1
                await anyio.sleep(backoff(attempt))

    async def _upsertion(self, session: Session, request: bytes, operation: str) -> Commit:
        creation = self._creation(session, request, operation)
        row = await retried(lambda: self._context.driver.session(creation.key, state=False))
        if row is None:
            return creation
        if row.head.erased:
            raise deleted(session.session_id, erased=True)
        patch = PatchSession(header_of_session(session, creation.at), state_of(session))
        return replace(
            creation,
            changes=(patch,),
            create=None,
            must_create=False,
            owner=self._scope.user_id or session.user_id,
            incarnation=row.head.incarnation,
            expected_state_version=row.head.state_version,
        )

    async def update(
        self,
        session_id: str,
        change: Mapping[str, Any] | Callable[[Session], Session],
        expected_state_version: int | None,
        operation_id: str | None,
    ) -> Session:
        key = self._scope.key(session_id)
        request = _request(change)
        commit = Commit(key, operation_id or new_id(), request, self._context.now(), (), owner=self._scope.user_id)
        async with self._context.lock(key):
            attempt = 0
            while True:
                row = await retried(lambda: self._context.driver.session(key, state=True))
                if row is None or self._scope.visible(row.head) is None:
                    raise not_found(session_id)
                before = session_from_row(row)
                try:
                    after = _changed(before, change)
                except Exception:
                    # it may be the repetition of a call that was done, and forbid what it has changed itself
                    replay = None if operation_id is None else await self._context.replay(commit)
                    if replay is None:
                        raise
                    return await self._stored(replay, commit)
                trial = replace(
                    commit,
                    changes=_patches(before, after, commit.at),
                    incarnation=row.head.incarnation,
                    expected_state_version=(
                        row.head.state_version if expected_state_version is None else expected_state_version
                    ),
                )
                outcome = await self._context.commit(trial)
                if isinstance(outcome, Committed):
                    return await self._stored(outcome, trial, row.state)
                moved = outcome.reason in (Reason.STATE_VERSION, Reason.INCARNATION)
                if not moved or expected_state_version is not None:
                    raise error_of(outcome, trial)
                attempt += 1
                await anyio.sleep(backoff(attempt))

    # deletion

    async def delete(self, session_id: str, *, soft: bool, forks: bool, operation_id: str | None) -> bool:
        head = await self._head(session_id)
        if head is None:
            return False
        if soft:
            if head.deleted_at is not None:
                return True
            at = self._context.now()
            return await self._mark(session_id, SetDeleted(at), "delete", operation_id)
        return await self._erase(head, forks=forks, operation_id=operation_id)

    async def restore(self, session_id: str, operation_id: str | None) -> bool:
        head = await self._head(session_id)
        if head is None:
            return False
        return head.deleted_at is None or await self._mark(session_id, SetDeleted(None), "restore", operation_id)

    async def _head(self, session_id: str) -> Head | None:
        """Of a session that is there, softly deleted or not."""
        row = await retried(lambda: self._context.driver.session(self._scope.key(session_id), state=False))
        head = row.head if row is not None else None
        if head is not None and head.erased and self._scope.sees(head):
            # whoever erased it may have been stopped before it was done
            await self._finish(head)
        return self._scope.visible(head)

    async def _mark(self, session_id: str, change: Change, name: str, operation_id: str | None) -> bool:
        outcome = await self._change(session_id, change, name, operation_id)
        if isinstance(outcome, Committed):
            return True
        if outcome.reason in (Reason.MISSING, Reason.ERASED, Reason.NOT_OWNER):
            return False
        raise error_of(outcome, self._commit(session_id, change, name, operation_id))

    async def _change(self, session_id: str, change: Change, name: str, operation_id: str | None) -> Outcome:
        return await self._context.commit(self._commit(session_id, change, name, operation_id))

    def _commit(self, session_id: str, change: Change, name: str, operation_id: str | None) -> Commit:
        return Commit(
            self._scope.key(session_id),
            operation_id or new_id(),
            digest(canonical((name,))),
            self._context.now(),
            (change,),
            on_deleted=True,
            owner=self._scope.user_id,
        )

    async def undo(self, head: Head) -> None:
        """Erase a session that should not have been made, whoever built on it."""
        await self._erase(head, forks=True, operation_id=None)

    async def _erase(self, head: Head, *, forks: bool, operation_id: str | None) -> bool:
        session_id = head.key.session_id
        outcome = await self._seal(head, forks=forks, operation_id=operation_id)
        if isinstance(outcome, Refused):
            if outcome.reason is Reason.FORKS:
                raise await self._has_forks(session_id)
            if outcome.reason is not Reason.ERASED:
                # it went away, or changed hands, since its head was read
                return False
        await self._finish(head)
        return True

    async def _seal(self, head: Head, *, forks: bool, operation_id: str | None) -> Outcome:
        session_id, hidden = head.key.session_id, None
        while True:
            children = await self._children(session_id) if forks else []
            for child in children:
                await self._erase(child, forks=True, operation_id=None)
            erasure = self._commit(session_id, Seal(), "erase", operation_id)
            if hidden is not None and not children:
                # forks that are counted but not made: whoever began them was stopped, or finds out when he makes them
                erasure = replace(erasure, changes=(Seal(hidden.forks),), expected_version=hidden.version)
            outcome = await self._context.commit(replace(erasure, incarnation=head.incarnation))
            if not forks or isinstance(outcome, Committed) or outcome.reason not in (Reason.FORKS, Reason.VERSION):
                return outcome
            # whoever has made a fork looks at its parent: the forks of those who do not find it deleted are listed now
            outcome = await self._hide(head)
            if isinstance(outcome, Refused):
                return outcome
            hidden = outcome.head

    async def _hide(self, head: Head) -> Outcome:
        mark = self._commit(head.key.session_id, SetDeleted(self._context.now()), "delete", None)
        return await self._context.commit(replace(mark, incarnation=head.incarnation))

    async def _finish(self, head: Head) -> None:
        """What follows a seal."""
        await release_parent(self._context, head)
        more = True
        while more:
            more = await retried(lambda: self._context.driver.erase(head.key, limit=_ERASE_ROWS))

    async def _children(self, session_id: str) -> list[Head]:
        query = SessionQuery(
            self._scope.namespace, self._context.limits.rows, include_deleted=True, forked_from=session_id
        )
        heads: list[Head] = []
        while True:
            page = await retried(partial(self._context.driver.sessions, query))
            heads += [row.head for row in page.rows]
            if not page.more:
                return heads
            query = replace(query, after=(heads[-1].last_activity_at, heads[-1].key.session_id))

    async def _has_forks(self, session_id: str) -> SessionHasForksError:
        names = [head.key.session_id for head in await self._children(session_id)]
        shown = ", ".join(map(repr, names[:3])) + (" …" if len(names) > 3 else "")
        return SessionHasForksError(
            f"session {session_id!r} shares its messages with {shown or 'a fork'}: delete it first, or with forks=True",
            session_id=session_id,
            forks=names,
        )


async def release_parent(context: Context, child: Head) -> None:
    """A fork that is gone no longer keeps its parent; however often this is called, it counts once."""
    if child.fork is None:
        return
    key = replace(child.key, session_id=child.fork.session_id)
    operation = derived_uuid("release", child.key.session_id, str(child.incarnation), str(child.created_at))
    changes = (CountForks(-1),)
    await context.commit(
        Commit(
            key,
            operation,
            digest(b"release"),
            context.now(),
            changes,
            on_deleted=True,
            incarnation=child.fork.incarnation,
        )
    )


def _request(change: Mapping[str, Any] | Callable[[Session], Session]) -> bytes:
    """The digest of an update; what cannot be stored is refused before any I/O."""
    if not isinstance(change, Mapping):
        return digest(canonical(("update_session", None)))
    unknown = set(change) - set(Session.__struct_fields__)
    if unknown:
        name = min(map(str, unknown))
        raise InvalidRecordError(f"change names {name!r}: a session has no such field", path=f"change[{name!r}]")
    checked_session(replace(Session(session_id="-"), **change), "change")
    return digest(canonical(("update_session", dict(change))))


def _changed(before: Session, change: Mapping[str, Any] | Callable[[Session], Session]) -> Session:
    after = replace(before, **change) if isinstance(change, Mapping) else change(before)
    checked_session(after, "change")
    for name in _KEPT:
        if getattr(after, name) != getattr(before, name):
            raise InvalidRecordError(f"change.{name} is kept by the store: leave it as it is", path=f"change.{name}")
    return after


def _patches(before: Session, after: Session, at: int) -> tuple[Change, ...]:
    state = (
        None if after.state == before.state and canonical(after.state) == canonical(before.state) else state_of(after)
    )
    return (PatchSession(header_of_session(replace(after, updated_at=None), at), state),)
