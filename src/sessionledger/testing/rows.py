"""Small commits and rows for tests that speak to a driver past the store, and readers of all that it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import msgspec

from sessionledger.errors import DecodeError, DriverError
from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import (
    FIRST,
    LAST,
    Body,
    Change,
    Commit,
    Committed,
    ForkLink,
    Head,
    HiddenQuery,
    HiddenRow,
    MessageQuery,
    MessageRow,
    NewSession,
    Outcome,
    PatchRun,
    PatchSession,
    PutRun,
    PutSwitch,
    RunHeader,
    RunQuery,
    RunRow,
    RunSearch,
    SessionHeader,
    SessionKey,
    SessionQuery,
    SessionRow,
    SwitchQuery,
    SwitchRow,
)

__all__ = [
    "ALL",
    "MANY_BYTES",
    "Dump",
    "all_hidden",
    "all_messages",
    "all_runs",
    "all_sessions",
    "all_switches",
    "commit",
    "digest_of",
    "dump",
    "find_all_runs",
    "header",
    "key",
    "message",
    "new_session",
    "outcome_of",
    "patch",
    "patch_session",
    "plain_message",
    "plain_run",
    "put",
    "run_header",
    "send",
    "send_group",
    "switch",
]

ALL = (FIRST, LAST)
MANY_BYTES = 1 << 30

_BEGIN = 1_700_000_000_000_000
_times = count(_BEGIN, 1000)


def key(session_id: str = "s", namespace: str = "") -> SessionKey:
    return SessionKey(namespace, session_id)


def digest_of(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def header(**fields: Any) -> SessionHeader:
    given = {"kind": "agent", "agent_id": None, "current_agent": None, "name": None, "parent_session_id": None}
    return SessionHeader(**{**given, "updated_at": _BEGIN, "body": "{}", **fields})


def new_session(
    *,
    user_id: str | None = None,
    created_at: int = _BEGIN,
    state: Body = "{}",
    fork: ForkLink | None = None,
    counters: Mapping[str, int] | None = None,
    **fields: Any,
) -> NewSession:
    """`fields` are the header's."""
    return NewSession(header(**fields), state, user_id, created_at, fork, counters or {})


def message(text: str = "hi", *, index: int = 0, **fields: Any) -> MessageRow:
    body = msgspec.json.encode({"role": "user", "content": text}).decode()
    return MessageRow(**{"message_id": None, "created_at": _BEGIN, "body": body, "index": index, **fields})


def messages(texts: int | Sequence[MessageRow], run_id: str, *, start: int = 0) -> Sequence[MessageRow]:
    if not isinstance(texts, int):
        return texts
    return [message(f"{run_id} {index}", index=index) for index in range(start, start + texts)]


def run_header(status: str = "completed", **fields: Any) -> RunHeader:
    return RunHeader(**{"status": status, "updated_at": _BEGIN, **fields})


def put(
    run_id: str = "r1",
    texts: int | Sequence[MessageRow] = 1,
    *,
    revision: int = 1,
    digest: bytes | None = None,
    status: str = "completed",
    **fields: Any,
) -> PutRun:
    """A run with that many messages, or these; its digest follows from its id and revision unless it is given."""
    given: dict[str, Any] = {
        "user_id": None,
        "agent_id": None,
        "parent_run_id": None,
        "model": None,
        "created_at": _BEGIN,
        "header": run_header(status),
        "body": "{}",
        "counters": {},
    }
    return PutRun(
        run_id=run_id,
        revision=revision,
        digest=digest or digest_of(run_id, revision),
        messages=messages(texts, run_id),
        **{**given, **fields},
    )


def patch(
    run_id: str = "r1",
    texts: int | Sequence[MessageRow] = 0,
    *,
    expected_patch: int = 0,
    revision: int = 1,
    status: str = "running",
    start: int = 1,
    **fields: Any,
) -> PatchRun:
    given: dict[str, Any] = {"header": run_header(status), "parts": {}, "counters": {}}
    return PatchRun(
        run_id=run_id,
        revision=revision,
        expected_patch=expected_patch,
        messages=messages(texts, run_id, start=start),
        **{**given, **fields},
    )


def patch_session(*, state: Body | None = None, **fields: Any) -> PatchSession:
    return PatchSession(header(**fields), state)


def switch(switch_id: str, to_agent: str, **fields: Any) -> PutSwitch:
    given = {"from_agent": None, "reason": None, "switched_at": _BEGIN}
    return PutSwitch(SwitchRow(switch_id=switch_id, to_agent=to_agent, **{**given, **fields}))


_operations = count(1)


def commit(
    *changes: Change,
    session_id: str = "s",
    namespace: str = "",
    operation_id: str | None = None,
    digest: bytes | None = None,
    at: int | None = None,
    create: NewSession | bool = True,
    **fields: Any,
) -> Commit:
    """A commit that makes its session where there is none, unless `create` is False."""
    new = create if isinstance(create, NewSession) else new_session() if create else None
    return Commit(
        key=key(session_id, namespace),
        operation_id=operation_id or f"op-{next(_operations)}",
        digest=digest or digest_of("commit"),
        at=next(_times) if at is None else at,
        changes=changes,
        create=new,
        **fields,
    )


