"""The benchmarks run, and write what they have found. How fast we are is no matter of this test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_benchmarks_compare_ours_with_the_raw_client(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--scenarios", "append-5,storage-5,walk", "--walk-messages", "100"]
    command += ["--repeats", "2", "--budget", "0.01", "--directory", str(tmp_path), "--json", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {figure["title"]: figure for figure in json.loads(output.read_bytes())["figures"]}
    appended = figures["append to 5 runs"]
    assert (appended["contender"], appended["reference"]) == ("sessionledger-sqlite", "raw-sqlite3-group-full")
    assert len(appended["ratio"]["values"]) == 2
    assert figures["bytes a run"]["value"]["median"] > 2000
    assert figures["walk of 100 messages: memory"]["met"]
