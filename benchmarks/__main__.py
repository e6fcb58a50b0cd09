"""Measure sessionledger beside the raw clients, in one run.

Run from the root of the repository: python -m benchmarks. Everything takes about five minutes, `--quick` less than one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from benchmarks.contenders import REGISTRY
from benchmarks.report import comparison, tables
from benchmarks.results import Results, Sample, figures
from benchmarks.runner import Plan, run
from benchmarks.scenarios import DEFAULT, QUICK, SCENARIOS, parse
from benchmarks.servers import serving


def main(arguments: list[str] | None = None) -> int:
    """1 when a scenario failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    before = msgspec.json.decode(options.against.read_bytes(), type=Results) if options.against else None
    started = datetime.now(UTC)
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.directory) as scratch:
        plan = Plan(
            contenders=_contenders(parser, options.contenders),
            scenarios=_scenarios(parser, options.scenarios or (QUICK if options.quick else DEFAULT), options),
            repeats=options.repeats or (1 if options.quick else 5),
            budget=options.budget or (0.1 if options.quick else 0.7),
            directory=Path(scratch),
            stored=(options.walk_cache or Path(scratch) / "walks").resolve(),
        )
        with serving([REGISTRY[name].backend for name in plan.contenders]):
            samples = list(_watched(run(plan)))
    given = {name: str(value) for name, value in vars(options).items() if value} | {"load_before": f"{load:.2f}"}
    results = Results(started.isoformat(timespec="seconds"), given, plan.versions, samples, figures(samples))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    for line in tables(results):
        print(line)
    if load > cpus / 4:
        print(f"the load was {load:.1f} on {cpus} CPUs when this began: mind the spreads, or measure again in quiet")
    if before:
        print()
        for line in comparison(results, before):
            print(line)
    return int(not samples or any(sample.error for sample in samples))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, one repeat: does it work, and roughly how fast"
    )
    parser.add_argument(
        "--scenarios", type=lambda text: text.split(","), metavar="NAME,…", help="kind-size, or patterns"
    )
    parser.add_argument("--contenders", type=lambda text: text.split(","), metavar="NAME,…", help="names or patterns")
    parser.add_argument("--repeats", type=int, metavar="N", help="5 by default")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="of timed work for each part; 0.7 by default")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="a directory on the disk to measure")
    parser.add_argument("--walk-messages", type=int, metavar="N", help="20,000 by default")
    parser.add_argument(
        "--walk-cache",
        type=Path,
        metavar="DIR",
        help="keep the databases that are walked; delete it when a layout changes",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="an earlier --json: say what got worse beyond the spread"
    )
    return parser


def _contenders(parser: argparse.ArgumentParser, patterns: list[str] | None) -> list[str]:
    if patterns is None:
        return [name for name, entry in REGISTRY.items() if entry.default]
    if unknown := [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in REGISTRY)]:
        parser.error(f"no contender {', '.join(unknown)}; there are {', '.join(REGISTRY)}")
    return [name for name in REGISTRY if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _scenarios(parser: argparse.ArgumentParser, patterns: Iterable[str], options: argparse.Namespace) -> list[str]:
    names: list[str] = []
    for pattern in patterns:
        names += [name for name in DEFAULT if fnmatchcase(name, pattern)] or [pattern]
    messages = options.walk_messages or (2_000 if options.quick else 20_000)
    names = [f"{name}-{messages}" if name.startswith("walk") and not parse(name)[1] else name for name in names]
    if unknown := [name for name in names if parse(name)[0] not in SCENARIOS]:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(DEFAULT)}, and other sizes of them")
    return list(dict.fromkeys(names))


def _watched(samples: Iterable[Sample]) -> Iterable[Sample]:
    start = time.monotonic()
    for sample in samples:
        state = "FAILED" if sample.error else ""
        line = (
            f"{time.monotonic() - start:6.1f} s  repeat {sample.repeat}  {sample.scenario}  {sample.contender}  {state}"
        )
        print(line.rstrip(), file=sys.stderr)
        yield sample


if __name__ == "__main__":
    sys.exit(main())
