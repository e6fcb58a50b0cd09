"""Sessions as plain lists, which stores are compared with: a fork copies, a revision replaces, a retract removes.

It is written without a look at the core: no ranges, no versions, no links. What it knows of a store's promises is what
the docstrings of `SessionStore` say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from sessionledger.records import Message

__all__ = ["NaiveMessage", "NaiveRevision", "NaiveRun", "NaiveSession", "paired"]

TERMINAL = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class NaiveMessage:
    given: Message
    position: int
    seq: int
    revision: int
    index: int
    left_out: bool = False  #: its run began after the one at whose end a fork was made


@dataclass
class Shared:
    """What a fork does not copy: a run's status and output are read as they are."""

    status: str
    output: object
    tokens: int


@dataclass
class NaiveRevision:
    number: int
    first: int  #: the position at which it began, whether it had messages or not
    empty: bool
    shared: Shared

    @property
    def reach(self) -> int:
        return self.first - 1 if self.empty else self.first


@dataclass
class NaiveRun:
    run_id: str
    seq: int
    parent_run_id: str | None
    revisions: list[NaiveRevision]
    inherited: bool = False

    @property
    def newest(self) -> NaiveRevision:
        return self.revisions[-1]

    @property
    def status(self) -> str:
        return self.newest.shared.status


@dataclass
class Removed:
    """What a retract took away."""

    positions: set[int] = field(default_factory=set)
    seqs: set[int] = field(default_factory=set)
    undone: bool = False


