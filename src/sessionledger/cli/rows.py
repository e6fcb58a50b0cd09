"""Lists for people, printed page by page: the width of a column is that of the rows seen so far."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from sessionledger import Cursor, Page
from sessionledger.cli.output import clipped, json_line, output_console
from sessionledger.cli.safety import one_line

__all__ = ["Column", "print_items", "print_rows"]

T = TypeVar("T")
_GAP = "  "
#: A cell is no wider than this in a pipe, where no terminal sets a limit.
_WIDEST = 200


@dataclass(frozen=True)
class Column(Generic[T]):
    heading: str
    text: Callable[[T], str]
    style: str | Callable[[T], str] = ""
    right: bool = False
    shrinks: bool = False  #: when the line is full; ids don't, because people copy them

    def cell(self, item: T, width: int) -> Text:
        text = _fit(one_line(self.text(item)), width, self.right)
        return Text(text, style=self.style if isinstance(self.style, str) else self.style(item))


def _fit(text: str, width: int, right: bool) -> str:
    text = clipped(text, width)
    blanks = " " * (width - cell_len(text))
    return blanks + text if right else text + blanks


async def print_items(
    cursor: Cursor[T], columns: Sequence[Column[T]], *, as_json: bool, limit: int | None = None
) -> None:
    """Print what the cursor brings: JSON lines, or rows under a heading."""
    if not as_json:
        await print_rows(cursor, columns, limit=limit)
        return
    async for page in _pages(cursor, limit):
        for item in page.items:
            json_line(item)


async def print_rows(cursor: Cursor[T], columns: Sequence[Column[T]], *, limit: int | None = None) -> None:
    """Columns that are empty are left out when all rows are known at once, that is, when they fit into one page."""
    console = output_console()
    rows: _Rows[T] | None = None
    async for page in _pages(cursor, limit):
        if rows is None and page.items:
            rows = _Rows(console, _filled(columns, page) if page.next_token is None else columns)
        if rows is not None:
            rows.print(page.items)


def _filled(columns: Sequence[Column[T]], page: Page[T]) -> Sequence[Column[T]]:
    return [column for column in columns if any(column.text(item) for item in page.items)]


class _Rows(Generic[T]):
    def __init__(self, console: Console, columns: Sequence[Column[T]]) -> None:
        self._console = console
        self._columns = columns
        self._widths = [cell_len(column.heading) for column in columns]
        self._started = False

    def print(self, items: Sequence[T]) -> None:
        self._widen(items)
        if not self._started:
            headings = (_fit(column.heading, width, column.right) for column, width in self._places())
            self._line([Text(heading, style="bold") for heading in headings])
            self._started = True
        for item in items:
            self._line([column.cell(item, width) for column, width in self._places()])

    def _places(self) -> list[tuple[Column[T], int]]:
        return list(zip(self._columns, self._widths, strict=True))

    def _line(self, cells: Sequence[Text]) -> None:
        line = Text(_GAP).join(cells)
        line.rstrip()
        self._console.print(line, no_wrap=True, overflow="ignore", crop=self._console.is_terminal)

    def _widen(self, items: Sequence[T]) -> None:
        for index, column in enumerate(self._columns):
            widest = max((cell_len(one_line(column.text(item))) for item in items), default=0)
            self._widths[index] = min(max(self._widths[index], widest), _WIDEST)
        if self._console.is_terminal:
            self._shrink()

    def _shrink(self) -> None:
        """Make room from the right, down to the headings; what has none even so is cut off at the terminal's edge."""
        surplus = sum(self._widths) + len(_GAP) * (len(self._widths) - 1) - self._console.width
        for index, column in reversed(list(enumerate(self._columns))):
            if surplus > 0 and column.shrinks:
                narrower = max(self._widths[index] - surplus, cell_len(column.heading))
                surplus -= self._widths[index] - narrower
                self._widths[index] = narrower


async def _pages(cursor: Cursor[T], limit: int | None) -> AsyncIterator[Page[T]]:
    left = limit
    while left is None or left > 0:
        page = await cursor.page()
        if left is not None and len(page.items) >= left:
            yield Page(items=page.items[:left])
            return
        yield page
        if page.next_token is None:
            return
        left = None if left is None else left - len(page.items)
