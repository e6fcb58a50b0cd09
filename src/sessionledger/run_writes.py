"""Appending, revising and updating runs."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import anyio
import msgspec

from sessionledger.codec import (
    EMPTY,
    add_usage,
    body_of_run,
    header_of_run,
    header_of_session,
    message_count_of,
    parts_of_run,
    rows_of_messages,
    run_from_row,
    session_from_row,
    state_of,
    switch_to_row,
    to_micros,
    token_columns,
    usage_is_sum,
    usage_of_messages,
)
from sessionledger.context import Context, Scope
from sessionledger.counters import count_put, count_run, count_usage
from sessionledger.digest import canonical, digest
from sessionledger.errors import ConflictError, InvalidRecordError, RunFinishedError
from sessionledger.ids import derived_uuid, new_id
from sessionledger.protocol.rows import (
    Change,
    Commit,
    Committed,
    Head,
    NewSession,
    PatchRun,
    PatchSession,
    PutRun,
    PutSwitch,
    Reason,
    Refused,
    RunHeader,
    RunReceipt,
    RunRow,
    SessionHeader,
    SessionKey,
    SessionRow,
)
from sessionledger.records import (
    AgentSwitch,
    AppendReceipt,
    Message,
    Run,
    RunStatus,
    Session,
    SessionKind,
    Usage,
)
from sessionledger.refusals import error_of, not_found, run_not_found
from sessionledger.retry import backoff, retried
from sessionledger.revisions import NextRevision, newest_run, next_revision
from sessionledger.validate import check_id, check_json, checked_run, checked_switch

__all__ = ["RunUpdate", "RunWrites"]

_MAX_KNOWN_RUNS: Final = 256
_SESSION_KINDS: Final = frozenset(kind.value for kind in SessionKind)
_NOWHERE: Final = (None, None, None)
_NEVER: Final = -1  #: a number of patches that no run has

replace = msgspec.structs.replace


class RunUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What `update_run` was asked for. `fields` are those that replace: output, error, usage."""

    run_id: str
    messages: tuple[Message, ...] = ()
    status: RunStatus | None = None
    fields: dict[str, Any] = {}
    metadata: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None
    expected_status: frozenset[str] | None = None


class _KnownRun(msgspec.Struct, frozen=True):
    """An open run as this process left it: an update need not read it first. A wrong memory only costs one attempt:
    the run is patched in this incarnation of its session, with this revision and number of patches, or not at all.
    """

    incarnation: int
    revision: int
    patch: int
    header: RunHeader
    usage: Usage | None
    summed: bool
    message_count: int


class _Prepared(msgspec.Struct, frozen=True):
    """A run that was checked, with its ids."""

    run: Run
    run_id: str
    digest: bytes


