"""The commands that list: `sessions`, `runs` and `messages`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from sessionledger import Message, Run, RunStatus, Session, SessionKind, SessionStore
from sessionledger.cli.output import time_text
from sessionledger.cli.rows import Column, print_items
from sessionledger.cli.target import Target, existing_session, json_option, target_options
from sessionledger.cli.transcript import ROLE_STYLES, STATUS_STYLES, call_text, content_text, error_text

__all__ = ["SESSION_COLUMNS", "messages_command", "runs_command", "sessions_command"]

SESSION_COLUMNS: Sequence[Column[Session]] = (
    Column("SESSION", lambda session: session.session_id, style="bold"),
    Column("NAME", lambda session: session.name or "", shrinks=True),
    Column("USER", lambda session: session.user_id or "", shrinks=True),
    Column("AGENT", lambda session: session.current_agent or session.agent_id or "", shrinks=True),
    Column("RUNS", lambda session: f"{session.run_count:,}", right=True),
    Column("MESSAGES", lambda session: f"{session.message_count:,}", right=True),
    Column("LAST ACTIVE", lambda session: time_text(session.last_activity_at), style="dim"),
)
DELETED_COLUMN: Column[Session] = Column("DELETED", lambda session: time_text(session.deleted_at), style="red")

RUN_COLUMNS: Sequence[Column[Run]] = (
    Column("RUN", lambda run: str(run.seq), right=True),
    Column("ID", lambda run: run.run_id or "", style="bold"),
    Column("STATUS", lambda run: run.status, style=lambda run: STATUS_STYLES.get(run.status, "")),
    Column("BEGUN", lambda run: time_text(run.created_at), style="dim"),
    Column("LASTED", lambda run: _duration(run), right=True, style="dim"),
    Column("MESSAGES", lambda run: f"{run.message_count or 0:,}", right=True),
    Column("TOKENS", lambda run: f"{run.usage.total_tokens:,}" if run.usage else "", right=True),
    Column("ERROR", lambda run: error_text(run.error) if run.error is not None else "", style="red", shrinks=True),
    Column("AGENT", lambda run: run.agent_name or run.agent_id or "", shrinks=True),
    Column("MODEL", lambda run: run.model or "", shrinks=True),
)

MESSAGE_COLUMNS: Sequence[Column[Message]] = (
    Column("#", lambda message: str(message.position), right=True, style="dim"),
    Column("RUN", lambda message: str(message.run_seq), right=True, style="dim"),
    Column("TIME", lambda message: time_text(message.created_at), style="dim"),
    Column("ROLE", lambda message: message.role, style=lambda message: ROLE_STYLES.get(message.role, "bold")),
    Column("CONTENT", lambda message: _message_text(message), shrinks=True),
)

session_argument = click.argument("session_id", metavar="SESSION")
limit_option = click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N of them.")
reverse_option = click.option("--reverse", is_flag=True, help="The other way round.")


@click.command("sessions")
@click.option("--user", metavar="ID", help="Sessions of this user.")
@click.option("--agent", metavar="ID", help="Sessions of this agent, team or workflow.")
@click.option("--kind", type=click.Choice([kind.value for kind in SessionKind]), help="Sessions of this kind.")
@click.option("--name", metavar="NAME", help="Sessions of this name.")
@click.option(
    "--since", type=click.DateTime(), metavar="TIME", help="Active after this local time: 2025-11-21 09:30:00."
)
@click.option("--until", type=click.DateTime(), metavar="TIME", help="Active before this local time.")
@click.option("--deleted", is_flag=True, help="Those that were deleted softly, too.")
@limit_option
@reverse_option
@json_option
@target_options()
@click.pass_obj
def sessions_command(
    target: Target,
    user: str | None,
    agent: str | None,
    kind: str | None,
    name: str | None,
    since: datetime | None,
    until: datetime | None,
    deleted: bool,
    limit: int | None,
    reverse: bool,
    as_json: bool,
) -> None:
    """List sessions, latest activity first."""

    async def work(store: SessionStore) -> None:
        cursor = store.sessions(
            user_id=user,
            agent_id=agent,
            kind=kind,
            name=name,
            active_after=_utc(since),
            active_before=_utc(until),
            include_deleted=deleted,
            reverse=reverse,
        )
        columns = (*SESSION_COLUMNS, DELETED_COLUMN) if deleted else SESSION_COLUMNS
        await print_items(cursor, columns, as_json=as_json, limit=limit)

    target.run(work)


@click.command("runs")
@session_argument
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the last N.")
@click.option("--status", type=click.Choice([status.value for status in RunStatus]), multiple=True, help="Repeatable.")
@click.option("--agent", metavar="ID", help="Runs of this agent.")
@limit_option
@reverse_option
@json_option
@target_options()
@click.pass_obj
def runs_command(
    target: Target,
    session_id: str,
    last: int | None,
    status: tuple[str, ...],
    agent: str | None,
    limit: int | None,
    reverse: bool,
    as_json: bool,
) -> None:
    """List the runs of a session, oldest first."""

    async def work(store: SessionStore) -> None:
        await existing_session(store, session_id)
        cursor = store.runs(session_id, last=last, status=status or None, agent_id=agent, reverse=reverse)
        await print_items(cursor, RUN_COLUMNS, as_json=as_json, limit=limit)

    target.run(work)


@click.command("messages")
@session_argument
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the last N.")
@click.option("--offset", type=click.IntRange(min=0), metavar="N", help="Those behind position N.")
@limit_option
@click.option("--role", "roles", metavar="ROLE", multiple=True, help="Messages of this role; repeatable.")
@click.option("--run", "run_id", metavar="ID", help="Messages of this run.")
@click.option("--retracted", is_flag=True, help="Those that were retracted or revised, too.")
@reverse_option
@json_option
@target_options()
@click.pass_obj
def messages_command(
    target: Target,
    session_id: str,
    last: int | None,
    offset: int | None,
    limit: int | None,
    roles: tuple[str, ...],
    run_id: str | None,
    retracted: bool,
    reverse: bool,
    as_json: bool,
) -> None:
    """List the messages of a session by position, a line each."""

    async def work(store: SessionStore) -> None:
        await existing_session(store, session_id)
        cursor = store.messages(
            session_id,
            last=last,
            offset=offset,
            roles=roles or None,
            run_id=run_id,
            reverse=reverse,
            include_retracted=retracted,
        )
        await print_items(cursor, MESSAGE_COLUMNS, as_json=as_json, limit=limit)

    target.run(work)


def _utc(moment: datetime | None) -> datetime | None:
    """What somebody types is local time."""
    return None if moment is None else moment.astimezone(UTC)


def _duration(run: Run) -> str:
    if run.created_at is None or run.finished_at is None:
        return ""
    seconds = (run.finished_at - run.created_at).total_seconds()
    return f"{seconds:,.1f} s" if seconds >= 0.05 else ""


def _message_text(message: Message) -> str:
    """Content and tool calls; a list shows no more of them than fits on a line."""
    kind = "" if message.kind == "message" else f"({message.kind})"
    calls = [call_text(call)[:500] for call in message.tool_calls]
    parts = [kind, message.error or "", content_text(message.content)[:1_000], *calls]
    return " ".join(part for part in parts if part)
