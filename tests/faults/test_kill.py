"""kill -9 of the writing process, at random.

The dose is SESSIONLEDGER_KILLS for each storage, 100 unless it is set. Several tasks of a process write to sessions of
their own and to one that they share; each acknowledges every call that has returned. Half of the processes kill
themselves as they execute a statement or write, half are killed from outside. Each finds the storage as the one before
left it; some find none.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from sessionledger import open_store

from .engines import FILES, SQLITE, Engine
from .trial import Moment, Trial, Writer

KILLS = int(os.environ.get("SESSIONLEDGER_KILLS", "100"))
KILLS_OF_ONE_DATABASE = 12


@contextmanager
def trial_of(path: Path, engine: Engine = SQLITE) -> Iterator[tuple[Trial, asyncio.Runner]]:
    with asyncio.Runner() as runner:
        model = runner.run(open_store("memory://").open())
        try:
            yield Trial(path, model, engine=engine), runner
        finally:
            runner.run(model.close())


@pytest.mark.parametrize("engine", [SQLITE, FILES], ids=str)
@pytest.mark.parametrize("seed", range(-(-KILLS // KILLS_OF_ONE_DATABASE)))
def test_a_killed_writer_leaves_whole_steps(seed: int, engine: Engine, tmp_path: Path) -> None:
    chance = random.Random(seed)
    kills = min(KILLS_OF_ONE_DATABASE, KILLS - seed * KILLS_OF_ONE_DATABASE)
    writer = Writer()
    with trial_of(tmp_path / "sessions.db", engine) as (trial, runner):
        try:
            for kill in range(kills):
                killed, writer = writer, Writer()
                acknowledged = killed.work(trial.orders, Moment.chosen(chance, new=kill == 0))
                runner.run(trial.check(acknowledged))
        finally:
            writer.close()


@pytest.mark.parametrize("engine", [SQLITE, FILES], ids=str)
def test_a_writer_that_acknowledges_first_is_noticed(tmp_path: Path, engine: Engine) -> None:
    assert noticed("acknowledges first", Moment(acknowledgements=1), tmp_path / "sessions.db", engine)


def test_a_writer_without_transactions_is_noticed(tmp_path: Path) -> None:
    """Not at each of its statements, but at one of a few that follow each other."""
    moments = [Moment(last_statement=last) for last in range(100, 120)]
    assert any(noticed("writes without transactions", moment, tmp_path / f"{moment}.db") for moment in moments)


def noticed(broken: str, moment: Moment, path: Path, engine: Engine = SQLITE) -> bool:
    with trial_of(path, engine) as (trial, runner), closing(Writer()) as writer:
        acknowledged = writer.work(msgspec.structs.replace(trial.orders, broken=broken), moment)
        try:
            runner.run(trial.check(acknowledged))
        except AssertionError:
            return True
        return False