class RunWrites:
    def __init__(self, context: Context, scope: Scope) -> None:
        self._context, self._scope = context, scope
        self._known: OrderedDict[tuple[SessionKey, str], _KnownRun] = OrderedDict()

    # append

    async def append(
        self, runs: Sequence[Run], expected_version: int | None, operation_id: str | None
    ) -> list[AppendReceipt]:
        """An append that depends on nothing but what it brings: one commit."""
        self._context.check()
        prepared = self._prepare(runs, operation_id, revise=False)
        at = self._context.now()
        commit = Commit(
            self._scope.key(runs[0].session_id),
            prepared[0].run_id,
            prepared[0].digest,
            at,
            [self._put(item, at) for item in prepared],
            _first_session(runs[0], self._scope, at),
            owner=self._scope.user_id,
            expected_version=expected_version,
        )
        return _receipts(await self._context.commit_alone(commit), commit)

    async def append_reading(
        self,
        runs: Sequence[Run],
        expected_version: int | None,
        *,
        state: Mapping[str, Any] | None,
        switch: AgentSwitch | None,
        revise: bool,
        operation_id: str | None,
    ) -> list[AppendReceipt]:
        """An append that also changes the session, or a run that is there: it reads them first."""
        prepared = self._prepare(runs, operation_id, revise=revise)
        if state is not None:
            check_json(state, "state")
        if switch is not None:
            checked_switch(switch)
        at = self._context.now()
        commit = Commit(
            self._scope.key(runs[0].session_id),
            operation_id or new_id(),
            prepared[0].digest,
            at,
            (),
            None if revise else _first_session(runs[0], self._scope, at),
            owner=self._scope.user_id,
            expected_version=expected_version,
        )
        async with self._context.lock(commit.key):
            outcome = await self._append_after_reading(
                commit, prepared, state, switch, revise=revise, operation_id=operation_id
            )
        return _receipts(outcome, commit)

    def _prepare(self, runs: Sequence[Run], operation_id: str | None, *, revise: bool) -> list[_Prepared]:
        if not runs:
            raise InvalidRecordError("an append needs a run: an empty sequence was given", path="run")
        prepared = [
            self._prepare_run(run, "run" if len(runs) == 1 else f"run[{index}]", index, operation_id, revise=revise)
            for index, run in enumerate(runs)
        ]
        if len(runs) == 1:
            return prepared
        if len({run.session_id for run in runs}) > 1:
            raise InvalidRecordError(
                "the runs of one append are of several sessions: append each session's", path="run"
            )
        if len({item.run_id for item in prepared}) < len(prepared):
            twice = next(run_id for run_id, count in Counter(item.run_id for item in prepared).items() if count > 1)
            raise InvalidRecordError(f"run_id {twice!r} comes twice in one append: give each run its own", path="run")
        return prepared

    def _prepare_run(self, run: Run, path: str, index: int, operation_id: str | None, *, revise: bool) -> _Prepared:
        text = checked_run(_content(run), path)
        self._check_size(text, path)
        check_id(run.session_id, f"{path}.session_id")
        if run.run_id is not None:
            check_id(run.run_id, f"{path}.run_id")
        elif revise:
            raise InvalidRecordError(f"{path}.run_id is None: name the run to revise", path=f"{path}.run_id")
        user_id = self._scope.user_id
        if user_id is not None and run.user_id not in (None, user_id):
            raise InvalidRecordError(
                f"{path}.user_id is {run.user_id!r} in a view of user {user_id!r}: leave it out", path=f"{path}.user_id"
            )
        if run.run_id is not None:
            run_id = run.run_id
        else:
            run_id = new_id() if operation_id is None else derived_uuid("run", run.session_id, operation_id, str(index))
        return _Prepared(run, run_id, digest(text))

    def _check_size(self, text: bytes, path: str) -> None:
        """`text` is the canonical JSON of what will be stored; it is about as long."""
        limit = self._context.driver.info.max_run_bytes
        if limit is not None and len(text) > limit:
            raise InvalidRecordError(
                f"{path} takes {len(text)} bytes, the storage {limit} at most: split it, or keep large contents apart",
                path=path,
            )

    def _put(self, item: _Prepared, at: int, revision: NextRevision | None = None) -> PutRun:
        """The change that stores a run, or a later revision of one."""
        run = item.run
        usage = run.usage if run.usage is not None else usage_of_messages(run.messages)
        created_at = at if run.created_at is None else to_micros(run.created_at)
        counters = count_run(run.messages, usage)
        counters |= count_put(run)
        if revision is not None:
            old = f"status/{revision.status_before}"
            counters[old] = counters.get(old, 0) - 1
        return PutRun(
            item.run_id,
            1 if revision is None else revision.number,
            item.digest if revision is None else revision.digest,
            run.user_id or self._scope.user_id,
            run.agent_id,
            run.parent_run_id,
            run.model if run.model is None or (len(run.model) <= 256 and "\0" not in run.model) else None,
            created_at,
            header_of_run(run, usage, at),
            body_of_run(run, usage),
            rows_of_messages(run.messages, created_at, copies=self._context.driver.info.message_copies),
            counters,
        )

    async def _append_after_reading(
        self,
        commit: Commit,
        prepared: Sequence[_Prepared],
        state: Mapping[str, Any] | None,
        switch: AgentSwitch | None,
        *,
        revise: bool,
        operation_id: str | None,
    ) -> Committed | Refused:
        """An append that depends on what is stored: it is tried again while others change that."""
        again = {Reason.STATE_VERSION, Reason.INCARNATION, Reason.RUN_CHANGED}
        if revise:
            again.add(Reason.RUN_CONFLICT)
        switch_id = new_id() if switch is None or switch.switch_id is None else switch.switch_id
        attempt = 0
        while True:
            if revise:
                trial = await self._with_revisions(commit, prepared, operation_id)
            else:
                trial = replace(commit, changes=[self._put(item, commit.at) for item in prepared])
            if state is not None or switch is not None:
                trial = await self._with_session(trial, prepared[0].run, state, switch, switch_id, revise=revise)
            outcome = await self._context.commit(trial)
            if isinstance(outcome, Committed) or outcome.reason not in again:
                return outcome
            attempt += 1
            await anyio.sleep(backoff(attempt))

    async def _with_revisions(self, commit: Commit, prepared: Sequence[_Prepared], operation_id: str | None) -> Commit:
        """The commit, with the next revision of each run, in the incarnation in which the first was looked up."""
        changes: list[Change] = []
        incarnation: int | None = None
        for item in prepared:
            revision = await next_revision(self._context, self._scope, commit, item.run_id, item.digest, operation_id)
            incarnation = incarnation or revision.incarnation
            changes.append(self._put(item, commit.at, revision))
        return replace(commit, changes=changes, incarnation=incarnation)

    async def _with_session(
        self,
        commit: Commit,
        run: Run,
        state: Mapping[str, Any] | None,
        switch: AgentSwitch | None,
        switch_id: str,
        *,
        revise: bool,
    ) -> Commit:
        """The commit, with the session's state merged and its agent switched."""
        row = await retried(lambda: self._context.driver.session(commit.key, state=True))
        there = row is not None and not row.head.erased
        if row is None or not there:
            first = _first_session(run, self._scope, commit.at)
            head = Head(commit.key, 1, 0, 0, 0, 0, first.user_id, commit.at, commit.at)
            row = SessionRow(head, first.header, first.state, {})
        session = session_from_row(row)
        changes = [*commit.changes]
        if switch is not None:
            from_agent = session.current_agent if switch.from_agent is None else switch.from_agent
            changes.append(PutSwitch(switch_to_row(switch, switch_id, from_agent, commit.at)))
            session = replace(session, current_agent=switch.to_agent)
        if state is not None:
            session = replace(session, state={**session.state, **state})
        create = None if revise else _new(session, commit.at)
        if not there:
            return replace(commit, changes=changes, create=create, expected_state_version=0)
        header = header_of_session(replace(session, updated_at=None), commit.at)
        changes.append(PatchSession(header, None if state is None else state_of(session)))
        return replace(
            commit,
            changes=changes,
            create=create,
            incarnation=commit.incarnation or row.head.incarnation,
            expected_state_version=row.head.state_version,
        )

    # update

    async def update(self, session_id: str, update: RunUpdate, operation_id: str | None) -> AppendReceipt:
        text = canonical(("update_run", replace(update, expected_status=None)))
        self._check_size(text, "update")
        request = digest(text)
        key = self._scope.key(session_id)
        commit = Commit(key, operation_id or new_id(), request, self._context.now(), (), owner=self._scope.user_id)
        place = (key, update.run_id)
        async with self._context.lock(place):
            attempt = 0
            while True:
                patch, after = await self._plan(commit, update, self._known.pop(place, None))
                outcome = await self._context.commit(replace(commit, changes=(patch,), incarnation=after.incarnation))
                if isinstance(outcome, Committed):
                    if not outcome.replayed and not RunStatus(after.header.status).terminal:
                        self._remember(place, after)
                    return receipt_of(outcome.receipts[0], outcome)
                if outcome.reason not in (Reason.RUN_CHANGED, Reason.INCARNATION):
                    raise error_of(outcome, commit)
                if outcome.reason is Reason.RUN_CHANGED and patch.expected_patch == _NEVER:
                    raise _status_refusal(after.header.status, session_id, update) or run_not_found(
                        session_id, update.run_id
                    )
                attempt += 1
                if attempt > 1:
                    await anyio.sleep(backoff(attempt - 1))

    def _remember(self, place: tuple[SessionKey, str], known: _KnownRun) -> None:
        self._known[place] = known
        if len(self._known) > _MAX_KNOWN_RUNS:
            self._known.popitem(last=False)

    async def _plan(self, commit: Commit, update: RunUpdate, known: _KnownRun | None) -> tuple[PatchRun, _KnownRun]:
        """The change to commit, and the run behind it. Where the run's status forbids it, a change that can only be a
        replay: the call may be the repetition of one that was done, and only the storage knows."""
        row, session_id = None, commit.key.session_id
        merges = update.metadata is not None or update.extra is not None
        if known is None or merges or _status_refusal(known.header.status, session_id, update) is not None:
            head, row = await newest_run(self._context, self._scope, commit.key, update.run_id, bodies=True)
            if head is None:
                raise not_found(session_id)
            if row is None:
                raise run_not_found(session_id, update.run_id)
            known = _known_of(head, row)
        if _status_refusal(known.header.status, session_id, update) is not None:
            return PatchRun(update.run_id, known.revision, _NEVER, known.header, {}, (), {}), known
        fields = dict(update.fields)
        for name in ("metadata", "extra"):
            new = getattr(update, name)
            if new is not None:
                assert row is not None
                fields[name] = {**getattr(run_from_row(row, session_id), name), **new}
        return _patch(update, known, fields, commit.at, copies=self._context.driver.info.message_copies)


