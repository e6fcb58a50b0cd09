"""The part of the kit that Hypothesis drives: random records, and random histories beside plain lists."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import ClassVar

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import run_state_machine_as_test

from sessionledger.records import Run, Session
from sessionledger.store import Store
from sessionledger.testing import strategies
from sessionledger.testing.builders import as_given, exactly
from sessionledger.testing.model import HistoryMachine
from sessionledger.testing.suite.bench import Bench, Storage

__all__ = ["HistorySuite", "histories"]

_STEPS = 25  #: of one history


def histories(default: int = 100) -> int:
    """How many are tried: as `--sessionledger-histories` or the environment's SESSIONLEDGER_HISTORIES says."""
    return int(os.environ.get("SESSIONLEDGER_HISTORIES") or default)


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=_STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


class HistorySuite(Bench):
    """Tests beside those of `DriverSuite`, which a subclass names its driver to in the same way.

    They run on asyncio, and take as long as `histories` says.
    """

    slower: ClassVar[int] = 1  #: than memory, so many times: as many fewer histories are tried

    def test_random_histories_equal_naive_copies(self, storage: Storage) -> None:
        def run(store: Store, runner: asyncio.Runner) -> None:
            machine = type("Histories", (HistoryMachine,), {"whole_store": store, "runner": runner})
            run_state_machine_as_test(machine, settings=_settings(max(1, histories() // self.slower)))

        _with_store(storage, run)

    def test_random_runs_come_back_equal(self, storage: Storage) -> None:
        def run(store: Store, runner: asyncio.Runner) -> None:
            places = iter(range(1 << 30))

            @_settings(min(histories(), 200))
            @given(strategies.runs)
            def comes_back(run: Run) -> None:
                view = store.scoped(namespace=f"r{next(places)}")
                runner.run(view.append(run))
                stored = runner.run(view.get_run(run.run_id or "", session_id=run.session_id))
                assert stored is not None
                for name in run.__struct_fields__:
                    if name not in ("messages", "usage", "seq", "revision", "message_count") and not name.endswith(
                        "_at"
                    ):
                        assert exactly(getattr(stored, name)) == exactly(getattr(run, name)), name
                assert run.usage is None or exactly(stored.usage) == exactly(run.usage)
                assert exactly(as_given(stored.messages, run.messages)) == exactly(list(run.messages))
                assert runner.run(view.append(run)).replayed
                again = msgspec.structs.replace(stored, created_at=run.created_at, updated_at=None, finished_at=None)
                assert runner.run(view.messages(run.session_id).collect()) == list(again.messages)

            comes_back()

        _with_store(storage, run)

    def test_random_sessions_come_back_equal(self, storage: Storage) -> None:
        def run(store: Store, runner: asyncio.Runner) -> None:
            places = iter(range(1 << 30))

            @_settings(min(histories(), 200))
            @given(strategies.sessions)
            def comes_back(session: Session) -> None:
                view = store.scoped(namespace=f"s{next(places)}")
                made = runner.run(view.create_session(session))
                stored = runner.run(view.get_session(session.session_id))
                assert made == stored is not None
                for name in (
                    "kind",
                    "user_id",
                    "agent_id",
                    "current_agent",
                    "name",
                    "state",
                    "summary",
                    "metadata",
                    "extra",
                ):
                    assert exactly(getattr(stored, name)) == exactly(getattr(session, name)), name
                assert session.created_at in (None, stored.created_at)

            comes_back()

        _with_store(storage, run)


def _with_store(storage: Storage, work: Callable[[Store, asyncio.Runner], None]) -> None:
    with asyncio.Runner() as runner:
        store = storage.store(timeout=None)
        runner.run(store.open())
        try:
            work(store, runner)
        finally:
            runner.run(store.close())
