"""Random histories: a store and plain lists go through the same calls, and must show the same.

`sessionledger.testing.histories` runs them. A failure prints the calls that lead there, as few as Hypothesis finds.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
)

from sessionledger.errors import (
    RunConflictError,
    RunFinishedError,
    RunNotFoundError,
    SessionDeletedError,
    SessionExistsError,
    SessionHasForksError,
    SessionNotFoundError,
)
from sessionledger.protocol.store import Cursor
from sessionledger.records import AgentSwitch, Run, RunStatus, Session
from sessionledger.testing.comparing import Compared
from sessionledger.testing.naive import TERMINAL, NaiveSession
from sessionledger.testing.suite.bench import small_pages

__all__ = ["HistoryMachine"]

T = TypeVar("T")

_shapes = st.lists(st.sampled_from("uuaaacCrrxs"), max_size=4)
_which = st.integers(0, 11)
_few = st.integers(1, 4)
_retracts = st.sampled_from(
    ["last_runs", "last_messages", "run_id", "from_run_id", "from_position", "from_position", "undo", "undo"]
)
_statuses = st.sampled_from(["completed", "completed", "running", "running", "paused", "failed", "cancelled"])


class _Walk:
    """A cursor that was begun, and what it must go on to hand out."""

    def __init__(
        self, session: NaiveSession, cursor: Cursor[Any], rest: list[Any], shown: Callable[[Any], Any]
    ) -> None:
        self.session, self.cursor, self.rest, self.shown = session, cursor, rest, shown


class HistoryMachine(Compared):
    """The steps."""

    def __init__(self) -> None:
        super().__init__()
        self.walks: list[_Walk] = []

    # writing

    @initialize(
        shapes=st.lists(_shapes, min_size=1, max_size=4),
        status=_statuses,
        rows=st.sampled_from([1, 2, 3, 500]),
        size=st.sampled_from([200, 1 << 20]),
    )
    def begin(self, shapes: list[list[str]], status: str, rows: int, size: int) -> None:
        small_pages(self.whole_store, rows=rows, size=size)
        self.make_session()
        self.append(0, shapes, status, False, 0)

    def make_session(self) -> None:
        session = NaiveSession(f"s{len(self.sessions)}", name=f"n{len(self.sessions)}")
        self.call(self.store.create_session(Session(session_id=session.session_id, name=session.name)))
        self.touched(session)
        self.sessions.append(session)

    @rule(
        which=_which,
        shapes=st.lists(_shapes, min_size=1, max_size=3),
        status=_statuses,
        nested=st.booleans(),
        extras=st.integers(0, 7),
    )
    def append(self, which: int, shapes: list[list[str]], status: str, nested: bool, extras: int) -> None:
        session = self.session(which)
        parents = [run.run_id for run in session.runs]
        parent = parents[-1] if nested and parents else None
        runs = [
            Run(
                run_id=f"r{next(self.made)}",
                session_id=session.session_id,
                messages=self.messages(shape),
                status=status,  # type: ignore[arg-type]
                parent_run_id=parent,
            )
            for shape in shapes
        ]
        number = next(self.made)
        fields: dict[str, Any] = {}
        if extras in (1, 3):
            fields["state"] = {f"k{number % 3}": number}
        if extras in (2, 3):
            fields["switch"] = AgentSwitch(to_agent=f"a{number}")
        work = self.store.append(runs, **fields)
        if session.deleted or session.erased:
            with pytest.raises(SessionDeletedError):
                self.call(work)
            return
        receipts = self.call(work)
        for run, receipt in zip(runs, receipts, strict=True):
            first = len(session.log) + 1
            session.append(run.run_id or "", run.messages, status, parent)
            assert (receipt.run_seq, receipt.replayed) == (len(session.runs), False)
            assert receipt.first_position == (first if run.messages else None)
        session.state.update(fields.get("state", {}))
        session.switches += [fields["switch"].to_agent] if "switch" in fields else []
        self.touched(session)

    @rule(which=_which, of=_which, shape=_shapes, status=st.none() | _statuses)
    def update(self, which: int, of: int, shape: list[str], status: str | None) -> None:
        session = self.session(which)
        run = self.a_run(session, of)
        run_id = run.run_id if run is not None else "unknown"
        messages, output = self.messages(shape), next(self.made)
        work = self.store.update_run(session.session_id, run_id=run_id, messages=messages, status=status, output=output)
        own = session.own(run_id)
        expected: type[Exception] | None = None
        if session.erased:
            expected = SessionNotFoundError
        elif session.deleted:
            expected = SessionDeletedError
        elif own is None:
            expected = RunNotFoundError
        elif own.status in TERMINAL:
            expected = RunFinishedError
        if expected is not None:
            with pytest.raises(expected):
                self.call(work)
            return
        assert own is not None
        first = len(session.log) + 1
        receipt = self.call(work)
        session.extend(own, messages, status, output)
        assert (receipt.run_seq, receipt.revision) == (own.seq, own.newest.number)
        assert receipt.first_position == (first if messages else None)
        self.touched(session)

    @rule(which=_which, of=_which, shape=_shapes, status=_statuses)
    def revise(self, which: int, of: int, shape: list[str], status: str) -> None:
        session = self.live(which)
        run = self.a_run(session, of)
        if run is None:
            return
        run_id, output = run.run_id, next(self.made)
        revision = Run(
            run_id=run_id,
            session_id=session.session_id,
            messages=self.messages(shape),
            status=status,  # type: ignore[arg-type]
            parent_run_id=run.parent_run_id,
            output=output,
        )
        if not run.inherited:
            with pytest.raises(RunConflictError):
                self.call(self.store.append(revision))
        work = self.store.append(revision, revise=True)
        own = session.own(run_id)
        if own is None:
            with pytest.raises(RunNotFoundError):
                self.call(work)
            return
        receipt = self.call(work)
        session.revise(own, revision.messages, status)
        own.newest.shared.output = output
        assert (receipt.run_seq, receipt.revision) == (own.seq, own.newest.number)
        self.touched(session)

    @rule(which=_which, of=_which, how=_retracts)
    def retract(self, which: int, of: int, how: str) -> None:
        session = self.live(which)
        run = self.a_run(session, of)
        if how == "undo":
            retract_ids = [name for name in session.retracts if name]
            if retract_ids:
                retract_id = retract_ids[of % len(retract_ids)]
                self.call(self.store.unretract(session.session_id, retract_id=retract_id))
                session.retracts[retract_id].undone = True
                self.changed.append(session)
            return
        if how in ("run_id", "from_run_id"):
            value: int | str = "unknown" if run is None else run.run_id
        else:
            value = 1 + of % 5 if how != "from_position" else 1 + of % (len(session.log) + 2)
        work = self.store.retract(session.session_id, **{how: value})  # type: ignore[arg-type]
        if value == "unknown":
            with pytest.raises(RunNotFoundError):
                self.call(work)
            return
        session.retract(self.call(work), how, value)
        self.changed.append(session)

    @precondition(lambda self: len(self.sessions) < 6)
    @rule(which=_which, of=_which, how=st.sampled_from(["head", "position", "run"]))
    def fork(self, which: int, of: int, how: str) -> None:
        session = self.session(which)
        run = self.a_run(session, of)
        at: int | str | None = None
        if how == "position":
            at = of % (len(session.log) + 1)
        elif how == "run" and run is not None:
            at = run.run_id
        name = f"s{len(self.sessions)}"
        work = self.store.fork(session.session_id, at=at, new_session_id=name)
        if session.deleted or session.erased:
            with pytest.raises(SessionNotFoundError if session.erased else SessionDeletedError):
                self.call(work)
            return
        made = self.call(work)
        copy = session.fork(name, at)
        assert (made.forked_from, made.forked_at, made.run_count) == (session.session_id, len(copy.log), len(copy.runs))
        self.touched(copy)
        self.sessions.append(copy)

    @rule(which=_which, how=st.sampled_from(["delete", "restore", "restore", "erase", "erase with forks", "make"]))
    def live_and_die(self, which: int, how: str) -> None:
        session = self.session(which)
        if how == "make":
            self.make_again(session)
        elif how == "restore":
            for one in [one for one in self.sessions if one.deleted] or [session]:
                assert self.call(self.store.restore_session(one.session_id)) == (not one.erased)
                one.deleted = False
        elif how == "delete":
            assert self.call(self.store.delete_session(session.session_id)) == (not session.erased)
            session.deleted = not session.erased
        else:
            self.erase(session, forks=how == "erase with forks")
        if all(one.deleted or one.erased for one in self.sessions):
            self.make_session()

    def make_again(self, session: NaiveSession) -> None:
        work = self.store.create_session(Session(session_id=session.session_id))
        if not session.erased:
            with pytest.raises(SessionExistsError):
                self.call(work)
            return
        assert self.call(work).version == 1
        again = NaiveSession(session.session_id)
        self.sessions[self.sessions.index(session)] = again
        self.touched(again)

    def erase(self, session: NaiveSession, *, forks: bool) -> None:
        work = self.store.delete_session(session.session_id, soft=False, forks=forks)
        if not session.erased and self.forks_of(session) and not forks:
            with pytest.raises(SessionHasForksError) as raised:
                self.call(work)
            assert sorted(raised.value.forks) == sorted(one.session_id for one in self.forks_of(session))
            return
        assert self.call(work) == (not session.erased)
        self.erased(session)

    def forks_of(self, session: NaiveSession) -> list[NaiveSession]:
        return [one for one in self.sessions if one.parent is session and not one.erased]

    def erased(self, session: NaiveSession) -> None:
        for child in self.forks_of(session):
            self.erased(child)
        session.erased, session.deleted = True, False

    # reading

    def gone(self, session: NaiveSession, work: Coroutine[Any, Any, list[Any]]) -> bool:
        """Whether the session is deleted; then the read says so."""
        if session.deleted:
            with pytest.raises(SessionDeletedError):
                self.call(work)
        elif session.erased:
            assert self.call(work) == []
        else:
            work.close()
        return session.deleted or session.erased

    @rule(
        which=_which,
        window=st.fixed_dictionaries(
            {"reverse": st.booleans(), "include_retracted": st.booleans()},
            optional={
                "offset": st.integers(0, 9),
                "before": st.integers(0, 12),
                "roles": st.sampled_from([["user"], ["assistant", "tool"], []]),
            },
        ),
        bound=st.sampled_from([None, "last", "limit"]),
        number=st.integers(0, 5),
        of=st.none() | _which,
    )
    def read_messages(self, which: int, window: dict[str, Any], bound: str | None, number: int, of: int | None) -> None:
        session = self.session(which)
        run = None if of is None else self.a_run(session, of)
        fields = dict(window)
        if bound is not None:
            fields[bound] = number
        if run is not None:
            fields["run_id"] = run.run_id
        if self.gone(session, self.store.messages(session.session_id).collect()):
            return
        found = self.call(self.store.messages(session.session_id, **fields).collect())
        expected = session.everything() if window["include_retracted"] else session.showing()
        if run is not None:
            seq = (session.run(run.run_id) or run).seq
            expected = [one for one in expected if one.seq == seq]
        expected = [
            one
            for one in expected
            if one.position > window.get("offset", 0)
            and one.position < window.get("before", 10**9)
            and ("roles" not in window or one.given.role in window["roles"])
        ]
        if bound == "last":
            expected = expected[max(0, len(expected) - number) :]
        if window["reverse"]:
            expected.reverse()
        if bound == "limit":
            expected = expected[:number]
        self.same(found, expected)

    @rule(
        which=_which,
        window=st.fixed_dictionaries(
            {
                "last_runs": st.none() | st.integers(0, 3),
                "last_messages": st.none() | st.integers(0, 5),
                "roles": st.sampled_from([None, None, ["user", "assistant"], ["tool", "assistant"]]),
                "statuses": st.sampled_from([["completed", "cancelled"], ["running", "failed", "completed", "paused"]]),
                "nested": st.booleans(),
            }
        ),
        of=st.none() | _which,
    )
    def read_history(self, which: int, window: dict[str, Any], of: int | None) -> None:
        session = self.live(which)
        run = None if of is None else self.a_run(session, of)
        fields = {**window, "for_run": None if run is None else run.run_id}
        found = self.call(self.store.history(session.session_id, **fields).collect())
        expected = session.history(**fields)
        assert [(one.content, [c.tool_call_id for c in one.tool_calls]) for one in found] == [
            (one.content, [c.tool_call_id for c in one.tool_calls]) for one in expected
        ]

    # walks that go on while the session changes

    @precondition(lambda self: len(self.walks) < 4)
    @rule(which=_which, what=st.sampled_from(["messages", "reverse", "history", "runs", "runs reversed"]), size=_few)
    def open_walk(self, which: int, what: str, size: int) -> None:
        session = self.live(which)
        name = session.session_id
        if what in ("messages", "reverse"):
            walk: Cursor[Any] = self.store.messages(name, reverse=what == "reverse", page_size=size)
            rest: list[Any] = [(one.position, one.given.content) for one in session.showing()]
            shown: Callable[[Any], Any] = lambda one: (one.position, one.content)  # noqa: E731
        elif what == "history":
            # of every status: a run's is read as it is, and may change during the walk
            statuses = list(RunStatus)
            walk = self.store.history(name, page_size=size, statuses=statuses, nested=True)
            fields = {"last_runs": None, "last_messages": None, "roles": None, "for_run": None}
            rest = [one.content for one in session.history(statuses=statuses, nested=True, **fields)]
            shown = lambda one: one.content  # noqa: E731
        else:
            walk = self.store.runs(name, reverse=what == "runs reversed", page_size=size, include_messages=True)
            showing = session.showing()
            rest = [
                (run.seq, run.newest.number, [one.given.content for one in showing if one.seq == run.seq])
                for run in session.showing_runs()
            ]
            shown = lambda one: (one.seq, one.revision, [message.content for message in one.messages])  # noqa: E731
        if what.startswith("reverse") or what.endswith("reversed"):
            rest.reverse()
        self.walks.append(_Walk(session, walk, rest, shown))
        self.go_on(len(self.walks) - 1, 1)

    @precondition(lambda self: self.walks)
    @rule(which=_which, items=st.integers(1, 5))
    def go_on(self, which: int, items: int) -> None:
        walk = self.walks[which % len(self.walks)]
        for _ in range(items):
            try:
                item = self.call(walk.cursor.first())
            except SessionDeletedError:
                self.walks.remove(walk)
                session = walk.session
                # made again or not: what was deleted under the walk is an error for good
                assert session.deleted or session.erased
                return
            if item is None:
                assert walk.rest == []
                self.walks.remove(walk)
                return
            assert walk.shown(item) == walk.rest.pop(0)
