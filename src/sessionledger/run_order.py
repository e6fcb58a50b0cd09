"""The places of a session's messages in the order of its runs, of which most need no look.

A run that was stored as a whole, and is over, has its messages in one piece, and such pieces follow each other as their
runs do. So only the other runs are read: what lies between them is all of the plain ones. The session's counters tell
whether there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Final

from sessionledger.context import Context
from sessionledger.counters import all_are_plain
from sessionledger.lineage import View
from sessionledger.protocol.rows import FIRST
from sessionledger.reading import Piece, PlacedRun, RunReader, pieces_of_runs

__all__ = ["PlainOrder", "SelectedRuns"]

_WINDOW: Final = 1000  #: runs that are looked through at once


class SelectedRuns:
    """Reads every run: where some may be hidden, or stand in another session, or only some are asked for."""

    def __init__(
        self, context: Context, view: View, selects: Callable[[PlacedRun], bool], first: int, last: int
    ) -> None:
        self._view, self._selects, self._want = view, selects, context.limits.rows
        self._runs = RunReader(context, view, first=first, last=last, bodies=False)

    async def read(self) -> list[Piece] | None:
        """Of the next runs; None at the end."""
        batch = await self._runs.read(self._want)
        return pieces_of_runs(self._view, filter(self._selects, batch)) if batch else None


class PlainOrder:
    """Reads runs of one session that has hidden nothing yet, but those that are plain and of these statuses."""

    def __init__(
        self, context: Context, view: View, selects: Callable[[PlacedRun], bool], statuses: Sequence[str]
    ) -> None:
        self._context, self._view, self._layer = context, view, view.own
        self._selects, self._statuses = selects, statuses
        self._all_plain = all_are_plain(view.counters, view.head.run_count, statuses)
        self._seq, self._position = FIRST, FIRST
        self._others: list[tuple[int, int]] = []  #: pieces of runs that are no plain ones, from the position on

    async def read(self) -> list[Piece] | None:
        """Of the next runs; None at the end."""
        if self._seq > self._layer.last_seq:
            return None
        if self._all_plain:
            self._seq = self._layer.last_seq + 1
            return self._plain(self._layer.last_position)
        last = min(self._seq + _WINDOW - 1, self._layer.last_seq)
        runs = RunReader(self._context, self._view, first=self._seq, last=last, bodies=False, plain=self._statuses)
        found: list[PlacedRun] = []
        while batch := await runs.read(self._context.limits.rows):
            found += batch
        end = await self._end_of(last)
        self._seq = last + 1
        return self._lay(found, end)

    async def _end_of(self, seq: int) -> int:
        """The position behind which the runs behind that one begin."""
        if seq == self._layer.last_seq:
            return self._layer.last_position
        (following,) = await RunReader(self._context, self._view, first=seq + 1, last=seq + 1, bodies=False).read(1)
        return following.row.first_position - 1

    def _lay(self, found: Sequence[PlacedRun], end: int) -> list[Piece]:
        pieces: list[Piece] = []
        for placed in found:
            pieces += self._plain(placed.row.first_position - 1)
            segments = self._layer.segments(placed.row)
            if self._selects(placed):
                pieces += [Piece(0, first, last) for first, last in segments]
            for segment in segments:
                heappush(self._others, segment)
        return [*pieces, *self._plain(end)]

    def _plain(self, last: int) -> list[Piece]:
        """What lies before a position and is not the other runs'."""
        pieces: list[Piece] = []
        while self._others and self._others[0][0] <= last:
            first, end = heappop(self._others)
            if first > self._position:
                pieces.append(Piece(0, self._position, first - 1))
            self._position = end + 1
        if self._position <= last:
            pieces.append(Piece(0, self._position, last))
            self._position = last + 1
        return pieces
