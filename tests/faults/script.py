"""What a writer does, step by step: the same in the process that is killed and in the one that judges it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from sessionledger import AgentSwitch, Message, Run, RunRecorder, Session, SessionStore, ToolCall, Usage

__all__ = ["SHARED", "Hands", "Script", "Step"]

#: The session that all tasks write to.
SHARED = "shared"


class Hands:
    """A store, and the runs that are being recorded by this process. Without `recording` they are plain writes."""

    def __init__(self, store: SessionStore, *, recording: bool = False) -> None:
        self.store, self._recording = store, recording
        self._open: dict[str, tuple[AbstractAsyncContextManager[RunRecorder], RunRecorder]] = {}

    async def begin(self, run: Run) -> None:
        assert run.run_id is not None
        if not self._recording:
            await self.store.append(msgspec.structs.replace(run, status="running"))
            return
        block = self.store.recording(run)
        self._open[run.run_id] = block, await block.__aenter__()

    async def extend(self, session_id: str, run_id: str, message: Message) -> None:
        if run_id in self._open:
            await self._open[run_id][1].add(message)
        else:
            await self.store.update_run(session_id, run_id=run_id, messages=[message])

    async def finish(self, session_id: str, run_id: str) -> None:
        if run_id in self._open:
            await self._open.pop(run_id)[0].__aexit__(None, None, None)
        else:
            await self.store.update_run(session_id, run_id=run_id, status="completed")


class Step(msgspec.Struct, frozen=True):
    """One call of the store."""

    name: str
    session_ids: tuple[str, ...]  #: of the sessions that it may change
    do: Callable[[Hands], Awaitable[Any]]
    again: bool = True  #: it has an id by which a repetition is recognised


class Script:
    """The endless work of one task: rounds in which a session of its own is made, written to and deleted."""

    def __init__(self, task: int) -> None:
        self.session_id = f"session-{task}"
        self.fork_id = f"fork-{task}"
        self._task = task
        self._random = random.Random(task)
        self._steps: list[Step] = []
        self._round = 0
        self._position = 0

    @property
    def session_ids(self) -> tuple[str, str]:
        return self.session_id, self.fork_id

    def __getitem__(self, number: int) -> Step:
        while len(self._steps) <= number:
            self._steps += self._next_round()
        return self._steps[number]

    def _next_round(self) -> Iterator[Step]:
        self._round += 1
        self._position = 0
        yield self._call("create", lambda store, op: store.create_session(self._session(), operation_id=op))
        yield self._append(self._run("first"))
        yield self._share()
        yield from self._recording("recorded")
        yield self._call(
            "count", lambda store, op: store.update_session(self.session_id, change=_count, operation_id=op)
        )
        yield self._call_shared("count-all")
        yield self._append_several()
        yield self._append(self._run("first", again=True), revise=True)
        yield self._call("retract", lambda store, op: store.retract(self.session_id, last_runs=1, operation_id=op))
        shown = self._name("retract")
        yield self._call(
            "unretract", lambda store, op: store.unretract(self.session_id, retract_id=shown, operation_id=op)
        )
        yield self._append(self._run("second"))
        yield self._share()
        middle = self._random.randint(1, self._position)
        yield self._call(
            "hide", lambda store, op: store.retract(self.session_id, from_position=middle, operation_id=op)
        )
        yield from self._recording("late")
        yield from self._forking(self._random.randint(1, self._position))
        yield self._call(
            "erase",
            lambda store, op: store.delete_session(self.session_id, soft=False, forks=True, operation_id=op),
            *self.session_ids,
        )

    def _recording(self, name: str) -> Iterator[Step]:
        run = self._run(name)
        run_id = self._name(name)
        yield Step(f"{run_id} begin", (self.session_id,), lambda hands: hands.begin(run), again=False)
        for message in self._messages(f"{name}-more", self._random.randint(1, 4)):
            self._position += 1
            yield Step(
                f"{run_id} extend", (self.session_id,), _extension(self.session_id, run_id, message), again=False
            )
        yield Step(
            f"{run_id} finish", (self.session_id,), lambda hands: hands.finish(self.session_id, run_id), again=False
        )

    def _forking(self, at: int) -> Iterator[Step]:
        own, new = self.session_id, self.fork_id
        yield self._call(
            "fork",
            lambda store, op: store.fork(own, at=at, new_session_id=new, operation_id=op),
            *self.session_ids,
        )
        run = msgspec.structs.replace(self._run("in-fork"), session_id=new)
        yield Step(self._name("in-fork"), (new,), lambda hands: hands.store.append(run))
        yield self._call("softly", lambda store, op: store.delete_session(new, operation_id=op), new)
        yield self._call("restore", lambda store, op: store.restore_session(new, operation_id=op), new)
        if self._random.random() < 0.6:
            yield self._call(
                "erase-fork",
                lambda store, op: store.delete_session(new, soft=False, operation_id=op),
                *self.session_ids,
            )

    # one step

    def _name(self, name: str) -> str:
        return f"{self._task}.{self._round}.{name}"

    def _call(self, name: str, call: Callable[[SessionStore, str], Awaitable[Any]], *session_ids: str) -> Step:
        operation = self._name(name)
        return Step(operation, session_ids or (self.session_id,), lambda hands: call(hands.store, operation))

    def _call_shared(self, name: str) -> Step:
        return self._call(name, lambda store, op: store.update_session(SHARED, change=_count, operation_id=op), SHARED)

    def _append(self, run: Run, *, revise: bool = False) -> Step:
        name = f"{run.run_id} revise" if revise else run.run_id or ""
        return Step(name, (self.session_id,), lambda hands: hands.store.append(run, revise=revise))

    def _append_several(self) -> Step:
        runs = [self._run("one"), self._run("two")]
        operation = self._name("several")
        switch = AgentSwitch(switch_id=operation, to_agent=operation)
        return Step(
            operation,
            (self.session_id,),
            lambda hands: hands.store.append(runs, state={"last": operation}, switch=switch, operation_id=operation),
        )

    def _share(self) -> Step:
        name = f"shared-{self._random.random()}"
        run = Run(run_id=self._name(name), session_id=SHARED, messages=self._messages(name, 3))
        return Step(self._name(name), (SHARED,), lambda hands: hands.store.append(run))

    # what is stored

    def _session(self) -> Session:
        return Session(session_id=self.session_id, user_id=f"user-{self._task}", state={"round": self._round})

    def _run(self, name: str, *, again: bool = False) -> Run:
        messages = self._messages(f"{name}-again" if again else name, self._random.randint(1, 5))
        self._position += len(messages)
        return Run(run_id=self._name(name), session_id=self.session_id, agent_id="agent", messages=messages)

    def _messages(self, name: str, count: int) -> list[Message]:
        return [self._message(name, index) for index in range(count)]

    def _message(self, name: str, index: int) -> Message:
        text = f"{self._name(name)} {index} " + "é" * self._random.choice((0, 50, 2_000, 20_000))
        if index % 2 == 0:
            return Message(role="user", content=text)
        call = ToolCall(tool_call_id=f"{name}-{index}", name="tool", arguments=text)
        return Message(role="assistant", content=text, tool_calls=[call], usage=Usage(input_tokens=index))


def _extension(session_id: str, run_id: str, message: Message) -> Callable[[Hands], Awaitable[None]]:
    return lambda hands: hands.extend(session_id, run_id, message)


def _count(session: Session) -> Session:
    return msgspec.structs.replace(session, state={**session.state, "count": session.state.get("count", 0) + 1})