@dataclass
class NaiveSession:
    session_id: str
    parent: NaiveSession | None = None
    log: list[NaiveMessage] = field(default_factory=list)
    runs: list[NaiveRun] = field(default_factory=list)
    retracts: dict[str, Removed] = field(default_factory=dict)
    switches: list[str] = field(default_factory=list)
    state: dict[str, int] = field(default_factory=dict)
    name: str | None = None
    deleted: bool = False
    erased: bool = False
    activity: int = 0
    seen_statuses: Counter[str] = field(default_factory=Counter)  #: of inherited runs, when they were copied
    seen_tokens: int = 0
    inherits_open: bool = False  #: a run that went on was copied: its status and tokens may have been counted earlier

    # what it holds

    def run(self, run_id: str) -> NaiveRun | None:
        """Its own comes before one that it inherited."""
        found = [run for run in self.runs if run.run_id == run_id]
        return found[-1] if found else None

    def own(self, run_id: str) -> NaiveRun | None:
        run = self.run(run_id)
        return None if run is None or run.inherited else run

    def gone(self) -> tuple[set[int], set[int]]:
        """Positions and seqs that were retracted."""
        positions, seqs = set[int](), set[int]()
        for removed in self.retracts.values():
            if not removed.undone:
                positions |= removed.positions
                seqs |= removed.seqs
        return positions, seqs

    def showing_runs(self) -> list[NaiveRun]:
        _, seqs = self.gone()
        return [run for run in self.runs if run.seq not in seqs]

    def showing(self) -> list[NaiveMessage]:
        positions, seqs = self.gone()
        newest = {run.seq: run.newest.number for run in self.runs}
        return [
            one
            for one in self.log
            if not one.left_out
            and one.position not in positions
            and one.seq not in seqs
            and one.revision == newest.get(one.seq)
        ]

    def everything(self) -> list[NaiveMessage]:
        return [one for one in self.log if not one.left_out]

    def messages_of(self, run: NaiveRun, revision: int) -> list[NaiveMessage]:
        return [one for one in self.everything() if (one.seq, one.revision) == (run.seq, revision)]

    # what changes it

    def _write(self, messages: Iterable[Message], seq: int, revision: int) -> None:
        index = len([one for one in self.log if (one.seq, one.revision) == (seq, revision)])
        for given in messages:
            self.log.append(NaiveMessage(given, len(self.log) + 1, seq, revision, index))
            index += 1

    def append(self, run_id: str, messages: Sequence[Message], status: str, parent_run_id: str | None) -> None:
        revision = self._revision(1, messages, status)
        self.runs.append(NaiveRun(run_id, len(self.runs) + 1, parent_run_id, [revision]))
        self._write(messages, len(self.runs), 1)

    def _revision(self, number: int, messages: Sequence[Message], status: str) -> NaiveRevision:
        return NaiveRevision(number, len(self.log) + 1, not messages, Shared(status, None, tokens(messages)))

    def revise(self, run: NaiveRun, messages: Sequence[Message], status: str) -> None:
        number = run.newest.number + 1
        run.revisions.append(self._revision(number, messages, status))
        self._write(messages, run.seq, number)

    def extend(self, run: NaiveRun, messages: Sequence[Message], status: str | None, output: object) -> None:
        shared = run.newest.shared
        shared.status = status or shared.status
        shared.output = output
        shared.tokens += tokens(messages)
        self._write(messages, run.seq, run.newest.number)

    def retract(self, retract_id: str, which: str, value: int | str) -> None:
        self.retracts[retract_id] = self._removed(which, value)

    def _removed(self, which: str, value: int | str) -> Removed:
        if which == "last_runs":
            first = self._last_runs(int(value))
            return Removed(seqs={run.seq for run in self.runs if run.seq >= first} if first else set())
        if which in ("run_id", "from_run_id"):
            run = self.run(str(value))
            assert run is not None
            return Removed(seqs={run.seq} if which == "run_id" else set(range(run.seq, len(self.runs) + 1)))
        if which == "last_messages":
            last = self.showing()[-int(value) :]
            start = last[0].position if last else 0
        else:
            start = int(value)
        if not 1 <= start <= len(self.log):
            return Removed()
        begun = {run.seq for run in self.runs if run.revisions[0].first >= start}
        return Removed(set(range(start, len(self.log) + 1)), begun)

    def _last_runs(self, count: int) -> int:
        """The seq of the last n top-level runs that show, and of the members' runs right before that belong to them."""
        showing = self.showing_runs()
        tops = [index for index, run in enumerate(showing) if run.parent_run_id is None]
        if len(tops) < count:
            return showing[0].seq if showing else 0
        index = tops[-count]
        while index and showing[index - 1].parent_run_id in {run.run_id for run in showing[index:]}:
            index -= 1
        return showing[index].seq

    def fork(self, session_id: str, at: int | str | None) -> NaiveSession:
        """A copy of the beginning."""
        position, seq = self._point(at)
        copy = NaiveSession(session_id, parent=self, state=dict(self.state), name=self.name)
        copy.inherits_open = self.inherits_open or any(run.status not in TERMINAL for run in self.runs)
        copy.log = [replace(one, left_out=one.left_out or one.seq > seq) for one in self.log[:position]]
        for run in self.runs[:seq]:
            known = [revision for revision in run.revisions if revision.reach <= position]
            copy.runs.append(NaiveRun(run.run_id, run.seq, run.parent_run_id, known, inherited=True))
            copy.seen_statuses[known[-1].shared.status] += 1
            copy.seen_tokens += sum(revision.shared.tokens for revision in known)
        positions, seqs = self.gone()
        copy.retracts[""] = Removed({one for one in positions if one <= position}, {one for one in seqs if one <= seq})
        return copy

    def _point(self, at: int | str | None) -> tuple[int, int]:
        if at is None:
            return len(self.log), len(self.runs)
        if isinstance(at, int):
            return at, len([run for run in self.runs if run.revisions[0].first <= at])
        run = self.run(at)
        assert run is not None
        kept = self.messages_of(run, run.newest.number)
        return (kept[-1].position if kept else min(run.newest.first - 1, len(self.log))), run.seq

    # what is made of it

    def history(
        self,
        *,
        last_runs: int | None,
        last_messages: int | None,
        roles: Collection[str] | None,
        statuses: Collection[str],
        for_run: str | None,
        nested: bool,
    ) -> list[Message]:
        own = None if for_run is None else self.run(for_run)
        chosen = []
        for run in self.showing_runs():
            if own is not None and run.seq >= own.seq:
                continue
            if run.status in statuses and (nested or run.parent_run_id is None):
                chosen.append(run)
        if last_runs is not None:
            chosen = chosen[max(0, len(chosen) - last_runs) :]
        if own is not None and own in self.showing_runs():
            chosen.append(own)
        showing = self.showing()
        found = [one.given for run in chosen for one in showing if one.seq == run.seq]
        summaries = [index for index, one in enumerate(found) if one.kind == "summary"]
        found = found[summaries[-1] if summaries else 0 :]
        found = [one for one in found if roles is None or one.role in roles]
        if last_messages is not None:
            found = found[max(0, len(found) - last_messages) :]
        return list(paired(found))

    def statistics(self) -> tuple[int, int, Counter[str], int]:
        """Runs, messages, statuses and tokens of all that it holds, what was revised and retracted too."""
        statuses, spent = Counter(self.seen_statuses), self.seen_tokens
        for run in self.runs:
            if not run.inherited:
                statuses[run.status] += 1
                spent += sum(revision.shared.tokens for revision in run.revisions)
        return len(self.runs), len(self.log), +statuses, spent

    def message_id(self, one: NaiveMessage) -> str | None:
        """The id that finds it, if it was given one."""
        return one.given.message_id


def tokens(messages: Iterable[Message]) -> int:
    return sum(one.usage.input_tokens for one in messages if one.usage is not None)


def paired(messages: Sequence[Message]) -> Iterator[Message]:
    """Without calls that nobody answered before the user spoke again, and without results of no call."""
    block: list[Message] = []
    for one in messages:
        if one.role == "user" and one.tool_call_id is None:
            yield from _paired_block(block)
            block = []
            yield one
        else:
            block.append(one)
    yield from _paired_block(block)


def _paired_block(block: Sequence[Message]) -> Iterator[Message]:
    unanswered: list[tuple[str, int]] = []  # calls, each with the place of its message
    caller_of: dict[int, int] = {}  # by the place of a result
    for place, one in enumerate(block):
        if one.tool_calls:
            unanswered += [(call.tool_call_id, place) for call in one.tool_calls]
        elif waiting := [call for call in unanswered if call[0] == one.tool_call_id]:
            unanswered.remove(waiting[-1])
            caller_of[place] = waiting[-1][1]
    left = {place for _, place in unanswered}
    for place, one in enumerate(block):
        if one.tool_calls:
            if place not in left:
                yield one
            elif one.content:
                yield replace_calls(one)
        elif one.tool_call_id is None or (place in caller_of and caller_of[place] not in left):
            yield one


def replace_calls(one: Message) -> Message:
    return Message(role=one.role, kind=one.kind, content=one.content, usage=one.usage, message_id=one.message_id)
