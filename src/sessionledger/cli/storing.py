"""One conversation into a store, as often as one likes: what is there already is found there, what has grown goes on.

Most conversations are one `append`: the run ids say where each run stands, so the store itself tells new runs from
those that it has. Only when it objects are the stored runs read and compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from sessionledger import (
    AppendReceipt,
    ConflictError,
    Message,
    Run,
    RunConflictError,
    Session,
    SessionExistsError,
    SessionStore,
    open_store,
)
from sessionledger.cli.chat import chat_from_message
from sessionledger.cli.conversations import BadLineError, Conversation, run_id_of

__all__ = ["Counts", "Outcome", "Storer", "open_storer"]

#: Messages of one `append`. Longer conversations take several: a commit that lasts keeps other writers waiting.
PIECE = 5_000
#: How often to look again when somebody else writes to the session between the look and the write.
_ATTEMPTS = 5


@dataclass
class Counts:
    sessions: int = 0
    runs: int = 0
    messages: int = 0
    tool_calls: int = 0

    def add(self, other: Counts) -> None:
        self.sessions += other.sessions
        self.runs += other.runs
        self.messages += other.messages
        self.tool_calls += other.tool_calls

    def add_messages(self, messages: Sequence[Message]) -> None:
        self.messages += len(messages)
        self.tool_calls += sum(len(message.tool_calls) for message in messages)


@dataclass
class Outcome:
    """What became of a conversation: the part that is new, and the part that was there."""

    new: Counts = field(default_factory=Counts)
    there: Counts = field(default_factory=Counts)
    metadata_changed: bool = False


#: A session that is there, and a version that it never has.
_REHEARSAL = "rehearsal"
_NEVER = 2**53


class _Match(Enum):
    """A run of the file beside the stored one of its id."""

    ABSENT = "A"  #: none is stored
    EQUAL = "E"
    GROWN = "G"  #: the stored one is its beginning
    SHORTER = "S"  #: it is the beginning of the stored one
    DIFFERENT = "D"


@asynccontextmanager
async def open_storer(store: SessionStore) -> AsyncIterator[Storer]:
    """What stores conversations into that store."""
    async with open_store("memory://") as rehearsal:
        await rehearsal.create_session(Session(session_id=_REHEARSAL))
        yield Storer(store, rehearsal)


class Storer:
    """Stores conversations, each as a whole or not at all.

    What one takes may be several commits, of which a later one must not be refused. So everything is tried before on a
    store in memory, in ways that end with its validation and leave nothing there.
    """

    def __init__(self, store: SessionStore, rehearsal: SessionStore) -> None:
        self._store = store
        self._rehearsal = rehearsal

    async def store(self, conversation: Conversation) -> Outcome:
        """Store what is new of it; `BadLineError` when it contradicts what is stored."""
        await self._rehearse(conversation)
        try:
            outcome = _count(conversation, await _append(self._store, conversation.runs))
        except RunConflictError:
            outcome = await _go_on(self._store, conversation)
        changed = await _keep_metadata(self._store, conversation)
        outcome.metadata_changed = changed and not outcome.new.sessions
        return outcome

    async def _rehearse(self, conversation: Conversation) -> None:
        if conversation.metadata or conversation.extra:
            session = Session(session_id=_REHEARSAL, metadata=conversation.metadata, extra=conversation.extra)
            with suppress(SessionExistsError):
                await self._rehearsal.create_session(session)
        if sum(len(run.messages) for run in conversation.runs) > PIECE:
            with suppress(ConflictError):
                await self._rehearsal.append(conversation.runs, expected_version=_NEVER)


async def _append(store: SessionStore, runs: Sequence[Run]) -> list[AppendReceipt]:
    return [receipt for piece in _pieces(runs) for receipt in await store.append(piece)]


def _pieces(runs: Sequence[Run]) -> Iterator[list[Run]]:
    piece: list[Run] = []
    size = 0
    for run in runs:
        if piece and size + len(run.messages) > PIECE:
            yield piece
            piece, size = [], 0
        piece.append(run)
        size += len(run.messages)
    if piece:
        yield piece


def _count(conversation: Conversation, receipts: Sequence[AppendReceipt]) -> Outcome:
    outcome = Outcome()
    created = receipts[0].run_seq == 1 and not receipts[0].replayed
    (outcome.new if created else outcome.there).sessions += 1
    for run, receipt in zip(conversation.runs, receipts, strict=True):
        side = outcome.there if receipt.replayed else outcome.new
        side.runs += 1
        side.add_messages(run.messages)
    return outcome


async def _go_on(store: SessionStore, conversation: Conversation) -> Outcome:
    """Store what a conversation has more than the store; its last stored run may have grown, and is revised then."""
    for _ in range(_ATTEMPTS):
        session = await store.get_session(conversation.session_id)
        matches = await _compare(store, conversation)
        _check(matches, conversation)
        try:
            return await _add_rest(store, conversation, matches, session.version if session else 0)
        except ConflictError:
            continue
    raise BadLineError("belongs to a session that others write to all the time: import it again")


async def _compare(store: SessionStore, conversation: Conversation) -> list[_Match]:
    """A match for each run of the file, and one for the run that would follow."""
    session_id = conversation.session_id
    runs = {run.run_id: run for run in conversation.runs}
    found: dict[str | None, _Match] = {}
    async for stored in store.runs(session_id, include_messages=True):
        if stored.run_id in runs:
            found[stored.run_id] = _match(stored, runs[stored.run_id])
    for run_id in (*runs, run_id_of(session_id, len(runs) + 1)):
        if run_id not in found:
            hidden = await store.get_run(run_id, session_id=session_id) if run_id else None
            found[run_id] = _match(hidden, runs.get(run_id)) if hidden else _Match.ABSENT
    return [found[run_id] for run_id in (*runs, run_id_of(session_id, len(runs) + 1))]


def _match(stored: Run, run: Run | None) -> _Match:
    old = _texts(stored.messages)
    new = _texts(run.messages) if run else []
    if old == new:
        return _Match.EQUAL
    if old == new[: len(old)]:
        return _Match.GROWN
    return _Match.SHORTER if new == old[: len(new)] else _Match.DIFFERENT


def _texts(messages: Sequence[Message]) -> list[str]:
    """Text, because Python takes 1, 1.0 and True for equal."""
    return [json.dumps(chat_from_message(message), sort_keys=True) for message in messages]


def _check(matches: Sequence[_Match], conversation: Conversation) -> None:
    """Equal runs to the end; or one that is shorter last, as in an older copy; or one that has grown, and new ones."""
    if re.fullmatch("E*(S?.|G?A+)", "".join(match.value for match in matches)):
        return
    number = next(index for index, match in enumerate(matches, 1) if match is not _Match.EQUAL)
    raise BadLineError(f"has changed: run {number} of {conversation.session_id!r} is not what was stored before")


async def _add_rest(
    store: SessionStore, conversation: Conversation, matches: Sequence[_Match], version: int
) -> Outcome:
    outcome = Outcome(there=Counts(sessions=1))
    missing: list[Run] = []
    for run, match in zip(conversation.runs, matches, strict=False):
        if match is _Match.GROWN:
            await _revise(store, run, version, outcome)
        elif match is _Match.ABSENT:
            missing.append(run)
            outcome.new.runs += 1
            outcome.new.add_messages(run.messages)
        else:
            outcome.there.runs += 1
            outcome.there.add_messages(run.messages)
    if missing:
        await _append(store, missing)
    return outcome


async def _revise(store: SessionStore, run: Run, version: int, outcome: Outcome) -> None:
    """A run that is complete cannot be extended; its new revision keeps its place."""
    stored = await store.get_run(run.run_id or "", session_id=run.session_id)
    known = len(stored.messages) if stored else 0
    await store.append(run, revise=True, expected_version=version)
    outcome.there.runs += 1
    outcome.there.add_messages(run.messages[:known])
    outcome.new.add_messages(run.messages[known:])


async def _keep_metadata(store: SessionStore, conversation: Conversation) -> bool:
    """Lay the file's metadata over the session's; True when that changed something."""

    def merged(session: Session) -> Session:
        return msgspec.structs.replace(
            session,
            metadata={**session.metadata, **conversation.metadata},
            extra={**session.extra, **conversation.extra},
        )

    if not conversation.metadata and not conversation.extra:
        return False
    session = await store.get_session(conversation.session_id)
    if session is None or merged(session) == session:
        return False
    await store.update_session(conversation.session_id, change=merged)
    return True
