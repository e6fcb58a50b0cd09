"""`sessionledger show`: a session's transcript."""

from __future__ import annotations

import click

from sessionledger import Session, SessionStore
from sessionledger.cli.output import json_line, output_console
from sessionledger.cli.target import Target, existing_session, json_option, target_options
from sessionledger.cli.transcript import Transcript

__all__ = ["print_transcript", "show_command"]

#: Runs that are fetched at a time, with all their messages.
_PAGE = 20


@click.command("show")
@click.argument("session_id", metavar="SESSION")
@click.option("--last-runs", type=click.IntRange(min=1), metavar="N", help="Only the last N runs.")
@click.option("--full", is_flag=True, help="Fold and shorten nothing.")
@json_option
@target_options()
@click.pass_obj
def show_command(target: Target, session_id: str, last_runs: int | None, full: bool, as_json: bool) -> None:
    """Show a session as a transcript.

    Instructions and tool calls are folded into a line each; --full unfolds them. With --json, a line for the session
    and one for each run with its messages.
    """

    async def work(store: SessionStore) -> None:
        session = await existing_session(store, session_id)
        if as_json:
            await _print_records(store, session, last_runs)
        else:
            await print_transcript(store, session, last_runs=last_runs, full=full)

    target.run(work)


async def print_transcript(
    store: SessionStore, session: Session, *, last_runs: int | None = None, full: bool = False
) -> None:
    """Print a session's runs to standard output, oldest first, as they are fetched."""
    transcript = Transcript(output_console(), full=full)
    transcript.begin(session)
    async for run in store.runs(session.session_id, last=last_runs, include_messages=True, page_size=_PAGE):
        transcript.add(run)


async def _print_records(store: SessionStore, session: Session, last_runs: int | None) -> None:
    json_line({"session": session})
    async for run in store.runs(session.session_id, last=last_runs, include_messages=True, page_size=_PAGE):
        json_line({"run": run})
