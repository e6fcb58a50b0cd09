"""Where a session's items lie, and which of them show: forks and hidden ranges, resolved in one place.

A session that was forked shares the beginning of another one, which may be a fork itself. A view is the chain of them:
a layer for each session, oldest first, each with the positions and the runs that it contributes, and the version as
which it is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from sessionledger.context import Context
from sessionledger.errors import SessionDeletedError
from sessionledger.protocol.rows import (
    FIRST,
    LAST,
    Head,
    HiddenQuery,
    HiddenRow,
    MessageRow,
    RunRow,
    SessionKey,
)

__all__ = ["Hiding", "Layer", "View", "resolve", "watch", "watch_session"]


class Layer(msgspec.Struct, frozen=True):
    """What one session contributes to a view."""

    key: SessionKey
    incarnation: int
    first_position: int
    last_position: int
    first_seq: int
    last_seq: int
    version: int
    has_hidden: bool
    has_summary: bool

    def own(self, row: MessageRow) -> bool:
        """Whether the message's run belongs to the view: a fork at the end of a run leaves out what began later."""
        return row.run_seq <= self.last_seq

    def newest(self, revisions: Sequence[RunRow]) -> RunRow | None:
        """Of the revisions of one run, that which the view shows."""
        found = [row for row in revisions if self.knows(row)]
        if len(found) == 1:
            return found[0]
        return max(found, key=lambda row: row.revision, default=None)

    def knows(self, row: RunRow) -> bool:
        if row.version > self.version or row.seq > self.last_seq:
            return False
        # a run without messages ends before it begins
        return row.first_position <= self.last_position or row.last_position <= self.last_position

    def segments(self, row: RunRow) -> list[tuple[int, int]]:
        """The positions of a run's messages, as far as the view goes; neighbours are joined."""
        if not row.segments:
            first, last = row.first_position, row.last_position
            if last > self.last_position:
                last = self.last_position
            return [(first, last)] if first <= last else []
        joined: list[tuple[int, int]] = []
        for first, last in ((row.first_position, row.last_position), *row.segments):
            last = min(last, self.last_position)
            if first > last:
                continue
            if joined and joined[-1][1] == first - 1:
                joined[-1] = (joined[-1][0], last)
            else:
                joined.append((first, last))
        return joined


class View(msgspec.Struct, frozen=True):
    """A session as it was at one instant."""

    session_id: str
    head: Head
    layers: tuple[Layer, ...]  #: oldest first; the last is the session's own
    counters: Mapping[str, int] = {}  #: where the session itself was read

    @property
    def own(self) -> Layer:
        return self.layers[-1]

    def of_seq(self, seq: int) -> int:
        """The index of the layer that has it; seqs behind the end are the last one's."""
        return next((index for index, layer in enumerate(self.layers) if seq <= layer.last_seq), len(self.layers) - 1)


def _layer(head: Head, position: int, seq: int, version: int) -> Layer:
    """A session's own part, up to a position and a run."""
    base = head.fork
    return Layer(
        head.key,
        head.incarnation,
        base.position + 1 if base else FIRST,
        position,
        base.run_seq + 1 if base else FIRST,
        seq,
        version,
        head.has_hidden,
        head.has_summary,
    )


async def resolve(context: Context, head: Head) -> View:
    """The view of a session whose head was just read; without I/O when it is no fork."""
    position, seq = head.message_count, head.run_count
    layers = [_layer(head, position, seq, head.version)]
    link = head.fork
    while link is not None:
        row = await context.driver.session(SessionKey(head.key.namespace, link.session_id), state=False)
        if row is None or row.head.erased or row.head.incarnation != link.incarnation:
            raise SessionDeletedError(
                f"session {link.session_id!r}, from which {head.key.session_id!r} was forked, is gone: restore it",
                session_id=link.session_id,
            )
        # a fork of a fork may end before its parent began; then the parent contributes nothing
        position, seq = min(position, link.position), min(seq, link.run_seq)
        layers.append(_layer(row.head, position, seq, link.version))
        link = row.head.fork
    return View(head.key.session_id, head, tuple(reversed(layers)))


