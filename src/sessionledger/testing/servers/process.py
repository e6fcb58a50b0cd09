"""One server process: started on a port of its own in a directory of its own, stopped, killed, paused."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["Process", "ServerError", "free_port", "listens", "make_directory", "unprivileged_user"]

_LAST_LINES = 12  #: of a log, that an error shows
_PROC = Path("/proc")
_STILL = ("T", "t", "Z", "X")  #: states of a thread, as proc(5) has them, that does nothing more


class ServerError(Exception):
    """A test server cannot be had, or did not start."""


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def unprivileged_user() -> str | None:
    """Whom to run a server as that refuses to be root; None when this process is not root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def make_directory(prefix: str, user: str | None = None) -> Path:
    """A temporary directory, short enough for the path of a socket."""
    directory = Path(tempfile.mkdtemp(prefix=f"sl-{prefix}-"))
    if user is not None:
        shutil.chown(directory, user)
    return directory


class Process:
    """A server that is run by one command. It is `start`ed again after `kill`, with the same data."""

    def __init__(
        self,
        command: Sequence[str | Path],
        directory: Path,
        *,
        ready: Callable[[], bool],
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._command, self._directory, self._ready = [str(part) for part in command], directory, ready
        self._user, self._stop_signal = user, stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._paused: list[int] = []  #: what was stopped, each before those that it had made

    @property
    def log(self) -> Path:
        return self._directory / "server.log"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerError(f"{self._command[0]} is not running: start it first")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 60.0) -> None:
        """Return when it answers; `timeout` in seconds."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory, user=self._user
            )
        end = time.monotonic() + timeout
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                lines = self.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
                raise ServerError("\n".join([f"{self._command[0]} did not start:", *lines]))
            time.sleep(0.02)

    def stop(self, timeout: float = 30.0) -> None:
        """In good order; with force after `timeout` seconds."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.resume()
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """As kill -9 does."""
        if self._process is not None:
            self._process.kill()
            # what it leaves has to see that it is gone
            self.resume()
            self._process.wait()
            self._process = None

    def pause(self, timeout: float = 30.0) -> None:
        """Return when it stands still, with the processes that it has made; `timeout` in seconds. On Linux.

        A signal alone comes to each thread in that thread's own time, so that a server answers for a while yet.
        """
        end = time.monotonic() + timeout
        self._paused = [self.pid]
        _stop(self.pid, end)
        # none is made any more
        for child in _children(self.pid):
            self._paused.append(child)
            _stop(child, end)

    def resume(self) -> None:
        for pid in reversed(self._paused):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._paused = []


def _stop(pid: int, end: float) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    while any(state not in _STILL for _, state in _threads(pid)):
        if time.monotonic() > end:
            raise ServerError(f"process {pid} does not stand still: is it waiting for a disk?")
        time.sleep(0.002)


def _children(pid: int) -> list[int]:
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]
    return [child for child in pids if any(parent == pid for parent, _ in _threads(child))]


def _threads(pid: int) -> Iterator[tuple[int, str]]:
    """Of each: the process that made it, and its state."""
    if not _PROC.is_dir():
        raise ServerError("whether a server stands still is seen in /proc, which is not there: pause it on Linux")
    for path in glob.iglob(f"{_PROC}/{pid}/task/*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            # a name in parentheses may hold anything
            state, parent, *_ = Path(path).read_text(errors="replace").rpartition(")")[2].split()
            yield int(parent), state
