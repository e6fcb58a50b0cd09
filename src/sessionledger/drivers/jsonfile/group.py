"""The commits of a group, session by session."""

from __future__ import annotations

from collections.abc import Sequence

from sessionledger.drivers.jsonfile.directory import Directory
from sessionledger.drivers.jsonfile.errors import error_of
from sessionledger.drivers.jsonfile.index import IndexDamagedError
from sessionledger.drivers.jsonfile.lock import BusyError
from sessionledger.drivers.jsonfile.session import Session
from sessionledger.drivers.jsonfile.writer import commit_to, refused
from sessionledger.errors import DecodeError, DriverError
from sessionledger.protocol.rows import Commit, Outcome, SessionKey

__all__ = ["Group"]


class Group:
    """Its sessions are written one by one, each under its own lock, so that nobody waits for two."""

    def __init__(self, directory: Directory, commits: Sequence[Commit]) -> None:
        self._directory, self._commits = directory, commits
        self._left: dict[SessionKey, list[int]] = {}  #: places of the commits that have no outcome yet
        for place, commit in enumerate(commits):
            self._left.setdefault(commit.key, []).append(place)
        self._found: dict[int, Outcome | DriverError | DecodeError] = {}

    @property
    def outcomes(self) -> list[Outcome | DriverError | DecodeError]:
        return [self._found[place] for place in range(len(self._commits))]

    def write(self) -> None:
        """`BusyError` when sessions are left that somebody else writes to: call it again."""
        for key, places in list(self._left.items()):
            try:
                outcomes = self._outcomes_of(key, [self._commits[place] for place in places])
            except BusyError:
                continue
            self._found.update(zip(places, outcomes, strict=True))
            del self._left[key]
        if self._left:
            raise BusyError

    def _outcomes_of(self, key: SessionKey, commits: Sequence[Commit]) -> Sequence[Outcome | DriverError | DecodeError]:
        session = self._directory.session(key)
        error: DriverError | DecodeError
        try:
            return self._write(session, commits)
        except (DriverError, DecodeError) as failure:
            error = failure
        except OSError as failure:
            error = error_of(failure)
            error.__cause__ = failure
        return [error] * len(commits)

    def _write(self, session: Session, commits: Sequence[Commit]) -> Sequence[Outcome]:
        if any(commit.create is not None for commit in commits):
            self._directory.make_session(session)
        elif not session.directory.is_dir():
            return refused(commits)
        with session.locked():
            try:
                return commit_to(session, commits, sync=self._directory.sync)
            except IndexDamagedError:
                session.mend()
                return commit_to(session, commits, sync=self._directory.sync)
