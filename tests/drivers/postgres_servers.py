"""What stands beside a PostgreSQL server: a standby behind it, PgBouncer before it, a small disk under it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from sessionledger.testing.servers import PostgresServer, Process
from sessionledger.testing.servers.process import free_port, listens, make_directory, unprivileged_user


@contextmanager
def standby(primary: PostgresServer) -> Iterator[tuple[Process, str]]:
    """A server that streams from the primary, and its host and port."""
    source, user, port = urlsplit(primary.url), unprivileged_user(), free_port()
    directory = make_directory("standby", user)
    command = [primary.binaries / "pg_basebackup", "-D", directory / "data", "-R", "-X", "stream", "-c", "fast"]
    command += ["-h", source.hostname or "", "-p", str(source.port), "-U", source.username or ""]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, user=user, cwd=directory)
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": directory}
    settings["max_connections"] = 200  # no fewer than the primary
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    process = Process(
        [primary.binaries / "postgres", "-D", directory / "data", *options],
        directory,
        ready=lambda: b"ready to accept read-only connections" in process.log.read_bytes(),
        user=user,
    )
    try:
        process.start()
        yield process, f"127.0.0.1:{port}"
    finally:
        process.stop()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def bouncer(server: PostgresServer, program: str) -> Iterator[str]:
    """PgBouncer in transaction mode before the server; its URL."""
    target, user, port = urlsplit(server.url), unprivileged_user(), free_port()
    directory = make_directory("bouncer", user)
    users = directory / "users.txt"
    users.write_text(f'"{target.username}" ""\n')
    settings = directory / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\npostgres = host={target.hostname} port={target.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"auth_file = {users}\npool_mode = transaction\ndefault_pool_size = 3\n"
    )
    process = Process([program, settings], directory, ready=lambda: listens(port), user=user)
    try:
        process.start()
        yield f"postgresql://{target.username}@127.0.0.1:{port}/postgres?statement_cache_size=0"
    finally:
        process.stop()
        shutil.rmtree(directory, ignore_errors=True)


class SmallDisk:
    """A directory on a disk of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def grow(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.directory)], check=True)


@contextmanager
def small_disk(size: str) -> Iterator[SmallDisk]:
    """`PermissionError` for whoever may not mount one."""
    user = unprivileged_user()
    directory = make_directory("disk", user)
    try:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            raise PermissionError("this user may not mount a disk")
        try:
            if user is not None:
                shutil.chown(directory, user)
            yield SmallDisk(directory)
        finally:
            subprocess.run(["umount", str(directory)], check=True)
    finally:
        directory.rmdir()
