"""A file of conversations into a store: a line at a time, some of them under way at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import BinaryIO, NoReturn

import anyio
import anyio.to_thread

from sessionledger import InvalidRecordError, RunConflictError, SessionDeletedError, SessionStore
from sessionledger.cli.conversations import BadLineError, Conversation, parse_line
from sessionledger.cli.storing import Counts, Outcome, Storer, open_storer

__all__ = ["Summary", "import_conversations"]

#: Conversations under way at once: enough for the store to write them in groups, few enough to hold in memory.
CONCURRENCY = 16
#: Bytes that are read from the file in one go; at least a line.
_READ_SIZE = 256 * 1024

#: What is wrong with a line, as against what is wrong with the storage, which ends the import.
_LINE_ERRORS = (BadLineError, InvalidRecordError, RunConflictError, SessionDeletedError)


@dataclass
class Summary:
    """What an import has done."""

    new: Counts = field(default_factory=Counts)
    there: Counts = field(default_factory=Counts)
    metadata_changed: int = 0  #: sessions that were there and have other metadata now
    bad_lines: int = 0
    stopped: bool = False  #: at a bad line, because of `strict`

    def add(self, outcome: Outcome) -> None:
        self.new.add(outcome.new)
        self.there.add(outcome.there)
        self.metadata_changed += outcome.metadata_changed


async def import_conversations(
    store: SessionStore,
    file: BinaryIO,
    *,
    strict: bool = False,
    on_bad_line: Callable[[int, str], None] = lambda number, reason: None,
    on_progress: Callable[[int], None] = lambda size: None,
) -> Summary:
    """Import a JSON Lines file; `on_bad_line` gets each bad line's number and what is wrong with it.

    `strict` stops at the first bad line, and then lines are stored one after the other. `on_progress` gets the size of
    each line that is done with. An error of the storage ends the import; what was stored until then stays, and a second
    import finds it there.
    """
    async with open_storer(store) as storer:
        job = _Import(storer, strict, on_bad_line, on_progress)
        try:
            await job.run(file)
        except BaseExceptionGroup as group:
            _raise_first(group)
    return job.summary


def _raise_first(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    raise error


class _Import:
    """The state of one import: what is under way, and what has come of it."""

    def __init__(
        self,
        storer: Storer,
        strict: bool,
        on_bad_line: Callable[[int, str], None],
        on_progress: Callable[[int], None],
    ) -> None:
        self.summary = Summary()
        self._storer = storer
        self._strict = strict
        self._on_bad_line = on_bad_line
        self._on_progress = on_progress
        self._free = anyio.Semaphore(1 if strict else CONCURRENCY)
        self._under_way: dict[str, anyio.Event] = {}

    async def run(self, file: BinaryIO) -> None:
        number = 0
        async with anyio.create_task_group() as tasks:
            async for line in _lines(file):
                number += 1
                await self._free.acquire()
                conversation = None if self.summary.stopped else self._parse(number, line)
                if conversation is None:
                    self._free.release()
                    self._on_progress(len(line))
                else:
                    await self._wait_for(conversation.session_id)
                    tasks.start_soon(self._store_line, number, line, conversation)
                if self.summary.stopped:
                    return

    def _parse(self, number: int, line: bytes) -> Conversation | None:
        """The line's conversation; None for an empty line and for a bad one."""
        if not line.strip():
            return None
        try:
            return parse_line(line)
        except BadLineError as error:
            self._refuse(number, error)
            return None

    async def _wait_for(self, session_id: str) -> None:
        """Lines of one session are stored in the order of the file."""
        while session_id in self._under_way:
            await self._under_way[session_id].wait()
        self._under_way[session_id] = anyio.Event()

    async def _store_line(self, number: int, line: bytes, conversation: Conversation) -> None:
        try:
            self.summary.add(await self._storer.store(conversation))
        except _LINE_ERRORS as error:
            self._refuse(number, error)
        finally:
            self._under_way.pop(conversation.session_id).set()
            self._free.release()
            self._on_progress(len(line))

    def _refuse(self, number: int, error: Exception) -> None:
        self.summary.bad_lines += 1
        self.summary.stopped = self._strict
        self._on_bad_line(number, str(error))


async def _lines(file: BinaryIO) -> AsyncIterator[bytes]:
    """Read in a thread: a pipe may keep its reader waiting."""
    while lines := await anyio.to_thread.run_sync(file.readlines, _READ_SIZE):
        for line in lines:
            yield line
