"""Sessions in this process's memory: the reference that the other drivers are held to.

`memory://` is a storage of its own; two stores of `memory://name` in one process share one. Runs on asyncio and trio.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec
from anyio.lowlevel import checkpoint

from sessionledger.errors import DriverError
from sessionledger.protocol.decide import (
    Decision,
    Known,
    StoredOperation,
    StoredRun,
    add_counters,
    decide,
    hidden_rows,
)
from sessionledger.protocol.driver import PROTOCOL_VERSION, DriverInfo, StoreURL
from sessionledger.protocol.filters import is_asked_for, is_found, is_listed, is_searched, place_of, runs_that_fit
from sessionledger.protocol.rows import (
    SEALED,
    Change,
    Commit,
    FoundRuns,
    Head,
    HiddenPage,
    HiddenQuery,
    HiddenRow,
    MessagePage,
    MessageQuery,
    MessageRow,
    Outcome,
    PatchRun,
    PatchSession,
    PutRun,
    PutSwitch,
    RunPage,
    RunQuery,
    RunReceipt,
    RunRow,
    RunSearch,
    Seal,
    SessionHeader,
    SessionKey,
    SessionPage,
    SessionQuery,
    SessionRow,
    Show,
    SwitchPage,
    SwitchQuery,
    SwitchRow,
)
from sessionledger.records import Durability

__all__ = ["MemoryDriver"]

replace = msgspec.structs.replace


class _Log:
    """One session: its head, and everything in the order of commit. Messages are at their position minus `base` minus
    1.
    """

    def __init__(self, head: Head, header: SessionHeader, state: str | bytes) -> None:
        self.head, self.header, self.state = head, header, state
        self.base = head.fork.position if head.fork else 0
        self.counters: dict[str, int] = {}
        self.runs: dict[str, list[RunRow]] = {}
        self.order: list[str] = []
        self.messages: list[MessageRow] = []
        self.given: dict[str, list[int]] = {}
        self.hidden: list[HiddenRow] = []
        self.switches: list[SwitchRow] = []
        self.operations: dict[str, StoredOperation] = {}

    def row(self, *, state: bool) -> SessionRow:
        return SessionRow(self.head, self.header, self.state if state else None, self.counters)

    def listed(self) -> SessionRow:
        return SessionRow(self.head, self.header, None, {})


class _Storage:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.logs: dict[SessionKey, _Log] = {}


_shared: dict[str, _Storage] = {}


class MemoryDriver:
    info: ClassVar[DriverInfo] = DriverInfo(
        name="memory",
        schemes=("memory",),
        protocol_version=PROTOCOL_VERSION,
        durabilities=(Durability.MEMORY,),
        backends=("asyncio", "trio"),
        writers=1,
    )

    def __init__(self, url: StoreURL) -> None:
        name = url.authority + url.path
        self._storage = _shared.setdefault(name, _Storage()) if name else _Storage()
        self._open = False

    async def open(self) -> None:
        await checkpoint()
        self._open = True

    async def close(self) -> None:
        self._open = False

    @property
    def durability(self) -> Durability:
        return Durability.MEMORY

    async def ping(self) -> None:
        await self._turn()

    async def schema_version(self) -> int:
        return 1

    async def upgrade_schema(self) -> int:
        return 1

    async def _turn(self) -> None:
        """Give others a chance to run, and be cancelled before anything was done, as with a real storage."""
        await checkpoint()
        if not self._open:
            raise DriverError("the memory driver is closed: open it first", driver="memory")

    # writing

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Outcome | DriverError]:
        await self._turn()
        with self._storage.lock:
            return [self._commit(commit) for commit in commits]

    def _commit(self, commit: Commit) -> Outcome:
        log = self._storage.logs.get(commit.key)
        decision = decide(commit, _known(commit, log))
        if decision.head is not None:
            if decision.created or log is None:
                log = self._make(commit, decision.head)
            _write(log, commit, decision)
        return decision.outcome

    def _make(self, commit: Commit, head: Head) -> _Log:
        assert commit.create is not None
        log = _Log(head, commit.create.header, commit.create.state)
        self._storage.logs[commit.key] = log
        return log

    async def erase(self, key: SessionKey, *, limit: int) -> bool:
        await self._turn()
        with self._storage.lock:
            log = self._storage.logs.get(key)
            if log is not None and log.head.erased:
                self._storage.logs[key] = _Log(log.head, log.header, log.state)
        return False

    # reading

    async def session(self, key: SessionKey, *, state: bool) -> SessionRow | None:
        await self._turn()
        log = self._storage.logs.get(key)
        return log.row(state=state) if log else None

    async def sessions(self, query: SessionQuery) -> SessionPage:
        await self._turn()
        with self._storage.lock:
            logs = [log for log in self._storage.logs.values() if is_listed(log.head, log.header, query)]
        logs.sort(key=lambda log: place_of(log.head), reverse=not query.reverse)
        return SessionPage([log.listed() for log in logs[: query.limit]], len(logs) > query.limit)

    async def runs(self, query: RunQuery) -> RunPage:
        await self._turn()
        log = self._storage.logs.get(query.key)
        if log is None:
            return RunPage(None, (), False)
        if query.run_id is not None:
            rows = [row for row in log.runs.get(query.run_id, ()) if query.first_seq <= row.seq <= query.last_seq]
        else:
            base = log.head.fork.run_seq if log.head.fork else 0
            ids = log.order[max(0, query.first_seq - base - 1) : max(0, query.last_seq - base)]
            rows = [row for run_id in ids for row in log.runs[run_id]]
            rows = [row for row in rows if not _is_plain(row, query.plain)]
        if query.reverse:
            rows.reverse()
        page = rows[: query.limit]
        if query.bodies:
            page = page[: runs_that_fit(page, query.max_bytes)]
        else:
            page = [replace(row, body="", parts={}) for row in page]
        return RunPage(log.head, page, len(page) < len(rows))

    async def find_runs(self, search: RunSearch) -> FoundRuns:
        await self._turn()
        with self._storage.lock:
            found = [
                (log.head, revisions[-1])
                for log in self._storage.logs.values()
                if is_searched(log.head, search)
                for revisions in log.runs.values()
                if is_found(revisions[-1], search)
            ]
        places = {_run_place(head, row): (head, row) for head, row in found}
        after = msgspec.json.decode(search.after, type=tuple[str, int]) if search.after else None
        order = sorted(places, reverse=search.reverse)
        if after is not None:
            order = [place for place in order if (place < after if search.reverse else place > after)]
        page = order[: search.limit]
        page = page[: runs_that_fit([places[place][1] for place in page], search.max_bytes)]
        rows = [(*places[place], msgspec.json.encode(place).decode()) for place in page]
        return FoundRuns(rows, len(page) < len(order))

    async def messages(self, query: MessageQuery) -> MessagePage:
        await self._turn()
        log = self._storage.logs.get(query.key)
        if log is None:
            return MessagePage(None, (), {}, False)
        rows: list[MessageRow] = []
        size, more = 0, False
        for row in _in_ranges(log, query):
            if len(rows) == query.limit or size >= query.max_bytes:
                more = True
                break
            rows.append(row)
            size += len(row.body)
        base = log.head.fork.run_seq if log.head.fork else 0
        return MessagePage(log.head, rows, {row.run_seq: log.order[row.run_seq - base - 1] for row in rows}, more)

    async def hidden(self, query: HiddenQuery) -> HiddenPage:
        await self._turn()
        log = self._storage.logs.get(query.key)
        if log is None:
            return HiddenPage(None, ())
        rows = [row for row in log.hidden if is_asked_for(row, query)]
        return HiddenPage(log.head, rows)

    async def switches(self, query: SwitchQuery) -> SwitchPage:
        await self._turn()
        log = self._storage.logs.get(query.key)
        if log is None:
            return SwitchPage(None, (), False)
        rows = [row for row in log.switches if query.first_version <= row.version <= query.last_version]
        if query.reverse:
            rows.reverse()
        return SwitchPage(log.head, rows[: query.limit], len(rows) > query.limit)


# writing one session


def _known(commit: Commit, log: _Log | None) -> Known:
    if log is None or log.head.erased:
        return Known(log.head if log else None)
    named, newest = {}, {}
    for change in commit.changes:
        if isinstance(change, PutRun | PatchRun):
            for row in log.runs.get(change.run_id, ()):
                stored = StoredRun(
                    row.seq, row.revision, row.patch, row.digest, row.first_position, row.last_position, row.version
                )
                newest[change.run_id] = stored
                if isinstance(change, PutRun) and row.revision == change.revision:
                    named[change.run_id, row.revision] = stored
    hides = frozenset(row.hide_id for row in log.hidden if row.revision is None)
    return Known(log.head, log.operations.get(commit.operation_id), named, newest, hides)


def _write(log: _Log, commit: Commit, decision: Decision) -> None:
    assert decision.head is not None
    version = decision.head.version
    for change, receipt in decision.writes:
        log.hidden += hidden_rows(commit, change, receipt, version)
        _write_change(log, change, receipt, version)
    log.head = decision.head
    log.counters = add_counters(log.counters, commit, decision)
    if decision.operation is not None:
        log.operations[commit.operation_id] = decision.operation


def _write_change(log: _Log, change: Change, receipt: RunReceipt | None, version: int) -> None:
    if isinstance(change, PutRun) and receipt is not None:
        _put_run(log, change, receipt)
    elif isinstance(change, PatchRun) and receipt is not None:
        _patch_run(log, change, receipt)
    elif isinstance(change, PatchSession):
        log.header = change.header
        log.state = log.state if change.state is None else change.state
    elif isinstance(change, PutSwitch):
        log.switches.append(replace(change.switch, version=version))
    elif isinstance(change, Show):
        log.hidden = [
            replace(row, until=version)
            if row.hide_id == change.hide_id and row.revision is None and row.until is None
            else row
            for row in log.hidden
        ]
    elif isinstance(change, Seal):
        log.header, log.state = SEALED, "{}"


def _put_run(log: _Log, put: PutRun, receipt: RunReceipt) -> None:
    row = RunRow(
        receipt.run_seq,
        put.revision,
        put.run_id,
        receipt.version,
        0,
        put.digest,
        put.user_id,
        put.agent_id,
        put.parent_run_id,
        put.model,
        put.created_at,
        receipt.first_position,
        receipt.last_position,
        (),
        put.header,
        put.body,
        {},
    )
    if put.revision == 1:
        log.order.append(put.run_id)
    log.runs.setdefault(put.run_id, []).append(row)
    _put_messages(log, put.messages, receipt)


def _patch_run(log: _Log, patch: PatchRun, receipt: RunReceipt) -> None:
    row = log.runs[patch.run_id][-1]
    segments = list(row.segments)
    if patch.messages:
        if segments and segments[-1][1] == receipt.first_position - 1:
            segments[-1] = (segments[-1][0], receipt.last_position)
        else:
            segments.append((receipt.first_position, receipt.last_position))
    log.runs[patch.run_id][-1] = replace(
        row, patch=row.patch + 1, segments=segments, header=patch.header, parts={**row.parts, **patch.parts}
    )
    _put_messages(log, patch.messages, receipt)


def _put_messages(log: _Log, rows: Iterable[MessageRow], receipt: RunReceipt) -> None:
    for position, row in enumerate(rows, receipt.first_position):
        log.messages.append(replace(row, position=position, run_seq=receipt.run_seq, revision=receipt.revision))
        if row.message_id is not None:
            log.given.setdefault(row.message_id, []).append(position)


# reading


def _in_ranges(log: _Log, query: MessageQuery) -> Iterable[MessageRow]:
    for first, last in query.ranges:
        low, high = max(0, first - log.base - 1), max(0, min(last - log.base, len(log.messages)))
        if query.message_id is None:
            places: Iterable[int] = range(low, high)
        else:
            given = [position - log.base - 1 for position in log.given.get(query.message_id, ())]
            places = given[bisect_left(given, low) : bisect_left(given, high)]
        for place in reversed(list(places)) if query.reverse else places:
            yield log.messages[place]


def _is_plain(row: RunRow, statuses: Sequence[str]) -> bool:
    return row.header.status in statuses and row.revision == 1 and not (row.patch or row.parent_run_id)


def _run_place(head: Head, row: RunRow) -> tuple[str, int]:
    return head.key.session_id, row.seq
