"""What the operating system raises, as errors of ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from sessionledger.errors import DriverError, StorageFullError, UnavailableError

__all__ = ["error_of", "mapped"]

#: By errno: what it is, what happened, and what helps.
_SENTENCES: dict[int, tuple[type[DriverError], str, str]] = {
    errno.ENOSPC: (StorageFullError, "the disk is full", "make room and repeat the call, nothing was stored"),
    errno.EDQUOT: (StorageFullError, "the quota is used up", "make room and repeat the call, nothing was stored"),
    errno.EFBIG: (
        StorageFullError,
        "a file would become larger than it may",
        "raise the limit and repeat the call, nothing was stored",
    ),
    errno.EACCES: (DriverError, "a right is missing", "let the user read and write the store's directory"),
    errno.EPERM: (DriverError, "a right is missing", "let the user read and write the store's directory"),
    errno.EROFS: (DriverError, "the file system is read-only", "mount it for writing"),
    errno.ENOTDIR: (DriverError, "there is a file where a directory should be", "name a directory in the URL"),
    errno.EISDIR: (DriverError, "there is a directory where a file should be", "give the store a directory of its own"),
    errno.EEXIST: (DriverError, "there is a file where a directory should be", "name a directory in the URL"),
    errno.ENOENT: (DriverError, "a file or directory of the store is gone", "open the store again"),
    errno.ENAMETOOLONG: (DriverError, "the path is too long", "name a shorter directory in the URL"),
    errno.ELOOP: (DriverError, "the path goes round in circles", "mend its symbolic links"),
    errno.EMFILE: (UnavailableError, "too many files are open in this process", "raise its limit (ulimit -n)"),
    errno.ENFILE: (UnavailableError, "too many files are open on this machine", "close some"),
    errno.ENOMEM: (UnavailableError, "there is no memory left", "try again"),
    errno.EAGAIN: (UnavailableError, "the file system is busy", "try again"),
    errno.EBUSY: (UnavailableError, "the file system is busy", "try again"),
    errno.EINTR: (UnavailableError, "the call was interrupted", "try again"),
    errno.ETIMEDOUT: (UnavailableError, "the file system does not answer", "try again"),
    errno.ENOLCK: (DriverError, "the file system has no locks", "put the store on a local disk"),
    errno.ENOTSUP: (DriverError, "the file system cannot do what the store needs", "put the store on a local disk"),
    errno.EIO: (DriverError, "the disk failed", "look into the machine's log"),
}


def error_of(error: OSError) -> DriverError:
    kind, what, remedy = _SENTENCES.get(
        error.errno or 0, (DriverError, "the file system failed", "look at the disk and the directory's rights")
    )
    return kind(f"{what} ({error}): {remedy}", driver="jsonfile")


@contextmanager
def mapped() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise error_of(error) from error
