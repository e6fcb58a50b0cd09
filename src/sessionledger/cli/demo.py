"""`sessionledger demo`: the main job on real conversations, on a SQLite file, without network."""

from __future__ import annotations

import shlex
from dataclasses import asdict, replace
from importlib import resources
from typing import Any, BinaryIO, cast

import click
from rich.console import RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from sessionledger import Message, Run, SessionStore
from sessionledger.cli.growth import CHARACTERS_PER_MESSAGE, MESSAGES_PER_RUN, Growth, Tally, measure_growth
from sessionledger.cli.import_command import summary_sentence
from sessionledger.cli.importing import Summary, import_conversations
from sessionledger.cli.output import json_line, output_console
from sessionledger.cli.plot import plot
from sessionledger.cli.reading import SESSION_COLUMNS
from sessionledger.cli.rows import print_rows
from sessionledger.cli.safety import redacted
from sessionledger.cli.showing import print_transcript
from sessionledger.cli.target import Target, existing_session, json_option, target_options

__all__ = ["DATABASE", "demo"]

DATABASE = "sqlite:///sessionledger-demo.db"
#: The conversation that every run of the demo goes on with.
CONVERSATION = "demo-conversation"
QUESTION = "What was my last question?"

_SHOWN_SESSION = "airline-12-0"
_GROWTH_RUNS = 300


@click.command("demo")
@json_option
@target_options()
@click.pass_obj
def demo(target: Target, as_json: bool) -> None:
    """See what the library does, in ten seconds and without network.

    Imports a few real conversations, lists and shows them, resumes a conversation, and measures how a store that
    rewrites its sessions grows beside this one. The database is sessionledger-demo.db in this folder, unless --store
    names another (SESSIONLEDGER_URL does not count here). Run it again: nothing is stored twice, nothing forgotten.
    """
    url = DATABASE if target.url is None or target.from_environment else target.url
    chosen = replace(target, url=url)
    chosen.run(_report if as_json else _Tour(redacted(url)).run)


async def import_samples(store: SessionStore) -> Summary:
    """Import the conversations that the package carries (tau-bench, MIT licence: see beside them)."""
    samples = resources.files("sessionledger.cli").joinpath("samples", "airline.jsonl")
    with samples.open("rb") as file:
        return await import_conversations(store, cast(BinaryIO, file))


async def ask(store: SessionStore, question: str) -> str:
    """A turn of a scripted agent: it looks into the conversation's history, answers, and stores the run."""
    last = None
    async for message in store.history(CONVERSATION, last_runs=1, roles=["user"]):
        last = message.content
    answer = "You have not asked me anything yet." if last is None else f'Your last question was: "{last}"'
    messages = [Message(role="user", content=question), Message(role="assistant", content=answer)]
    await store.append(Run(session_id=CONVERSATION, agent_name="scripted agent", messages=messages))
    return answer


async def _report(store: SessionStore) -> None:
    """All of it as JSON lines."""
    json_line({"import": asdict(await import_samples(store))})
    async for session in store.sessions():
        json_line({"session": session})
    for _ in range(2):
        json_line({"question": QUESTION, "answer": await ask(store, QUESTION)})
    growth = await measure_growth(_GROWTH_RUNS)
    json_line({"growth": {"runs": growth.runs, "blob": _tally(growth.blob), "sessionledger": _tally(growth.ours)}})


def _tally(tally: Tally) -> dict[str, Any]:
    return {"bytes": tally.total, "system_bytes": tally.system_bytes, "seconds": round(tally.seconds, 3)}