def watch(view: View, index: int, head: Head | None) -> None:
    """A page of a walk that goes on: its session must be the one with which it began.

    A session that was forked from one that is softly deleted still shows what it shares.
    """
    layer = view.layers[index]
    own = index == len(view.layers) - 1
    watch_session(layer.key, layer.incarnation, head, deleted=not own)


def watch_session(key: SessionKey, incarnation: int, head: Head | None, *, deleted: bool = False) -> None:
    """The same of one session, whatever it shares; `deleted`: it may be softly deleted."""
    gone = head is None or head.erased or head.incarnation != incarnation
    if gone or (not deleted and head is not None and head.deleted_at is not None):
        raise SessionDeletedError(
            f"session {key.session_id!r} was deleted while a cursor walked over it: begin again",
            session_id=key.session_id,
        )


class Hiding:
    """The hidden rows that bear on one page of a view's layer."""

    def __init__(self, rows: Sequence[tuple[HiddenRow, Layer]]) -> None:
        self._by_seq: dict[int, list[HiddenRow]] = {}
        self._wide: list[HiddenRow] = []
        for row, layer in rows:
            if not _counts(row, layer):
                continue
            if row.runs[0] == row.runs[1]:
                self._by_seq.setdefault(row.runs[0], []).append(row)
            else:
                self._wide.append(row)
        self.nothing = not self._by_seq and not self._wide

    @classmethod
    async def load(
        cls, context: Context, view: View, index: int, positions: tuple[int, int], runs: tuple[int, int]
    ) -> Hiding:
        """Of the layer itself and of those above it, which may hide what they inherited."""
        found: list[tuple[HiddenRow, Layer]] = []
        for place, layer in enumerate(view.layers[index:], index):
            if layer.has_hidden:
                page = await context.driver.hidden(HiddenQuery(layer.key, positions, runs))
                # a session that was erased since its messages were read hides nothing any more
                watch(view, place, page.head)
                found += [(row, layer) for row in page.rows]
        return cls(found)

    @classmethod
    async def of_messages(cls, context: Context, view: View, index: int, rows: Sequence[MessageRow]) -> Hiding:
        if not rows or not any(layer.has_hidden for layer in view.layers[index:]):
            return cls(())
        # runs that were open at once interleave: read run by run, positions go up and down
        positions, seqs = [row.position for row in rows], [row.run_seq for row in rows]
        return await cls.load(context, view, index, (min(positions), max(positions)), (min(seqs), max(seqs)))

    @classmethod
    async def of_runs(cls, context: Context, view: View, index: int, rows: Sequence[RunRow]) -> Hiding:
        if not rows or not any(layer.has_hidden for layer in view.layers[index:]):
            return cls(())
        seqs = [row.seq for row in rows]
        return await cls.load(context, view, index, (FIRST, LAST), (min(seqs), max(seqs)))

    def hides(self, row: MessageRow) -> bool:
        if self.nothing:
            return False
        return any(
            hidden.positions[0] <= row.position <= hidden.positions[1]
            and hidden.runs[0] <= row.run_seq <= hidden.runs[1]
            and hidden.revision in (None, row.revision)
            for hidden in (*self._by_seq.get(row.run_seq, ()), *self._wide)
        )

    def hides_run(self, row: RunRow) -> bool:
        if self.nothing:
            return False
        return any(
            hidden.positions == (FIRST, LAST)
            and hidden.runs[0] <= row.seq <= hidden.runs[1]
            and hidden.revision in (None, row.revision)
            for hidden in (*self._by_seq.get(row.seq, ()), *self._wide)
        )


def _counts(row: HiddenRow, layer: Layer) -> bool:
    return (
        row.since <= layer.version
        and (row.until is None or row.until > layer.version)
        and row.reach <= layer.last_position
    )
