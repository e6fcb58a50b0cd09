"""What the cursors walk over: messages, runs, sessions and switches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import islice

import msgspec

from sessionledger.codec import message_count_of, run_from_row, session_from_row, switch_from_row, to_micros
from sessionledger.context import Context, Scope
from sessionledger.lineage import View, resolve, watch_session
from sessionledger.protocol.rows import (
    FIRST,
    LAST,
    Head,
    MessageQuery,
    Place,
    RunSearch,
    SessionPage,
    SessionQuery,
    SwitchPage,
    SwitchQuery,
    SwitchRow,
)
from sessionledger.reading import (
    MessageReader,
    Piece,
    PlacedRun,
    RunReader,
    begin,
    find_run,
    pieces_of_run,
    pieces_of_runs,
    pieces_of_view,
    readable,
)
from sessionledger.records import AgentSwitch, Message, Run, Session
from sessionledger.retry import retried
from sessionledger.token import encode_token

__all__ = ["MessageWalk", "RunSearchWalk", "RunWalk", "SessionWalk", "SwitchWalk"]

replace = msgspec.structs.replace


class MessageWalk:
    """Messages by position, between two of them, both exclusive."""

    def __init__(
        self,
        context: Context,
        scope: Scope,
        session_id: str,
        *,
        after: int = 0,
        before: int = LAST,
        last: int | None = None,
        limit: int | None = None,
        roles: Collection[str] | None = None,
        run_id: str | None = None,
        reverse: bool = False,
        include_retracted: bool = False,
    ) -> None:
        self._context, self._scope, self._session_id = context, scope, session_id
        self._first, self._end = after + 1, before - 1
        self._last, self._left = last, limit if last is None else last
        self._roles = None if roles is None else frozenset(roles)
        self._run_id, self._reverse, self._include_retracted = run_id, reverse, include_retracted
        self._reader: MessageReader | None = None
        self.done = self._first > self._end or self._left == 0

    def token(self, item: Message) -> str:
        return encode_token("messages", _over(self._scope, self._session_id), item.position)

    async def fetch(self, want: int) -> Sequence[Message]:
        if self.done:
            return ()
        if self._left is not None and self._roles is None:
            want = min(want, self._left)
        if self._reader is None:
            messages = await retried(lambda: self._begin(want))
        else:
            messages = await self._read(want)
        if self._left is not None:
            messages = messages[: self._left]
            self._left -= len(messages)
            self.done = self.done or self._left == 0
        self.done = self.done or not messages or (self._reader is not None and self._reader.done)
        return messages

    async def _begin(self, want: int) -> Sequence[Message]:
        if self._run_id is not None:
            return await self._begin_run(want, self._run_id)
        backwards = self._reverse or self._last is not None
        first, last = max(FIRST, self._first), min(LAST, self._end)
        # the head comes with the first page: a session that is no fork needs one round trip in all
        query = MessageQuery(
            self._scope.key(self._session_id), ((first, last),), want, self._context.limits.bytes, backwards
        )
        page = await self._context.driver.messages(query)
        head = readable(self._scope, page.head)
        if head is None:
            self.done = True
            return ()
        view = await resolve(self._context, head)
        reader = self._read_view(view, first, last, reverse=backwards)
        at_hand = len(view.layers) == 1 and head.message_count >= first
        messages = await reader.take(0, 1, page) if at_hand else []
        found = self._filtered(messages)
        if self._last is not None and not self._reverse:
            if len(found) >= self._last or (at_hand and reader.done):
                # what was read backwards is all that was asked for
                self.done = True
                return found[: self._last][::-1]
            return await self._turn_round(view, reader, found)
        self._reader = reader
        return found or await self._read(want)

    async def _begin_run(self, want: int, run_id: str) -> Sequence[Message]:
        view = await begin(self._context, self._scope, self._session_id)
        pieces = [] if view is None else await self._pieces_of(view, run_id)
        if view is None or not pieces:
            self.done = True
            return ()
        backwards = self._reverse or self._last is not None
        reader = self._make_reader(view, pieces[::-1] if backwards else pieces, reverse=backwards)
        if self._last is not None and not self._reverse:
            return await self._turn_round(view, reader, [])
        self._reader = reader
        return await self._read(want)

    async def _pieces_of(self, view: View, run_id: str) -> list[Piece]:
        """The positions of a run: of the revision that shows, or of all with `include_retracted`."""
        found = await find_run(self._context, view, run_id)
        if found is None:
            return []
        layer, rows = found
        shown = rows if self._include_retracted else rows[-1:]
        pieces = [piece for row in shown for piece in pieces_of_run(view, PlacedRun(layer, row))]
        clipped = [Piece(layer, max(p.first, self._first), min(p.last, self._end)) for p in pieces]
        return [piece for piece in clipped if piece.first <= piece.last]

    def _read_view(self, view: View, first: int, last: int, *, reverse: bool) -> MessageReader:
        return self._make_reader(view, pieces_of_view(view, first, last, reverse=reverse), reverse=reverse)

    def _make_reader(self, view: View, pieces: Sequence[Piece], *, reverse: bool) -> MessageReader:
        return MessageReader(self._context, view, pieces, reverse=reverse, include_hidden=self._include_retracted)

    async def _turn_round(self, view: View, reader: MessageReader, found: list[Message]) -> Sequence[Message]:
        """The last n, oldest first: go back until there are n; hand them out if they are few, else walk on from
        there.
        """
        assert self._last is not None
        tail: deque[Message] = deque(found, maxlen=self._context.limits.rows)
        count = len(found)
        while count < self._last:
            batch = await reader.read(min(self._last - count, self._context.limits.rows))
            if not batch:
                break
            wanted = self._filtered(batch)
            count += len(wanted)
            tail.extend(wanted)
        if not tail:
            self.done = True
            return ()
        if count <= len(tail):
            self._left = min(self._last, count)
            self._reader = self._make_reader(view, (), reverse=False)
            kept = list(tail)[: self._last]
            return kept[::-1]
        surplus = max(0, count - self._last)
        start = list(tail)[-1 - surplus].position
        assert start is not None
        if self._run_id is None:
            pieces = pieces_of_view(view, start, min(LAST, self._end), reverse=False)
        else:
            pieces = [p for p in await self._pieces_of(view, self._run_id) if p.last >= start]
            pieces[0] = Piece(pieces[0].layer, max(start, pieces[0].first), pieces[0].last)
        self._reader = self._make_reader(view, pieces, reverse=False)
        return await self._read(self._context.limits.rows)

    async def _read(self, want: int) -> Sequence[Message]:
        assert self._reader is not None
        reader = self._reader
        while True:
            messages = await retried(lambda: reader.read(want))
            found = self._filtered(messages)
            if found or not messages:
                return found

    def _filtered(self, messages: list[Message]) -> list[Message]:
        roles = self._roles
        return messages if roles is None else [message for message in messages if message.role in roles]


class RunWalk:
    """Runs of one session by seq, between two of them, both exclusive."""

    def __init__(
        self,
        context: Context,
        scope: Scope,
        session_id: str,
        *,
        after: int = 0,
        before: int = LAST,
        last: int | None = None,
        passes: Callable[[Run], bool],
        reverse: bool = False,
        include_messages: bool = False,
    ) -> None:
        self._context, self._scope, self._session_id = context, scope, session_id
        self._after, self._before, self._last = after, before, last
        self._passes, self._reverse, self._include_messages = passes, reverse, include_messages
        self._view: View | None = None
        self._reader: RunReader | None = None
        self._ready: deque[tuple[PlacedRun, Run]] = deque()
        self._left = last
        self.done = last == 0
        self._message_bytes = 0.0

    def token(self, item: Run) -> str:
        return encode_token("runs", _over(self._scope, self._session_id), item.seq)

    async def fetch(self, want: int) -> Sequence[Run]:
        if self.done:
            return ()
        if self._reader is None:
            self._view = await retried(lambda: begin(self._context, self._scope, self._session_id))
            if self._view is None:
                self.done = True
                return ()
            view = self._view
            await retried(lambda: self._start(view))
        if self._left is not None:
            want = min(want, self._left)
        found = await self._next(want)
        if self._include_messages:
            found = await self._with_messages(found)
        for _ in found:
            self._ready.popleft()
        if self._left is not None:
            self._left -= len(found)
        self.done = not found or self._left == 0
        return [run for _, run in found]

    async def _start(self, view: View) -> None:
        after = self._after
        if self._last is not None and not self._reverse:
            after = await self._before_last(view, self._last)
        self._reader = RunReader(self._context, view, first=after + 1, last=self._before - 1, reverse=self._reverse)

    async def _before_last(self, view: View, last: int) -> int:
        """The seq behind which the last n that pass begin."""
        reader = RunReader(self._context, view, first=self._after + 1, last=self._before - 1, reverse=True)
        seq, count = 0, 0
        while count < last and (batch := await reader.read(min(last - count, self._context.limits.rows))):
            for placed in batch:
                if count < last and self._passes(self._run(placed)):
                    seq, count = placed.row.seq, count + 1
        return seq - 1 if seq else LAST

    async def _next(self, want: int) -> list[tuple[PlacedRun, Run]]:
        """The first of those that are ready; they stay there until all of them is at hand."""
        assert self._reader is not None
        reader = self._reader
        while not self._ready:
            batch = await retried(lambda: reader.read(want))
            if not batch:
                return []
            runs = [(placed, self._run(placed)) for placed in batch]
            self._ready.extend(item for item in runs if self._passes(item[1]))
        found: list[tuple[PlacedRun, Run]] = []
        budget = self._budget()
        for placed, run in islice(self._ready, want):
            budget -= run.message_count or 0
            if found and budget < 0:
                break
            found.append((placed, run))
        return found

    def _budget(self) -> int:
        """How many messages the next page may bring: by rows and, going by those that came, by bytes."""
        limits = self._context.limits
        if not self._include_messages:
            return LAST
        return limits.rows if not self._message_bytes else min(limits.rows, int(limits.bytes / self._message_bytes))

    def _run(self, placed: PlacedRun) -> Run:
        assert self._view is not None
        layer = self._view.layers[placed.layer]
        count = sum(last - first + 1 for first, last in layer.segments(placed.row))
        return run_from_row(placed.row, self._session_id, message_count=count)

    async def _with_messages(self, found: list[tuple[PlacedRun, Run]]) -> list[tuple[PlacedRun, Run]]:
        assert self._view is not None
        view = self._view
        by_run: dict[int, list[Message]] = {}
        reader = MessageReader(self._context, view, pieces_of_runs(view, [placed for placed, _ in found]))
        while messages := await retried(lambda: reader.read(self._context.limits.rows)):
            for message in messages:
                assert message.run_seq is not None
                by_run.setdefault(message.run_seq, []).append(message)
            self._message_bytes = max(self._message_bytes, _weight(messages))
        return [(placed, replace(run, messages=tuple(by_run.get(placed.row.seq, ())))) for placed, run in found]


def _weight(messages: Sequence[Message]) -> float:
    """Bytes of a message, roughly: of the text that it holds."""
    sizes = [len(m.content) if isinstance(m.content, str) else len(msgspec.json.encode(m.content)) for m in messages]
    return max(1.0, sum(sizes) / len(sizes))


class SessionWalk:
    """Sessions by activity. `query` has the filters; its limit and place are the walk's."""

    def __init__(self, context: Context, query: SessionQuery, over: str) -> None:
        self._context, self._query, self._over = context, query, over
        self._begun, self.done = False, False

    def token(self, item: Session) -> str:
        return encode_token("sessions", self._over, _place(item))

    async def fetch(self, want: int) -> Sequence[Session]:
        if self.done:
            return ()
        if not self._begun and self._query.reverse:
            await self._fix_end()
        self._begun = True
        page = await self._page(replace(self._query, limit=want))
        self.done = not page.more
        sessions = [session_from_row(row) for row in page.rows]
        if sessions:
            self._query = replace(self._query, after=_place(sessions[-1]))
        return sessions

    async def _page(self, query: SessionQuery) -> SessionPage:
        return await retried(lambda: self._context.driver.sessions(query))

    async def _fix_end(self) -> None:
        """Going up in time, a session that is active meanwhile would come a second time: end where the newest is
        now.
        """
        page = await self._page(replace(self._query, limit=1, reverse=False, after=None))
        if page.rows:
            newest = page.rows[0].head.last_activity_at
            self._query = replace(self._query, active_before=newest + 1)


