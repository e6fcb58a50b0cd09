"""The rules of `Commit`, executable: for drivers that read rows, decide, and write them under one lock or transaction.

A driver that decides inside its server (one SQL statement, a script) follows the docstrings of `rows` instead; the
conformance kit holds both to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sessionledger.protocol.rows import (
    FIRST,
    LAST,
    Change,
    Commit,
    Committed,
    CountForks,
    Head,
    HiddenRow,
    Hide,
    PatchRun,
    PatchSession,
    PutRun,
    Reason,
    Refused,
    Row,
    RunReceipt,
    Seal,
    SetDeleted,
    Show,
)

__all__ = [
    "Decision",
    "Known",
    "StoredOperation",
    "StoredRun",
    "add_counters",
    "decide",
    "hidden_rows",
    "needs_operation",
    "summed",
]


class StoredRun(Row, frozen=True):
    """The newest revision of a run, or one that a `PutRun` names, as far as a decision needs it."""

    seq: int
    revision: int
    patch: int
    digest: bytes
    first_position: int
    last_position: int
    version: int


class StoredOperation(Row, frozen=True):
    digest: bytes
    receipts: Sequence[RunReceipt] = ()


class Known(Row, frozen=True):
    """What the storage holds at a commit's turn, of that which its commit is about."""

    head: Head | None
    operation: StoredOperation | None = None  #: of the commit's id; not needed when it has a `PutRun`
    named: Mapping[tuple[str, int], StoredRun] = {}  #: the revisions that its `PutRun`s name, those that are there
    newest: Mapping[str, StoredRun] = {}  #: the newest revision of each run that it revises or patches
    hides: frozenset[str] = frozenset()  #: the ids that it shows again, those that are there


class Decision(Row, frozen=True):
    """`outcome` is the answer, once the rest is written: `head` and each change with its receipt. Nothing to write: no
    head.
    """

    outcome: Committed | Refused
    head: Head | None = None
    created: bool = False
    writes: Sequence[tuple[Change, RunReceipt | None]] = ()
    operation: StoredOperation | None = None  #: to be kept under the commit's operation id


def needs_operation(commit: Commit) -> bool:
    """Whether a commit is recognised by its operation id, which then has to be looked up: it puts no run."""
    return not any(isinstance(change, PutRun) for change in commit.changes)


def decide(commit: Commit, known: Known) -> Decision:
    """Judge a commit and give it its version, seqs and positions."""
    head = known.head
    if commit.owner is not None and head is not None and head.user_id != commit.owner:
        return _refused(Reason.NOT_OWNER, head)
    puts = [change for change in commit.changes if isinstance(change, PutRun)]
    replay = _replay_of_runs(puts, known) if puts else _replay_of_operation(commit, known)
    if replay is not None:
        return replay
    reason = _presence(commit, head) or _expectations(commit, head)
    if reason is not None:
        return _refused(reason, head)
    for change in commit.changes:
        refusal = _precondition(change, known)
        if refusal is not None:
            return refusal
    return _write(commit, known)


def _refused(reason: Reason, head: Head | None, run_id: str | None = None) -> Decision:
    return Decision(Refused(reason, head, run_id))


def _replay_of_runs(puts: Sequence[PutRun], known: Known) -> Decision | None:
    if not known.named:
        return None
    receipts: list[RunReceipt] = []
    for put in puts:
        stored = known.named.get((put.run_id, put.revision))
        if stored is None:
            continue
        if stored.digest != put.digest:
            return _refused(Reason.RUN_CONFLICT, known.head, put.run_id)
        receipts.append(_first_receipt(put, stored))
    if len(receipts) < len(puts) or known.head is None:
        return None
    return Decision(Committed(known.head, receipts, replayed=True))


def _first_receipt(put: PutRun, stored: StoredRun) -> RunReceipt:
    return RunReceipt(
        put.run_id,
        stored.seq,
        stored.revision,
        stored.first_position,
        stored.last_position,
        stored.version,
        replayed=True,
    )


def _replay_of_operation(commit: Commit, known: Known) -> Decision | None:
    stored, head = known.operation, known.head
    if stored is None or head is None:
        return None
    if stored.digest != commit.digest:
        return _refused(Reason.OPERATION_CONFLICT, head)
    receipts = [msgspec.structs.replace(receipt, replayed=True) for receipt in stored.receipts]
    return Decision(Committed(head, receipts, replayed=True))


def _presence(commit: Commit, head: Head | None) -> Reason | None:
    if head is None:
        return None if commit.create is not None else Reason.MISSING
    if head.erased:
        return None if commit.must_create else Reason.ERASED
    if commit.must_create:
        return Reason.EXISTS
    return Reason.DELETED if head.deleted_at is not None and not commit.on_deleted else None


def _expectations(commit: Commit, head: Head | None) -> Reason | None:
    there = head is not None and not head.erased
    if commit.incarnation is not None and (head is None or head.incarnation != commit.incarnation):
        return Reason.INCARNATION
    if commit.expected_version is not None and (head.version if head and there else 0) != commit.expected_version:
        return Reason.VERSION
    expected = commit.expected_state_version
    if expected is not None and (head.state_version if head and there else 0) != expected:
        return Reason.STATE_VERSION
    return None


