"""The one cursor: it hands out what a walk brings, page by page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from sessionledger.context import Context
from sessionledger.records import Page
from sessionledger.validate import check_count

__all__ = ["PagedCursor", "Walk"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Walk(Protocol[T_co]):
    """One pass over something stored."""

    @property
    def done(self) -> bool:
        """Whether it is known that there is no more."""
        ...

    async def fetch(self, want: int) -> Sequence[T_co]:
        """The next items: at least one, about `want`; none at the end. Each call is bounded by one deadline."""
        ...

    def token(self, item: Any) -> str:
        """The place right behind that item."""
        ...


class PagedCursor(Generic[T]):
    def __init__(
        self, context: Context, walk: Callable[[], Walk[T]], page_size: int | None, *, pages_collected: int = 1
    ) -> None:
        """`pages_collected`: so many are fetched as one by `collect`, which holds them all anyway."""
        if page_size is not None:
            check_count(page_size, "page_size", least=1)
        self._context = context
        self._make_walk = walk
        self._walk: Walk[T] | None = None
        self._page_size = page_size or context.limits.rows
        rows = context.limits.rows
        self._collected = min(page_size, rows) if page_size else rows * pages_collected
        self._buffer: Sequence[T] = ()
        self._next = 0
        self._last: T | None = None

    def __aiter__(self) -> PagedCursor[T]:
        return self

    async def __anext__(self) -> T:
        index = self._next
        if index >= len(self._buffer):
            if not await self._fill(self._page_size):
                raise StopAsyncIteration
            index = 0
        self._next = index + 1
        item = self._last = self._buffer[index]
        return item

    async def page(self) -> Page[T]:
        items: list[T] = []
        while len(items) < self._page_size:
            # one more is asked for, to know whether there is a next page
            if self._next >= len(self._buffer) and not await self._fill(self._page_size - len(items) + 1):
                break
            items += self._take(self._page_size - len(items))
        more = self._next < len(self._buffer) or await self._fill(1)
        return Page(items=items, next_token=self.token if more else None)

    async def collect(self) -> list[T]:
        items = self._take(len(self._buffer))
        while await self._fetch(self._collected):
            items += self._take(len(self._buffer))
        return items

    async def first(self) -> T | None:
        if self._next >= len(self._buffer) and not await self._fill(1):
            return None
        return self._take(1)[0]

    async def count(self) -> int:
        other = PagedCursor(self._context, self._make_walk, None)
        total = 0
        while await other._fill(other._page_size):
            total += len(other._buffer)
        return total

    @property
    def token(self) -> str | None:
        return None if self._last is None or self._walk is None else self._walk.token(self._last)

    def _take(self, count: int) -> list[T]:
        items = list(self._buffer[self._next : self._next + count])
        self._next += len(items)
        if items:
            self._last = items[-1]
        return items

    async def _fill(self, want: int) -> bool:
        """Fetch the next items, once the buffer is used up; False at the end."""
        return await self._fetch(min(want, self._context.limits.rows))

    async def _fetch(self, want: int) -> bool:
        if self._walk is None:
            self._walk = self._make_walk()
        if self._walk.done:
            self._context.check()
            return False
        with self._context.reading():
            self._buffer = await self._walk.fetch(want)
        self._next = 0
        return bool(self._buffer)
