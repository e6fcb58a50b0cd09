"""Curves made of block characters, side by side on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

__all__ = ["plot"]

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDTH = 32
_HEIGHT = 9
_GAP = "   "


def plot(curves: Mapping[str, Sequence[int]], styles: Sequence[str], *, top: str, first: str, last: str) -> Text:
    """Each curve under its name; `top` labels the highest value of all, `first` and `last` the ends of the x axis.

    A value that is not 0 is never drawn as nothing.
    """
    highest = max(max(values) for values in curves.values())
    bars = [_bars(values, highest) for values in curves.values()]
    margin = len(top)
    text = Text(" " * (margin + 2))
    _join(text, [name.ljust(_WIDTH) for name in curves], styles)
    for row in reversed(range(_HEIGHT)):
        label = {_HEIGHT - 1: top, 0: "0"}.get(row, "")
        text.append(f"\n{label:>{margin}} ┤", style="dim")
        _join(text, ["".join(_block(height, row) for height in heights) for heights in bars], styles)
    text.append("\n" + " " * (margin + 2))
    axis = first + last.rjust(_WIDTH - len(first))
    _join(text, [axis for _ in curves], ["dim" for _ in curves])
    return text


def _join(text: Text, parts: Sequence[str], styles: Sequence[str]) -> None:
    for index, (part, style) in enumerate(zip(parts, styles, strict=True)):
        text.append(_GAP if index else "").append(part, style=style)


def _bars(values: Sequence[int], highest: int) -> list[int]:
    """A height in eighths of a row for each column of the plot."""
    columns = [values[(column + 1) * len(values) // _WIDTH - 1] for column in range(_WIDTH)]
    return [max(round(value * _HEIGHT * 8 / highest), 1 if value else 0) for value in columns]


def _block(height: int, row: int) -> str:
    return _BLOCKS[min(max(height - row * 8, 0), 8)]