def _precondition(change: Change, known: Known) -> Decision | None:
    if isinstance(change, PutRun):
        if change.revision == 1 or (change.run_id, change.revision) in known.named:
            return None
        newest = known.newest.get(change.run_id)
        if newest is None or newest.revision != change.revision - 1:
            return _refused(Reason.RUN_CHANGED, known.head, change.run_id)
    elif isinstance(change, PatchRun):
        newest = known.newest.get(change.run_id)
        if newest is None or (newest.revision, newest.patch) != (change.revision, change.expected_patch):
            return _refused(Reason.RUN_CHANGED, known.head, change.run_id)
    elif isinstance(change, Show) and change.hide_id not in known.hides:
        return _refused(Reason.HIDE_MISSING, known.head)
    elif isinstance(change, Seal) and known.head is not None and known.head.forks > change.abandoned:
        return _refused(Reason.FORKS, known.head)
    return None


class _Counts:
    """A head in the making."""

    __slots__ = (
        "active",
        "deleted_at",
        "erased",
        "forks",
        "has_hidden",
        "has_summary",
        "message_count",
        "run_count",
        "state_changes",
    )

    def __init__(self, head: Head) -> None:
        self.run_count, self.message_count, self.forks = head.run_count, head.message_count, head.forks
        self.has_hidden, self.deleted_at, self.erased = head.has_hidden, head.deleted_at, head.erased
        self.has_summary = head.has_summary
        self.state_changes = 0
        self.active = False


def _write(commit: Commit, known: Known) -> Decision:
    before = known.head
    created = before is None or before.erased
    if created:
        before = _begin(commit, before)
    assert before is not None
    version, counts = before.version + 1, _Counts(before)
    writes: list[tuple[Change, RunReceipt | None]] = []
    receipts: list[RunReceipt] = []
    for change in commit.changes:
        receipt = None
        if isinstance(change, PutRun):
            stored = known.named.get((change.run_id, change.revision))
            if stored is not None:
                receipts.append(_first_receipt(change, stored))
                continue
            receipt = _place_run(change, known, counts, version)
        elif isinstance(change, PatchRun):
            receipt = _place_patch(change, known, counts, version)
        else:
            _note(change, counts)
        if receipt is not None:
            receipts.append(receipt)
        writes.append((change, receipt))
    head = Head(
        commit.key,
        before.incarnation,
        version,
        before.state_version + counts.state_changes,
        counts.run_count,
        counts.message_count,
        before.user_id,
        before.created_at,
        max(before.last_activity_at, commit.at) if counts.active else before.last_activity_at,
        counts.deleted_at,
        counts.erased,
        counts.has_hidden,
        counts.has_summary,
        counts.forks,
        before.fork,
    )
    operation = StoredOperation(commit.digest, receipts) if needs_operation(commit) else None
    return Decision(Committed(head, receipts), head, created, writes, operation)


def _begin(commit: Commit, tombstone: Head | None) -> Head:
    """The head as it is just before a session's first commit."""
    new = commit.create
    assert new is not None
    fork = new.fork
    return Head(
        commit.key,
        1 if tombstone is None else tombstone.incarnation + 1,
        0,
        1,
        fork.run_seq if fork else 0,
        fork.position if fork else 0,
        new.user_id,
        new.created_at,
        commit.at,
        fork=fork,
    )


def _place_run(put: PutRun, known: Known, counts: _Counts, version: int) -> RunReceipt:
    if put.revision == 1:
        counts.run_count += 1
        seq = counts.run_count
    else:
        seq = known.newest[put.run_id].seq
        counts.has_hidden = True
    return _place(put, seq, counts, version)


def _place_patch(patch: PatchRun, known: Known, counts: _Counts, version: int) -> RunReceipt:
    return _place(patch, known.newest[patch.run_id].seq, counts, version)


def _place(change: PutRun | PatchRun, seq: int, counts: _Counts, version: int) -> RunReceipt:
    counts.active = True
    counts.has_summary = counts.has_summary or change.header.has_summary
    first = counts.message_count + 1
    counts.message_count += len(change.messages)
    return RunReceipt(change.run_id, seq, change.revision, first, counts.message_count, version)


def _note(change: Change, counts: _Counts) -> None:
    if isinstance(change, PatchSession):
        counts.state_changes += 1
    elif isinstance(change, Hide):
        counts.has_hidden = True
    elif isinstance(change, SetDeleted):
        counts.deleted_at = change.at
    elif isinstance(change, CountForks):
        counts.forks = max(0, counts.forks + change.by)
    elif isinstance(change, Seal):
        counts.erased, counts.has_hidden, counts.has_summary = True, False, False
        counts.run_count = counts.message_count = counts.forks = 0


def hidden_rows(commit: Commit, change: Change, receipt: RunReceipt | None, version: int) -> list[HiddenRow]:
    """The rows that a `Hide`, or a `PutRun` of a later revision, stores."""
    if isinstance(change, Hide):
        return [HiddenRow(commit.operation_id, positions, runs, None, version) for positions, runs in change.ranges]
    if isinstance(change, PutRun) and change.revision > 1 and receipt is not None:
        reach = min(receipt.first_position, receipt.last_position)
        seqs = (receipt.run_seq, receipt.run_seq)
        return [HiddenRow(commit.operation_id, (FIRST, LAST), seqs, change.revision - 1, version, reach=reach)]
    return []


def add_counters(counters: Mapping[str, int], commit: Commit, decision: Decision) -> dict[str, int]:
    """A session's counters after a commit; those that came to 0 are left out."""
    changes = [change for change, _ in decision.writes]
    if any(isinstance(change, Seal) for change in changes):
        return {}
    before = commit.create.counters if decision.created and commit.create is not None else counters
    total = summed([before, *[change.counters for change in changes if isinstance(change, PutRun | PatchRun)]])
    return {name: count for name, count in total.items() if count}


def summed(counters: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """By name; 0 stays."""
    total: dict[str, int] = {}
    for one in counters:
        if not total:
            total.update(one)
            continue
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total
