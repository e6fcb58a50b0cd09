"""A storage whose writers are killed, one after the other, and all that is known of what it must hold."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sessionledger import SessionStore, open_store

from .engines import SQLITE, Engine
from .script import SHARED, Hands, Script, Step
from .snapshot import Snapshot, snapshot, without_version
from .writer import Orders

__all__ = ["Moment", "Trial", "Writer"]

_ROOT = Path(__file__).parents[__package__.count(".") + 1]


class Moment(msgspec.Struct, frozen=True):
    """When a writer dies: as it executes a statement, or calls the system to write; or some seconds after so many
    acknowledgements.
    """

    last_statement: int | None = None
    acknowledgements: int = 0
    pause: float = 0.0

    @classmethod
    def chosen(cls, chance: random.Random, *, new: bool) -> Moment:
        """A writer opens its database with about 40 statements where there is none yet, with about 10 else."""
        if chance.random() < 0.5:
            return cls(last_statement=chance.randint(1, 60 if new else 900))
        return cls(acknowledgements=chance.choice((0, 1, chance.randint(2, 60))), pause=chance.uniform(0, 0.01))


class Writer:
    """A process that has started and waits for its orders, so that it is killed while it works, not while it starts."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", f"{__package__}.writer"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)

    def work(self, orders: Orders, moment: Moment) -> list[tuple[int, int]]:
        """Let it work until that moment, and no longer; the tasks and steps that it acknowledged."""
        self.order(msgspec.structs.replace(orders, last_statement=moment.last_statement))
        stdout = self.process.stdout
        assert stdout is not None
        lines = []
        if moment.last_statement is None:
            lines = [stdout.readline() for _ in range(moment.acknowledgements)]
            time.sleep(moment.pause)
            self.process.kill()
        lines += stdout.readlines()
        assert self.end() == -signal.SIGKILL
        return [(int(task), int(number)) for task, number in map(str.split, lines)]

    def order(self, orders: Orders) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(orders).decode() + "\n")
        self.process.stdin.flush()

    def end(self) -> int:
        """Wait for its end; its exit code."""
        assert self.process.stderr is not None
        errors = self.process.stderr.read()
        code = self.process.wait(timeout=60)
        assert code in (0, -signal.SIGKILL), errors
        self.close()
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


class Trial:
    def __init__(self, path: Path, model: SessionStore, *, engine: Engine = SQLITE, tasks: int = 6) -> None:
        self._path, self._engine = path, engine
        self._model = Hands(model)
        self._scripts = [Script(task) for task in range(tasks)]
        self._done = [0] * tasks
        self.unacknowledged = 0  #: steps that were found done without having been acknowledged

    @property
    def steps(self) -> int:
        return sum(self._done)

    @property
    def orders(self) -> Orders:
        return Orders(url=self._url, begin=list(self._done))

    @property
    def _url(self) -> str:
        return self._engine.url(self._path)

    async def check(self, acknowledged: Sequence[tuple[int, int]]) -> None:
        """acknowledged ⊆ found ⊆ attempted, whole steps only; then every step that was under way is done again."""
        if self._path.exists():
            self._engine.check(self._path)
        async with open_store(self._url) as store:
            await self._catch_up(acknowledged)
            before = await self._snapshots(self._model.store)
            found = await self._snapshots(store)
            under_way = [script[done] for script, done in zip(self._scripts, self._done, strict=True)]
            for step in under_way:
                await step.do(self._model)
            after = await self._snapshots(self._model.store)
            for script, step in zip(self._scripts, under_way, strict=True):
                self._check_own(script, step, before, found, after)
            _check_shared(before[SHARED], found[SHARED], after[SHARED])
            for step in under_way:
                there = all(found[session_id] == after[session_id] for session_id in step.session_ids)
                if step.again or not there:
                    await step.do(Hands(store))
            settled = await self._snapshots(store)
        for script in self._scripts:
            for session_id in script.session_ids:
                assert settled[session_id] == after[session_id]
        _check_shared(after[SHARED], settled[SHARED], after[SHARED])
        self._done = [done + 1 for done in self._done]
        self._engine.check(self._path)
        assert not self._engine.leftovers(self._path)

    async def _catch_up(self, acknowledged: Sequence[tuple[int, int]]) -> None:
        for task, number in acknowledged:
            assert number == self._done[task], "a writer's tasks acknowledge step by step"
            await self._scripts[task][number].do(self._model)
            self._done[task] += 1

    async def _snapshots(self, store: SessionStore) -> dict[str, Snapshot]:
        names = [SHARED, *(session_id for script in self._scripts for session_id in script.session_ids)]
        return {name: await snapshot(store, name) for name in names}

    def _check_own(
        self,
        script: Script,
        step: Step,
        before: dict[str, Snapshot],
        found: dict[str, Snapshot],
        after: dict[str, Snapshot],
    ) -> None:
        """A session that one task writes to is as it was before the step that was under way, or as it is behind it."""
        for session_id in script.session_ids:
            choices = [without_version(before[session_id]), without_version(after[session_id])]
            assert without_version(found[session_id]) in choices, f"{session_id} at {step.name}"
            self.unacknowledged += found[session_id] == after[session_id] != before[session_id]


def _check_shared(least: Snapshot, found: Snapshot, most: Snapshot) -> None:
    """What all tasks write to holds what was acknowledged, and of what was under way any of it, in any order."""
    must, may, there = dict(_shared(least)), dict(_shared(most)), list(_shared(found))
    assert len(there) == len(dict(there))
    assert must.items() <= dict(there).items() <= may.items()
    assert _counter(least) <= _counter(found) <= _counter(most)
    runs = found["runs"]
    assert [run["seq"] for run in runs] == list(range(1, len(runs) + 1))
    positions = [message["position"] for message in found["messages"]]
    assert positions == list(range(1, len(positions) + 1))
    if runs:
        counts = (len(runs), len(positions))
        assert (found["session"]["run_count"], found["session"]["message_count"]) == counts
        assert (found["stats"]["runs"], found["stats"]["messages"]) == counts


def _shared(found: Snapshot) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each run's id and what its messages say."""
    for run in found["runs"]:
        yield run["run_id"], tuple(message["content"] for message in run["messages"])


def _counter(found: Snapshot) -> int:
    session = found["session"]
    count: int = session.get("state", {}).get("count", 0) if isinstance(session, dict) else 0
    return count
