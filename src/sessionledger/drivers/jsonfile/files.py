"""The files of one incarnation of a session, and what is published of them.

`log-N.jsonl` is the truth. `index-N` and `lookup-N` are made from it. `head.json` is what readers go by: it is written
when a commit is durable, so that they see whole commits without a lock. It is written over, since a new file in its
place would double what a commit costs; a checksum tells a reader who comes at that moment to look again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from sessionledger.drivers.jsonfile.handle import Handle
from sessionledger.drivers.jsonfile.index import RECORD_SIZE, Index, Lookup
from sessionledger.drivers.jsonfile.lines import SessionLine, StateLine
from sessionledger.protocol.rows import Head, HiddenRow

__all__ = [
    "HEAD",
    "Files",
    "Snapshot",
    "View",
    "boot_id",
    "encode_snapshot",
    "incarnations",
    "read_snapshot",
    "remove_incarnation",
]

HEAD: Final = "head.json"
_ATTEMPTS: Final = 20  #: to read it while it is written
_PAUSE: Final = 0.0005
_DRAFT: Final = ".tmp"
_LOG: Final = re.compile(r"log-([1-9][0-9]*)\.jsonl").fullmatch


def _read_boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"process {os.urandom(8).hex()}"


_BOOT_ID = _read_boot_id()


def boot_id() -> str:
    """Of this run of the machine: what was written in it is there, synced or not. Where the system does not tell, of
    this process.
    """
    return _BOOT_ID


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


_decode = msgspec.json.Decoder(Snapshot).decode
_SUM: Final = re.compile(rb'\{"crc":"([0-9a-f]{8})",').match
_BLOCK: Final = 512  #: bytes; a head is filled up with spaces, so that the next one is not shorter


def encode_snapshot(snapshot: Snapshot, at_least: int = 0) -> bytes:
    """In `at_least` so many bytes."""
    data = msgspec.json.encode(snapshot)
    text = b'{"crc":"%08x",%b' % (crc32(data), data[1:])
    size = max(at_least, (len(text) // _BLOCK + 1) * _BLOCK)
    return text.ljust(size - 1) + b"\n"


def decode_snapshot(text: bytes) -> Snapshot | None:
    """None when it is not whole."""
    found = _SUM(text)
    data = b"{" + text[found.end() :].rstrip() if found else b""
    if found is None or crc32(data) != int(found[1], 16):
        return None
    try:
        return _decode(data)
    except msgspec.DecodeError:
        return None


def read_snapshot(path: Path) -> Snapshot | None:
    """None when it is missing, or damaged."""
    for _ in range(_ATTEMPTS):
        try:
            text = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        snapshot = decode_snapshot(text)
        if snapshot is not None:
            return snapshot
        time.sleep(_PAUSE)
    return None


class Files:
    """`draft`: what is made from the log is made again, out of the sight of those who read."""

    def __init__(self, directory: Path, incarnation: int, *, create: bool = False, draft: bool = False) -> None:
        self.directory, self.incarnation = directory, incarnation
        self.log = Handle(log_path(directory, incarnation), create=create)
        ending = _DRAFT if draft else ""
        self.index = Index(Handle(directory / f"index-{incarnation}{ending}", create=create or draft))
        self.lookup = Lookup(Handle(directory / f"lookup-{incarnation}{ending}", create=create or draft))
        #: hidden rows as of a snapshot's `last_hidden`
        self.hidden: tuple[int, tuple[HiddenRow, ...]] = (0, ())

    def keep(self) -> None:
        """Let the drafts take their places. Who is at what was there goes on with it."""
        for file in (self.lookup.file, self.index.file):
            place = file.path.with_name(file.path.name.removesuffix(_DRAFT))
            os.replace(file.path, place)
            file.path = place

    @property
    def current(self) -> bool:
        """Whether nobody has made the index again since."""
        return self.index.file.linked and self.lookup.file.linked

    def is_at(self, size: int) -> bool:
        """Whether these are still the session's, and the log is that large: nothing was committed since."""
        return self.log.is_at(self.log.path, size) and self.current

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
