"""Where the commands write to: people read the console, programs read JSON lines."""

from __future__ import annotations

import os
import re
from datetime import datetime
from typing import Any

import click
import msgspec
from rich.cells import cell_len, set_cell_size
from rich.console import Console

from sessionledger.cli.safety import redacted, safe

__all__ = ["clipped", "complain", "counted", "error_console", "json_line", "output_console", "time_text"]

#: JSON lets these stand in a string as they are; some terminals obey them all the same.
_RAW_CONTROLS = re.compile("[\x7f-\x9f]")
#: Columns of output that goes into a pipe or a file, where no terminal says how wide it is.
_PIPE_WIDTH = 100


def output_console() -> Console:
    """Standard output for people. Content is never read as markup, nor searched for things to highlight."""
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


def error_console() -> Console:
    """Standard error: complaints, notes and the progress bar."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def complain(sentence: str, console: Console | None = None) -> None:
    """One sentence on standard error, without secrets and control characters."""
    (console or error_console()).print(safe(redacted(sentence)), style="red", soft_wrap=True)


def json_line(value: Any) -> None:
    """Print a record, or a mapping, as one line of JSON; fields that are None are left out, defaults are not."""
    text = msgspec.json.encode(_plain(value)).decode()
    click.echo(_RAW_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _plain(value: Any) -> Any:
    """Records as mappings: msgspec would leave out a status of "completed", because it is the default."""
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.asdict(value)
        return {name: _plain(field) for name, field in fields.items() if field is not None}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def clipped(text: str, width: int) -> str:
    """The text, or its beginning and an ellipsis, in `width` columns of a terminal at most."""
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)).rstrip() + "…"


def time_text(moment: datetime | None) -> str:
    """A moment in the time zone of whoever reads it, to the second."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def counted(count: int, noun: str) -> str:
    """`1 run`, `1,222 messages`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