def _place(session: Session) -> Place:
    assert session.last_activity_at is not None
    return to_micros(session.last_activity_at), session.session_id


class RunSearchWalk:
    """Runs of all sessions, in the storage's order."""

    def __init__(self, context: Context, search: RunSearch, over: str) -> None:
        self._context, self._search, self._over = context, search, over
        self._places: dict[tuple[str, str], str] = {}
        self.done = False

    def token(self, item: Run) -> str:
        assert item.run_id is not None
        return encode_token("run-search", self._over, self._places[item.session_id, item.run_id])

    async def fetch(self, want: int) -> Sequence[Run]:
        if self.done:
            return ()
        search = replace(self._search, limit=want, max_bytes=self._context.limits.bytes)
        found = await retried(lambda: self._context.driver.find_runs(search))
        runs = [
            run_from_row(row, head.key.session_id, message_count=message_count_of(row)) for head, row, _ in found.rows
        ]
        # the item that was handed out last may be that of the page before
        self._places = dict(list(self._places.items())[-1:])
        self._places.update({(head.key.session_id, row.run_id): place for head, row, place in found.rows})
        self.done = not found.more
        if found.rows:
            self._search = replace(self._search, after=found.rows[-1][2])
        return runs


class SwitchWalk:
    """Switches by version: all, or the last n."""

    def __init__(self, context: Context, scope: Scope, session_id: str, last: int | None) -> None:
        self._context, self._scope, self._session_id, self._last = context, scope, session_id, last
        self._key = scope.key(session_id)
        self._from, self._until = 0, LAST
        self._head: Head | None = None  #: as it was when the walk began
        self.done = last == 0

    def token(self, item: AgentSwitch) -> str:
        assert item.switch_id is not None
        return encode_token("switches", _over(self._scope, self._session_id), item.switch_id)

    async def fetch(self, want: int) -> Sequence[AgentSwitch]:
        if self.done:
            return ()
        rows: Sequence[SwitchRow] = ()
        if self._head is None and self._last is not None:
            rows = await retried(self._go_back)
        if not rows and not self.done:
            rows = await retried(lambda: self._go_on(want))
        return [switch_from_row(row) for row in rows]

    async def _go_on(self, want: int) -> Sequence[SwitchRow]:
        page = await self._page(self._head, SwitchQuery(self._key, want, self._from, self._until))
        if self._head is None and page.head is not None:
            self._head, self._until = page.head, page.head.version
        if page.rows:
            self._from = page.rows[-1].version + 1
        self.done = not page.more
        return page.rows

    async def _go_back(self) -> Sequence[SwitchRow]:
        """The last n when they are few; else nothing, and the walk goes on from where they begin."""
        assert self._last is not None
        head, until, left, most = None, LAST, self._last, self._context.limits.rows
        while True:
            page = await self._page(head, SwitchQuery(self._key, min(left, most), 0, until, reverse=True))
            left -= len(page.rows)
            if page.head is None or (head is None and not (left and page.more)):
                self.done = True
                return page.rows[::-1]
            head = head or page.head
            until = page.rows[-1].version - 1 if page.rows else 0
            if not left or not page.more:
                self._head, self._from, self._until = head, until + 1, head.version
                return ()

    async def _page(self, begun: Head | None, query: SwitchQuery) -> SwitchPage:
        """A page of the session with which the walk began; without a head where there is nothing to read."""
        page = await self._context.driver.switches(query)
        if begun is not None:
            watch_session(query.key, begun.incarnation, page.head)
        elif readable(self._scope, page.head) is None:
            return SwitchPage(None, (), False)
        return page


def _over(scope: Scope, session_id: str) -> str:
    return msgspec.json.encode((scope.namespace, session_id)).decode()
