"""Plain appends: the new runs of one session in one call of a script, which judges them by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sessionledger.drivers.redis.indexes import Entry, entries_of_run
from sessionledger.drivers.redis.keys import Keys
from sessionledger.drivers.redis.scripts import script
from sessionledger.drivers.redis.values import (
    SMALL_COUNTER,
    fields_of_header,
    head_of,
    message_value,
    record_of,
    seq_mark,
    short_id,
    stored_body,
)
from sessionledger.protocol.plain import add_up, chain_outcomes, plain_chains, put_of
from sessionledger.protocol.rows import Commit, Committed, PutRun, SessionKey

__all__ = ["Append", "chains_of", "most_of_a_counter"]

#: What the server adds up by itself may be incremented that much, so that no sum of them ever overflows 64 bits.
most_of_a_counter = 2**31
_MOST_COUNTERS = 50  #: of a run: those of a whole group are values of one call


def chains_of(commits: Sequence[Commit]) -> list[list[int]]:
    """The plain appends that the script takes, session by session."""
    return plain_chains(commits, _suits)


def _suits(put: PutRun) -> bool:
    counters = put.counters
    return len(counters) <= _MOST_COUNTERS and all(abs(count) < most_of_a_counter for count in counters.values())


class Append:
    """The call of the script for one session's chain, and what its answer means."""

    def __init__(
        self, keys: Keys, commits: Sequence[Commit], incarnation: int, user_id: str | None, *, indexed: bool
    ) -> None:
        self.commits, self._keys, self._incarnation, self.user_id = commits, keys, incarnation, user_id
        self._indexed = indexed
        self._session = keys.session(commits[0].key, incarnation)
        self.entries = self._entries()

    @property
    def key(self) -> str:
        return self._session.head

    @property
    def member(self) -> bytes:
        return self._session.member

    def _entries(self) -> list[Entry]:
        """What its runs put into the indexes, each once."""
        found: dict[Entry, None] = {}
        for commit in self.commits:
            for entry in entries_of_run(
                self._keys, commit.key, self._session.member, put_of(commit), user_id=self.user_id
            ):
                found[entry] = None
        return list(found)

    def command(self) -> list[str | bytes | int]:
        first, session = self.commits[0], self._session
        new = first.create
        assert new is not None
        keys = [session.head, session.runs, session.run_ids, session.names, session.messages, session.message_ids]
        if self._indexed:
            keys += self._lists(first.key)
        header = fields_of_header(new.header)
        arguments: list[Any] = [
            self._incarnation,
            _marked(self.user_id),
            _marked(first.owner),
            max(commit.at for commit in self.commits),
            new.created_at,
            header[1],
            header[3],
            stored_body(new.state),
            session.member if self._indexed else "",
        ]
        self._add_counters(arguments)
        largest = len(arguments)
        arguments += (0, len(self.commits))
        for commit in self.commits:
            arguments[largest] = max(arguments[largest], _add_run(arguments, put_of(commit)))
        if self._indexed:
            arguments += [entry.member for entry in self.entries]
        return script("append").call(keys, arguments)

    def _lists(self, key: SessionKey) -> list[str]:
        names = [self._keys.sessions(key.namespace), self._keys.names(key.namespace)]
        if self.user_id is not None:
            names.append(self._keys.sessions_of_user(key.namespace, self.user_id))
        return names + [entry.key for entry in self.entries]

    def _add_counters(self, arguments: list[Any]) -> None:
        total = add_up([put_of(commit) for commit in self.commits])
        arguments.append(len(total))
        for name, count in total.items():
            arguments += (SMALL_COUNTER + name, count)

    def outcomes(self, answer: Sequence[bytes | None]) -> list[Committed]:
        """Of each commit, made of the head behind the last one."""
        head = head_of(answer, self.commits[0].key)
        assert head is not None
        return chain_outcomes(head, self.commits)


def _marked(user_id: str | None) -> str:
    return "" if user_id is None else f"={user_id}"


def _add_run(arguments: list[Any], put: PutRun) -> int:
    """The length of its largest message, as it is stored."""
    messages = [message_value(row, 1) for row in put.messages]
    arguments += (put.run_id, int(put.header.has_summary), record_of(put), len(messages), *messages)
    ids = [(place, short_id(row.message_id)) for place, row in enumerate(put.messages) if row.message_id is not None]
    arguments.append(len(ids))
    for one in ids:
        arguments += one
    return max(map(len, messages), default=0) + len(seq_mark(0))
