"""What a file holds, and how a commit changes it."""

from __future__ import annotations

import fcntl
import hashlib
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec.structs import replace

from sessionledger.protocol.decide import (
    Decision,
    Known,
    StoredOperation,
    StoredRun,
    add_counters,
    decide,
    hidden_rows,
)
from sessionledger.protocol.rows import (
    SEALED,
    Body,
    Change,
    Commit,
    Head,
    HiddenRow,
    MessageRow,
    Outcome,
    PatchRun,
    PatchSession,
    PutRun,
    PutSwitch,
    RunReceipt,
    RunRow,
    Seal,
    SessionHeader,
    SessionKey,
    Show,
    SwitchRow,
)


class Book(msgspec.Struct):
    """One session. Everything is in the order of commit."""

    head: Head
    header: SessionHeader
    state: Body
    counters: dict[str, int] = {}
    runs: list[RunRow] = []
    messages: list[MessageRow] = []
    hidden: list[HiddenRow] = []
    switches: list[SwitchRow] = []
    operations: dict[str, StoredOperation] = {}

    def revisions(self, run_id: str) -> list[RunRow]:
        return sorted((row for row in self.runs if row.run_id == run_id), key=lambda row: row.revision)


class Shelf:
    """The folder. All methods block; they are called on a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time, among all processes."""
        with (self._folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def load(self, key: SessionKey) -> Book | None:
        path = self._path(key)
        return _decode(path) if path.exists() else None

    def books(self) -> list[Book]:
        return [_decode(path) for path in sorted(self._folder.glob("*.book"))]

    def save(self, book: Book) -> None:
        """Replaced as a whole: a reader sees the file before or the file behind, also after kill -9."""
        path = self._path(book.head.key)
        draft = path.with_suffix(".draft")
        draft.write_bytes(pickle.dumps(book))
        draft.replace(path)

    def commit(self, commit: Commit) -> Outcome:
        book = self.load(commit.key)
        decision = decide(commit, _known(commit, book))
        if decision.head is not None:
            if book is None or decision.created:
                assert commit.create is not None
                book = Book(decision.head, commit.create.header, commit.create.state)
            _write(book, commit, decision)
            self.save(book)
        return decision.outcome

    def _path(self, key: SessionKey) -> Path:
        # a name of its own making: ids may hold anything, '../' too
        digest = hashlib.blake2b(msgspec.json.encode((key.namespace, key.session_id)), digest_size=16)
        return self._folder / f"{digest.hexdigest()}.book"


def _decode(path: Path) -> Book:
    # as with the standard library's shelve: the folder is its owner's, nobody else may write to it
    book = pickle.loads(path.read_bytes())
    if not isinstance(book, Book):
        raise pickle.UnpicklingError(f"{path.name} holds no session")
    return book


def _known(commit: Commit, book: Book | None) -> Known:
    if book is None or book.head.erased:
        return Known(book.head if book else None)
    named: dict[tuple[str, int], StoredRun] = {}
    newest: dict[str, StoredRun] = {}
    for change in commit.changes:
        if isinstance(change, PutRun | PatchRun):
            for row in book.revisions(change.run_id):
                stored = StoredRun(
                    row.seq, row.revision, row.patch, row.digest, row.first_position, row.last_position, row.version
                )
                newest[row.run_id] = stored
                if isinstance(change, PutRun) and change.revision == row.revision:
                    named[row.run_id, row.revision] = stored
    hides = frozenset(row.hide_id for row in book.hidden if row.revision is None)
    return Known(book.head, book.operations.get(commit.operation_id), named, newest, hides)


def _write(book: Book, commit: Commit, decision: Decision) -> None:
    assert decision.head is not None
    for change, receipt in decision.writes:
        book.hidden += hidden_rows(commit, change, receipt, decision.head.version)
        _change(book, change, receipt, decision.head.version)
    book.counters = add_counters(book.counters, commit, decision)
    book.head = decision.head
    if decision.operation is not None:
        book.operations[commit.operation_id] = decision.operation


def _change(book: Book, change: Change, receipt: RunReceipt | None, version: int) -> None:
    if isinstance(change, PutRun) and receipt is not None:
        _put(book, change, receipt)
    elif isinstance(change, PatchRun) and receipt is not None:
        _patch(book, change, receipt)
    elif isinstance(change, PatchSession):
        book.header = change.header
        book.state = book.state if change.state is None else change.state
    elif isinstance(change, PutSwitch):
        book.switches.append(replace(change.switch, version=version))
    elif isinstance(change, Show):
        book.hidden = [_shown(row, change.hide_id, version) for row in book.hidden]
    elif isinstance(change, Seal):
        book.header, book.state = SEALED, "{}"


def _shown(row: HiddenRow, hide_id: str, version: int) -> HiddenRow:
    meant = row.hide_id == hide_id and row.revision is None and row.until is None
    return replace(row, until=version) if meant else row


def _put(book: Book, put: PutRun, receipt: RunReceipt) -> None:
    book.runs.append(
        RunRow(
            seq=receipt.run_seq,
            revision=put.revision,
            run_id=put.run_id,
            version=receipt.version,
            patch=0,
            digest=put.digest,
            user_id=put.user_id,
            agent_id=put.agent_id,
            parent_run_id=put.parent_run_id,
            model=put.model,
            created_at=put.created_at,
            first_position=receipt.first_position,
            last_position=receipt.last_position,
            segments=(),
            header=put.header,
            body=put.body,
            parts={},
        )
    )
    _add(book, put, receipt)


def _patch(book: Book, patch: PatchRun, receipt: RunReceipt) -> None:
    row = book.revisions(patch.run_id)[-1]
    segments = [*row.segments]
    if patch.messages:
        segments.append((receipt.first_position, receipt.last_position))
    book.runs[book.runs.index(row)] = replace(
        row, patch=row.patch + 1, segments=segments, header=patch.header, parts={**row.parts, **patch.parts}
    )
    _add(book, patch, receipt)


def _add(book: Book, change: PutRun | PatchRun, receipt: RunReceipt) -> None:
    book.messages += [
        replace(row, position=position, run_seq=receipt.run_seq, revision=receipt.revision)
        for position, row in enumerate(change.messages, receipt.first_position)
    ]
