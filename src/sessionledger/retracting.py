"""Hiding runs and messages, and showing them again."""

from __future__ import annotations

from typing import Any, Final

from sessionledger.context import Context, Scope
from sessionledger.digest import canonical, digest
from sessionledger.ids import new_id
from sessionledger.lineage import View
from sessionledger.protocol.rows import FIRST, LAST, Change, Commit, Committed, Hide, Show
from sessionledger.reading import MessageReader, RunReader, begin, find_run, last_run_begun, pieces_of_view
from sessionledger.refusals import error_of, not_found, run_not_found
from sessionledger.retry import retried
from sessionledger.validate import check_count, check_id, check_one_of

__all__ = ["retract", "unretract"]

_Rectangle = tuple[tuple[int, int], tuple[int, int]]

_ALL: Final = (FIRST, LAST)
_NOTHING: Final[_Rectangle] = ((0, 0), (0, 0))


async def retract(
    context: Context, scope: Scope, session_id: str, given: dict[str, Any], operation_id: str | None
) -> str:
    which = check_one_of(given, tuple(given))
    value = given[which]
    if which in ("run_id", "from_run_id"):
        check_id(value, which)
    else:
        check_count(value, which, least=1)
    operation = operation_id or new_id()
    request = digest(canonical(("retract", which, value)))
    view = await retried(lambda: begin(context, scope, session_id))
    if view is None:
        raise not_found(session_id)
    ranges = await retried(lambda: _ranges(context, view, which, value))
    await _commit(context, scope, view, operation, request, Hide(ranges or [_NOTHING]))
    return operation


async def unretract(context: Context, scope: Scope, session_id: str, retract_id: str, operation_id: str | None) -> None:
    check_id(retract_id, "retract_id")
    view = await retried(lambda: begin(context, scope, session_id))
    if view is None:
        raise not_found(session_id)
    request = digest(canonical(("unretract", retract_id)))
    await _commit(context, scope, view, operation_id or new_id(), request, Show(retract_id))


async def _commit(context: Context, scope: Scope, view: View, operation: str, request: bytes, change: Change) -> None:
    key = scope.key(view.session_id)
    commit = Commit(
        key, operation, request, context.now(), (change,), owner=scope.user_id, incarnation=view.head.incarnation
    )
    outcome = await context.commit(commit)
    if not isinstance(outcome, Committed):
        raise error_of(outcome, commit)


async def _ranges(context: Context, view: View, which: str, value: Any) -> list[_Rectangle]:
    head = view.head
    if which == "run_id":
        seq = await _seq(context, view, value)
        return [(_ALL, (seq, seq))]
    if which == "from_run_id":
        return [(_ALL, (await _seq(context, view, value), head.run_count))]
    if which == "last_runs":
        seq = await _nth_last_run(context, view, value)
        return [(_ALL, (seq, head.run_count))] if seq else []
    position = value if which == "from_position" else await _nth_last_message(context, view, value)
    if not FIRST <= position <= head.message_count:
        return []
    ranges: list[_Rectangle] = [((position, head.message_count), _ALL)]
    seq = await last_run_begun(context, view, position - 1) + 1
    if seq <= head.run_count:
        ranges.append((_ALL, (seq, head.run_count)))
    return ranges


async def _seq(context: Context, view: View, run_id: str) -> int:
    found = await find_run(context, view, run_id)
    if found is None:
        raise run_not_found(view.session_id, run_id)
    return found[1][-1].seq


async def _nth_last_run(context: Context, view: View, count: int) -> int:
    """The seq from which on the last n visible top-level runs lie, with the runs that belong to them."""
    reader = RunReader(context, view, reverse=True, bodies=False)
    seq, parents = 0, set[str]()
    while batch := await reader.read(min(count + 1, context.limits.rows)):
        for placed in batch:
            row = placed.row
            top = row.parent_run_id is None
            if count == 0 and (top or row.parent_run_id not in parents):
                return seq
            seq = row.seq
            parents.add(row.run_id)
            count -= top
    return seq


async def _nth_last_message(context: Context, view: View, count: int) -> int:
    pieces = pieces_of_view(view, FIRST, view.head.message_count, reverse=True)
    reader = MessageReader(context, view, pieces, reverse=True)
    position = 0
    while count and (messages := await reader.read(min(count, context.limits.rows))):
        position = messages[-1].position or 0
        count -= len(messages)
    return position
