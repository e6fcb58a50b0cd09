"""The messages that belong into a model's context: which runs, from where on, and no tool call without its result."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

import msgspec

from sessionledger.context import Context, Scope
from sessionledger.lineage import View
from sessionledger.protocol.rows import FIRST
from sessionledger.reading import MessageReader, PlacedRun, RunReader, begin, find_run, pieces_of_runs
from sessionledger.records import Message
from sessionledger.refusals import unknown_run
from sessionledger.retry import retried
from sessionledger.run_order import PlainOrder, SelectedRuns
from sessionledger.token import encode_token

__all__ = ["HistoryWalk", "Pairing", "Window"]

_MAX_HELD: Final = 1000  #: messages that wait for the results of a tool call


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    last_runs: int | None = None
    last_messages: int | None = None
    roles: frozenset[str] | None = None
    skip_roles: frozenset[str] = frozenset()
    statuses: frozenset[str]
    for_run: str | None = None
    nested: bool = False

    @property
    def every_role(self) -> bool:
        return self.roles is None and not self.skip_roles

    def wants(self, message: Message) -> bool:
        return message.role not in self.skip_roles and (self.roles is None or message.role in self.roles)


class _Start(NamedTuple):
    """Where a history begins: a run, and how many of its messages are left out."""

    seq: int
    skip: int = 0


class HistoryWalk:
    def __init__(self, context: Context, scope: Scope, session_id: str, window: Window) -> None:
        self._context, self._scope, self._session_id, self._window = context, scope, session_id, window
        self._view: View | None = None
        self._for_seq: int | None = None
        self._runs: SelectedRuns | PlainOrder | None = None
        self._messages: MessageReader | None = None
        self._pairing = Pairing()
        self._skip = 0
        self.done = (window.last_runs == 0 and window.for_run is None) or window.last_messages == 0

    def token(self, item: Message) -> str:
        return encode_token("history", self._session_id, item.position)

    async def fetch(self, want: int) -> Sequence[Message]:
        if self.done:
            return ()
        if self._view is None:
            view = await retried(lambda: begin(self._context, self._scope, self._session_id))
            if view is None:
                self.done = True
                return ()
            start = await retried(lambda: self._start(view))
            self._skip = start.skip
            self._runs = self._order(view, start.seq)
            self._messages = MessageReader(self._context, view, ())
            self._view = view
        while not self.done:
            found = await self._next(want)
            if found:
                return found
        return ()

    def _order(self, view: View, first: int) -> SelectedRuns | PlainOrder:
        whole = first == FIRST and self._for_seq is None
        if whole and len(view.layers) == 1 and not view.own.has_hidden:
            return PlainOrder(self._context, view, self._selects, sorted(self._window.statuses))
        return SelectedRuns(self._context, view, self._selects, first, self._end(view))

    def _end(self, view: View) -> int:
        return view.head.run_count if self._for_seq is None else self._for_seq

    async def _next(self, want: int) -> list[Message]:
        """What the next page of messages lets through; empty does not mean the end."""
        assert self._runs is not None and self._messages is not None
        runs, reader = self._runs, self._messages
        if reader.done:
            pieces = await retried(runs.read)
            if pieces is None:
                self.done = True
                return self._pairing.rest()
            reader.add(pieces)
        messages = await retried(lambda: reader.read(want))
        if self._skip:
            messages, self._skip = messages[self._skip :], max(0, self._skip - len(messages))
        if not self._window.every_role:
            messages = [message for message in messages if self._window.wants(message)]
        return self._pairing.feed(messages)

    def _reader(self, view: View, runs: Sequence[PlacedRun]) -> MessageReader:
        return MessageReader(self._context, view, pieces_of_runs(view, runs))

    def _selects(self, placed: PlacedRun) -> bool:
        row = placed.row
        if row.seq == self._for_seq:
            return True
        if row.parent_run_id is not None and not self._window.nested:
            return False
        return row.header.status in self._window.statuses

    # where it begins

    async def _start(self, view: View) -> _Start:
        window = self._window
        if window.for_run is not None:
            self._for_seq = await self._seq_of(view, window.for_run)
        summaries = any(layer.has_summary for layer in view.layers)
        if window.last_runs is None and window.last_messages is None and not summaries:
            return _Start(1)
        reader = RunReader(self._context, view, last=self._end(view), reverse=True, bodies=False)
        start, runs, left = _Start(self._end(view) + 1), 0, window.last_messages
        while batch := await reader.read(min(window.last_runs or 64, 64)):
            for placed in filter(self._selects, batch):
                if runs == window.last_runs and placed.row.seq != self._for_seq:
                    return start
                runs += placed.row.seq != self._for_seq
                summary = await self._last_summary(view, placed) if placed.row.header.has_summary else None
                count = await self._count(view, placed, summary or 0) if left is not None else 0
                if left is not None and count >= left:
                    return _Start(
                        placed.row.seq, (summary or 0) + await self._surplus(view, placed, left, summary or 0)
                    )
                start = _Start(placed.row.seq, summary or 0)
                if summary is not None:
                    return start
                left = None if left is None else left - count
        return start

    async def _seq_of(self, view: View, run_id: str) -> int:
        found = await find_run(self._context, view, run_id)
        if found is None:
            raise unknown_run(self._session_id, run_id, "append it before its history is asked for")
        return found[1][-1].seq

    async def _last_summary(self, view: View, placed: PlacedRun) -> int | None:
        """The index, among the run's visible messages, of the last summary."""
        reader, index, found = self._reader(view, [placed]), 0, None
        while messages := await reader.read(self._context.limits.rows):
            for message in messages:
                if message.kind == "summary":
                    found = index
                index += 1
        return found

    async def _count(self, view: View, placed: PlacedRun, skip: int) -> int:
        """How many messages of a run the window wants, from an index on."""
        if self._window.every_role and not any(layer.has_hidden for layer in view.layers):
            segments = view.layers[placed.layer].segments(placed.row)
            return sum(last - first + 1 for first, last in segments) - skip
        wanted = [w async for w in self._wanted(view, placed)]
        return sum(wanted[skip:])

    async def _surplus(self, view: View, placed: PlacedRun, want: int, skip: int) -> int:
        """How many messages of a run, from an index on, stand before its last `want` that are wanted."""
        wanted = [w async for w in self._wanted(view, placed)][skip:]
        index, found = len(wanted), 0
        while found < want:
            index -= 1
            found += wanted[index]
        return index

    async def _wanted(self, view: View, placed: PlacedRun) -> AsyncIterator[bool]:
        reader = self._reader(view, [placed])
        while messages := await reader.read(self._context.limits.rows):
            for message in messages:
                yield self._window.wants(message)


