"""`sessionledger dev`: the servers that drivers are developed on, until Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
import click
from rich.table import Table
from rich.text import Text

from sessionledger.cli.output import error_console, json_line, output_console
from sessionledger.cli.safety import one_line, redacted
from sessionledger.cli.target import json_option

__all__ = ["SERVERS", "dev_command"]

#: What a server is called here, and which function of `sessionledger.testing.servers` starts it.
SERVERS: Mapping[str, str] = {"postgres": "postgres", "mongodb": "mongod", "redis": "redis"}


@dataclass(frozen=True)
class _Started:
    """A server's URL, or why there is none."""

    name: str
    url: str | None = None
    problem: str | None = None


@click.command("dev")
@click.argument("names", nargs=-1, metavar="[SERVER]...", type=click.Choice(list(SERVERS)))
@json_option
def dev_command(names: Sequence[str], as_json: bool) -> None:
    """Start servers for development: postgres, mongodb, redis, or those that are named.

    Each is one that an environment variable names (SESSIONLEDGER_TEST_POSTGRES …), a binary of this machine, or one
    from a package. They listen on the loopback interface and keep their data in temporary directories, which go with
    them. Ctrl-C stops them.
    """
    if not anyio.run(_serve, list(dict.fromkeys(names)) or list(SERVERS), as_json):
        raise click.exceptions.Exit(1)


async def _serve(names: Sequence[str], as_json: bool) -> bool:
    """Whether there was any."""
    async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
        await tasks.start(_stop_on_signal, tasks.cancel_scope)
        with error_console().status("starting …"):
            started = [await _start(name, stack) for name in names]
        if as_json:
            for one in started:
                json_line({name: value for name, value in asdict(one).items() if value is not None})
        else:
            _print(started)
        if any(one.url for one in started):
            await anyio.sleep_forever()
        tasks.cancel_scope.cancel()
    return any(one.url for one in started)


async def _stop_on_signal(
    scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
            # servers are being stopped: a second Ctrl-C does not leave them behind
            return


async def _start(name: str, stack: AsyncExitStack) -> _Started:
    from sessionledger.testing import servers

    make: Any = getattr(servers, SERVERS[name], None)
    if make is None:
        return _Started(name, problem="this release cannot start one: give --store the URL of your own")
    try:
        server = await stack.enter_async_context(make())
    except servers.ServerError as error:
        return _Started(name, problem=str(error))
    return _Started(name, url=_without_password(server.url))


def _without_password(url: str) -> str:
    """As it is, to be used; one that the environment names may hold a secret."""
    return url if urlsplit(url).password is None else redacted(url)


def _print(started: Sequence[_Started]) -> None:
    console = output_console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("SERVER", style="bold", no_wrap=True)
    table.add_column("URL", overflow="fold")
    for one in started:
        text = Text(one_line(one.url)) if one.url else Text(one_line(one.problem or ""), style="red")
        table.add_row(Text(one.name), text)
    console.print(table)
    first = next((one.url for one in started if one.url), None)
    if first is not None:
        console.print(Text(f"\nexport SESSIONLEDGER_URL='{one_line(first)}'"), soft_wrap=True)
        console.print(Text("What they hold is gone when they stop. Ctrl-C stops them.", style="dim"))
