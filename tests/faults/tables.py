"""What the tables of an SQLite store must look like, past the store: a fault in reading cannot hide one in writing."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

__all__ = ["check_tables", "leftovers"]

#: A tombstone has rows of these as well.
_HEADERS = ("session_headers", "session_states")
_CONTENT = (
    "runs",
    "run_parts",
    "segments",
    "message_rows",
    "message_ids",
    "agent_switches",
    "hidden",
    "operations",
    "participants",
)


def check_tables(path: Path) -> None:
    """A sound file; dense seqs and positions; whole runs; heads and counters that agree with the rows."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
        # the schema is made in one step
        assert not tables or {"meta", "sessions", "messages", "run_log"} <= tables
        for head in db.execute("SELECT * FROM sessions WHERE NOT erased").fetchall() if tables else ():
            _check_session(db, head)


def _check_session(db: sqlite3.Connection, head: sqlite3.Row) -> None:
    name, key = head["session_id"], head["session_key"]
    messages = db.execute("SELECT * FROM message_rows WHERE session_key = ? ORDER BY position", (key,)).fetchall()
    positions = [row["position"] for row in messages]
    assert positions == list(range((head["forked_at"] or 0) + 1, head["message_count"] + 1)), name
    runs = db.execute("SELECT * FROM runs WHERE session_key = ? ORDER BY seq, revision", (key,)).fetchall()
    seqs = [row["seq"] for row in runs if row["revision"] == 1]
    assert seqs == list(range((head["forked_run_seq"] or 0) + 1, head["run_count"] + 1)), name
    for run in runs:
        _check_run(
            db, run, [row for row in messages if (row["run_seq"], row["revision"]) == (run["seq"], run["revision"])]
        )
    if head["forked_at"] is None:
        counters = json.loads(head["counters"])
        # their bodies are apart from the rows of runs that were stored open
        parts = db.execute("SELECT seq, revision FROM run_parts WHERE session_key = ? AND name = ''", (key,))
        counted = _count(messages, runs, {tuple(part) for part in parts})
        assert {
            name: n for name, n in counters.items() if "/" not in name or name.startswith(("role/", "status/"))
        } == counted, name


def _check_run(db: sqlite3.Connection, run: sqlite3.Row, messages: list[sqlite3.Row]) -> None:
    place = (run["session_key"], run["seq"], run["revision"])
    segments = db.execute(
        "SELECT first_position, last_position FROM segments WHERE session_key = ? AND seq = ? AND revision = ?", place
    ).fetchall()
    told = [
        position
        for first, last in [(run["first_position"], run["last_position"]), *sorted(tuple(row) for row in segments)]
        for position in range(first, last + 1)
    ]
    assert [row["position"] for row in messages] == told, run["run_id"]
    assert [row["run_index"] for row in messages] == list(range(len(messages))), run["run_id"]


def _count(messages: list[sqlite3.Row], runs: list[sqlite3.Row], opened: set[tuple[Any, ...]]) -> dict[str, int]:
    bodies: list[dict[str, Any]] = [json.loads(row["body"]) for row in messages]
    counted = Counter(f"role/{body['role']}" for body in bodies)
    counted["tool_calls"] = sum(len(body.get("tool_calls", ())) for body in bodies)
    counted["lasting"] = sum(
        (row["seq"], row["revision"]) in opened or row["parent_run_id"] is not None for row in runs
    )
    newest = {row["seq"]: row["status"] for row in runs}
    counted.update(f"status/{status}" for status in newest.values())
    return {name: count for name, count in counted.items() if count}


def leftovers(path: Path) -> dict[str, int]:
    """Rows, by table, that belong to no session, or are content of one that was erased."""
    living = {**dict.fromkeys(_HEADERS, ""), **dict.fromkeys((*_CONTENT, "erasures"), "WHERE NOT erased")}
    with closing(sqlite3.connect(path)) as db:
        found = {
            table: db.execute(
                f"SELECT count(*) FROM {table} WHERE session_key NOT IN (SELECT session_key FROM sessions {those})"
            ).fetchone()[0]
            for table, those in living.items()
        }
    return {table: count for table, count in found.items() if count}
