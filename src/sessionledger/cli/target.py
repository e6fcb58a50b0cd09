"""Which store a command works on: `--store` before or behind the command's name, or the environment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import anyio
import click
from click.core import ParameterSource

from sessionledger import Session, SessionNotFoundError, SessionStore, open_store
from sessionledger.cli.safety import redacted

__all__ = ["ENVIRONMENT_VARIABLE", "Target", "existing_session", "json_option", "target_options"]

ENVIRONMENT_VARIABLE = "SESSIONLEDGER_URL"

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """A store's URL, with its secrets: it is never printed as it is."""

    url: str | None = None
    namespace: str | None = None
    from_environment: bool = False  #: not said on the command line

    def __repr__(self) -> str:
        return f"Target({redacted(self.url or '')!r}, {self.namespace!r})"

    def run(self, work: Callable[[SessionStore], Awaitable[T]]) -> T:
        """Open the store, do the work, close the store."""
        url = self.url
        if not url:
            raise click.UsageError(f"no store is named: give --store URL, or set {ENVIRONMENT_VARIABLE}")

        async def main() -> T:
            async with open_store(url) as store:
                return await work(store if self.namespace is None else store.scoped(namespace=self.namespace))

        return anyio.run(main)


def target_options(*names: str, envvar: str | None = None) -> Callable[[Command], Command]:
    """The store (`--store` unless named) and `--namespace`; what is said behind the command outdoes what is before."""

    def decorate(command: Command) -> Command:
        return store(namespace(command))

    store = click.option(
        *(names or ("--store",)),
        "store_url",
        metavar="URL",
        envvar=envvar,
        callback=_set_url,
        expose_value=False,
        help=f"The store; without it, the one in {ENVIRONMENT_VARIABLE}.",
    )
    namespace = click.option(
        "--namespace",
        metavar="NAME",
        callback=_set_namespace,
        expose_value=False,
        help="Another namespace of the store.",
    )
    return decorate


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")(command)


def _set_url(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        ambient = context.get_parameter_source("store_url") is ParameterSource.ENVIRONMENT
        context.obj = replace(context.ensure_object(Target), url=value, from_environment=ambient)


def _set_namespace(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.obj = replace(context.ensure_object(Target), namespace=value)


async def existing_session(store: SessionStore, session_id: str) -> Session:
    """The session; for one that is unknown or deleted the error that says which.

    Reads of an unknown session are empty, which helps an agent and would leave a person wondering.
    """
    session = await store.get_session(session_id)
    if session is None:
        await store.stats(session_id)
        raise SessionNotFoundError(f"there is no session {session_id!r} any more", session_id=session_id)
    return session
