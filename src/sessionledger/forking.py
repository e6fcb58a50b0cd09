"""Forks: a new session that shares another one's beginning."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import msgspec

from sessionledger.codec import (
    header_of_session,
    link_of,
    run_from_row,
    session_from_row,
    state_of,
)
from sessionledger.context import Context, Scope
from sessionledger.counters import count_run, count_usage
from sessionledger.digest import canonical, digest
from sessionledger.errors import InvalidRecordError
from sessionledger.ids import derived_uuid, new_id
from sessionledger.lineage import View, resolve
from sessionledger.protocol.rows import (
    LAST,
    Commit,
    Committed,
    CountForks,
    Head,
    NewSession,
    RunRow,
    SessionKey,
    SessionRow,
)
from sessionledger.reading import (
    MessageReader,
    PlacedRun,
    find_run,
    last_rows,
    last_run_begun,
    pieces_of_run,
    pieces_of_view,
    readable,
)
from sessionledger.records import Session
from sessionledger.refusals import deleted, error_of, not_found, unknown_run
from sessionledger.retry import retried
from sessionledger.session_writes import SessionWrites
from sessionledger.validate import check_count, check_id

__all__ = ["fork"]

replace = msgspec.structs.replace


class _Point(NamedTuple):
    """Where a fork leaves: the last position and the last run that it shares."""

    position: int
    seq: int


async def fork(
    context: Context,
    scope: Scope,
    session_id: str,
    *,
    at: int | str | None,
    new_session_id: str | None,
    operation_id: str | None,
) -> Session:
    request = digest(canonical(("fork", session_id, at)))
    operation = operation_id or new_id()
    if new_session_id is None:
        new_session_id = new_id() if operation_id is None else derived_uuid("fork", session_id, operation_id)
    row = await retried(lambda: context.driver.session(scope.key(session_id), state=True))
    head = readable(scope, row.head if row is not None else None)
    if row is None or head is None:
        raise not_found(session_id)
    view = await retried(lambda: resolve(context, head))
    point = await retried(lambda: _point(context, view, at))
    counters = await retried(lambda: _counters(context, view, row, point))
    new = _session(context, row, point, counters)
    creation = Commit(
        scope.key(new_session_id),
        operation,
        request,
        new.created_at,
        (),
        create=new,
        must_create=True,
        owner=scope.user_id,
    )
    outcome = await _make(context, head, creation)
    if not await _shared(context, head):
        await SessionWrites(context, scope).undo(outcome.head)
        raise deleted(session_id, erased=True)
    stored = None
    if outcome.replayed:
        stored = await retried(lambda: context.driver.session(creation.key, state=True))
    return session_from_row(stored or SessionRow(outcome.head, new.header, new.state, counters))


def _session(context: Context, row: SessionRow, point: _Point, counters: dict[str, int]) -> NewSession:
    parent, now = session_from_row(row), context.now()
    return NewSession(
        header_of_session(replace(parent, updated_at=None), now),
        state_of(parent),
        row.head.user_id,
        now,
        link_of(row.head, point.position, point.seq),
        counters,
    )


async def _make(context: Context, parent: Head, creation: Commit) -> Committed:
    """First the parent learns of it, so that it can not be deleted for good between the two steps."""
    incarnation = await _incarnation(context, creation.key)
    guard = await _guarded(context, _guard(parent, creation, incarnation))
    outcome = await context.commit(creation)
    if not isinstance(outcome, Committed):
        await context.commit(_release(guard))
        raise error_of(outcome, creation)
    if outcome.head.incarnation != incarnation:
        # the id was taken and given up meanwhile, perhaps by this fork's own repetition, which took its guard along
        await context.commit(replace(_guard(parent, creation, outcome.head.incarnation), on_deleted=True))
    return outcome


async def _incarnation(context: Context, key: SessionKey) -> int:
    """That of the session that is there, or would be made."""
    row = await retried(lambda: context.driver.session(key, state=False))
    return 1 if row is None else row.head.incarnation + row.head.erased


def _guard(parent: Head, creation: Commit, incarnation: int) -> Commit:
    """One for each time that the fork is made: its erasure takes the guard away."""
    return Commit(
        parent.key,
        derived_uuid("guard", creation.operation_id, creation.key.session_id, str(incarnation)),
        creation.digest,
        creation.at,
        (CountForks(1),),
        owner=creation.owner,
        incarnation=parent.incarnation,
    )


async def _guarded(context: Context, guard: Commit) -> Commit:
    """The commit by which the parent counts the fork: this one, or one in its place."""
    while True:
        outcome = await context.commit(guard)
        if not isinstance(outcome, Committed):
            raise error_of(outcome, guard)
        if not outcome.replayed or await context.replay(_release(guard)) is None:
            return guard
        # an earlier try was refused and has given its guard back
        guard = replace(guard, operation_id=derived_uuid("guard again", guard.operation_id))


def _release(guard: Commit) -> Commit:
    return replace(
        guard,
        operation_id=derived_uuid("unguard", guard.operation_id),
        changes=(CountForks(-1),),
        on_deleted=True,
        owner=None,
    )


async def _shared(context: Context, parent: Head) -> bool:
    """Whether the parent is still there, now that the fork is found by whoever erases both.

    A parent that is softly deleted may be about to be erased by somebody who looked for forks before this one was
    made; a commit makes him look again, where he has not erased it yet.
    """
    row = await retried(lambda: context.driver.session(parent.key, state=False))
    if row is None or row.head.erased or row.head.incarnation != parent.incarnation:
        return False
    if row.head.deleted_at is None:
        return True
    sign = Commit(
        parent.key,
        new_id(),
        digest(b"shared"),
        context.now(),
        (CountForks(0),),
        on_deleted=True,
        incarnation=parent.incarnation,
    )
    return isinstance(await context.commit(sign), Committed)


async def _point(context: Context, view: View, at: int | str | None) -> _Point:
    head = view.head
    if at is None:
        return _Point(head.message_count, head.run_count)
    if isinstance(at, str):
        check_id(at, "at")
        return await _end_of_run(context, view, at)
    check_count(at, "at")
    if at > head.message_count:
        raise InvalidRecordError(
            f"at is {at}, behind the session's last position {head.message_count}: give one up to it", path="at"
        )
    return _Point(at, await last_run_begun(context, view, at))


async def _end_of_run(context: Context, view: View, run_id: str) -> _Point:
    found = await find_run(context, view, run_id)
    if found is None:
        raise unknown_run(view.session_id, run_id, "give one of its runs")
    row = found[1][-1]
    pieces = pieces_of_run(view, PlacedRun(found[0], row))
    return _Point(pieces[-1].last if pieces else min(row.last_position, view.head.message_count), row.seq)


async def _counters(context: Context, view: View, row: SessionRow, point: _Point) -> dict[str, int]:
    """The session's counters without what lies behind the point; it costs what is left out, not what is shared.

    A run that is shared in part counts with its whole usage.
    """
    total = Counter(dict(row.counters))
    if point == (view.head.message_count, view.head.run_count):
        return dict(total)
    pieces = pieces_of_view(view, point.position + 1, LAST, reverse=False)
    reader = MessageReader(context, view, pieces, include_hidden=True)
    while messages := await reader.read(context.limits.rows):
        for name, count in count_run(messages, None).items():
            total[name] -= count
    for layer in reversed(view.layers):
        first = layer.first_seq if layer.has_hidden else max(layer.first_seq, point.seq + 1)
        last = layer.last_seq
        while last >= first:
            rows = await last_rows(context, layer.key, first, last, bodies=True)
            _leave_out(total, [row for row in rows if layer.knows(row)], point)
            last = rows[-1].seq - 1 if rows else 0
    # an inherited run that went on since it was counted takes away more than it brought
    return {name: count for name, count in total.items() if count > 0 or (count and name.startswith("cost/"))}


def _leave_out(total: Counter[str], rows: list[RunRow], point: _Point) -> None:
    """Rows come newest revision first."""
    by_seq: dict[int, list[RunRow]] = {}
    for row in rows:
        by_seq.setdefault(row.seq, []).append(row)
    for seq, revisions in by_seq.items():
        gone = [r for r in revisions if seq > point.seq or min(r.first_position, r.last_position) > point.position]
        kept = [r for r in revisions if r not in gone]
        for row in gone:
            usage = run_from_row(row, "").usage
            for name, count in count_usage(usage).items() if usage is not None else ():
                total[name] -= count
        if gone:
            total[f"status/{revisions[0].header.status}"] -= 1
            if kept:
                total[f"status/{kept[0].header.status}"] += 1
