"""What the files of a store must look like, past the store: a fault in reading cannot hide one in writing."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

from sessionledger.protocol.rows import OPEN_STATUSES

__all__ = ["check_lines", "leftover_files"]

Line = dict[str, Any]


def check_lines(path: Path) -> None:
    """Whole commits, but for a torn one at the end; dense seqs and positions; heads and counters that agree."""
    for log in _newest_logs(path):
        _check_log(log)


def _newest_logs(path: Path) -> Iterator[Path]:
    for session in sorted(path.glob("**/sessions/*/")):
        logs = sorted(session.glob("log-*.jsonl"), key=_incarnation)
        # the first commit of the newest may be torn
        whole = [log for log in logs if _commits(log)]
        yield from whole[-1:]


def _incarnation(log: Path) -> int:
    return int(log.name.removeprefix("log-").removesuffix(".jsonl"))


def _commits(log: Path) -> list[list[Line]]:
    commits: list[list[Line]] = []
    lines: list[Line] = []
    size = crc = 0
    for text in log.read_bytes().splitlines(keepends=True):
        try:
            line = json.loads(text)
        except ValueError:
            break
        lines.append(line)
        if line["type"] != "commit":
            size, crc = size + len(text), crc32(text, crc)
            continue
        if not text.endswith(b"\n") or (line.get("size", 0), line.get("crc", 0)) != (size, crc):
            break
        commits.append(lines)
        lines, size, crc = [], 0, 0
    return commits


def _check_log(log: Path) -> None:
    commits = _commits(log)
    versions = [commit[-1]["version"] for commit in commits]
    begin, last = commits[0][0], commits[-1][-1]
    if last.get("erased"):
        return
    assert versions == list(range(1, len(commits) + 1)), log
    rows = [line for commit in commits for line in commit]
    messages = [line for line in rows if line["type"] == "message"]
    runs = [line for line in rows if line["type"] == "run"]
    fork = begin.get("fork") or {"position": 0, "run_seq": 0}
    assert [row["position"] for row in messages] == list(range(fork["position"] + 1, last["messages"] + 1)), log
    assert [row["seq"] for row in runs if row["revision"] == 1] == list(range(fork["run_seq"] + 1, last["runs"] + 1)), (
        log
    )
    for run in runs:
        place = (run["seq"], run["revision"])
        own = [row["index"] for row in messages if (row["run_seq"], row.get("revision", 1)) == place]
        assert own == list(range(len(own))), log
    if begin.get("fork") is None:
        counters: dict[str, int] = {}
        for commit in commits:
            counters.update(commit[-1].get("counters", {}))
        told = {name: n for name, n in counters.items() if n and _is_counted(name)}
        assert told == _count(messages, rows), log


def _is_counted(name: str) -> bool:
    return "/" not in name or name.startswith(("role/", "status/"))


def _count(messages: list[Line], rows: list[Line]) -> dict[str, int]:
    counted = Counter(f"role/{row['body']['role']}" for row in messages)
    counted["tool_calls"] = sum(len(row["body"].get("tool_calls", ())) for row in messages)
    runs = [row for row in rows if row["type"] == "run"]
    counted["lasting"] = sum(row["header"]["status"] in OPEN_STATUSES or "parent_run_id" in row for row in runs)
    newest = {row["seq"]: row["header"]["status"] for row in rows if row["type"] in ("run", "patch")}
    counted.update(f"status/{status}" for status in newest.values())
    return {name: count for name, count in counted.items() if count}


def leftover_files(path: Path) -> list[str]:
    """Files, below the store's directory, of what was erased or replaced."""
    found: list[str] = []
    for log in _newest_logs(path):
        own = _incarnation(log)
        if json.loads(log.read_bytes().splitlines()[-1]).get("erased") and len(log.read_bytes().splitlines()) > 4:
            found.append(f"{log} has content")
        for file in log.parent.iterdir():
            number = re.search(r"-(\d+)", file.name)
            if file.suffix == ".tmp" or (number is not None and int(number[1]) != own):
                found.append(str(file))
    return found
