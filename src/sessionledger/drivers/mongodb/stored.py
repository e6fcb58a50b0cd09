"""What a decision needs of the log, found by the keys of its operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from sessionledger.drivers.mongodb.decoding import receipt_of
from sessionledger.drivers.mongodb.encoding import operation_key, patch_key, put_key
from sessionledger.protocol.decide import StoredOperation, StoredRun, needs_operation
from sessionledger.protocol.rows import Commit, PatchRun, PutRun

__all__ = ["DECIDING", "Stored", "keys_of"]


class Stored:
    """What the log holds under some keys."""

    def __init__(self, documents: Sequence[Mapping[str, Any]], base: int) -> None:
        self._puts: dict[tuple[str, int], StoredRun] = {}
        self._patches: set[tuple[str, int, int]] = set()
        self._operations: dict[str, StoredOperation] = {}
        for document in documents:
            version = document["n"] - base
            for entry in document.get("r", ()):
                last = entry["f"] + entry["c"] - 1
                self._puts[entry["id"], entry["v"]] = StoredRun(
                    entry["q"], entry["v"], 0, entry["d"], entry["f"], last, version
                )
            self._patches |= {(entry["id"], entry["v"], entry["k"]) for entry in document.get("p", ())}
            self._note_operation(document, version)

    def _note_operation(self, document: Mapping[str, Any], version: int) -> None:
        if "d" in document:
            receipts = [receipt_of(entry, version) for entry in document.get("p", ())]
            for key in document["op"]:
                self._operations[key] = StoredOperation(document["d"], receipts)

    def operation(self, commit: Commit) -> StoredOperation | None:
        return self._operations.get(operation_key(commit.operation_id)) if needs_operation(commit) else None

    def runs(self, commit: Commit) -> tuple[dict[tuple[str, int], StoredRun], dict[str, StoredRun]]:
        """The revisions that are named, and the newest ones where the commit may go on from them."""
        named: dict[tuple[str, int], StoredRun] = {}
        newest: dict[str, StoredRun] = {}
        for change in commit.changes:
            if isinstance(change, PutRun):
                stored = self._puts.get((change.run_id, change.revision))
                if stored is not None:
                    named[change.run_id, change.revision] = stored
                before = self._puts.get((change.run_id, change.revision - 1))
                if before is not None:
                    newest[change.run_id] = before
            elif isinstance(change, PatchRun) and self._goes_on(change):
                stored = self._puts[change.run_id, change.revision]
                newest[change.run_id] = msgspec.structs.replace(stored, patch=change.expected_patch)
        return named, newest

    def _goes_on(self, patch: PatchRun) -> bool:
        """Whether the run is there in that revision, in no later one, and was patched that often."""
        run, revision, count = patch.run_id, patch.revision, patch.expected_patch
        if (run, revision) not in self._puts or (run, revision + 1) in self._puts:
            return False
        patched = count == 0 or (run, revision, count) in self._patches
        return patched and (run, revision, count + 1) not in self._patches


#: What a decision needs of a document: no bodies.
DECIDING: Final = {
    name: 0 if name == "_id" else 1
    for name in (
        "_id",
        "n",
        "op",
        "d",
        "r.id",
        "r.q",
        "r.v",
        "r.d",
        "r.f",
        "r.c",
        "p.id",
        "p.q",
        "p.v",
        "p.k",
        "p.f",
        "p.c",
    )
}


def keys_of(commit: Commit) -> list[str]:
    """All that a commit is recognised by, or goes on from."""
    keys = [operation_key(commit.operation_id)] if needs_operation(commit) else []
    for change in commit.changes:
        if isinstance(change, PutRun):
            keys.append(put_key(change.run_id, change.revision))
            if change.revision > 1:
                keys.append(put_key(change.run_id, change.revision - 1))
        elif isinstance(change, PatchRun):
            run, revision, count = change.run_id, change.revision, change.expected_patch
            keys += [put_key(run, revision), put_key(run, revision + 1)]
            keys += [patch_key(run, revision, count), patch_key(run, revision, count + 1)]
    return keys
