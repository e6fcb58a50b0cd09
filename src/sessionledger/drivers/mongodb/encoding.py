"""Commits as documents. Names are short, because each document repeats them; docs/mongodb.md explains them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sessionledger.drivers.mongodb.blobs import Spill
from sessionledger.drivers.mongodb.heads import USUAL, LogHead, head_fields, is_plain
from sessionledger.drivers.mongodb.layout import shard_key
from sessionledger.drivers.mongodb.outlines import Entry, Outline
from sessionledger.protocol.decide import Decision, hidden_rows, needs_operation
from sessionledger.protocol.rows import (
    OPEN_STATUSES,
    SEALED,
    Commit,
    HiddenRow,
    Hide,
    MessageRow,
    PatchRun,
    PatchSession,
    PutRun,
    PutSwitch,
    RunHeader,
    RunReceipt,
    Seal,
    SessionHeader,
    Show,
)

__all__ = ["document_of", "id_number", "operation_key", "patch_key", "put_key"]


def put_key(run_id: str, revision: int) -> str:
    """What makes a revision of a run unique in its session."""
    return f"{revision}/{run_id}"


def patch_key(run_id: str, revision: int, patch: int) -> str:
    """What makes a run's patch unique: the number of those before it, and one."""
    return f"{revision}.{patch}/{run_id}"


def operation_key(operation_id: str) -> str:
    return f"o/{operation_id}"


def id_number(message_id: str) -> int:
    """A number of eight bytes, by which a given id is found; its owner is asked for the id itself."""
    return int.from_bytes(hashlib.blake2b(message_id.encode(), digest_size=8).digest(), "big", signed=True)


def document_of(commit: Commit, decision: Decision, after: LogHead, spill: Spill) -> dict[str, Any]:
    """Of a commit that is to be written. What is too large for it goes to `spill`."""
    return _Document(commit, after, spill).build(decision)


