"""Concurrent commits share a call of the driver.

What arrives while a group is being written forms the next one; a lone commit waits for nobody. A session has one group
in flight, so that its commits are judged in the order in which they came. A commit that was sent goes on when its
caller is cancelled; one that still waits is taken back.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from functools import partial

from sessionledger.background import Background
from sessionledger.deadline import SETTLE, Deadline, Deadlines
from sessionledger.errors import OutcomeUnknownError, StoreClosedError
from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import Commit, Outcome, SessionKey
from sessionledger.retry import retried
from sessionledger.waiting import Patience, Waiter

__all__ = ["Grouper"]


_SMALL_GROUP = 8  #: is not divided


class _Pending:
    __slots__ = ("commit", "taken_back", "waiter")

    def __init__(self, commit: Commit) -> None:
        self.commit = commit
        self.waiter: Waiter[Outcome] = Waiter()
        self.taken_back = False


class Grouper:
    def __init__(self, driver: Driver, background: Background, deadlines: Deadlines) -> None:
        self._driver = driver
        self._background = background
        self._deadlines = deadlines
        self._patience = Patience(deadlines.timeout)
        self._waiting: deque[_Pending] = deque()
        self._written: list[list[_Pending]] = []  #: groups that are with the driver
        self._busy: set[SessionKey] = set()
        self._writers = 0
        self._idle: Waiter[None] | None = None
        self._closed = False

    async def commit(self, commit: Commit) -> Outcome:
        pending = self._hand_in(commit)
        try:
            return await pending.waiter.wait()
        finally:
            # one that is being written has left the queue already; its outcome is nobody's
            pending.taken_back = True

    async def commit_in_time(self, commit: Commit) -> Outcome:
        """`TimeoutError` when it is not settled within the store's timeout."""
        pending = self._hand_in(commit)
        try:
            return await self._patience.wait(pending.waiter)
        finally:
            pending.taken_back = True

    def _hand_in(self, commit: Commit) -> _Pending:
        if self._closed:
            raise _closed()
        pending = _Pending(commit)
        self._waiting.append(pending)
        if self._writers < self._driver.info.writers and commit.key not in self._busy:
            self._writers += 1
            self._background.spawn(self._write)
        return pending

    def refuse(self) -> None:
        """From now on nothing more is sent: whoever waits for his turn, or comes later, is told."""
        self._closed = True
        while self._waiting:
            self._waiting.popleft().waiter.set(_closed())

    def abandon(self) -> None:
        """The driver is closed, so that nobody will learn any more what became of the commits that it had."""
        for group in self._written:
            for pending in group:
                pending.waiter.set(_unknown())
        self._patience.close()

    async def drain(self) -> None:
        """Wait until all that was handed in is settled."""
        if self._writers:
            self._idle = self._idle or Waiter()
            await self._idle.wait()

    async def _write(self) -> None:
        try:
            while group := self._take():
                keys = {pending.commit.key for pending in group}
                self._busy |= keys
                self._written.append(group)
                try:
                    await self._write_group(group)
                finally:
                    self._busy -= keys
                    self._written.remove(group)
        finally:
            self._writers -= 1
            if not self._writers and self._idle is not None:
                self._idle.set(None)
                self._idle = None

    def _take(self) -> list[_Pending]:
        """The next group: what waits, in order, but for sessions that another writer is at. Each writer who has nothing
        to do gets its share, so that a group is prepared while another one is written.
        """
        if len(self._waiting) == 1 and self._waiting[0].commit.key not in self._busy:
            alone = self._waiting.popleft()
            return [] if alone.taken_back else [alone]
        group: list[_Pending] = []
        held: list[_Pending] = []
        share = -(-len(self._waiting) // (self._driver.info.writers - len(self._written)))
        limit = min(max(share, _SMALL_GROUP), self._driver.info.max_group)
        while self._waiting and len(group) < limit:
            pending = self._waiting.popleft()
            if pending.taken_back:
                continue
            (held if pending.commit.key in self._busy else group).append(pending)
        self._waiting.extendleft(reversed(held))
        return group

    async def _write_group(self, group: list[_Pending]) -> None:
        commits = [pending.commit for pending in group]

        def wanted() -> bool:
            return not all(pending.taken_back for pending in group)

        try:
            # whoever waits has a deadline of his own; this one frees the writer for those who come next
            with Deadline(self._deadlines, SETTLE):
                outcomes = await retried(partial(self._driver.commit, commits), wanted=wanted)
        except BaseException as error:
            for pending in group:
                if not pending.taken_back:
                    pending.waiter.set(_for_one(error))
            if not isinstance(error, Exception):
                raise
        else:
            for pending, outcome in zip(group, outcomes, strict=True):
                pending.waiter.set(outcome)


def _for_one(error: BaseException) -> BaseException:
    """An exception that several tasks raise needs a traceback in each."""
    if not isinstance(error, Exception):
        return _unknown()
    twin = copy(error)
    twin.__cause__ = error.__cause__ or error
    return twin


def _closed() -> StoreClosedError:
    return StoreClosedError("the store was closed before this was written: open it and repeat the call")


def _unknown() -> OutcomeUnknownError:
    return OutcomeUnknownError(
        "the store was closed while this was written: open it and repeat the call with the same ids to settle it"
    )
