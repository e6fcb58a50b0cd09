"""`sessionledger import`: the command around `importing`."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import BinaryIO, cast

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from sessionledger import SessionStore
from sessionledger.cli.importing import Summary, import_conversations
from sessionledger.cli.output import complain, counted, error_console, json_line, output_console
from sessionledger.cli.storing import Counts
from sessionledger.cli.target import Target, json_option, target_options

__all__ = ["import_command", "summary_sentence"]


@click.command("import")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE.jsonl")
@target_options("--to", "--store")
@click.option("--strict", is_flag=True, help="Stop at the first bad line.")
@json_option
@click.pass_obj
def import_command(target: Target, path: str, strict: bool, as_json: bool) -> None:
    """Import conversations of OpenAI chat messages, one a line.

    FILE.jsonl may be "-": standard input. A line is {"conversation_id": …, "messages": [{"role": …, "content": …}, …],
    "metadata": {…}}, the first and the last of them optional.

    A second import stores nothing twice; of a conversation that has grown it stores what is new. Without
    conversation_id a line's content is its identity. A bad line is named and passed over, and the exit code is 1 then.
    """
    with click.open_file(path, "rb") as file:
        summary = target.run(lambda store: _import(store, cast(BinaryIO, file), strict))
    if as_json:
        json_line(asdict(summary))
    else:
        output_console().print(summary_sentence(summary), soft_wrap=True)
    if summary.bad_lines:
        raise click.exceptions.Exit(1)


async def _import(store: SessionStore, file: BinaryIO, strict: bool) -> Summary:
    with _progress() as progress:
        bar = progress.add_task("importing", total=_size(file))
        return await import_conversations(
            store,
            file,
            strict=strict,
            on_bad_line=lambda number, reason: complain(f"line {number} {reason}", progress.console),
            on_progress=lambda size: progress.advance(bar, size),
        )


def _progress() -> Progress:
    """On standard error, and only where somebody watches."""
    console = error_console()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _size(file: BinaryIO) -> int | None:
    """None for a pipe, of which nobody knows how much will come."""
    try:
        return os.fstat(file.fileno()).st_size or None
    except OSError:
        return None


def summary_sentence(summary: Summary) -> str:
    """What was stored, what had been there, what was wrong."""
    parts = []
    if summary.new.messages:
        parts.append(f"{_counts(summary.new)} stored")
        if summary.there.sessions:
            parts.append(f"{_counts(summary.there)} were there already")
    elif summary.there.sessions:
        parts.append(f"nothing new: {_counts(summary.there)} were there already")
    else:
        parts.append("nothing stored")
    if summary.metadata_changed:
        parts.append(f"metadata of {counted(summary.metadata_changed, 'session')} brought up to date")
    if summary.bad_lines:
        parts.append(counted(summary.bad_lines, "bad line"))
    return "; ".join(parts)


def _counts(counts: Counts) -> str:
    numbers = asdict(counts).items()
    return ", ".join(counted(number, noun.replace("_", " ").removesuffix("s")) for noun, number in numbers if number)
