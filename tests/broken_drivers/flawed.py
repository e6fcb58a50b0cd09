"""What the broken drivers are made of: the memory driver, with each of its steps open to one flaw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from sessionledger.drivers import memory
from sessionledger.drivers.memory import MemoryDriver
from sessionledger.protocol.decide import Decision, Known, decide
from sessionledger.protocol.driver import DriverInfo
from sessionledger.protocol.rows import Commit, Outcome

__all__ = ["Flawed", "replace"]

replace = msgspec.structs.replace


class Flawed(MemoryDriver):
    """A driver with a flaw. `caught_by` is the test of the kit that is meant for it."""

    info: ClassVar[DriverInfo] = replace(MemoryDriver.info, backends=("asyncio",))
    caught_by: ClassVar[str]

    def known(self, commit: Commit, log: memory._Log | None) -> Known:
        return memory._known(commit, log)

    def judge(self, commit: Commit, known: Known) -> Decision:
        return decide(commit, known)

    def write(self, log: memory._Log, commit: Commit, decision: Decision) -> None:
        memory._write(log, commit, decision)

    def log(self, commit: Commit) -> memory._Log | None:
        return self._storage.logs.get(commit.key)

    def group(self, commits: Sequence[Commit]) -> list[Outcome]:
        return [self._commit(commit) for commit in commits]

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Outcome]:
        await self._turn()
        return self.group(commits)

    def _commit(self, commit: Commit) -> Outcome:
        log = self.log(commit)
        return self.settle(commit, self.judge(commit, self.known(commit, log)), log)

    def settle(self, commit: Commit, decision: Decision, log: memory._Log | None) -> Outcome:
        if decision.head is not None:
            if decision.created or log is None:
                log = self._make(commit, decision.head)
            self.write(log, commit, decision)
        return decision.outcome
