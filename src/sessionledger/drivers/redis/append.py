"""Plain appends: the new runs of one session in one call of a script, which judges them by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from sessionledger.drivers.redis.guesses import NOWHERE, Standing
from sessionledger.drivers.redis.indexes import Entry, entries_of_run
from sessionledger.drivers.redis.keys import Keys
from sessionledger.drivers.redis.scripts import script
from sessionledger.drivers.redis.values import (
    HEAD,
    SMALL_COUNTER,
    fields_of_header,
    head_of,
    largest_of,
    message_value,
    record_value,
    short_id,
    stored_body,
)
from sessionledger.protocol.plain import add_up, chain_outcomes, plain_chains, put_of
from sessionledger.protocol.rows import Commit, Committed, Head, PutRun, SessionKey

__all__ = ["Append", "chains_of", "most_of_a_counter"]

#: What the server adds up by itself may be incremented that much, so that no sum of them ever overflows 64 bits.
most_of_a_counter = 2**31
_MOST_COUNTERS = 50  #: of a run: those of a whole group are values of one call
_MOST_OF_A_SUM = 2**52  #: of a counter that is sent as a sum: what a number of Lua's holds exactly, and half of it
_MOST_ENTRIES = 16  #: of one session that are known to be in the indexes

Words: TypeAlias = list[str | bytes | int]


def chains_of(commits: Sequence[Commit]) -> list[list[int]]:
    """The plain appends that the script takes, session by session."""
    return plain_chains(commits, _suits)


def _suits(put: PutRun) -> bool:
    counters = put.counters
    return len(counters) <= _MOST_COUNTERS and all(abs(count) < most_of_a_counter for count in counters.values())


class Append:
    """The call of the script for one session's chain, and what its answer means."""

    def __init__(
        self,
        keys: Keys,
        commits: Sequence[Commit],
        incarnation: int,
        user_id: str | None,
        standing: Standing | None,
        *,
        indexed: bool,
    ) -> None:
        """`standing`: where the session is taken to stand. The script finds out if it does not."""
        self.commits, self._keys, self._incarnation, self.user_id = commits, keys, incarnation, user_id
        self._indexed = indexed
        self._session = keys.session(commits[0].key, incarnation)
        self._increments = add_up([put_of(commit) for commit in commits])
        self._before = standing
        self._standing = standing if standing is not None and self._suits(standing) else None
        self._base = self._standing or NOWHERE
        before = self._base.counters
        self._counters = {name: before.get(name, 0) + count for name, count in self._increments.items()}
        self._active = max(self._base.active, max([commit.at for commit in commits]))
        self._largest = self._base.largest
        self.entries = self._entries()

    def _suits(self, standing: Standing) -> bool:
        """Whether its head lets the runs in, and all that they count is known."""
        head, owner, known = standing.head, self.commits[0].owner, standing.counters
        return (
            head is not None
            and head.deleted_at is None
            and not head.erased
            and (head.incarnation, head.user_id) == (self._incarnation, self.user_id)
            and owner in (None, head.user_id)
            and self._increments.keys() <= known.keys()
            and all([abs(known[name] + count) < _MOST_OF_A_SUM for name, count in self._increments.items()])
        )

    @property
    def key(self) -> str:
        return self._session.head

    @property
    def member(self) -> bytes:
        return self._session.member

    def _entries(self) -> list[Entry]:
        """What its runs put into the indexes, each once; first what is not known to be there."""
        found: dict[Entry, None] = {}
        for commit in self.commits:
            for entry in entries_of_run(
                self._keys, commit.key, self._session.member, put_of(commit), user_id=self.user_id
            ):
                found[entry] = None
        known = self._base.entries
        return [entry for entry in found if entry not in known] + [entry for entry in found if entry in known]

    # the call

    def command(self) -> Words:
        session, base = self._session, self._base
        keys = [session.head, session.runs, session.ids, session.messages]
        if self._indexed:
            keys += self._lists(self.commits[0].key)
        ids, records, messages = self._rows()
        counters, words, new = self._increments, self._head_words(), self._new_words()
        arguments: Words = [
            self._incarnation,
            *(base.version, base.runs, base.messages, base.active if self._standing else ""),
            _marked(self.user_id),
            _marked(self.commits[0].owner),
            *(len(records), len(ids) // 2, len(messages), len(counters), len(words), len(new)),
            session.member if self._indexed else "",
            len([entry for entry in self.entries if entry not in base.entries]),
            *ids,
            *records,
            *messages,
            *words,
            *new,
            *counters.values(),
        ]
        if self._indexed:
            arguments += [entry.member for entry in self.entries]
        return script("append").call(keys, arguments)

    def _lists(self, key: SessionKey) -> list[str]:
        names = [self._keys.sessions(key.namespace), self._keys.names(key.namespace)]
        if self.user_id is not None:
            names.append(self._keys.sessions_of_user(key.namespace, self.user_id))
        return names + [entry.key for entry in self.entries]

    def _rows(self) -> tuple[Words, list[bytes], list[bytes]]:
        """The runs' ids and those of messages, with their places; the records; the messages."""
        seq, version, position = self._base.runs, self._base.version, self._base.messages
        ids: Words = []
        places: dict[bytes, str | int] = {}
        records: list[bytes] = []
        messages: list[bytes] = []
        for commit in self.commits:
            put = put_of(commit)
            seq, version, first = seq + 1, version + 1, position + 1
            for position, row in enumerate(put.messages, first):
                messages.append(message_value(row, put.run_id, seq, 1))
                if row.message_id is not None:
                    short = short_id(row.message_id)
                    places[short] = f"{places[short]} {position}" if short in places else position
            records.append(record_value(put, seq, version, first, position))
            ids += (put.run_id, seq)
        for place in places.items():
            ids += place
        self._largest = max(self._largest, *map(len, messages)) if messages else self._largest
        return ids, records, messages

    def _head_words(self) -> Words:
        base, runs = self._base, len(self.commits)
        messages = base.messages + sum([len(put_of(commit).messages) for commit in self.commits])
        words: Words = ["version", base.version + runs, "runs", base.runs + runs, "messages", messages]
        words += ("last_activity_at", self._active, "largest", self._largest)
        for name, count in self._counters.items():
            words += (SMALL_COUNTER + name, count)
        if self._has_summary():
            words += ("has_summary", 1)
        return words

    def _new_words(self) -> Words:
        """Of the session, where there is none."""
        new = self.commits[0].create
        assert new is not None
        if self._standing is not None:
            return []
        words: Words = ["incarnation", 1, "state_version", 1, "created_at", new.created_at]
        words += (*fields_of_header(new.header), "state", stored_body(new.state))
        return words if self.user_id is None else [*words, "user_id", self.user_id]

    def _has_summary(self) -> bool:
        return any([put_of(commit).header.has_summary for commit in self.commits])

    # the answer

    def standing(self, answer: Any) -> Standing:
        """Where the session stands behind the runs."""
        if answer == 1:
            head = self._moved() if self._standing is not None else self._made()
            counters: Mapping[str, int] = {**self._base.counters, **self._counters}
            return Standing(head, counters, self._largest, self._known_entries(self._base.entries))
        head = head_of(answer, self.commits[0].key)
        assert head is not None
        totals = zip(self._increments, map(int, answer[len(HEAD) :]), strict=True)
        before = self._before if self._before is not None and self._follows(head, self._before) else NOWHERE
        return Standing(
            head, {**before.counters, **dict(totals)}, largest_of(answer), self._known_entries(before.entries)
        )

    def _follows(self, head: Head, before: Standing) -> bool:
        """Whether nobody has written since but this, so that what was known then still is."""
        runs = len(self.commits)
        return before.head is not None and (head.incarnation, head.version, head.run_count) == (
            before.head.incarnation,
            before.version + runs,
            before.runs + runs,
        )

    def _known_entries(self, before: Iterable[Entry]) -> frozenset[Entry]:
        """Those that a session's next run may put there again."""
        known = frozenset([*before, *[entry for entry in self.entries if entry.member == self._session.member]])
        return known if len(known) <= _MOST_ENTRIES else frozenset()

    def _moved(self) -> Head:
        head, base = self._base.head, self._base
        assert head is not None
        return Head(
            head.key,
            head.incarnation,
            base.version + len(self.commits),
            head.state_version,
            base.runs + len(self.commits),
            self._last_position(),
            head.user_id,
            head.created_at,
            self._active,
            has_hidden=head.has_hidden,
            has_summary=head.has_summary or self._has_summary(),
            forks=head.forks,
            fork=head.fork,
        )

    def _made(self) -> Head:
        first, runs = self.commits[0], len(self.commits)
        assert first.create is not None
        return Head(
            first.key,
            1,
            runs,
            1,
            runs,
            self._last_position(),
            self.user_id,
            first.create.created_at,
            self._active,
            has_summary=self._has_summary(),
        )

    def _last_position(self) -> int:
        return self._base.messages + sum([len(put_of(commit).messages) for commit in self.commits])

    def outcomes(self, head: Head) -> list[Committed]:
        """Of each commit, made of the head behind the last one."""
        return chain_outcomes(head, self.commits)


def _marked(user_id: str | None) -> str:
    return "" if user_id is None else f"={user_id}"
