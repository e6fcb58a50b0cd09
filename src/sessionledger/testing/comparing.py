"""A store and its model side by side: choosing what a step is about, and holding one against the other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Sequence
from itertools import count
from typing import Any, ClassVar, TypeVar

from hypothesis.stateful import RuleBasedStateMachine, invariant

from sessionledger.records import Message, ToolCall, Usage
from sessionledger.store import Store
from sessionledger.testing.naive import TERMINAL, NaiveMessage, NaiveRun, NaiveSession

__all__ = ["Compared"]

T = TypeVar("T")


class Compared(RuleBasedStateMachine):
    """Each machine has a namespace of its own in one store, and a few sessions in it."""

    whole_store: ClassVar[Store]
    runner: ClassVar[asyncio.Runner]
    numbers: ClassVar[count[int]] = count()

    def __init__(self) -> None:
        super().__init__()
        self.store = self.whole_store.scoped(namespace=f"h{os.getpid()}-{next(self.numbers)}")
        self.sessions: list[NaiveSession] = []
        self.changed: list[NaiveSession] = []
        self.made = count(1)
        self.moments = count(1)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    # choosing

    def session(self, which: int) -> NaiveSession:
        return self.sessions[which % len(self.sessions)]

    def live(self, which: int) -> NaiveSession:
        """One that is not deleted; there is always one."""
        found = [one for one in self.sessions if not one.deleted and not one.erased]
        return found[which % len(found)]

    def a_run(self, session: NaiveSession, which: int) -> NaiveRun | None:
        """Those that go on come first."""
        runs = sorted(session.runs, key=lambda run: (run.status in TERMINAL, -run.seq))
        return runs[which % len(runs)] if runs else None

    def messages(self, shape: Sequence[str]) -> list[Message]:
        """By letter: a user, an answer, one call or two, a result of the last of them or of none, a summary."""
        made: list[Message] = []
        calls: list[str] = []
        for letter in shape:
            number = next(self.made)
            text = f"m{number}"
            message_id = f"id{number}" if number % 5 == 0 else None
            if letter == "u":
                made.append(Message(role="user", content=text, message_id=message_id))
            elif letter == "a":
                made.append(Message(role="assistant", content=text, usage=Usage(input_tokens=number)))
            elif letter == "s":
                made.append(Message(role="system", kind="summary", content=text))
            elif letter in "cC":
                ids = [f"c{number}.{n}" for n in range(1 + (letter == "C"))]
                calls += ids
                tool_calls = [ToolCall(tool_call_id=one, name="t") for one in ids]
                made.append(Message(role="assistant", content=text if number % 2 else None, tool_calls=tool_calls))
            else:
                answered = calls.pop() if calls and letter == "r" else f"x{number}"
                made.append(Message(role="tool", content=text, tool_call_id=answered))
        return made

    def touched(self, session: NaiveSession) -> None:
        """By an append or the like, which moves it to the front of the list."""
        session.activity = next(self.moments)
        self.changed.append(session)

    # the same

    def same(self, found: Sequence[Message], expected: Sequence[NaiveMessage]) -> None:
        assert [one.content or one.position for one in found] == [one.given.content or one.position for one in expected]
        assert [(one.position, one.run_seq) for one in found] == [(one.position, one.seq) for one in expected]

    def same_runs(self, session: NaiveSession, *, messages: bool) -> None:
        found = self.call(self.store.runs(session.session_id, include_messages=messages).collect())
        expected = session.showing_runs()
        assert [(one.run_id, one.seq, one.revision, one.status, one.output, one.parent_run_id) for one in found] == [
            (run.run_id, run.seq, run.newest.number, run.status, run.newest.shared.output, run.parent_run_id)
            for run in expected
        ]
        if messages:
            showing = session.showing()
            for one, run in zip(found, expected, strict=True):
                self.same(one.messages, [message for message in showing if message.seq == run.seq])

    def same_revisions(self, session: NaiveSession) -> None:
        for run in session.runs:
            if session.run(run.run_id) is not run:
                continue
            for number in range(1, run.newest.number + 2):
                found = self.call(self.store.get_run(run.run_id, session_id=session.session_id, revision=number))
                if number not in [one.number for one in run.revisions]:
                    assert found is None
                else:
                    assert found is not None and (found.seq, found.revision) == (run.seq, number)
                    self.same(found.messages, session.messages_of(run, number))

    def same_ids(self, session: NaiveSession) -> None:
        showing = session.showing()
        for one in session.log:
            if one.given.message_id is not None:
                found = self.call(self.store.get_message(session.session_id, message_id=one.given.message_id))
                assert (None if found is None else found.content) == (one.given.content if one in showing else None)
        for stored in self.call(self.store.messages(session.session_id, last=3).collect()):
            assert self.call(self.store.get_message(session.session_id, message_id=stored.message_id or "")) == stored

    def same_session(self, session: NaiveSession) -> None:
        found = self.call(self.store.get_session(session.session_id))
        assert found is not None
        assert (found.name, found.state) == (session.name, session.state)
        assert (found.run_count, found.message_count) == (len(session.runs), len(session.log))
        switches = self.call(self.store.switches(session.session_id).collect())
        assert [one.to_agent for one in switches] == session.switches
        stats = self.call(self.store.stats(session.session_id))
        runs, messages, statuses, spent = session.statistics()
        assert (stats.runs, stats.messages) == (runs, messages)
        if not session.inherits_open:
            assert stats.usage.input_tokens == spent
            assert {status: n for status, n in stats.runs_by_status.items() if n} == dict(statuses)
        assert min(stats.usage.input_tokens, *stats.runs_by_status.values(), 0) == 0

    def same_list(self, *, reverse: bool, include_deleted: bool) -> None:
        cursor = self.store.sessions(reverse=reverse, include_deleted=include_deleted)
        found = [one.session_id for one in self.call(cursor.collect())]
        shown = [one for one in self.sessions if not one.erased and (include_deleted or not one.deleted)]
        shown.sort(key=lambda one: one.activity, reverse=not reverse)
        assert found == [one.session_id for one in shown]

    @invariant()
    def the_session_of_this_step_shows_what_it_should(self) -> None:
        for session in self.changed:
            if not session.deleted and not session.erased:
                self.same(self.call(self.store.messages(session.session_id).collect()), session.showing())
                self.same_runs(session, messages=False)
        self.changed.clear()

    def teardown(self) -> None:
        for session in self.sessions:
            if session.erased or session.deleted:
                assert self.call(self.store.get_session(session.session_id)) is None
                continue
            self.same(self.call(self.store.messages(session.session_id).collect()), session.showing())
            everything = self.store.messages(session.session_id, include_retracted=True, reverse=True)
            self.same(self.call(everything.collect()), session.everything()[::-1])
            self.same_runs(session, messages=True)
            self.same_revisions(session)
            self.same_ids(session)
            self.same_session(session)
        for reverse in (False, True):
            self.same_list(reverse=reverse, include_deleted=reverse)
