"""Pages of a view's messages and runs: what lies in it, without what is hidden. The walks are made of these."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import anyio
import anyio.lowlevel
import msgspec

from sessionledger.codec import messages_from_rows
from sessionledger.context import Context, Scope
from sessionledger.lineage import Hiding, View, resolve, watch
from sessionledger.protocol.rows import FIRST, LAST, Head, MessagePage, MessageQuery, RunQuery, RunRow, SessionKey
from sessionledger.records import Message
from sessionledger.refusals import deleted
from sessionledger.waiting import Waiter

__all__ = [
    "MessageReader",
    "Piece",
    "PlacedRun",
    "RunReader",
    "begin",
    "pieces_of_run",
    "pieces_of_runs",
    "pieces_of_view",
]

_MAX_RANGES: Final = 64  #: of one query


class Piece(NamedTuple):
    """A range of positions in one layer of a view."""

    layer: int
    first: int
    last: int


class PlacedRun(NamedTuple):
    layer: int
    row: RunRow


def readable(scope: Scope, head: Head | None) -> Head | None:
    """The head of a session that a read is about; None where there is nothing to read."""
    head = scope.visible(head)
    if head is not None and head.deleted_at is not None:
        raise deleted(head.key.session_id, erased=False)
    return head


async def begin(context: Context, scope: Scope, session_id: str, *, none_if_deleted: bool = False) -> View | None:
    """The view of a session as it is now; None where there is nothing to read."""
    row = await context.driver.session(scope.key(session_id), state=False)
    head = row.head if row else None
    if none_if_deleted and head is not None and head.deleted_at is not None:
        return None
    head = readable(scope, head)
    if row is None or head is None:
        return None
    return msgspec.structs.replace(await resolve(context, head), counters=row.counters)


def pieces_of_view(view: View, first: int, last: int, *, reverse: bool) -> list[Piece]:
    """Positions `first` to `last`, in reading order."""
    pieces = [
        Piece(index, max(first, layer.first_position), min(last, layer.last_position))
        for index, layer in enumerate(view.layers)
    ]
    pieces = [piece for piece in pieces if piece.first <= piece.last]
    return pieces[::-1] if reverse else pieces


def pieces_of_run(view: View, run: PlacedRun) -> list[Piece]:
    return [Piece(run.layer, first, last) for first, last in view.layers[run.layer].segments(run.row)]


def pieces_of_runs(view: View, runs: Iterable[PlacedRun]) -> list[Piece]:
    """Of many runs, one after the other. Most lie right behind one another, and make few pieces."""
    pieces: list[Piece] = []
    held, start, end = -1, 0, 0
    for index, row in runs:
        for first, last in view.layers[index].segments(row):
            if index == held and first == end + 1:
                end = last
                continue
            if held >= 0:
                pieces.append(Piece(held, start, end))
            held, start, end = index, first, last
    return [*pieces, Piece(held, start, end)] if held >= 0 else pieces


class MessageReader:
    """Messages of some pieces of a view, in the order of the pieces."""

    def __init__(
        self,
        context: Context,
        view: View,
        pieces: Iterable[Piece],
        *,
        reverse: bool = False,
        include_hidden: bool = False,
        message_id: str | None = None,
    ) -> None:
        """With `message_id`: only messages that were given that id."""
        self._context, self._view = context, view
        self._pieces = deque(_joined(pieces, reverse))
        self._reverse, self._include_hidden, self._message_id = reverse, include_hidden, message_id
        self._begun = False
        self._ahead: tuple[MessageQuery, Waiter[MessagePage]] | None = None

    @property
    def done(self) -> bool:
        return not self._pieces

    def add(self, pieces: Iterable[Piece]) -> None:
        """Behind all others."""
        self._pieces.extend(_joined(pieces, self._reverse))

    async def read(self, want: int) -> list[Message]:
        """At least one message; none at the end."""
        while self._pieces:
            query = self._query(self._pieces, want)
            index = self._pieces[0].layer
            page = await self._page(query)
            watch(self._view, index, page.head)
            messages = await self.take(index, len(query.ranges), page, want)
            if messages:
                return messages
        return []

    async def take(self, index: int, ranges: int, page: MessagePage, want: int | None = None) -> list[Message]:
        """What shows of a page that was read of the first `ranges` pieces. A failure leaves the reader where it was.

        `want`: the next page will be asked for that many.
        """
        layer, rows = self._view.layers[index], page.rows
        if index < len(self._view.layers) - 1:
            rows = [row for row in rows if layer.own(row)]
        if not self._include_hidden:
            hiding = await Hiding.of_messages(self._context, self._view, index, rows)
            if not hiding.nothing:
                rows = [row for row in rows if not hiding.hides(row)]
        rest = self._behind(ranges, page)
        if want is not None and rest:
            await self._look_ahead(self._query(rest, want))
        self._pieces = rest
        return messages_from_rows(rows, page.run_ids, layer.key.session_id)

    async def _page(self, query: MessageQuery) -> MessagePage:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == query:
            return await ahead[1].wait()
        return await self._context.driver.messages(query)

    async def _look_ahead(self, query: MessageQuery) -> None:
        """Whoever has taken a second page, or collects, takes the next: it is looked up while this one is made into
        messages.
        """
        collects = query.limit > self._context.limits.rows
        if (self._begun or collects) and self._context.driver.info.reads_ahead:
            self._ahead = (query, self._context.read_ahead(lambda: self._context.driver.messages(query)))
            # so that it is sent before anything else is done
            await anyio.lowlevel.checkpoint()
        self._begun = True

    def _query(self, pieces: Iterable[Piece], want: int) -> MessageQuery:
        """Of the first pieces that lie in one layer."""
        ranges: list[tuple[int, int]] = []
        index: int | None = None
        for piece in pieces:
            if index not in (None, piece.layer) or len(ranges) == _MAX_RANGES:
                break
            index = piece.layer
            ranges.append((piece.first, piece.last))
        assert index is not None
        key, limits = self._view.layers[index].key, self._context.limits
        return MessageQuery(key, ranges, want, limits.bytes, self._reverse, self._message_id)

    def _behind(self, ranges: int, page: MessagePage) -> deque[Piece]:
        """The pieces, or parts of them, that come after a page."""
        rest = self._pieces.copy()
        if not page.more or not page.rows:
            for _ in range(ranges):
                rest.popleft()
            return rest
        position = page.rows[-1].position
        while not rest[0].first <= position <= rest[0].last:
            rest.popleft()
        layer, first, last = rest.popleft()
        left = Piece(layer, first, position - 1) if self._reverse else Piece(layer, position + 1, last)
        if left.first <= left.last:
            rest.appendleft(left)
        return rest


def _joined(pieces: Iterable[Piece], reverse: bool) -> Iterator[Piece]:
    """Neighbours are one piece."""
    held: Piece | None = None
    for piece in pieces:
        if held is None:
            held = piece
        elif held.layer == piece.layer and not reverse and held.last == piece.first - 1:
            held = Piece(held.layer, held.first, piece.last)
        elif held.layer == piece.layer and reverse and piece.last == held.first - 1:
            held = Piece(held.layer, piece.first, held.last)
        else:
            yield held
            held = piece
    if held is not None:
        yield held


class RunReader:
    """The visible revision of each run of a view, by seq; without runs that are hidden."""

    def __init__(
        self,
        context: Context,
        view: View,
        *,
        first: int = FIRST,
        last: int = LAST,
        reverse: bool = False,
        bodies: bool = True,
        plain: Sequence[str] = (),
    ) -> None:
        """`plain`: as `RunQuery` has it."""
        self._context, self._view, self._plain = context, view, plain
        self._first, self._last = first, min(last, view.head.run_count)
        self._reverse, self._bodies = reverse, bodies

    async def read(self, want: int) -> list[PlacedRun]:
        """At least one run; none at the end."""
        while self._first <= self._last:
            index = self._view.of_seq(self._last if self._reverse else self._first)
            found = await self._read_layer(index, want)
            if found:
                return found
        return []

    async def _read_layer(self, index: int, want: int) -> list[PlacedRun]:
        layer, limit, size = self._view.layers[index], want, self._context.limits.bytes
        first, last = max(self._first, layer.first_seq), min(self._last, layer.last_seq)
        while True:
            query = RunQuery(
                layer.key, limit, size, self._bodies, first, last, reverse=self._reverse, plain=self._plain
            )
            page = await self._context.driver.runs(query)
            watch(self._view, index, page.head)
            if not layer.has_hidden and all(row.revision == 1 for row in page.rows):
                # no run that the view knows was ever revised
                rows = [row for row in page.rows if layer.knows(row)]
                return self._go_on(page.rows, page.more, await self._showing(index, rows))
            groups = [list(group) for _, group in groupby(page.rows, key=lambda row: row.seq)]
            if page.more and not self._decided(index, groups[-1]):
                # the page may have ended between two revisions of its last run
                if len(groups) == 1:
                    limit, size = limit * 4, size * 4
                    continue
                groups.pop()
            break
        return self._go_on(groups[-1] if groups else (), page.more, await self._visible(index, groups))

    def _go_on(self, rows: Sequence[RunRow], more: bool, found: list[PlacedRun]) -> list[PlacedRun]:
        """Move behind the last of these rows or, when there were no more, behind the layer."""
        if more:
            end = rows[-1].seq
        else:
            layer = self._view.layers[self._view.of_seq(self._last if self._reverse else self._first)]
            end = layer.first_seq if self._reverse else layer.last_seq
        if self._reverse:
            self._last = end - 1
        else:
            self._first = end + 1
        return found

    def _decided(self, index: int, group: Sequence[RunRow]) -> bool:
        return self._reverse and self._view.layers[index].knows(group[0])

    async def _visible(self, index: int, groups: Sequence[Sequence[RunRow]]) -> list[PlacedRun]:
        newest = map(self._view.layers[index].newest, groups)
        return await self._showing(index, [row for row in newest if row is not None])

    async def _showing(self, index: int, rows: Sequence[RunRow]) -> list[PlacedRun]:
        """Those that neither the layer nor one above it hides."""
        hiding = await Hiding.of_runs(self._context, self._view, index, rows)
        return [PlacedRun(index, row) for row in rows if not hiding.hides_run(row)]


async def find_run(context: Context, view: View, run_id: str) -> tuple[int, list[RunRow]] | None:
    """The revisions of a run that a view knows, oldest first, and the layer that has them; the session's own come
    first.
    """
    for index in range(len(view.layers) - 1, -1, -1):
        rows = await revisions(context, view, index, run_id)
        if rows:
            return index, rows
    return None


async def revisions(context: Context, view: View, index: int, run_id: str) -> list[RunRow]:
    layer = view.layers[index]
    rows: list[RunRow] = []
    query = RunQuery(layer.key, context.limits.rows, context.limits.bytes, run_id=run_id)
    while True:
        page = await context.driver.runs(query)
        watch(view, index, page.head)
        rows += [row for row in page.rows if layer.knows(row) and row.revision > (rows[-1].revision if rows else 0)]
        if not page.more:
            return rows
        query = RunQuery(layer.key, query.limit * 4, query.max_bytes * 4, run_id=run_id)


async def last_run_begun(context: Context, view: View, position: int) -> int:
    """The seq of the last run that began at a position or before: seqs and first positions grow together."""
    for layer in reversed(view.layers):
        last = layer.last_seq
        while last >= layer.first_seq:
            rows = await last_rows(context, layer.key, layer.first_seq, last, bodies=False)
            for row in rows:
                if row.revision == 1 and row.first_position <= position:
                    return row.seq
            last = rows[-1].seq - 1 if rows else 0
    return 0


async def last_rows(context: Context, key: SessionKey, first: int, last: int, *, bodies: bool) -> list[RunRow]:
    """Some of the last revisions up to a seq, latest first, never a part of a run's."""
    limit, size = context.limits.rows, context.limits.bytes
    while True:
        page = await context.driver.runs(RunQuery(key, limit, size, bodies, first, last, reverse=True))
        rows = list(page.rows)
        if not page.more:
            return rows
        whole = [row for row in rows if row.seq > rows[-1].seq]
        if whole:
            return whole
        limit, size = limit * 4, size * 4
