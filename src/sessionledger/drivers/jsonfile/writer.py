"""Commits: read, decide, append, under the session's lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sessionledger.drivers.jsonfile.chains import (
    events,
    find_operation,
    find_run,
    newest_change,
    newest_event,
    read_start,
)
from sessionledger.drivers.jsonfile.files import Files, View, remove_incarnation
from sessionledger.drivers.jsonfile.handle import Handle, replace_file
from sessionledger.drivers.jsonfile.index import IndexDamagedError, Kind
from sessionledger.drivers.jsonfile.journal import Journal
from sessionledger.drivers.jsonfile.lines import (
    BeginLine,
    HideLine,
    Line,
    MessageLine,
    PartLine,
    PatchLine,
    RunLine,
    SessionLine,
    ShowLine,
    StateLine,
    SwitchLine,
    body_fields,
    encode_line,
)
from sessionledger.drivers.jsonfile.reader import hidden_rows_of
from sessionledger.drivers.jsonfile.session import Session, commit_line
from sessionledger.errors import OutcomeUnknownError
from sessionledger.protocol.decide import (
    Decision,
    Known,
    StoredOperation,
    StoredRun,
    add_counters,
    decide,
    hidden_rows,
    needs_operation,
)
from sessionledger.protocol.rows import (
    SEALED,
    Body,
    Change,
    Commit,
    Head,
    MessageRow,
    Outcome,
    PatchRun,
    PatchSession,
    PutRun,
    PutSwitch,
    RunReceipt,
    Seal,
    SessionHeader,
    Show,
)

__all__ = ["Writing", "refused"]

#: Characters of a session's body or state that stand in the log itself; larger ones are files, the newest alone.
_INLINE: Final = 4096


def refused(commits: Sequence[Commit]) -> list[Outcome]:
    """Of a session that is not there, by commits that make none."""
    return [decide(commit, Known(None)).outcome for commit in commits]


class Writing:
    """Commits of one session on their way into its log, under its lock. First they are appended, then the caller syncs
    its `logs` and `directories`, then they `finish`: all of them, or, after `undo`, none.
    """

    def __init__(self, session: Session, *, sync: bool) -> None:
        self._session, self._sync = session, sync
        self._view = session.latest()
        self._journals: list[Journal] = []  #: of each log that is written to, the present one last

    def append(self, commits: Sequence[Commit]) -> list[Outcome]:
        """In this order. When it raises, nothing is left of them."""
        try:
            try:
                return [self._commit(commit) for commit in commits]
            except IndexDamagedError as error:
                self.undo(error)
                self._session.mend()
                self._view, self._journals = self._session.latest(), []
                return [self._commit(commit) for commit in commits]
        except Exception as error:
            self.undo(error)
            raise

    def _commit(self, commit: Commit) -> Outcome:
        decision = decide(commit, _known(commit, self._view))
        head = decision.head
        if head is None:
            return decision.outcome
        if decision.created:
            if head.incarnation > 1:
                # whoever is stopped between the new log and the end of the old one leaves word of it
                self._session.mark_for_erasure()
            self._journals.append(Journal(self._session.begin(head.incarnation), None))
        elif not self._journals:
            assert self._view is not None
            self._journals.append(Journal(self._view.files, self._view.snapshot))
        self._append(self._journals[-1], commit, decision, head)
        return decision.outcome

    def _append(self, journal: Journal, commit: Commit, decision: Decision, head: Head) -> None:
        if head.erased:
            self._session.mark_for_erasure()
        lines = self._lines(journal.files, commit, decision, head)
        texts = [encode_line(line) for line in lines]
        last = _last_line(commit, decision, head, texts, journal, 0 if journal.base is None else journal.base.log_size)
        lines.append(last)
        texts.append(encode_line(last))
        journal.files.log.write(journal.log_size, b"".join(texts))
        for line, text in zip(lines, texts, strict=True):
            journal.add(line, len(text))
        assert journal.snapshot is not None
        self._view = View(journal.files, journal.snapshot)

    def _lines(self, files: Files, commit: Commit, decision: Decision, head: Head) -> list[Line]:
        lines: list[Line] = []
        if decision.created and commit.create is not None:
            new = commit.create
            lines.append(
                BeginLine(
                    namespace=head.key.namespace,
                    session_id=head.key.session_id,
                    incarnation=head.incarnation,
                    user_id=head.user_id,
                    created_at=head.created_at,
                    fork=head.fork,
                )
            )
            lines += [self._session_line(files, new.header, head), self._state_line(files, new.state, head)]
        for change, receipt in decision.writes:
            for row in hidden_rows(commit, change, receipt, head.version):
                lines.append(
                    HideLine(
                        hide_id=row.hide_id,
                        positions=row.positions,
                        runs=row.runs,
                        revision=row.revision,
                        since=row.since,
                        reach=row.reach,
                    )
                )
            lines += self._change_lines(files, change, receipt, head)
        return lines

    def _change_lines(self, files: Files, change: Change, receipt: RunReceipt | None, head: Head) -> list[Line]:
        if isinstance(change, PutRun) and receipt is not None:
            return _run_lines(change, receipt)
        if isinstance(change, PatchRun) and receipt is not None:
            return _patch_lines(change, receipt)
        if isinstance(change, PatchSession):
            line = self._session_line(files, change.header, head)
            return [line] if change.state is None else [line, self._state_line(files, change.state, head)]
        if isinstance(change, PutSwitch):
            row = change.switch
            return [
                SwitchLine(
                    switch_id=row.switch_id,
                    from_agent=row.from_agent,
                    to_agent=row.to_agent,
                    switched_at=row.switched_at,
                    version=head.version,
                    reason=row.reason is not None,
                    **({} if row.reason is None else body_fields(row.reason)),
                )
            ]
        if isinstance(change, Show):
            return [ShowLine(hide_id=change.hide_id, version=head.version)]
        if isinstance(change, Seal):
            return [self._session_line(files, SEALED, head), self._state_line(files, "{}", head)]
        return []

    def _session_line(self, files: Files, header: SessionHeader, head: Head) -> SessionLine:
        return SessionLine(
            kind=header.kind,
            agent_id=header.agent_id,
            current_agent=header.current_agent,
            name=header.name,
            parent_session_id=header.parent_session_id,
            updated_at=header.updated_at,
            **self._kept(files, "session", header.body, head),
        )

    def _state_line(self, files: Files, state: Body, head: Head) -> StateLine:
        return StateLine(**self._kept(files, "state", state, head))

    def _kept(self, files: Files, what: str, body: Body, head: Head) -> dict[str, Any]:
        """The field of a line that holds a body, or names the file that does."""
        if len(body) <= _INLINE:
            return body_fields(body)
        name = f"{what}-{files.incarnation}.{head.version}.{'json' if isinstance(body, str) else 'bin'}"
        data = body.encode() if isinstance(body, str) else body
        replace_file(files.directory / name, data, sync=self._sync)
        return {"file": name}

    @property
    def logs(self) -> list[Handle]:
        """What a sync makes durable, and `directories` where a log is new."""
        return [journal.files.log for journal in self._journals]

    @property
    def directories(self) -> list[Path]:
        directory = self._session.directory
        return [directory, directory.parent] if any(journal.base is None for journal in self._journals) else []

    def finish(self) -> None:
        """Let it be seen, now that it is durable."""
        if self._journals:
            self._session.publish(self._journals[-1])
            if self._journals[-1].base is None:
                self._session.made_again(self._journals[-1].files.incarnation)

    def undo(self, error: Exception) -> None:
        """Nobody has seen it. `OutcomeUnknownError` when it cannot be taken back."""
        self._session.forget()
        try:
            for journal in reversed(self._journals):
                if journal.base is None:
                    remove_incarnation(self._session.directory, journal.files.incarnation)
                else:
                    journal.undo()
                    journal.files.log.truncate(journal.base.log_size)
        except OSError as failure:
            raise OutcomeUnknownError(
                f"the file system failed ({error}), and what was written could not be taken back ({failure}): "
                "repeat the call with the same ids",
                driver="jsonfile",
            ) from error


def _last_line(
    commit: Commit, decision: Decision, head: Head, texts: list[bytes], journal: Journal, after: int
) -> Line:
    before = journal.snapshot.counters if journal.snapshot is not None else {}
    operation = decision.operation
    return commit_line(
        head,
        texts,
        after=after,
        counters=_changed(before, add_counters(before, commit, decision)),
        operation_id=None if operation is None else commit.operation_id,
        digest=None if operation is None else operation.digest,
        receipts=() if operation is None else operation.receipts,
    )


def _changed(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    changed = {name: count for name, count in after.items() if before.get(name) != count}
    return {**changed, **{name: 0 for name in before if name not in after}}


def _run_lines(put: PutRun, receipt: RunReceipt) -> list[Line]:
    run = RunLine(
        run_id=put.run_id,
        seq=receipt.run_seq,
        revision=put.revision,
        version=receipt.version,
        digest=put.digest,
        created_at=put.created_at,
        first_position=receipt.first_position,
        last_position=receipt.last_position,
        header=put.header,
        user_id=put.user_id,
        agent_id=put.agent_id,
        parent_run_id=put.parent_run_id,
        model=put.model,
        **body_fields(put.body),
    )
    return [run, *_message_lines(put.messages, receipt)]


def _patch_lines(patch: PatchRun, receipt: RunReceipt) -> list[Line]:
    parts = [PartLine(run_id=patch.run_id, name=name, **body_fields(body)) for name, body in patch.parts.items()]
    line = PatchLine(
        run_id=patch.run_id,
        seq=receipt.run_seq,
        revision=patch.revision,
        patch=patch.expected_patch + 1,
        first_position=receipt.first_position,
        last_position=receipt.last_position,
        header=patch.header,
        parts=len(parts),
    )
    return [*parts, line, *_message_lines(patch.messages, receipt)]


def _message_lines(rows: Sequence[MessageRow], receipt: RunReceipt) -> list[Line]:
    return [
        MessageLine(
            position=position,
            run_id=receipt.run_id,
            run_seq=receipt.run_seq,
            revision=receipt.revision,
            index=row.index,
            created_at=row.created_at,
            message_id=row.message_id,
            **body_fields(row.body),
        )
        for position, row in enumerate(rows, receipt.first_position)
    ]


# what a decision needs


def _known(commit: Commit, view: View | None) -> Known:
    if view is None:
        return Known(None)
    head = view.snapshot.head
    if head.erased:
        return Known(head)
    named: dict[tuple[str, int], StoredRun] = {}
    newest: dict[str, StoredRun] = {}
    hides: set[str] = set()
    for change in commit.changes:
        if isinstance(change, PutRun | PatchRun):
            _look_up(view, change, named, newest)
        elif isinstance(change, Show):
            hides.update(row.hide_id for row in hidden_rows_of(view) if row.revision is None)
    line = find_operation(view, commit.operation_id) if needs_operation(commit) else None
    operation = None if line is None else StoredOperation(line.digest or b"", line.receipts)
    return Known(head, operation, named, newest, frozenset(hides))


def _look_up(
    view: View, change: PutRun | PatchRun, named: dict[tuple[str, int], StoredRun], newest: dict[str, StoredRun]
) -> None:
    first = find_run(view, change.run_id)
    if first is None:
        return
    if isinstance(change, PutRun):
        stored = _revision(view, first, change.revision)
        if stored is not None:
            named[change.run_id, change.revision] = stored
        if change.revision == 1:
            return
    line = newest_change(view, newest_event(view, first)[1])
    if isinstance(line, RunLine):
        newest[change.run_id] = _stored(line, 0)
    else:
        # of a run that was patched a decision asks for no more than this
        places = (line.first_position, line.last_position)
        newest[change.run_id] = StoredRun(line.seq, line.revision, line.patch, b"", *places, view.snapshot.head.version)


def _revision(view: View, first: int, revision: int) -> StoredRun | None:
    if revision == 1:
        return _stored(read_start(view, view.files.index.get(first)), 0)
    for _, record in events(view, first):
        if record.kind == Kind.RUN:
            line = read_start(view, record)
            if line.revision <= revision:
                return _stored(line, 0) if line.revision == revision else None
    return None


def _stored(line: RunLine, patch: int) -> StoredRun:
    return StoredRun(line.seq, line.revision, patch, line.digest, line.first_position, line.last_position, line.version)
