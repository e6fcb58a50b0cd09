"""`sessionledger dev`: servers until Ctrl-C. The real ones, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import Result

from sessionledger import Message, Run, open_store
from sessionledger.cli.dev import SERVERS
from sessionledger.testing import servers

Invoke = Callable[..., Result]


def start(*arguments: str, directory: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(directory), "COLUMNS": "80"}
    environment.pop("SESSIONLEDGER_TEST_POSTGRES", None)
    command = [sys.executable, "-m", "sessionledger", "dev", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(process.communicate()[1])
    return line


async def write_and_read(url: str) -> None:
    async with open_store(url) as store:
        await store.append(Run(session_id="s", messages=[Message(role="user", content="hi")]))
        assert [message.content async for message in store.messages("s")] == ["hi"]


def listens(url: str) -> bool:
    async def connect() -> None:
        parts = urlsplit(url)
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.close()
        await writer.wait_closed()

    try:
        asyncio.run(connect())
    except OSError:
        return False
    return True


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_servers_live_until_they_are_stopped(tmp_path: Path, ending: signal.Signals) -> None:
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:3]:
        # the server runs as another user when the tests run as root
        parent.chmod(0o755)
    with start("postgres", "--json", directory=tmp_path) as process:
        try:
            (line,) = [json.loads(first_line(process))]
            assert (line["name"] == "postgres" and "problem" not in line) or line["problem"] is None
            # as it is printed, so that it can be used
            asyncio.run(write_and_read(line["url"]))
            assert listens(line["url"])
            process.send_signal(ending)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, output) == (0, ""), errors
    assert "Traceback" not in errors
    assert not listens(line["url"])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def missing() -> AsyncIterator[None]:
        raise servers.ServerError("there is no server here: install the package \x1b[31m'server'")
        yield

    for name in SERVERS.values():
        monkeypatch.setattr(servers, name, missing, raising=False)


@pytest.mark.usefixtures("no_server")
def test_a_server_that_cannot_be_had_is_a_line_with_the_remedy(invoke: Invoke) -> None:
    result = invoke("dev")
    assert result.exit_code == 1
    assert result.stdout.count("install the package") == len(SERVERS)
    assert [name for name in SERVERS if name not in result.stdout] == []
    assert "\x1b[31m" not in result.stdout and "Ctrl-C" not in result.stdout
    told = [json.loads(line) for line in invoke("dev", "redis", "redis", "--json").stdout.splitlines()]
    assert [(one["name"], one.get("url"), "install" in one["problem"]) for one in told] == [("redis", None, True)]


def test_a_server_that_is_missing_does_not_keep_others_from_starting(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = []

    class Server:
        url = "redis://user:secret@127.0.0.1:1/0"

    @asynccontextmanager
    async def running() -> AsyncIterator[Server]:
        try:
            yield Server()
        finally:
            stopped.append(True)

    @asynccontextmanager
    async def missing() -> AsyncIterator[None]:
        # the command prints and waits once it has asked for all of them
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
        raise servers.ServerError("there is no server here: install one")
        yield

    monkeypatch.setattr(servers, "redis", running, raising=False)
    monkeypatch.setattr(servers, "postgres", missing)
    result = invoke("dev", "redis", "postgres")
    assert result.exit_code == 0 and stopped == [True]
    assert "install one" in result.stdout and "127.0.0.1:1/0" in result.stdout and "secret" not in result.stdout
    assert "Ctrl-C stops them" in result.stdout


def test_an_unknown_server_is_a_usage_error(invoke: Invoke) -> None:
    result = invoke("dev", "oracle")
    assert result.exit_code == 2 and "'postgres'" in result.stderr


def test_the_servers_need_neither_pytest_nor_hypothesis() -> None:
    code = "import sys, sessionledger.testing.servers; print(sorted({'pytest', 'hypothesis'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
