"""What the parts of an open store share: the driver, its deadlines, its life, and one place where calls go through."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, TypeVar

import anyio
import msgspec
from anyio.lowlevel import current_token

from sessionledger.background import Background
from sessionledger.codec import now_micros
from sessionledger.deadline import SETTLE, Deadline, Deadlines, late
from sessionledger.errors import (
    DriverTimeoutError,
    StoreClosedError,
    WrongLoopError,
    WrongProcessError,
)
from sessionledger.group import Grouper
from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import Commit, Committed, Head, Outcome, SessionKey
from sessionledger.retry import retried
from sessionledger.waiting import Waiter, running_loop

__all__ = ["Context", "Limits", "Scope"]

T = TypeVar("T")

_MAX_LOCKS: Final = 1024
_NEVER: Final = -1  #: a version that no log has


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a page holds, at most."""

    rows: int = 500
    bytes: int = 2 * 1024 * 1024
    collected: int = 4  #: pages of messages that are read as one by who collects them all


class Scope(msgspec.Struct, frozen=True):
    """Which sessions a view sees: those of a namespace and, if it names one, of a user."""

    namespace: str = ""
    user_id: str | None = None

    def key(self, session_id: str) -> SessionKey:
        return SessionKey(self.namespace, session_id)

    def sees(self, head: Head) -> bool:
        return self.user_id is None or head.user_id == self.user_id

    def visible(self, head: Head | None) -> Head | None:
        """The head of a session that is there for this scope; tombstones are not."""
        return head if head is not None and not head.erased and self.sees(head) else None


class Context:
    def __init__(self, driver: Driver, *, timeout: float | None, clock: Callable[[], int] = now_micros) -> None:
        self.driver = driver
        self.timeout = timeout
        self._clock = clock
        self._last_time = 0
        self.limits = Limits()
        self.background = Background()
        self._deadlines = Deadlines(timeout)
        self._grouper = self._new_grouper()
        self._locks: OrderedDict[Hashable, anyio.Lock] = OrderedDict()
        self._opening = anyio.Lock()
        self._pid: int | None = None
        self._loop: Any = None

    # life

    async def open(self, *, scoped: bool) -> None:
        if self._pid is not None:
            self.check()
            return
        # whoever comes second finds it open, or opens it where the first could not
        async with self._opening:
            if self._pid is None:
                await self._open(scoped=scoped)

    async def _open(self, *, scoped: bool) -> None:
        await self.background.open(scoped=scoped, driver=self.driver.info.name)
        try:
            with Deadline(self._deadlines, "is the storage reachable?"):
                await retried(self.driver.open)
        except BaseException:
            await self.background.close()
            raise
        # what the one before has left unfinished is none of this one's
        self._grouper = self._new_grouper()
        self._pid, self._loop = os.getpid(), _current_loop()

    def _new_grouper(self) -> Grouper:
        return Grouper(self.driver, self.background, self._deadlines)

    async def close(self) -> None:
        if self._pid is None:
            return
        self.check()
        try:
            with anyio.move_on_after(self.timeout):
                # the end of a recording makes calls of its own
                await self.background.drain()
                self._pid = None
                await self._grouper.drain()
        finally:
            self._pid = None
            self._grouper.refuse()
            try:
                with anyio.move_on_after(self.timeout, shield=True):
                    await self.background.drop_reads()
                    await self.driver.close()
            finally:
                self._grouper.abandon()
                self._deadlines.close()
                await self.background.close()

    def check(self) -> None:
        """Every public call begins here."""
        if self._pid is None:
            raise StoreClosedError("the store is not open: use 'async with open_store(…)' or 'await store.open()'")
        if self._pid != os.getpid():
            raise WrongProcessError(
                f"the store was opened by process {self._pid}, this is {os.getpid()}: open a store of its own in each"
            )
        if self._loop != _current_loop():
            raise WrongLoopError("the store was opened in another event loop: open one in each loop")

    # calls

    def now(self) -> int:
        """Microseconds since 1970, never going back, never twice the same: the order of sessions follows it."""
        self._last_time = max(self._clock(), self._last_time + 1)
        return self._last_time

    async def commit(self, commit: Commit) -> Outcome:
        return await self._grouper.commit(commit)

    async def replay(self, commit: Commit) -> Committed | None:
        """The outcome of a commit without runs, if it was done already; it is not done now."""
        changed = msgspec.structs.replace(commit, changes=(), create=None, must_create=False, expected_version=_NEVER)
        outcome = await self.commit(changed)
        return outcome if isinstance(outcome, Committed) else None

    async def commit_alone(self, commit: Commit) -> Outcome:
        """A write that is this commit and nothing else, with its deadline."""
        try:
            return await self._grouper.commit_in_time(commit)
        except TimeoutError as error:
            if isinstance(error, DriverTimeoutError):
                raise
            raise late(self.timeout, SETTLE) from None

    def writing(self) -> Deadline:
        """Every public write runs inside one."""
        self.check()
        return Deadline(self._deadlines, SETTLE)

    def reading(self) -> Deadline:
        self.check()
        return Deadline(self._deadlines, "is the storage reachable?")

    def read_ahead(self, read: Callable[[], Awaitable[T]]) -> Waiter[T]:
        """Begin a read whose answer will be asked for, unless its caller stops before."""

        async def in_time() -> T:
            with self.reading():
                return await read()

        return self.background.ahead(in_time)

    def lock(self, key: Hashable) -> anyio.Lock:
        """Of a session or a run, for changes that read first: those of one process take turns, and don't fail each
        other.
        """
        lock = self._locks.setdefault(key, anyio.Lock())
        self._locks.move_to_end(key)
        if len(self._locks) > _MAX_LOCKS:
            self._forget_locks()
        return lock

    def _forget_locks(self) -> None:
        for key, lock in list(self._locks.items())[: _MAX_LOCKS // 2]:
            if not lock.statistics().locked:
                del self._locks[key]


def _current_loop() -> Any:
    return running_loop() or current_token()
