"""One session, run or message, by its id."""

from __future__ import annotations

from sessionledger.codec import parse_derived_id, run_from_row, session_from_row
from sessionledger.context import Context, Scope
from sessionledger.errors import ConflictError
from sessionledger.lineage import View
from sessionledger.protocol.rows import FIRST, LAST, RunSearch, SessionRow
from sessionledger.reading import (
    MessageReader,
    Piece,
    PlacedRun,
    begin,
    find_run,
    pieces_of_run,
    pieces_of_view,
    readable,
)
from sessionledger.records import Message, Run, Session
from sessionledger.refusals import not_found
from sessionledger.retry import retried
from sessionledger.validate import is_text

__all__ = ["get_message", "get_run", "get_session", "live_session"]

_MANY_SESSIONS = 10  #: that an ambiguous run_id's error names, at most


async def get_session(context: Context, scope: Scope, session_id: str) -> Session | None:
    row = await retried(lambda: context.driver.session(scope.key(session_id), state=True))
    if row is None or scope.visible(row.head) is None or row.head.deleted_at is not None:
        return None
    return session_from_row(row)


async def live_session(context: Context, scope: Scope, session_id: str) -> SessionRow:
    row = await retried(lambda: context.driver.session(scope.key(session_id), state=False))
    if row is None or readable(scope, row.head) is None:
        raise not_found(session_id)
    return row


async def get_run(
    context: Context, scope: Scope, run_id: str, session_id: str | None, revision: int | None
) -> Run | None:
    if session_id is None:
        session_id = await retried(lambda: _session_of(context, scope, run_id))
        if session_id is None:
            return None
    view = await retried(lambda: begin(context, scope, session_id, none_if_deleted=True))
    found = None if view is None else await retried(lambda: find_run(context, view, run_id))
    if view is None or found is None:
        return None
    index, rows = found
    row = rows[-1] if revision is None else next((row for row in rows if row.revision == revision), None)
    if row is None:
        return None
    reader = MessageReader(context, view, pieces_of_run(view, PlacedRun(index, row)), include_hidden=True)
    messages: list[Message] = []
    while batch := await retried(lambda: reader.read(context.limits.rows)):
        messages += batch
    return run_from_row(row, view.session_id, messages, message_count=len(messages))


async def _session_of(context: Context, scope: Scope, run_id: str) -> str | None:
    sessions, more, after = list[str](), True, None
    while more and len(sessions) < _MANY_SESSIONS:
        many, size = _MANY_SESSIONS - len(sessions), context.limits.bytes
        found = await context.driver.find_runs(
            RunSearch(scope.namespace, many, size, scope.user_id, run_id, after=after)
        )
        sessions += [head.key.session_id for head, _, _ in found.rows]
        more, after = found.more, found.rows[-1][2] if found.rows else after
    if len(sessions) > 1:
        names = ", ".join(map(repr, sessions)) + (" …" if more else "")
        raise ConflictError(f"run_id {run_id!r} is in the sessions {names}: name one of them", sessions=sessions)
    return sessions[0] if sessions else None


async def get_message(context: Context, scope: Scope, session_id: str, message_id: str) -> Message | None:
    if not is_text(message_id) or "\0" in message_id:
        # no message has such an id, and no storage can be asked for it
        return None
    view = await retried(lambda: begin(context, scope, session_id, none_if_deleted=True))
    if view is None:
        return None
    given = await retried(lambda: _given(context, view, message_id))
    return given or await retried(lambda: _derived(context, view, message_id))


async def _given(context: Context, view: View, message_id: str) -> Message | None:
    """The last visible message that was given that id."""
    pieces = pieces_of_view(view, FIRST, LAST, reverse=True)
    reader = MessageReader(context, view, pieces, reverse=True, message_id=message_id)
    messages = await reader.read(context.limits.rows)
    return messages[0] if messages else None


async def _derived(context: Context, view: View, message_id: str) -> Message | None:
    place = parse_derived_id(message_id)
    if place is None:
        return None
    run_id, revision, index = place
    found = await find_run(context, view, run_id)
    row = next((row for row in found[1] if row.revision == revision), None) if found else None
    if found is None or row is None:
        return None
    for piece in pieces_of_run(view, PlacedRun(found[0], row)):
        if index <= piece.last - piece.first:
            position = piece.first + index
            messages = await MessageReader(context, view, [Piece(found[0], position, position)]).read(1)
            return next((message for message in messages if message.message_id == message_id), None)
        index -= piece.last - piece.first + 1
    return None
