"""Measure one scenario of one contender in a process of its own; print one JSON object.

Usage: python -m benchmarks.worker CONTENDER SCENARIO --directory DIR [--seed N] [--budget SECONDS]
A walk needs the directory that the scenario ``generate-MESSAGES`` has filled; every other scenario an empty one.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import sqlite3
import traceback
from pathlib import Path
from typing import Any

from benchmarks.contenders import REGISTRY, load
from benchmarks.scenarios import SCENARIOS, Bench, Parts, generate, parse
from benchmarks.workload import Generator


async def measure(name: str, scenario: str, directory: Path, seed: int, budget: float) -> Parts | None:
    """The scenario's figures; None where the contender leaves it out."""
    kind, size = parse(scenario)
    store = load(name, directory)
    if kind in store.skip or (kind == "generate" and "walk" in store.skip):
        return None
    function = generate if kind == "generate" else SCENARIOS[kind]
    await store.open(fresh=not kind.startswith("walk"))
    try:
        return await function(Bench(store, Generator(seed), size, budget))
    finally:
        await store.close()


def versions(name: str) -> dict[str, str]:
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "cpus": str(os.cpu_count())}
    for package in REGISTRY[name].packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "from source"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=REGISTRY)
    parser.add_argument("scenario")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", type=float, default=0.7, help="seconds of timed work for each part")
    options = parser.parse_args()
    answer: dict[str, Any] = {"versions": versions(options.contender)}
    try:
        answer["parts"] = asyncio.run(
            measure(options.contender, options.scenario, options.directory, options.seed, options.budget)
        )
    except Exception as error:  # a contender that fails is a result too
        traceback.print_exc()
        answer["error"] = f"{type(error).__name__}: {error}"[:300]
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
