"""What a driver is: the one protocol between the core and a storage. Its docstrings are the specification.

A driver moves rows. It knows no record, raises no error of a user's making, keeps no policy: ids, digests, validation,
grouping, retries, deadlines, cursors, forks and hidden ranges are the core's. `sessionledger.testing` tests one.

Rules for all methods:

* They raise `DriverError`s only, each `from` the client library's exception: `UnavailableError` and `PoolTimeoutError`
  when nothing was done, `OutcomeUnknownError` when a write may have been done. What is stored but cannot be read as
  rows is a `DecodeError`.
* The core calls them from one event loop and bounds each by a deadline: a call may be cancelled at any await. A
  cancelled write is wholly done or not at all, a connection that it leaves behind is usable or gone.
* They may be called concurrently, `commit` up to `DriverInfo.writers` times, never twice for one session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

import msgspec

from sessionledger.errors import DecodeError, DriverError
from sessionledger.protocol.rows import (
    Commit,
    FoundRuns,
    HiddenPage,
    HiddenQuery,
    MessagePage,
    MessageQuery,
    Outcome,
    RunPage,
    RunQuery,
    RunSearch,
    SessionKey,
    SessionPage,
    SessionQuery,
    SessionRow,
    SwitchPage,
    SwitchQuery,
)
from sessionledger.records import Durability

__all__ = ["PROTOCOL_VERSION", "Driver", "DriverFactory", "DriverInfo", "StoreURL"]

#: Grows when a driver that was written for the one before would no longer be right.
PROTOCOL_VERSION = 1


class DriverInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver says of itself before it is opened."""

    name: str
    schemes: Sequence[str]  #: of URLs; each is the name of an entry point
    protocol_version: int
    durabilities: Sequence[Durability]  #: those it can be asked for, its default first
    abilities: frozenset[str] = frozenset()  #: names of the optional protocols that it has
    backends: Sequence[str] = ("asyncio",)  #: event loops that it runs on: "asyncio", "trio"
    writers: int = 1  #: how many `commit` calls may be under way
    max_group: int = 256  #: commits of one call, at most
    reads_ahead: bool = (
        False  #: a page of messages is looked up elsewhere, so that one is asked for before it is wanted
    )
    message_copies: bool = False  #: it keeps columns beside a message's body: see `MessageRow`
    #: Bytes of one run's messages and fields, encoded; None: no limit but memory.
    max_run_bytes: int | None = None
    options: Sequence[str] = ()  #: keywords that its factory takes, from the URL's query or `open_store`


class StoreURL(msgspec.Struct, frozen=True, kw_only=True):
    """A URL taken apart; `text` is the whole, with its secrets, and is in no repr."""

    scheme: str
    text: str
    path: str  #: after the authority, decoded; "" for none, "/x" for `scheme:///x`
    authority: str = ""
    query: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"<StoreURL {self.scheme}>"


@runtime_checkable
class Driver(Protocol):
    """One storage. Made by a `DriverFactory`, opened once, closed once."""

    info: ClassVar[DriverInfo]

    async def open(self) -> None:
        """Connect, make the schema where there is none, upgrade an older one under a lock, once among all processes.

        `SchemaTooNewError` when the storage asks for a newer reader or writer.
        """
        ...

    async def close(self) -> None:
        """Let go of everything that `open` took. Never of what was given to it."""
        ...

    @property
    def durability(self) -> Durability:
        """What a commit survives when it returns, read from the storage at open."""
        ...

    async def ping(self) -> None:
        """One round trip."""
        ...

    async def schema_version(self) -> int: ...

    async def upgrade_schema(self) -> int:
        """As `open` does; returns the version that is stored then."""
        ...

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Outcome | DriverError | DecodeError]:
        """Write commits in this order, each succeeding or failing alone; an outcome for each, when all are durable.

        Commits of one session see those before them. `Commit` says what is judged, and in which order. Where the
        storage itself fails one of them, a `DriverError` stands in the place of its outcome, a `DecodeError` where what
        is stored of its session is damaged. When the call raises, any of them may have been written, each wholly or not
        at all; the core sends them again.
        """
        ...

    async def session(self, key: SessionKey, *, state: bool) -> SessionRow | None:
        """A session, a tombstone too; its state is not read unless it is asked for."""
        ...

    async def sessions(self, query: SessionQuery) -> SessionPage:
        """Must be answered from an index for a namespace and for a user of it, without touching runs or messages."""
        ...

    async def runs(self, query: RunQuery) -> RunPage: ...

    async def find_runs(self, search: RunSearch) -> FoundRuns: ...

    async def messages(self, query: MessageQuery) -> MessagePage:
        """The first row must be found in O(log n)."""
        ...

    async def hidden(self, query: HiddenQuery) -> HiddenPage: ...

    async def switches(self, query: SwitchQuery) -> SwitchPage: ...

    async def erase(self, key: SessionKey, *, limit: int) -> bool:
        """Erase about `limit` rows of a session's sealed incarnations; True while there are more of them.

        The tombstone stays. Rows of an incarnation that is not sealed are left alone, also where the session was made
        again before the one before was erased. The core calls it after a `Seal` until it answers False. Where it is
        stopped before, rows are left that no read shows; nobody but the next deletion of that session waits for them.
        Other sessions' never change the answer: the rest of the limit may go to them, and `open` may erase some, so
        that in the end they go without anybody's asking.
        """
        ...


#: What an entry point of the group `sessionledger.drivers` loads: called with the URL and the options that `info`
#: names. It has `info` too (a class has both), so that a driver can be listed without being made, and does no I/O.
DriverFactory = Callable[..., Driver]
