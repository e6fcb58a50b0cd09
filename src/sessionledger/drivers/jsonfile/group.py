"""The commits of a group, session by session, with one wait for the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from errno import EMFILE, ENFILE
from functools import partial
from itertools import islice
from typing import Final, TypeAlias

from sessionledger.drivers.jsonfile.directory import Directory
from sessionledger.drivers.jsonfile.errors import error_of
from sessionledger.drivers.jsonfile.handle import sync_directory
from sessionledger.drivers.jsonfile.index import IndexDamagedError
from sessionledger.drivers.jsonfile.lock import BusyError
from sessionledger.drivers.jsonfile.writer import Writing, refused
from sessionledger.errors import DecodeError, DriverError
from sessionledger.protocol.rows import Commit, Outcome, SessionKey

__all__ = ["Group"]

_AT_ONCE: Final = 16  #: sessions that are locked, and whose files are open, at a time

Found: TypeAlias = Outcome | DriverError | DecodeError


class Group:
    def __init__(self, directory: Directory, commits: Sequence[Commit]) -> None:
        self._directory, self._commits = directory, commits
        self._left: dict[SessionKey, list[int]] = {}  #: places of the commits that have no outcome yet
        for place, commit in enumerate(commits):
            self._left.setdefault(commit.key, []).append(place)
        self._found: dict[int, Found] = {}

    @property
    def outcomes(self) -> list[Found]:
        return [self._found[place] for place in range(len(self._commits))]

    @property
    def is_shared(self) -> bool:
        """Whether some would wait for others."""
        return len({commit.key for commit in self._commits}) > 1

    def give_up(self, error: DriverError) -> bool:
        """What is left has that error; whether anything else was settled."""
        if not self._found:
            return False
        for key in list(self._left):
            self._settle(key, [error] * len(self._left[key]))
        return True

    def write(self) -> None:
        """`BusyError` when sessions are left that somebody else writes to: call it again."""
        keys = iter(list(self._left))
        while batch := list(islice(keys, _AT_ONCE)):
            with ExitStack() as locks:
                self._write(batch, locks)
        if self._left:
            raise BusyError

    def _write(self, keys: Sequence[SessionKey], locks: ExitStack) -> None:
        """Nobody waits for a lock while he has one, so that two who want the same ones do not wait for each other."""
        staged: list[tuple[SessionKey, Writing]] = []
        outcomes: dict[SessionKey, Sequence[Found]] = {}
        for key in keys:
            commits = [self._commits[place] for place in self._left[key]]
            try:
                writing = self._lock(key, commits, locks, wait=not staged)
                if writing is None:
                    self._settle(key, refused(commits))
                    continue
                outcomes[key] = writing.append(commits)
                staged.append((key, writing))
            except BusyError:
                continue
            except (DriverError, DecodeError, OSError, IndexDamagedError) as error:
                self._fail(key, error)
        for key, failure in self._sync(staged).items():
            if failure is None:
                self._settle(key, outcomes[key])
            else:
                self._fail(key, failure)

    def _lock(self, key: SessionKey, commits: Sequence[Commit], locks: ExitStack, *, wait: bool) -> Writing | None:
        """None where there is no session, and none to be made."""
        session = self._directory.session(key)
        if any(commit.create is not None for commit in commits):
            self._directory.make_session(session)
        elif not session.directory.is_dir():
            return None
        locks.enter_context(session.locked(wait=wait))
        return Writing(session, sync=self._directory.sync)

    def _sync(self, staged: Sequence[tuple[SessionKey, Writing]]) -> dict[SessionKey, Exception | None]:
        """Bring them to the disk together, and let each be seen, or take it back."""
        directories = sorted({path for _, writing in staged for path in writing.directories})
        syncs: list[Callable[[], None]] = [partial(sync_directory, path) for path in directories]
        owners: list[SessionKey | None] = [None] * len(syncs)
        for key, writing in staged:
            syncs += [log.sync for log in writing.logs]
            owners += [key] * len(writing.logs)
        failed = [(owner, error) for owner, error in zip(owners, self._directory.sync_all(syncs), strict=True) if error]
        return {key: _finished(key, writing, failed) for key, writing in staged}

    def _settle(self, key: SessionKey, outcomes: Sequence[Found]) -> None:
        self._found.update(zip(self._left.pop(key), outcomes, strict=True))

    def _fail(self, key: SessionKey, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in (EMFILE, ENFILE):
            # there will be room when others are done
            self._directory.forget_files()
            return
        mapped = error_of(error) if isinstance(error, OSError) else error
        if isinstance(error, IndexDamagedError):
            mapped = DecodeError(
                f"the log of session {key.session_id!r} contradicts itself: restore it from a backup",
                session_id=key.session_id,
            )
        if mapped is not error:
            mapped.__cause__ = error
        assert isinstance(mapped, DriverError | DecodeError)
        self._settle(key, [mapped] * len(self._left[key]))


def _finished(
    key: SessionKey, writing: Writing, failed: Sequence[tuple[SessionKey | None, OSError]]
) -> Exception | None:
    """Why it was not, if it was not. A directory that failed is everybody's."""
    try:
        for owner, error in failed:
            if owner in (None, key):
                raise error
        writing.finish()
    except (DriverError, DecodeError, OSError) as error:
        try:
            writing.undo(error)
        except DriverError as unknown:
            return unknown
        return error
    return None