class _Held:
    """A message that waits: how many of its calls are not answered, and whose call it answers."""

    __slots__ = ("caller", "message", "unanswered")

    def __init__(self, message: Message, caller: _Held | None = None) -> None:
        self.message, self.caller = message, caller
        self.unanswered = len(message.tool_calls)


def _are_answers(results: Sequence[Message], asking: Message) -> bool:
    """Whether these are the results of a message's calls, in their order."""
    for result, call in zip(results, asking.tool_calls, strict=False):
        if result.tool_call_id != call.tool_call_id or result.tool_calls:
            return False
    return len(results) == len(asking.tool_calls)


class Pairing:
    """Lets messages through, but no tool call without its result and no result without its call.

    A result answers one call: of those with its id that wait, the latest. A message with calls waits until each is
    answered. When the user speaks before that, or too many messages wait, its calls will not be answered: it goes on
    without them if it says something, else it is left out, and so are the results of its other calls.
    """

    def __init__(self) -> None:
        self._held: list[_Held] = []
        self._open: dict[str, list[_Held]] = {}  #: by call id, the messages whose call waits for its result

    def feed(self, messages: Sequence[Message]) -> list[Message]:
        out: list[Message] = []
        done = 0
        for place, message in enumerate(messages, 1):
            if place <= done:
                continue
            if message.tool_calls:
                end = place + len(message.tool_calls)
                if not self._open and _are_answers(messages[place:end], message):
                    # most calls are answered at once, and wait for nothing
                    out += messages[place - 1 : end]
                    done = end
                else:
                    self._ask(message)
            elif message.tool_call_id is not None:
                self._answer(message, out)
            elif not self._open:
                out.append(message)
            elif message.role == "user":
                out += self.rest()
                out.append(message)
            else:
                self._held.append(_Held(message))
            if len(self._held) > _MAX_HELD:
                out += self.rest()
        return out

    def _ask(self, message: Message) -> None:
        held = _Held(message)
        self._held.append(held)
        for call in message.tool_calls:
            self._open.setdefault(call.tool_call_id, []).append(held)

    def _answer(self, message: Message, out: list[Message]) -> None:
        assert message.tool_call_id is not None
        callers = self._open.get(message.tool_call_id)
        if callers is None:
            return
        caller = callers.pop()
        caller.unanswered -= 1
        if not callers:
            del self._open[message.tool_call_id]
        self._held.append(_Held(message, caller))
        if not self._open:
            out += [held.message for held in self._held]
            self._held = []

    def rest(self) -> list[Message]:
        """What waits, without the calls that nobody answered."""
        waiting = self._held
        self._held, self._open = [], {}
        out: list[Message] = []
        for held in waiting:
            if held.unanswered:
                if held.message.content:
                    out.append(msgspec.structs.replace(held.message, tool_calls=()))
            elif held.caller is None or not held.caller.unanswered:
                out.append(held.message)
        return out