class _Document:
    def __init__(self, commit: Commit, after: LogHead, spill: Spill) -> None:
        self._commit, self._after, self._spill = commit, after, spill
        self._bodies: list[Any] = []
        self._outline = Outline([], [], [])
        self._lists: dict[str, list[Any]] = {}

    def build(self, decision: Decision) -> dict[str, Any]:
        commit, after = self._commit, self._after
        fields: dict[str, Any] = {"s": shard_key(commit.key), **head_fields(after)}
        if commit.key.namespace:
            fields["ns"] = commit.key.namespace
        if decision.created and commit.create is not None:
            fields |= self._session_fields(commit.create.header)
            fields["ss"] = self._spill.body(commit.create.state)
        for change, receipt in decision.writes:
            if isinstance(change, PutRun) and receipt is not None:
                self._put(change, receipt, fields)
            elif isinstance(change, PatchRun) and receipt is not None:
                self._patch(change, receipt)
            else:
                self._other(change, fields)
            for row in hidden_rows(commit, change, receipt, after.head.version):
                self._hide(row)
        if needs_operation(commit):
            self._add("op", operation_key(commit.operation_id))
            fields["d"] = commit.digest
        if "hi" in self._lists:
            fields["o"] = commit.operation_id
        return self._whole(fields)

    def _whole(self, fields: dict[str, Any]) -> dict[str, Any]:
        fields |= self._lists
        outline = self._outline
        given = [id_number(one) for one in outline.ids if one is not None]
        if given:
            fields["g"] = given
        else:
            outline.ids.clear()
        if outline.entries:
            fields["f"] = outline.entries[0].first
            fields["l"] = outline.entries[-1].last
            fields |= self._spill.messages(self._bodies, outline)
        return fields

    def _add(self, name: str, value: Any) -> None:
        self._lists.setdefault(name, []).append(value)

    def _put(self, put: PutRun, receipt: RunReceipt, fields: dict[str, Any]) -> None:
        entry = self._entry(put, receipt)
        entry["d"] = put.digest
        entry["at"] = put.created_at
        for name, value in (("u", put.user_id), ("a", put.agent_id), ("pa", put.parent_run_id), ("mo", put.model)):
            if value is not None:
                entry[name] = value
        self._add("r", entry)
        self._add("b", self._spill.body(put.body))
        self._add("op", put_key(put.run_id, put.revision))
        if put.revision == 1:
            fields["q"] = receipt.run_seq
            if not is_plain(put):
                fields["z"] = receipt.run_seq
        if put.header.status not in OPEN_STATUSES and put.header.status != USUAL:
            self._add("x", put.header.status)

    def _patch(self, patch: PatchRun, receipt: RunReceipt) -> None:
        entry = self._entry(patch, receipt)
        entry["k"] = patch.expected_patch + 1
        self._add("p", entry)
        self._add("pt", [[name, self._spill.body(body)] for name, body in patch.parts.items()])
        self._add("pq", receipt.run_seq)
        self._add("op", patch_key(patch.run_id, patch.revision, patch.expected_patch + 1))

    def _entry(self, change: PutRun | PatchRun, receipt: RunReceipt) -> dict[str, Any]:
        """Of a run, or of a patch, and its messages."""
        count = len(change.messages)
        entry = {"id": change.run_id, "q": receipt.run_seq, "v": change.revision, "f": receipt.first_position}
        entry |= {"c": count, **_header_fields(change.header)}
        if count:
            numbers = _indexes(change.messages)
            stretch = Entry(change.run_id, receipt.run_seq, change.revision, receipt.first_position, count, numbers)
            self._outline.entries.append(stretch)
            self._add_messages(change.messages)
        return entry

    def _add_messages(self, rows: Sequence[MessageRow]) -> None:
        outline = self._outline
        outline.times.extend([row.created_at for row in rows])
        outline.ids.extend([row.message_id for row in rows])
        self._bodies += [self._spill.message_body(row.body) for row in rows]

    def _other(self, change: Any, fields: dict[str, Any]) -> None:
        if isinstance(change, PatchSession):
            fields |= self._session_fields(change.header)
            if change.state is not None:
                fields["ss"] = self._spill.body(change.state)
        elif isinstance(change, Seal):
            fields |= {**self._session_fields(SEALED), "ss": "{}"}
        elif isinstance(change, PutSwitch):
            self._switch(change)
        elif isinstance(change, Show):
            self._add("sh", change.hide_id)
            self._kind("s")
        elif isinstance(change, Hide):
            self._kind("h")

    def _session_fields(self, header: SessionHeader) -> dict[str, Any]:
        return {
            "sf": {
                "kind": header.kind,
                "agent_id": header.agent_id,
                "current_agent": header.current_agent,
                "name": header.name,
                "parent_session_id": header.parent_session_id,
                "updated_at": header.updated_at,
                "body": self._spill.body(header.body),
            }
        }

    def _switch(self, change: PutSwitch) -> None:
        row = change.switch
        reason = None if row.reason is None else self._spill.body(row.reason)
        self._add("w", [row.switch_id, row.from_agent, row.to_agent, reason, row.switched_at])
        self._kind("w")

    def _hide(self, row: HiddenRow) -> None:
        self._add("hi", [*row.positions, *row.runs, row.revision, row.reach])
        if row.revision is not None:
            self._add("hq", row.runs[0])

    def _kind(self, kind: str) -> None:
        if kind not in self._lists.get("k", ()):
            self._add("k", kind)


def _header_fields(header: RunHeader) -> dict[str, Any]:
    fields: dict[str, Any] = {"st": header.status, "up": header.updated_at}
    if header.finished_at is not None:
        fields["fi"] = header.finished_at
    if header.input_tokens is not None:
        fields["ti"] = header.input_tokens
    if header.output_tokens is not None:
        fields["to"] = header.output_tokens
    if header.has_summary:
        fields["su"] = True
    return fields


def _indexes(rows: Sequence[MessageRow]) -> int | list[int]:
    """Where in their run messages stand: how the first one is numbered, or all where they leave some out."""
    first = rows[0].index
    if all(row.index == number for number, row in enumerate(rows, first)):
        return first
    return [row.index for row in rows]
