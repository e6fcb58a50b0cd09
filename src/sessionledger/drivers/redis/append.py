"""Plain appends: the new runs of one session in one call of a script, which judges them by itself."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, pack
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
    log_text,
    message_value,
    record_value,
    short_id,
    stored_body,
)
from sessionledger.protocol.plain import add_up, chain_outcomes, head_behind, plain_chains, put_of
from sessionledger.protocol.rows import Commit, Committed, Head, PutRun, SessionKey

__all__ = ["Append", "chains_of", "most_of_a_counter"]

#: What the server adds up by itself may be incremented that much, so that no sum of them ever overflows 64 bits.
most_of_a_counter = 2**31
_MOST_COUNTERS = 50  #: of a run: those of a whole group are values of one call
_MOST_OF_A_SUM = 2**52  #: of a counter that is sent as a sum: half of what a number of Lua's holds exactly
_MOST_ENTRIES = 16  #: of one session that are known to be in the indexes
_COUNTS = Struct(">6I")

Words: TypeAlias = list[str | bytes | int]


def chains_of(commits: Sequence[Commit]) -> list[list[int]]:
    """The plain appends that the script takes, session by session."""
    return plain_chains(commits, _suits)


def _suits(put: PutRun) -> bool:
    counters = put.counters
    return (
        len(counters) <= _MOST_COUNTERS
        and -most_of_a_counter < min(counters.values(), default=0)
        and (max(counters.values(), default=0) < most_of_a_counter)
    )


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
        self._puts = [put_of(commit) for commit in commits]
        self._session = keys.session(commits[0].key, incarnation)
        self._increments = add_up(self._puts)
        self._before = standing or NOWHERE
        self._is_guessed = self._fits(self._before)
        base = self._base = self._before if self._is_guessed else NOWHERE
        self._totals = {name: base.counters.get(name, 0) + count for name, count in self._increments.items()}
        self._messages = base.messages + sum([len(put.messages) for put in self._puts])
        self._active = max(base.active, *[commit.at for commit in commits])
        self._largest = base.largest
        self.entries, self._lacking = self._entries()

    def _fits(self, standing: Standing) -> bool:
        """Whether a session that stands there takes the runs, and all that they count is known."""
        head, known = standing.head, standing.counters
        if head is None or (head.incarnation, head.user_id) != (self._incarnation, self.user_id):
            return False
        if self.commits[0].owner not in (None, head.user_id) or not self._increments.keys() <= known.keys():
            return False
        return max([abs(known[name]) for name in self._increments], default=0) < _MOST_OF_A_SUM

    @property
    def key(self) -> str:
        return self._session.head

    @property
    def member(self) -> bytes:
        return self._session.member

    def _entries(self) -> tuple[list[Entry], int]:
        """What its runs put into the indexes, each once; and how many of them, the first, are not known to be there."""
        key, member, known = self.commits[0].key, self._session.member, self._base.entries
        found = [
            entry for put in self._puts for entry in entries_of_run(self._keys, key, member, put, user_id=self.user_id)
        ]
        if len(self._puts) > 1:
            found = list(dict.fromkeys(found))
        lacking = [entry for entry in found if entry not in known]
        return lacking + [entry for entry in found if entry in known], len(lacking)

    # the call

    def command(self) -> Words:
        session, base = self._session, self._base
        keys = [session.head, session.runs, session.ids, session.messages]
        if self._indexed:
            keys += self._lists(self.commits[0].key)
        ids, records, messages = self._rows()
        words, new = self._head_words(), [] if self._is_guessed else self._new_words()
        arguments: Words = [
            self._incarnation,
            self._log(base.messages, 0, base.active, base.largest) if self._is_guessed else "",
            _marked(self.user_id),
            _marked(self.commits[0].owner),
            self._active,
            _COUNTS.pack(len(records), len(ids) // 2, len(messages), len(words), len(new), self._lacking),
            pack(f">{len(self._increments)}q", *self._increments.values()),
            session.member if self._indexed else "",
            *ids,
            *records,
            *messages,
            *words,
            *new,
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
        for put in self._puts:
            seq, version, first, run_id = seq + 1, version + 1, position + 1, put.run_id
            for position, row in enumerate(put.messages, first):
                messages.append(message_value(row, run_id, seq, 1))
                if row.message_id is not None:
                    short = short_id(row.message_id)
                    places[short] = f"{places[short]} {position}" if short in places else position
            records.append(record_value(put, seq, version, first, position))
            ids += (run_id, seq)
        for place in places.items():
            ids += place
        self._largest = max(self._largest, max(map(len, messages), default=0))
        return ids, records, messages

    def _head_words(self) -> Words:
        words: Words = ["log", self._log(self._messages, len(self._puts), self._active, self._largest)]
        for name, total in self._totals.items():
            words += (SMALL_COUNTER + name, total)
        if self._has_summary():
            words += ("has_summary", 1)
        return words

    def _log(self, messages: int, runs: int, active: int, largest: int) -> str:
        return log_text(self._base.version + runs, self._base.runs + runs, messages, active, largest)

    def _new_words(self) -> Words:
        """Of the session, where there is none."""
        new = self.commits[0].create
        assert new is not None
        words: Words = ["incarnation", 1, "state_version", 1, "created_at", new.created_at]
        words += (*fields_of_header(new.header), "state", stored_body(new.state))
        return words if self.user_id is None else [*words, "user_id", self.user_id]

    def _has_summary(self) -> bool:
        return any([put.header.has_summary for put in self._puts])

    # the answer

    def standing(self, answer: Any) -> Standing:
        """Where the session stands behind the runs."""
        if answer == 1:
            before, head, totals = self._base, self._moved() if self._is_guessed else self._made(), self._totals
        else:
            *values, stood = answer
            found = head_of(values, self.commits[0].key)
            assert found is not None
            before, head = self._before if self._follows(found, stood) else NOWHERE, found
            self._largest = largest_of(values)
            totals = dict(zip(self._increments, map(int, values[len(HEAD) :]), strict=True))
        return Standing(head, {**before.counters, **totals}, self._largest, self._known_entries(before))

    def _follows(self, head: Head, stood: bytes) -> bool:
        """Whether nobody had written since, so that what was known then still is. `stood`: the log before the runs; its
        numbers alone would not tell a server that lost writes, and was given others.
        """
        before = self._before
        if before.head is None or before.head.incarnation != head.incarnation:
            return False
        return log_text(before.version, before.runs, before.messages, before.active, before.largest).encode() == stood

    def _known_entries(self, before: Standing) -> frozenset[Entry]:
        """Those that a later run of the session may put there again."""
        member = self._session.member
        new = [entry for entry in self.entries if entry.member == member and entry not in before.entries]
        if not new:
            return before.entries
        known = before.entries.union(new)
        return known if len(known) <= _MOST_ENTRIES else frozenset()

    def _moved(self) -> Head:
        assert self._base.head is not None
        return head_behind(self._base.head, self.commits)

    def _made(self) -> Head:
        first, runs = self.commits[0], len(self._puts)
        assert first.create is not None
        created_at, summary = first.create.created_at, self._has_summary()
        return Head(
            first.key, 1, runs, 1, runs, self._messages, self.user_id, created_at, self._active, has_summary=summary
        )

    def outcomes(self, head: Head) -> list[Committed]:
        """Of each commit, made of the head behind the last one."""
        return chain_outcomes(head, self.commits)


def _marked(user_id: str | None) -> str:
    return "" if user_id is None else f"={user_id}"
