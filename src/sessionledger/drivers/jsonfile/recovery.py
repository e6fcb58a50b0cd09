"""Reading a log from some commit on: after a crash, or to make its index again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from io import BufferedReader
from zlib import crc32

import msgspec

from sessionledger.drivers.jsonfile.files import Files, Snapshot
from sessionledger.drivers.jsonfile.journal import Journal
from sessionledger.drivers.jsonfile.lines import CommitLine, Line, decode_line
from sessionledger.errors import DecodeError

__all__ = ["replay"]

logger = logging.getLogger("sessionledger.jsonfile")


def replay(files: Files, base: Snapshot | None, name: str) -> Journal:
    """What is behind a snapshot, commit by commit; None: all of it, and the index anew. A torn commit at the end is cut
    off: nobody was told that it was stored. `name`: of the session, for errors.

    `DecodeError` when a commit is damaged that others follow, which were begun when it had been acknowledged.
    """
    if base is None:
        files.index.file.truncate(0)
        files.lookup.file.truncate(0)
    journal = Journal(files, base)
    with files.log.path.open("rb") as log:
        log.seek(journal.log_size)
        for commit in _commits(log, journal.log_size):
            for line, length in commit:
                journal.add(line, length)
        _refuse_damage(log, journal.log_size, files, name)
    torn = files.log.size() - journal.log_size
    if torn:
        logger.warning("%s: dropped a torn commit of %d bytes at byte %d", files.log.path, torn, journal.log_size)
        files.log.truncate(journal.log_size)
        files.log.sync()
    return journal


def _commits(log: BufferedReader, offset: int) -> Iterator[list[tuple[Line, int]]]:
    """Whole ones, as far as they follow each other."""
    commit: list[tuple[Line, int]] = []
    size = crc = 0
    for data in log:
        line = _line_of(data)
        if line is None:
            return
        commit.append((line, len(data)))
        if isinstance(line, CommitLine):
            if (line.size, line.crc) != (size, crc):
                return
            yield commit
            commit, size, crc = [], 0, 0
        else:
            size, crc = size + len(data), crc32(data, crc)


def _line_of(data: bytes) -> Line | None:
    if not data.endswith(b"\n"):
        return None
    try:
        return decode_line(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _refuse_damage(log: BufferedReader, good: int, files: Files, name: str) -> None:
    """Of what stands behind the last good byte, a commit that was begun later says that there was more."""
    log.seek(good)
    for data in log:
        line = _line_of(data)
        if isinstance(line, CommitLine) and line.after > good:
            raise DecodeError(
                f"the log of session {name!r} is damaged behind byte {good} of {files.log.path}, where a commit begins "
                "that was acknowledged: restore it from a backup",
                session_id=name,
            )
