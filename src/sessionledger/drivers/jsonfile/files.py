"""The files of one incarnation of a session, and what is published of them.

`log-N.jsonl` is the truth. `index-N` and `lookup-N` are made from it. `head.json` is what readers go by: it is replaced
when a commit is durable, so that they see whole commits without a lock.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from sessionledger.drivers.jsonfile.handle import Handle
from sessionledger.drivers.jsonfile.index import RECORD_SIZE, Index, Lookup
from sessionledger.drivers.jsonfile.lines import SessionLine, StateLine
from sessionledger.protocol.rows import Head, HiddenRow

__all__ = ["BOOT", "HEAD", "Files", "Snapshot", "View", "decode_snapshot", "incarnations", "remove_incarnation"]

HEAD: Final = "head.json"
_LOG: Final = re.compile(r"log-([1-9][0-9]*)\.jsonl").fullmatch


def _boot() -> str:
    """Of this run of the machine: what was written since, and not synced, is there."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"process {os.urandom(8).hex()}"


BOOT: Final = _boot()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A session as of a commit: all but its rows, and how far its files go."""

    head: Head
    session: SessionLine
    state: StateLine
    counters: Mapping[str, int]
    open_runs: int  #: runs whose status may still change
    log_size: int
    records: int  #: of the index
    lookups: int
    last_switch: int  #: its record plus 1; 0: there is none
    last_hidden: int
    checkpoint: int  #: the version at which all of it was last brought to the disk
    boot: str  #: when it was written

    @property
    def base(self) -> tuple[int, int]:
        """Positions and seqs of the session that was forked."""
        fork = self.head.fork
        return (fork.position, fork.run_seq) if fork else (0, 0)


decode_snapshot = msgspec.json.Decoder(Snapshot).decode


class Files:
    def __init__(self, directory: Path, incarnation: int, *, create: bool = False) -> None:
        self.directory, self.incarnation = directory, incarnation
        self.log = Handle(log_path(directory, incarnation), create=create)
        self.index = Index(Handle(directory / f"index-{incarnation}", create=create))
        self.lookup = Lookup(Handle(directory / f"lookup-{incarnation}", create=create))
        #: hidden rows as of a snapshot's `last_hidden`
        self.hidden: tuple[int, tuple[HiddenRow, ...]] = (0, ())

    def is_at(self, size: int) -> bool:
        """Whether the log is still this file, and that large: nothing was committed since."""
        return self.log.is_at(self.log.path, size)

    def hold(self, snapshot: Snapshot) -> bool:
        """Whether they are large enough to be those of a snapshot."""
        return (
            self.log.size() >= snapshot.log_size
            and self.index.file.size() >= snapshot.records * RECORD_SIZE
            and self.lookup.file.size() >= Lookup.size(snapshot.lookups)
        )


class View(NamedTuple):
    """What a read goes by."""

    files: Files
    snapshot: Snapshot


def log_path(directory: Path, incarnation: int) -> Path:
    return directory / f"log-{incarnation}.jsonl"


def incarnations(directory: Path) -> list[int]:
    """Those that have a log, ascending."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(found[1]) for name in names if (found := _LOG(name)))


def remove_incarnation(directory: Path, incarnation: int) -> None:
    """All its files; the log last, so that what is interrupted can go on."""
    for name in os.listdir(directory):
        if name in (f"index-{incarnation}", f"lookup-{incarnation}") or name.startswith(
            (f"session-{incarnation}.", f"state-{incarnation}.")
        ):
            (directory / name).unlink(missing_ok=True)
    log_path(directory, incarnation).unlink(missing_ok=True)
