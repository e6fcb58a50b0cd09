"""Run contenders against each other: interleaved repeats, one process for each contender, repeat and scenario."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.contenders import REGISTRY
from benchmarks.measures import serves
from benchmarks.results import Sample
from benchmarks.scenarios import parse

__all__ = ["Plan", "run"]

ROOT = Path(__file__).resolve().parent.parent
MEASURING = 900.0  #: seconds that one process may take
GENERATING = 7200.0  #: seconds that storing the session of a walk may take
MARKER = "complete.json"


@dataclass
class Plan:
    """What to measure."""

    contenders: list[str]
    scenarios: list[str]
    repeats: int
    budget: float  #: seconds of timed work for each part of a scenario
    directory: Path  #: for the stores' files; theirs is the disk that is measured
    stored: Path  #: for the databases that are only walked; kept from run to run when it is the user's
    versions: dict[str, dict[str, str]] = field(default_factory=dict)  #: by contender, as the processes report them


def run(plan: Plan) -> Iterator[Sample]:
    """Contenders take turns at each scenario, in the opposite order in every other repeat, so that drift cancels out.

    Beside others, raw contenders do only what the others are compared with.
    """
    alone = all(REGISTRY[name].raw for name in plan.contenders)
    for repeat in range(plan.repeats):
        for scenario in plan.scenarios:
            for contender in plan.contenders[:: -1 if repeat % 2 else 1]:
                if REGISTRY[contender].raw and not alone and not serves(contender, parse(scenario)[0]):
                    continue
                sample = _sample(plan, contender, scenario, repeat)
                if sample is not None:
                    yield sample


def _sample(plan: Plan, contender: str, scenario: str, repeat: int) -> Sample | None:
    """None where the contender leaves the scenario out."""
    kind, size = parse(scenario)
    if kind.startswith("walk"):
        directory = plan.stored / f"{contender}-{size}"
        answer = _store(plan, contender, size, directory)
        if "error" not in answer:
            answer = _work(plan, contender, scenario, directory, seed=repeat + 1)
    else:
        directory = _empty(plan.directory / contender)
        answer = _work(plan, contender, scenario, directory, seed=repeat + 1)
        shutil.rmtree(directory, ignore_errors=True)
    plan.versions.setdefault(contender, answer.get("versions", {}))
    if "error" in answer:
        return Sample(contender, scenario, repeat, error=answer["error"])
    return Sample(contender, scenario, repeat, answer["parts"]) if answer["parts"] else None


def _store(plan: Plan, contender: str, size: int, directory: Path) -> dict[str, Any]:
    """Fill the database to walk, in a process of its own, unless it has been done."""
    marker = directory / MARKER
    if marker.exists():
        kept: dict[str, Any] = json.loads(marker.read_bytes())
        return kept
    print(f"storing {size:,} messages in {contender}", file=sys.stderr)
    answer = _work(plan, contender, f"generate-{size}", _empty(directory), seed=1, timeout=GENERATING)
    if "error" not in answer:
        marker.write_text(json.dumps(answer))
    return answer


def _work(
    plan: Plan, contender: str, scenario: str, directory: Path, *, seed: int, timeout: float = MEASURING
) -> dict[str, Any]:
    command = [REGISTRY[contender].python, "-m", "benchmarks.worker", contender, scenario]
    command += ["--directory", str(directory), "--seed", str(seed), "--budget", str(plan.budget)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {timeout:g} s"}
    for line in done.stdout.splitlines():
        if line.startswith('{"versions"'):
            answer: dict[str, Any] = json.loads(line)
            if "error" in answer:
                print(done.stderr, file=sys.stderr)
            return answer
    return {"error": f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"}


def _empty(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory
