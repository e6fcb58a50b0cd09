"""The driver: each call is work on a thread, which ends before the call does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, TypeVar

import anyio
import anyio.to_thread

from sessionledger.drivers.jsonfile import reader
from sessionledger.drivers.jsonfile.directory import Directory
from sessionledger.drivers.jsonfile.errors import mapped
from sessionledger.drivers.jsonfile.files import View
from sessionledger.drivers.jsonfile.group import Group
from sessionledger.drivers.jsonfile.listing import Listing
from sessionledger.drivers.jsonfile.lock import BusyError
from sessionledger.errors import DecodeError, DriverError, InvalidRecordError, UnavailableError
from sessionledger.protocol.driver import PROTOCOL_VERSION, DriverInfo, StoreURL
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

__all__ = ["JSONFileDriver"]

T = TypeVar("T")

_WRITERS: Final = 4  #: groups under way, of different sessions: their disk syncs share one
_READERS: Final = 8
_MAX_RUN_BYTES: Final = 250_000_000  #: a commit is one write, made in memory
_PATIENCE: Final = 10.0  #: seconds that a call waits for another process to be done with a session
_PATIENCE_OF_A_GROUP: Final = 1.0  #: where commits of other sessions would wait with it
_DURABILITIES: Final = (Durability.DISK, Durability.PROCESS)


class JSONFileDriver:
    info: ClassVar[DriverInfo] = DriverInfo(
        name="jsonfile",
        schemes=("file", "jsonfile"),
        protocol_version=PROTOCOL_VERSION,
        durabilities=_DURABILITIES,
        backends=("asyncio", "trio"),
        writers=_WRITERS,
        max_run_bytes=_MAX_RUN_BYTES,
        options=("durability",),
    )

    def __init__(self, url: StoreURL, *, durability: Durability | str = Durability.DISK) -> None:
        if durability not in _DURABILITIES:
            known = " or ".join(repr(str(level)) for level in _DURABILITIES)
            raise InvalidRecordError(f"durability is {durability!r}: files have {known}", path="durability")
        self._durability = Durability(durability)
        self._path = _path_of(url)
        self._directory: Directory | None = None
        self._listing: Listing | None = None
        self._limits: tuple[anyio.CapacityLimiter, anyio.CapacityLimiter] | None = None

    # life

    async def open(self) -> None:
        directory = Directory(self._path, sync=self._durability is Durability.DISK)
        self._limits = anyio.CapacityLimiter(_READERS), anyio.CapacityLimiter(_WRITERS)
        await self._patiently(directory.make, self._limits[1])
        await self._patiently(directory.resume_erasures, self._limits[1])
        self._directory, self._listing = directory, Listing(directory)

    async def close(self) -> None:
        directory, self._directory = self._directory, None
        if directory is not None:
            directory.close()

    @property
    def durability(self) -> Durability:
        return self._durability

    async def ping(self) -> None:
        await self.schema_version()

    async def schema_version(self) -> int:
        directory, _ = self._opened()
        return await self._read(directory.version)

    async def upgrade_schema(self) -> int:
        directory, _ = self._opened()
        await self._write(directory.make)
        return await self.schema_version()

    # calls

    def _opened(self) -> tuple[Directory, Listing]:
        if self._directory is None or self._listing is None:
            raise DriverError("the file driver is not open: open it first", driver="jsonfile")
        return self._directory, self._listing

    async def _read(self, work: Callable[[], T]) -> T:
        directory, _ = self._opened()
        assert self._limits is not None
        return await self._patiently(partial(directory.within_limits, work), self._limits[0])

    async def _write(self, work: Callable[[], T], patience: float | None = None) -> T:
        directory, _ = self._opened()
        assert self._limits is not None
        return await self._patiently(partial(directory.within_limits, work), self._limits[1], patience)

    async def _patiently(
        self, work: Callable[[], T], limiter: anyio.CapacityLimiter, patience: float | None = None
    ) -> T:
        """Do it on a thread, again while another process keeps it from it. A thread that has begun ends before the
        call does, so that what is cancelled is wholly done or not at all.
        """
        end = time.monotonic() + (_PATIENCE if patience is None else patience)
        while True:
            try:
                with mapped():
                    return await anyio.to_thread.run_sync(work, limiter=limiter)
            except BusyError as error:
                if time.monotonic() > end:
                    raise UnavailableError(
                        f"sessions in {str(self._path)!r} could not be had in time, since others write to them or too "
                        "many files are open: try again",
                        driver="jsonfile",
                    ) from error

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Outcome | DriverError | DecodeError]:
        directory, _ = self._opened()
        group = Group(directory, commits)
        try:
            await self._write(group.write, _PATIENCE_OF_A_GROUP if group.is_shared else None)
        except UnavailableError as error:
            if not group.give_up(error):
                raise
        return group.outcomes

    async def erase(self, key: SessionKey, *, limit: int) -> bool:
        directory, _ = self._opened()
        session = directory.session(key)

        def erase() -> None:
            if session.directory.is_dir():
                with session.locked():
                    session.erase()

        await self._write(erase)
        # whatever there was went with its files
        return False

    async def _read_session(self, key: SessionKey, read: Callable[[View], T]) -> T | None:
        directory, _ = self._opened()
        return await self._read(lambda: directory.read(key, read))

    async def session(self, key: SessionKey, *, state: bool) -> SessionRow | None:
        return await self._read_session(key, partial(reader.session_row, state=state))

    async def sessions(self, query: SessionQuery) -> SessionPage:
        _, listing = self._opened()
        return await self._read(lambda: listing.sessions(query))

    async def runs(self, query: RunQuery) -> RunPage:
        return await self._read_session(query.key, lambda view: reader.runs(view, query)) or RunPage(None, (), False)

    async def find_runs(self, search: RunSearch) -> FoundRuns:
        _, listing = self._opened()
        return await self._read(lambda: listing.find_runs(search))

    async def messages(self, query: MessageQuery) -> MessagePage:
        page = await self._read_session(query.key, lambda view: reader.messages(view, query))
        return page or MessagePage(None, (), {}, False)

    async def hidden(self, query: HiddenQuery) -> HiddenPage:
        return await self._read_session(query.key, lambda view: reader.hidden(view, query)) or HiddenPage(None, ())

    async def switches(self, query: SwitchQuery) -> SwitchPage:
        page = await self._read_session(query.key, lambda view: reader.switches(view, query))
        return page or SwitchPage(None, (), False)


def _path_of(url: StoreURL) -> Path:
    """`file:///name` is absolute, as everywhere; `file:name` and `file://./name` are beside the working directory."""
    if url.authority not in ("", "localhost", ".", ".."):
        raise InvalidRecordError(
            "a file URL names a directory of this machine: file:///var/lib/agents, or file:agents for one in the "
            "working directory",
            path="url",
        )
    path = url.authority + url.path if url.authority.startswith(".") else url.path
    if not path or "\0" in path:
        raise InvalidRecordError("a file URL names a directory: file:///var/lib/agents, or file:agents", path="url")
    return Path(os.path.abspath(path))
