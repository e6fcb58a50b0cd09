"""Files by their descriptors, read and written at places."""

from __future__ import annotations

import os
import sys
from errno import EROFS
from pathlib import Path
from typing import Final

__all__ = ["Handle", "replace_file", "sync_directory", "sync_file"]

#: macOS answers an fsync before the data is on the disk.
_FULL_SYNC: Final = 51 if sys.platform == "darwin" else None


def sync_file(descriptor: int) -> None:
    if _FULL_SYNC is None:
        os.fsync(descriptor)
        return
    import fcntl  # noqa: PLC0415 - Windows has none

    fcntl.fcntl(descriptor, _FULL_SYNC)


def sync_directory(path: Path) -> None:
    """So that the names in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes, *, sync: bool) -> None:
    """A reader finds the file before or the file behind."""
    draft = f"{path}.tmp"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        _write(descriptor, data, 0)
        if sync:
            sync_file(descriptor)
    finally:
        os.close(descriptor)
    os.replace(draft, path)
    if sync:
        sync_directory(path.parent)


class Handle:
    """An open file. It is closed when nobody has it any more: readers keep theirs when it is replaced or forgotten."""

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self._descriptor = -1
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
        except OSError as error:
            # whoever may not write can still read
            if create or (not isinstance(error, PermissionError) and error.errno != EROFS):
                raise
            self._descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """Less at the end of the file."""
        data = os.pread(self._descriptor, size, offset)
        while 0 < len(data) < size and (more := os.pread(self._descriptor, size - len(data), offset + len(data))):
            data += more
        return data

    def write(self, offset: int, data: bytes) -> None:
        _write(self._descriptor, data, offset)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        sync_file(self._descriptor)

    def size(self) -> int:
        return self.stat().st_size

    def stat(self) -> os.stat_result:
        return os.fstat(self._descriptor)

    @property
    def linked(self) -> bool:
        """Whether it has a name: it has neither been removed nor replaced."""
        return self.stat().st_nlink > 0

    def is_at(self, path: Path, size: int) -> bool:
        """Whether this very file is there under its name, and that large."""
        try:
            there = os.stat(path)
        except FileNotFoundError:
            return False
        return there.st_size == size and os.path.samestat(there, self.stat())


def _write(descriptor: int, data: bytes, offset: int) -> None:
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)