async def send(driver: Driver, *changes: Change, **fields: Any) -> Committed:
    """One commit, which must be done."""
    outcome = await outcome_of(driver, commit(*changes, **fields))
    assert isinstance(outcome, Committed), f"refused: {outcome.reason}"
    return outcome


async def outcome_of(driver: Driver, one: Commit) -> Outcome:
    (outcome,) = await send_group(driver, [one])
    return outcome


async def send_group(driver: Driver, commits: Sequence[Commit]) -> list[Outcome]:
    """Their outcomes; the storage itself must not fail one."""
    outcomes: list[Outcome] = []
    for outcome in await driver.commit(commits):
        if isinstance(outcome, DriverError | DecodeError):
            raise outcome
        outcomes.append(outcome)
    assert len(outcomes) == len(commits)
    return outcomes


# reading all, in pages that are small enough to need several


async def all_messages(
    driver: Driver,
    of: SessionKey | None = None,
    *,
    ranges: Sequence[tuple[int, int]] = (ALL,),
    limit: int = 1000,
    reverse: bool = False,
    message_id: str | None = None,
) -> list[MessageRow]:
    """One page that must hold it all."""
    page = await driver.messages(MessageQuery(of or key(), ranges, limit, MANY_BYTES, reverse, message_id))
    assert not page.more
    return list(page.rows)


async def all_runs(driver: Driver, of: SessionKey | None = None, **fields: Any) -> list[RunRow]:
    page = await driver.runs(RunQuery(key=of or key(), **{"limit": 1000, "max_bytes": MANY_BYTES, **fields}))
    assert not page.more
    return list(page.rows)


async def all_hidden(
    driver: Driver, of: SessionKey | None = None, *, positions: tuple[int, int] = ALL, runs: tuple[int, int] = ALL
) -> list[HiddenRow]:
    page = await driver.hidden(HiddenQuery(of or key(), positions, runs))
    return sorted(map(plain_hidden, page.rows), key=lambda row: (row.since, row.hide_id, row.positions, row.runs))


async def all_switches(driver: Driver, of: SessionKey | None = None, **fields: Any) -> list[SwitchRow]:
    page = await driver.switches(SwitchQuery(key=of or key(), **{"limit": 1000, **fields}))
    assert not page.more
    return list(page.rows)


async def all_sessions(driver: Driver, *, limit: int = 1000, **fields: Any) -> list[SessionRow]:
    """Page by page."""
    query = SessionQuery(**{"namespace": "", "limit": limit, **fields})
    rows: list[SessionRow] = []
    while True:
        page = await driver.sessions(query)
        assert len(page.rows) <= limit
        rows += page.rows
        if not page.more:
            return rows
        assert page.rows, "a page that says there is more has rows"
        last = rows[-1].head
        query = msgspec.structs.replace(query, after=(last.last_activity_at, last.key.session_id))


async def find_all_runs(driver: Driver, *, limit: int = 1000, **fields: Any) -> list[tuple[Head, RunRow]]:
    """Page by page."""
    search = RunSearch(**{"namespace": "", "limit": limit, "max_bytes": MANY_BYTES, **fields})
    found: list[tuple[Head, RunRow]] = []
    while True:
        page = await driver.find_runs(search)
        assert len(page.rows) <= limit
        found += [(head, row) for head, row, _ in page.rows]
        if not page.more:
            return found
        assert page.rows, "a page that says there is more has rows"
        search = msgspec.structs.replace(search, after=page.rows[-1][2])


# what must come back, in a form that compares


def plain_message(row: MessageRow) -> MessageRow:
    """Without the copies that need not come back."""
    return MessageRow(
        row.message_id,
        row.created_at,
        row.body,
        index=row.index,
        position=row.position,
        run_seq=row.run_seq,
        revision=row.revision,
    )


def plain_run(row: RunRow) -> RunRow:
    """Neighbouring segments joined: whether a driver joins them is its own affair."""
    joined: list[tuple[int, int]] = []
    for first, last in row.segments:
        if joined and joined[-1][1] == first - 1:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return msgspec.structs.replace(row, segments=joined, parts=dict(row.parts))


def plain_hidden(row: HiddenRow) -> HiddenRow:
    return msgspec.structs.replace(row, positions=tuple(row.positions), runs=tuple(row.runs))


class Dump(msgspec.Struct, frozen=True):
    """All that a driver holds of a session."""

    session: SessionRow | None
    runs: list[RunRow]
    messages: list[MessageRow]
    run_ids: dict[int, str]
    hidden: list[HiddenRow]
    switches: list[SwitchRow]


async def dump(driver: Driver, of: SessionKey | None = None) -> Dump:
    of = of or key()
    row = await driver.session(of, state=True)
    page = await driver.messages(MessageQuery(of, (ALL,), 10_000, MANY_BYTES))
    return Dump(
        None if row is None else msgspec.structs.replace(row, counters=dict(row.counters)),
        [plain_run(run) for run in await all_runs(driver, of, limit=10_000)],
        [plain_message(one) for one in page.rows],
        dict(page.run_ids),
        await all_hidden(driver, of),
        await all_switches(driver, of),
    )