def _receipts(outcome: Committed | Refused, commit: Commit) -> list[AppendReceipt]:
    if isinstance(outcome, Refused):
        raise error_of(outcome, commit)
    return [receipt_of(receipt, outcome) for receipt in outcome.receipts]


def receipt_of(receipt: RunReceipt, outcome: Committed) -> AppendReceipt:
    there = receipt.last_position >= receipt.first_position
    return AppendReceipt(
        run_id=receipt.run_id,
        run_seq=receipt.run_seq,
        revision=receipt.revision,
        first_position=receipt.first_position if there else None,
        last_position=receipt.last_position if there else None,
        version=receipt.version,
        replayed=receipt.replayed or outcome.replayed,
    )


def _content(run: Run) -> Run:
    """The run without what names its place and what a store has filled in: what its digest is taken of."""
    if type(run) is not Run:
        return run
    messages = run.messages
    for message in messages:
        # each costs, so only what has been read from a store is cleared of its place
        if type(message) is Message and (message.position, message.run_seq, message.run_id) != _NOWHERE:
            messages = tuple([replace(m, position=None, run_seq=None, run_id=None) for m in messages])
            break
    return replace(run, run_id=None, session_id="", messages=messages, seq=None, revision=None, message_count=None)


def _first_session(run: Run, scope: Scope, at: int) -> NewSession:
    """The session that an append makes when there is none."""
    kind = run.kind if run.kind in _SESSION_KINDS else SessionKind.AGENT.value
    header = SessionHeader(kind, run.agent_id, run.agent_id, None, None, at, EMPTY)
    return NewSession(header, EMPTY, run.user_id or scope.user_id, at)


