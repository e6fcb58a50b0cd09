"""Commits: plain appends by a script of their own, all others looked at, judged here, and written unless they moved."""

from __future__ import annotations

from collections.abc import Sequence

from sessionledger.drivers.redis.append import Append, chains_of
from sessionledger.drivers.redis.changes import commands_of
from sessionledger.drivers.redis.errors import CLIENT_ERRORS, DAMAGE, damage_of, error_of
from sessionledger.drivers.redis.guesses import Guesses, Standing, Standings
from sessionledger.drivers.redis.indexes import Entry, Indexing, early, indexing_of, late, lists_of
from sessionledger.drivers.redis.keys import Keys
from sessionledger.drivers.redis.looking import Seen, look_command, seen_of
from sessionledger.drivers.redis.replication import Replication
from sessionledger.drivers.redis.scripts import script
from sessionledger.drivers.redis.servers import Request, Servers
from sessionledger.errors import DecodeError, DriverError, OutcomeUnknownError, UnavailableError
from sessionledger.protocol.decide import decide
from sessionledger.protocol.rows import Commit, Head, Outcome

__all__ = ["Writer"]

_ATTEMPTS = 32  #: of one commit, while others write to its session


class Writer:
    def __init__(self, keys: Keys, guesses: Guesses, replication: Replication, *, indexed: bool) -> None:
        """`indexed`: the server has all keys, so that a session and its indexes are written at once."""
        self._keys, self._guesses, self._replication, self._indexed = keys, guesses, replication, indexed
        self._standings = Standings()

    async def commit(self, servers: Servers, commits: Sequence[Commit]) -> list[Outcome | DriverError | DecodeError]:
        outcomes: list[Outcome | DriverError | DecodeError | None] = [None] * len(commits)
        chains = chains_of(commits)
        if chains:
            await self._append(servers, commits, chains, outcomes)
        for index, commit in enumerate(commits):
            if outcomes[index] is None:
                outcomes[index] = await self._commit_in_turn(servers, commit, alone=len(commits) == 1)
        if self._replication.is_wanted:
            await self._replication.confirm(servers, (commit.key for commit in commits))
        return [outcome for outcome in outcomes if outcome is not None]

    # plain appends

    async def _append(
        self,
        servers: Servers,
        commits: Sequence[Commit],
        chains: Sequence[Sequence[int]],
        outcomes: list[Outcome | DriverError | DecodeError | None],
    ) -> None:
        """All sessions' at once; what is left without an outcome has to be judged."""
        appends = [self._append_of([commits[at] for at in chain]) for chain in chains]
        if not self._indexed:
            await _send_all(servers, [request for one in appends for request in early(self._indexing_of(one, None))])
        answers = await servers.send([Request(one.key, one.command()) for one in appends])
        behind: list[Request] = []
        for chain, one, answer in zip(chains, appends, answers, strict=True):
            if isinstance(answer, Exception):
                if len(commits) == 1:
                    raise answer
                for at in chain:
                    outcomes[at] = _in_place(answer)
            elif answer is not None:
                head = self._learned(one.standing(answer))
                for at, outcome in zip(chain, one.outcomes(head), strict=True):
                    outcomes[at] = outcome
                if not self._indexed:
                    behind += late(self._indexing_of(one, head.last_activity_at))
        if behind:
            await _send_all(servers, behind)

    def _append_of(self, commits: Sequence[Commit]) -> Append:
        new = commits[0].create
        assert new is not None
        key = commits[0].key
        incarnation, user_id = self._guesses.of(key, new.user_id)
        standing = self._standings.of(key)
        return Append(self._keys, commits, incarnation, user_id, standing, indexed=self._indexed)

    def _learned(self, standing: Standing) -> Head:
        head = standing.head
        assert head is not None
        self._guesses.learn(head)
        self._standings.learn(head.key, standing)
        return head

    def _indexing_of(self, one: Append, active: int | None) -> Indexing:
        """On other nodes: before, with everything that it adds; behind, with the activity that it has come to."""
        key, member = one.commits[0].key, one.member
        entries = [Entry(name, member) for name in lists_of(self._keys, key, one.user_id)]
        if active is not None:
            return Indexing(entries, active, (), ())
        names = Entry(self._keys.names(key.namespace), member)
        return Indexing(entries, max(commit.at for commit in one.commits), [names, *one.entries], ())

    # all others

    async def _commit_in_turn(
        self, servers: Servers, commit: Commit, *, alone: bool
    ) -> Outcome | DriverError | DecodeError:
        try:
            return await self._commit(servers, commit)
        except CLIENT_ERRORS as error:
            if alone or not isinstance(error_of(error, writing=True), DriverError):
                raise
            mapped = error_of(error, writing=True)
            if isinstance(mapped, OutcomeUnknownError | UnavailableError):
                raise
            mapped.__cause__ = error
            return mapped
        except DAMAGE as error:
            damaged = damage_of(error)
            damaged.__cause__ = error
            return damaged

    async def _commit(self, servers: Servers, commit: Commit) -> Outcome:
        for _ in range(_ATTEMPTS):
            seen = await self._look(servers, commit)
            decision = decide(commit, seen.known)
            if decision.head is None:
                return decision.outcome
            indexing = indexing_of(self._keys, commit, decision, seen.known.head)
            commands = commands_of(self._keys, commit, decision, seen)
            if self._indexed:
                for request in [*early(indexing), *late(indexing)]:
                    commands.add(request.command)
            else:
                await _send_all(servers, early(indexing))
            (written,) = await servers.send([Request(commands.keys[0], script("apply").call(*commands.call()))])
            if isinstance(written, Exception):
                raise written
            if written:
                if not self._indexed:
                    await _send_all(servers, late(indexing))
                self._guesses.learn(decision.head)
                return decision.outcome
        raise UnavailableError(
            f"others write to session {commit.key.session_id!r} again and again: try again", driver="redis"
        )

    async def _look(self, servers: Servers, commit: Commit) -> Seen:
        incarnation, _ = self._guesses.of(commit.key, None)
        while True:
            request = Request(self._keys.head(commit.key), look_command(self._keys, commit, incarnation))
            (answer,) = await servers.send([request])
            if isinstance(answer, Exception):
                raise answer
            seen = seen_of(commit, answer)
            head = seen.known.head
            if head is None or head.erased or head.incarnation == incarnation:
                return seen
            incarnation = head.incarnation


def _in_place(error: Exception) -> DriverError | DecodeError:
    mapped = error_of(error, writing=True)
    mapped.__cause__ = error
    return mapped


async def _send_all(servers: Servers, requests: Sequence[Request]) -> None:
    for answer in await servers.send(requests) if requests else ():
        if isinstance(answer, Exception):
            raise answer