class _Tour:
    """The demo for people: a heading for each step, and what came of it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._console = output_console()
        self._step = 0

    async def run(self, store: SessionStore) -> None:
        self._say(Text("sessionledger demo", style="bold").append(f"  in {self._url}", style="dim"))
        self._head("import real conversations with an airline's agent (tau-bench, MIT licence)")
        self._say(summary_sentence(await import_samples(store)))
        self._head("list the sessions")
        await print_rows(store.sessions(page_size=8), SESSION_COLUMNS, limit=8)
        self._head(f"show one of them: its last runs, as `sessionledger show {_SHOWN_SESSION}` does")
        await print_transcript(store, await existing_session(store, _SHOWN_SESSION), last_runs=4)
        await self._resume(store)
        await self._grow()
        self._say_goodbye()

    async def _resume(self, store: SessionStore) -> None:
        session = await store.get_session(CONVERSATION)
        known = f"{session.run_count} runs so far" if session else "new"
        self._head(f"resume a conversation: {CONVERSATION!r}, {known}")
        for _ in range(2):
            answer = await ask(store, QUESTION)
            self._say(Text("     user  ", style="bold green").append(QUESTION, style="not bold default"))
            self._say(Text("assistant  ", style="bold cyan").append(answer, style="not bold default"))

    async def _grow(self) -> None:
        self._head("compare what is written: a session as one JSON blob, and as runs")
        with self._console.status(f"writing {_GROWTH_RUNS} runs into both …"):
            growth = await measure_growth(_GROWTH_RUNS)
        self._say(_growth_table(growth))
        self._say("")
        self._say(_growth_plot(growth))
        self._say("")
        self._say(Text(_growth_note(growth), style="dim"))

    def _say_goodbye(self) -> None:
        name = shlex.quote(self._url)
        self._head("go on")
        self._say(f"sessionledger show {CONVERSATION} --store {name}")
        self._say(f"sessionledger import YOUR.jsonl --to {name}")
        again = "sessionledger demo" if self._url == DATABASE else f"sessionledger demo --store {name}"
        self._say(f"{again}    # nothing is stored twice, and the agent remembers at once")

    def _head(self, title: str) -> None:
        self._step += 1
        self._say("")
        self._say(Rule(Text(f"{self._step}. {title}", style="bold"), align="left", characters="━", style="blue"))

    def _say(self, what: RenderableType) -> None:
        self._console.print(what)


def _growth_table(growth: Growth) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading, style in (
        ("runs", ""),
        ("blob: this save", "red"),
        ("all saves", "red"),
        ("ours: this append", "green"),
        ("all appends", "green"),
        ("ratio", "bold"),
    ):
        table.add_column(heading, justify="right", style=style)
    blobs, ours = growth.blob.totals(), growth.ours.totals()
    for runs in (growth.runs * part // 6 or 1 for part in (0, 1, 2, 4, 6)):
        columns = growth.blob.bytes_per_run, blobs, growth.ours.bytes_per_run, ours
        sizes = (_bytes(column[runs - 1]) for column in columns)
        table.add_row(f"{runs}", *sizes, f"{blobs[runs - 1] / ours[runs - 1]:,.0f} times")
    return table


def _growth_plot(growth: Growth) -> Text:
    curves = {"blob store, bytes so far": growth.blob.totals(), "sessionledger, same scale": growth.ours.totals()}
    top = _bytes(max(growth.blob.total, growth.ours.total))
    return plot(curves, ("red", "green"), top=top, first="1 run", last=f"{growth.runs} runs")


def _growth_note(growth: Growth) -> str:
    """What exactly was counted."""
    note = (
        f"Both were really written, with {MESSAGES_PER_RUN} messages of {CHARACTERS_PER_MESSAGE} characters a run, and "
        "on disk after each. Counted is the JSON text that each store is handed to write: the whole session for each "
        "UPDATE of the blob, the new run for each append."
    )
    blob, ours = growth.blob.system_bytes, growth.ours.system_bytes
    if blob is None or ours is None:
        return note
    system = f"{_bytes(blob)} for the blob, {_bytes(ours)} for ours"
    return f"{note} With SQLite's own work (pages, log, indexes) the system's write calls took {system}."


def _bytes(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1_000:
            return f"{size:,.0f} {unit}" if unit == "B" or size >= 100 else f"{size:,.1f} {unit}"
        size /= 1_000  # type: ignore[assignment]
    return f"{size:,.1f} GB"
