"""The driver: each call is one piece of work on a thread."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import anyio.to_thread
import msgspec

from sessionledger.errors import DecodeError, DriverError, UnavailableError
from sessionledger.protocol.driver import PROTOCOL_VERSION, DriverInfo, StoreURL
from sessionledger.protocol.filters import is_asked_for, is_found, is_listed, is_searched, place_of, size_of
from sessionledger.protocol.rows import (
    Commit,
    FoundRuns,
    HiddenPage,
    HiddenQuery,
    MessagePage,
    MessageQuery,
    MessageRow,
    Outcome,
    RunPage,
    RunQuery,
    RunRow,
    RunSearch,
    SessionKey,
    SessionPage,
    SessionQuery,
    SessionRow,
    SwitchPage,
    SwitchQuery,
)
from sessionledger.records import Durability
from sessionledger_shelf.shelf import Book, Shelf

T = TypeVar("T")


class ShelfDriver:
    info: ClassVar[DriverInfo] = DriverInfo(
        name="shelf",
        schemes=("shelf",),
        protocol_version=PROTOCOL_VERSION,
        durabilities=(Durability.PROCESS,),
    )

    def __init__(self, url: StoreURL) -> None:
        self._shelf = Shelf(Path(url.path.removeprefix("/") or "."))
        self._opened = False

    @property
    def durability(self) -> Durability:
        return Durability.PROCESS

    async def open(self) -> None:
        self._opened = True
        await self._work(self._shelf.make)

    async def close(self) -> None:
        self._opened = False

    async def ping(self) -> None:
        await self._work(self._shelf.make)

    async def schema_version(self) -> int:
        return 1

    async def upgrade_schema(self) -> int:
        return 1

    async def _work(self, work: Callable[..., T], *arguments: Any) -> T:
        if not self._opened:
            raise DriverError("the shelf is closed: open the store first", driver="shelf")
        try:
            # the thread goes on when its caller is cancelled, so that what it writes is whole
            return await anyio.to_thread.run_sync(work, *arguments, abandon_on_cancel=False)
        except (pickle.UnpicklingError, EOFError) as error:
            raise DecodeError(f"a file of the shelf is damaged ({error}): restore it from a backup") from error
        except OSError as error:
            raise UnavailableError(f"the shelf cannot be used ({error}): look at its rights", driver="shelf") from error

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Outcome | DriverError]:
        def write() -> list[Outcome | DriverError]:
            with self._shelf.locked():
                return [self._shelf.commit(commit) for commit in commits]

        return await self._work(write)

    async def erase(self, key: SessionKey, *, limit: int) -> bool:
        def erase() -> bool:
            with self._shelf.locked():
                book = self._shelf.load(key)
                if book is not None and book.head.erased and (book.runs or book.operations or book.hidden):
                    self._shelf.save(Book(book.head, book.header, book.state))
            return False

        return await self._work(erase)

    async def session(self, key: SessionKey, *, state: bool) -> SessionRow | None:
        book = await self._work(self._shelf.load, key)
        if book is None:
            return None
        return SessionRow(book.head, book.header, book.state if state else None, book.counters)

    async def sessions(self, query: SessionQuery) -> SessionPage:
        books = [book for book in await self._work(self._shelf.books) if is_listed(book.head, book.header, query)]
        books.sort(key=lambda book: place_of(book.head), reverse=not query.reverse)
        rows = [SessionRow(book.head, book.header, None, {}) for book in books[: query.limit]]
        return SessionPage(rows, len(books) > query.limit)

    async def runs(self, query: RunQuery) -> RunPage:
        book = await self._work(self._shelf.load, query.key)
        if book is None or book.head.erased:
            return RunPage(book.head if book else None, (), False)
        rows = [row for row in book.runs if query.first_seq <= row.seq <= query.last_seq]
        if query.run_id is not None:
            rows = [row for row in rows if row.run_id == query.run_id]
        rows.sort(key=lambda row: (row.seq, row.revision), reverse=query.reverse)
        if not query.bodies:
            rows = [msgspec.structs.replace(row, body="", parts={}) for row in rows]
        page, more = _page(rows, query.limit, query.max_bytes, size_of)
        return RunPage(book.head, page, more)

    async def find_runs(self, search: RunSearch) -> FoundRuns:
        found: list[tuple[str, Book, RunRow]] = []
        for book in await self._work(self._shelf.books):
            newest = {row.seq: row for row in sorted(book.runs, key=lambda row: row.revision)}
            found += [
                (msgspec.json.encode((book.head.key.session_id, row.seq)).decode(), book, row)
                for row in newest.values()
                if is_searched(book.head, search) and is_found(row, search)
            ]
        found.sort(key=lambda item: (item[1].head.key.session_id, item[2].seq), reverse=search.reverse)
        places = [place for place, _, _ in found]
        if search.after is not None:
            found = found[places.index(search.after) + 1 :] if search.after in places else []
        page, more = _page(found, search.limit, search.max_bytes, lambda item: size_of(item[2]))
        return FoundRuns([(book.head, row, place) for place, book, row in page], more)

    async def messages(self, query: MessageQuery) -> MessagePage:
        book = await self._work(self._shelf.load, query.key)
        if book is None or book.head.erased:
            return MessagePage(book.head if book else None, (), {}, False)
        page, more = _page(list(_in_ranges(book, query)), query.limit, query.max_bytes, lambda row: len(row.body))
        run_ids = {row.seq: row.run_id for row in book.runs}
        return MessagePage(book.head, page, {row.run_seq: run_ids[row.run_seq] for row in page}, more)

    async def hidden(self, query: HiddenQuery) -> HiddenPage:
        book = await self._work(self._shelf.load, query.key)
        if book is None or book.head.erased:
            return HiddenPage(book.head if book else None, ())
        rows = book.hidden
        found = [row for row in rows if is_asked_for(row, query)]
        return HiddenPage(book.head, found)

    async def switches(self, query: SwitchQuery) -> SwitchPage:
        book = await self._work(self._shelf.load, query.key)
        if book is None or book.head.erased:
            return SwitchPage(book.head if book else None, (), False)
        rows = [row for row in book.switches if query.first_version <= row.version <= query.last_version]
        rows.sort(key=lambda row: row.version, reverse=query.reverse)
        return SwitchPage(book.head, rows[: query.limit], len(rows) > query.limit)


def _page(rows: Sequence[T], limit: int, max_bytes: int, size_of: Callable[[T], int]) -> tuple[list[T], bool]:
    page: list[T] = []
    size = 0
    for row in rows:
        if len(page) == limit or size >= max_bytes:
            return page, True
        page.append(row)
        size += size_of(row)
    return page, False


def _in_ranges(book: Book, query: MessageQuery) -> Iterable[MessageRow]:
    for first, last in query.ranges:
        rows = [row for row in book.messages if first <= row.position <= last]
        if query.message_id is not None:
            rows = [row for row in rows if row.message_id == query.message_id]
        yield from reversed(rows) if query.reverse else rows
