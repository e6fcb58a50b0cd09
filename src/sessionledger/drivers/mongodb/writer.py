"""Commits: plain appends are written on a guess, all others are judged first. The unique number decides."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, DocumentTooLarge, DuplicateKeyError, WriteError

from sessionledger.drivers.mongodb.blobs import Blobs, Spill
from sessionledger.drivers.mongodb.encoding import document_of
from sessionledger.drivers.mongodb.errors import DUPLICATE, TOO_LARGE, code_error, error_of, mapped
from sessionledger.drivers.mongodb.heads import Heads, LogHead, behind
from sessionledger.drivers.mongodb.lasting import Lasting
from sessionledger.drivers.mongodb.layout import Layout, shard_key
from sessionledger.drivers.mongodb.register import Register, touching
from sessionledger.drivers.mongodb.stored import DECIDING, Stored, keys_of
from sessionledger.errors import DecodeError, DriverError, OutcomeUnknownError, UnavailableError
from sessionledger.protocol.decide import Decision, Known, decide
from sessionledger.protocol.rows import (
    OPEN_STATUSES,
    SEALED,
    Commit,
    Committed,
    Outcome,
    PatchSession,
    PutRun,
    Reason,
    Refused,
    Seal,
    SessionHeader,
    SessionKey,
    Show,
)

__all__ = ["Writer"]

_ATTEMPTS: Final = 100  #: of one commit, while others write the same session
_LONGEST_PAUSE: Final = 0.05  #: seconds before an attempt
_AT_ONCE: Final = 8  #: sessions that are judged side by side

Answer = Outcome | DriverError | DecodeError
T = TypeVar("T")


class _Planned(NamedTuple):
    """A plain append, with what it is if the guess is right."""

    number: int  #: in its call
    decision: Decision
    after: LogHead
    document: dict[str, Any]
    spill: Spill


class Writer:
    """`lossy`: the server may lose the last of what it has acknowledged. Then no head that is known is written behind,
    which would leave a hole in the log, but one that is read for it.
    """

    def __init__(
        self, layout: Layout, heads: Heads, blobs: Blobs, register: Register, lasting: Lasting, *, lossy: bool = False
    ) -> None:
        self._layout, self._heads, self._blobs = layout, heads, blobs
        self._register, self._lasting, self._lossy = register, lasting, lossy
        self._tasks: set[asyncio.Task[Any]] = set()

    async def commit(self, commits: Sequence[Commit]) -> list[Answer]:
        call = _Call(commits)
        with mapped(writing=True):
            if len(call.waiting) > 1:
                await self._append_first(call)
            turns = asyncio.Semaphore(_AT_ONCE)
            chains = [self._chain(call, key, turns) for key, waiting in call.waiting.items() if waiting]
            await _all(chains)
        return [answer for answer in call.answers if answer is not None]

    async def close(self) -> None:
        """What follows a commit whose caller was cancelled has had its time."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # plain appends

    async def _append_first(self, call: _Call) -> None:
        """Of each session that is known, all together, what can be written on a guess."""
        logs = [self._heads.guess(key) for key in call.waiting]
        if self._lossy:
            logs = await _all([self._look(key) for key in call.waiting])
        plans = [self._plan(call, key, log) for key, log in zip(call.waiting, logs, strict=True)]
        single = [plan[0] for plan in plans if len(plan) == 1]
        chains = [plan for plan in plans if len(plan) > 1]
        work: list[Coroutine[Any, Any, Any]] = [self._append_chain(call, plan) for plan in chains]
        if single:
            work.append(self._append_many(call, single))
        await _all(work)

    async def _look(self, key: SessionKey) -> LogHead | None:
        try:
            return await self._heads.read(key)
        except DecodeError:
            # told to those alone who write this session
            return None

    def _plan(self, call: _Call, key: SessionKey, log: LogHead | None) -> list[_Planned]:
        """The commits at the head of a session's queue that are plain, behind the log as it is guessed to be."""
        planned: list[_Planned] = []
        seen: set[str] = set()
        for index in call.waiting[key]:
            commit = call.commits[index]
            if log is None or not _is_plain(commit, seen):
                break
            decision = decide(commit, Known(log.head))
            if decision.head is None or decision.created:
                break
            log = behind(log, commit, decision)
            spill = Spill(shard_key(key), log.head.incarnation)
            planned.append(_Planned(index, decision, log, document_of(commit, decision, log, spill), spill))
            if spill.documents:
                planned.pop()
                break
        return planned

    async def _append_many(self, call: _Call, planned: Sequence[_Planned]) -> None:
        """One of each session: every one fails alone."""
        statements = [one for plan in planned for one in (_storing(plan.document), _touching(plan.after))]
        errors, matched = await self._store(statements, ordered=False)
        failed = {number // 2: error for number, error in errors.items() if not number % 2}
        written = [plan.after for number, plan in enumerate(planned) if number not in failed]
        known = dict.fromkeys(range(len(planned)), True)
        if matched < len(planned):
            known = dict(enumerate(await self._register.knows([plan.after for plan in planned]) if written else []))
        for number, plan in enumerate(planned):
            await self._settle(call, plan, failed.get(number), known.get(number, False))

    async def _append_chain(self, call: _Call, planned: Sequence[_Planned]) -> None:
        """Several of one session: none without those before it."""
        statements = [*(_storing(plan.document) for plan in planned), _touching(planned[-1].after)]
        errors, matched = await self._store(statements, ordered=True)
        touched, written = matched == 1, min(errors, default=len(planned))
        if 0 < written < len(planned):
            touched = await self._register.touch(planned[written - 1].after)
        for number, plan in enumerate(planned[: written + 1]):
            if not await self._settle(call, plan, errors.get(number), touched):
                return

    async def _store(
        self, statements: list[UpdateOne], *, ordered: bool
    ) -> tuple[Mapping[int, Mapping[str, Any]], int]:
        """The errors by number, and how many documents of the register had the facts that were thought."""
        try:
            done = await self._layout.commits.bulk_write(statements, ordered=ordered)
        except DocumentTooLarge:
            # what it was found in is not told: judged one by one, it will be
            return {number: {"code": 11000} for number in range(len(statements))}, 0
        except BulkWriteError as error:
            return _failed(error), (error.details or {}).get("nMatched", 0)
        return {}, done.matched_count

    async def _settle(self, call: _Call, plan: _Planned, failed: Mapping[str, Any] | None, touched: bool) -> bool:
        """Answer what was written; what was not stays in its queue, to be judged."""
        commit = call.commits[plan.number]
        if failed is not None:
            self._heads.forget(commit.key)
            call.tried[plan.number] = plan.after.head.last_activity_at
            if not _concerns_one(failed["code"]):
                call.answer(plan.number, _answer_of(failed))
            return False
        if not touched and not await self._confirm(plan.after):
            return False
        self._heads.note(commit.key, plan.after)
        call.answer(plan.number, plan.decision.outcome)
        return True

    async def _confirm(self, after: LogHead) -> bool:
        """Put register and log right. False: the document was written into a log that had been erased."""
        key = after.head.key
        log = await self._register.repair(key)
        if log is not None and _has(log, after):
            return True
        if log is not None and log.n > after.n:
            query = {"s": shard_key(key), "n": after.n, "i": after.head.incarnation}
            await self._layout.commits.delete_one(query)
        self._heads.forget(key)
        return False

    # one by one

    async def _chain(self, call: _Call, key: SessionKey, turns: asyncio.Semaphore) -> None:
        async with turns:
            while call.waiting[key]:
                try:
                    await self._step(call, key)
                except DecodeError as error:
                    call.answer(call.waiting[key][0], error)

    async def _step(self, call: _Call, key: SessionKey) -> None:
        log = None if self._lossy else self._heads.guess(key)
        if log is None:
            log = await self._heads.read(key)
        planned = self._plan(call, key, log)
        if planned and planned[0].number not in call.tried:
            await self._append_chain(call, planned)
        else:
            await self._answer(call, call.waiting[key][0], log)

    async def _answer(self, call: _Call, index: int, log: LogHead | None) -> None:
        try:
            call.answer(index, await self._judge(call.commits[index], call.tried.get(index), log))
        except DocumentTooLarge:
            call.answer(index, Refused(Reason.TOO_LARGE))
        except WriteError as error:
            if error.code in TOO_LARGE:
                call.answer(index, Refused(Reason.TOO_LARGE))
                return
            answer = error_of(error, writing=True)
            if len(call.commits) == 1 or not _concerns_one(error.code):
                raise
            answer.__cause__ = error
            call.answer(index, answer)

    async def _judge(self, commit: Commit, tried: int | None, log: LogHead | None) -> Outcome:
        """Decide by what the storage holds, and write behind it; again where others were faster."""
        fresh = False
        for attempt in range(_ATTEMPTS):
            if log is None or attempt:
                log, fresh = await self._heads.read(commit.key), True
            known, latest = await self._known(commit, log)
            decision = decide(commit, known)
            if decision.head is not None:
                if await self._write(commit, log, decision):
                    return decision.outcome
                await asyncio.sleep(_pause(attempt))
            elif fresh and (log is None or latest <= log.n):
                return await self._leave(commit, log, decision.outcome, tried)
        raise UnavailableError("others write to the session again and again: try again", driver="mongodb")

    async def _leave(self, commit: Commit, log: LogHead | None, outcome: Outcome, tried: int | None) -> Outcome:
        """Nothing is written. What an earlier attempt left half done is completed before it is acknowledged."""
        if tried is not None:
            await self._register.take_back(commit.key, tried, log)
        if isinstance(outcome, Committed) and log is not None:
            if not await self._register.touch(log):
                await self._register.repair(commit.key)
            await self._lasting.complete(commit, log)
        return outcome

    async def _known(self, commit: Commit, log: LogHead | None) -> tuple[Known, int]:
        """What is stored of that which a commit is about, and the number of the latest document that tells of it."""
        if log is None or log.head.erased:
            return Known(log.head if log else None), 0
        keys = keys_of(commit)
        shard, incarnation = shard_key(commit.key), log.head.incarnation
        found: list[dict[str, Any]] = []
        if keys:
            query = {"s": shard, "i": incarnation, "op": {"$in": keys}}
            found = await self._layout.commits.find(query, DECIDING, hint="by_operation").to_list(None)
        stored = Stored(found, log.base)
        hides = set()
        for change in commit.changes:
            if isinstance(change, Show):
                query = {"s": shard, "i": incarnation, "k": "h", "o": change.hide_id}
                if await self._layout.commits.find_one(query, {"_id": 1}) is not None:
                    hides.add(change.hide_id)
        latest = max((document["n"] for document in found), default=0)
        return Known(log.head, stored.operation(commit), *stored.runs(commit), frozenset(hides)), latest

    async def _write(self, commit: Commit, before: LogHead | None, decision: Decision) -> bool:
        """False when others took the number."""
        after = behind(before, commit, decision)
        shard = shard_key(commit.key)
        spill = Spill(shard, after.head.incarnation)
        document = document_of(commit, decision, after, spill)
        if decision.created and commit.create is not None:
            await self._register.reserve(commit.key, commit.create, after.head.last_activity_at)
        await self._lasting.announce(commit, decision, after)
        await self._blobs.write(spill)
        touched = await self._insert(after, document)
        if touched is None:
            self._heads.forget(commit.key)
            if spill.documents:
                await self._blobs.drop(shard, [spill.token])
            return False
        return await self._to_its_end(self._complete(commit, before, decision, after, touched=touched))

    async def _insert(self, after: LogHead, document: dict[str, Any]) -> bool | None:
        """Whether the register has the facts of the log; None where others took the number."""
        try:
            if after.facts == after.n:
                await self._layout.commits.insert_one(document)
                return False
            done = await self._layout.commits.bulk_write([_storing(document), _touching(after)])
        except DuplicateKeyError:
            return None
        except BulkWriteError as error:
            failed = _failed(error).get(0)
            if failed is None:
                return False
            if failed["code"] in DUPLICATE:
                return None
            raise WriteError(str(failed.get("errmsg")), failed["code"], dict(failed)) from error
        return bool(done.matched_count)

    async def _complete(
        self,
        commit: Commit,
        before: LogHead | None,
        decision: Decision,
        after: LogHead,
        *,
        touched: bool,
    ) -> bool:
        """What follows a document of the log."""
        header = _new_header(commit, decision)
        if after.facts == after.n:
            if header is None:
                header = await self._register.header(after)
            registered = header is not None and await self._register.put(after, header)
            if not registered and not await self._confirm(after):
                return False
        elif not touched and not await self._confirm(after):
            return False
        self._heads.note(commit.key, after)
        await self._lasting.follow(commit, decision, after)
        if before is not None and not decision.created:
            await self._drop_superseded(before, after)
        return True

    async def _drop_superseded(self, before: LogHead, after: LogHead) -> None:
        """Fields and state that were replaced: the log keeps none but the present ones."""
        shard = shard_key(after.head.key)
        for name, old, new in (("sf", before.fields, after.fields), ("ss", before.state, after.state)):
            if old == new:
                continue
            found = await self._layout.commits.find_one_and_update(
                {"s": shard, "n": old}, {"$unset": {name: ""}}, {"_id": 0, name: 1}
            )
            value = (found or {}).get(name)
            body = value.get("body") if name == "sf" and value else value
            if isinstance(body, dict):
                query = {"s": shard, "c": body["c"], "j": {"$gte": body["j"], "$lt": body["j"] + body["k"]}}
                await self._layout.chunks.delete_many(query)

    async def _to_its_end(self, work: Coroutine[Any, Any, bool]) -> bool:
        """Also when the caller is cancelled: the log has it, and lists shall show it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()


class _Call:
    """The commits of one call: who has an answer, and what waits, by session, in order."""

    def __init__(self, commits: Sequence[Commit]) -> None:
        self.commits = commits
        self.answers: list[Answer | None] = [None] * len(commits)
        self.waiting: dict[SessionKey, list[int]] = {}
        self.tried: dict[int, int] = {}  #: appends that were written on a wrong guess, with their activity
        for index, commit in enumerate(commits):
            self.waiting.setdefault(commit.key, []).append(index)

    def answer(self, index: int, answer: Answer) -> None:
        self.answers[index] = answer
        self.waiting[self.commits[index].key].remove(index)


def _is_plain(commit: Commit, seen: set[str]) -> bool:
    """Whether it only puts runs, new and ended ones, none of which comes before it in its group."""
    for change in commit.changes:
        if not isinstance(change, PutRun) or change.revision != 1 or change.run_id in seen:
            return False
        if change.header.status in OPEN_STATUSES:
            return False
        seen.add(change.run_id)
    return bool(commit.changes)


def _new_header(commit: Commit, decision: Decision) -> SessionHeader | None:
    """The fields of the session that a commit brings."""
    header = commit.create.header if decision.created and commit.create is not None else None
    for change in commit.changes:
        if isinstance(change, PatchSession):
            header = change.header
        elif isinstance(change, Seal):
            header = SEALED
    return header


def _failed(error: BulkWriteError) -> Mapping[int, Mapping[str, Any]]:
    details = error.details or {}
    if details.get("writeConcernErrors"):
        raise error_of(error, writing=True) from error
    failed: dict[int, Mapping[str, Any]] = {item["index"]: item for item in details.get("writeErrors", ())}
    for item in failed.values():
        if not _concerns_one(item["code"]) and isinstance(_answer_of(item), UnavailableError | OutcomeUnknownError):
            raise error_of(error, writing=True) from error
    return failed


def _answer_of(failed: Mapping[str, Any]) -> DriverError:
    """For a document that the server refused."""
    text = str(failed.get("errmsg", "a document was refused"))
    known = code_error(failed.get("code"), text, writing=True)
    return known or DriverError(f"MongoDB refused a document ({text[:300]}): look into its log", driver="mongodb")


def _storing(document: Mapping[str, Any]) -> UpdateOne:
    """An insertion that goes with updates in one command; it fails where the number is taken."""
    fields = {name: value for name, value in document.items() if name not in ("s", "n")}
    nobody = {"s": document["s"], "n": document["n"], "i": {"$lt": 0}}
    return UpdateOne(nobody, {"$setOnInsert": fields}, upsert=True, hint="by_number")


def _touching(after: LogHead) -> UpdateOne:
    return UpdateOne(*touching(after), hint="by_number")


def _has(log: LogHead, after: LogHead) -> bool:
    """Whether a log that was read has what was written, and not only its place in a log that was erased."""
    if after.head.erased:
        return after.n in (log.n, log.base)
    return log.head.incarnation == after.head.incarnation and not log.head.erased and log.n >= after.n


def _concerns_one(code: int | None) -> bool:
    """Whether the server failed at what one document is, and will again."""
    return code in DUPLICATE or code in TOO_LARGE


def _pause(attempt: int) -> float:
    """Seconds, some of them by chance."""
    return min(_LONGEST_PAUSE, 0.001 * 1.5**attempt) * random.random()


async def _both(one: Coroutine[Any, Any, Any], other: Coroutine[Any, Any, Any]) -> tuple[Any, Any]:
    """At the same time; both have ended when one of them fails."""
    results: Sequence[Any] = await asyncio.gather(one, other, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results[0], results[1]


async def _all(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    if len(work) == 1:
        return [await work[0]]
    results: list[T] = []
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results
