"""The commands in one group, and the one place where errors become sentences."""

from __future__ import annotations

import sys
from typing import Any, NoReturn, TextIO

import click

from sessionledger import SessionLedgerError, __version__
from sessionledger.cli.demo import demo
from sessionledger.cli.dev import dev_command
from sessionledger.cli.facts import drivers_command, stats_command
from sessionledger.cli.import_command import import_command
from sessionledger.cli.output import complain
from sessionledger.cli.reading import messages_command, runs_command, sessions_command
from sessionledger.cli.safety import redacted, safe
from sessionledger.cli.showing import show_command
from sessionledger.cli.target import ENVIRONMENT_VARIABLE, Target, target_options

__all__ = ["app"]

_INTERRUPTED = 130  #: as shells have it: 128 and the number of the signal


class _Group(click.Group):
    """Prints what went wrong as one sentence, without the secrets of the URLs that a command line may hold."""

    def list_commands(self, context: click.Context) -> list[str]:
        """In the order in which one needs them."""
        return list(self.commands)

    def main(self, *args: Any, **options: Any) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            _never_fail_to_print(stream)
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except click.UsageError as error:
            _explain_usage(error)
            code = error.exit_code
        except click.ClickException as error:
            complain(error.format_message())
            code = error.exit_code
        except click.Abort:
            complain("interrupted")
            code = _INTERRUPTED
        except (SessionLedgerError, OSError) as error:
            complain(str(error))
            code = 1
        sys.exit(code or 0)


def _never_fail_to_print(stream: TextIO) -> None:
    """A terminal that has no such character gets its escape."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _explain_usage(error: click.UsageError) -> None:
    if error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"Try '{error.ctx.command_path} --help' for help.\n", err=True)
    click.echo(f"Error: {safe(redacted(error.format_message()))}", err=True)


@click.group(
    cls=_Group,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__)
@target_options(envvar=ENVIRONMENT_VARIABLE)
@click.pass_context
def app(context: click.Context) -> None:
    """Keep and read the sessions of AI agents.

    A store is a URL: sqlite:///agents.db, postgres://host/db … Name it with --store, before or behind the command, or
    in SESSIONLEDGER_URL. New here? `sessionledger demo` shows what it does.
    """
    context.ensure_object(Target)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    import_command,
    sessions_command,
    show_command,
    runs_command,
    messages_command,
    stats_command,
    drivers_command,
    dev_command,
    demo,
):
    app.add_command(command)