def _new(session: Session, at: int) -> NewSession:
    return NewSession(header_of_session(session, at), state_of(session), session.user_id, at)


def _known_of(head: Head, row: RunRow) -> _KnownRun:
    run = run_from_row(row, head.key.session_id)
    return _KnownRun(
        head.incarnation, row.revision, row.patch, row.header, run.usage, usage_is_sum(row), message_count_of(row)
    )


def _status_refusal(status: str, session_id: str, update: RunUpdate) -> Exception | None:
    if RunStatus(status).terminal:
        return RunFinishedError(
            f"run {update.run_id!r} of session {session_id!r} is {status}: append a new run, or revise it",
            session_id=session_id,
            run_id=update.run_id,
            status=status,
        )
    if update.expected_status is not None and status not in update.expected_status:
        expected = " or ".join(sorted(update.expected_status))
        return ConflictError(
            f"run {update.run_id!r} of session {session_id!r} is {status}, not {expected}: read it again",
            session_id=session_id,
        )
    return None


def _patch(
    update: RunUpdate, known: _KnownRun, fields: dict[str, Any], at: int, *, copies: bool
) -> tuple[PatchRun, _KnownRun]:
    """The change, and the run as it is behind it."""
    old, added = known.usage, usage_of_messages(update.messages)
    usage, summed = old, known.summed
    if "usage" in fields:
        usage, summed = fields["usage"], False
        fields["summed"] = False
    elif summed and added is not None:
        usage = added if old is None else add_usage(old, added)
        fields["usage"] = usage
    status = known.header.status if update.status is None else update.status.value
    header = RunHeader(
        status,
        at,
        at if RunStatus(status).terminal else None,
        *token_columns(usage),
        known.header.has_summary or any(message.kind == "summary" for message in update.messages),
    )
    counters = Counter(count_run(update.messages, None))
    if usage != old:
        counters.update(count_usage(usage) if usage else {})
        counters.subtract(count_usage(old) if old else {})
    counters[f"status/{known.header.status}"] -= 1
    counters[f"status/{status}"] += 1
    patch = PatchRun(
        update.run_id,
        known.revision,
        known.patch,
        header,
        parts_of_run(fields),
        rows_of_messages(update.messages, at, start=known.message_count, copies=copies),
        {name: count for name, count in counters.items() if count},
    )
    count = known.message_count + len(update.messages)
    after = replace(known, patch=known.patch + 1, header=header, usage=usage, summed=summed, message_count=count)
    return patch, after
