"""A storage that is away for a moment: no read ends by it, wherever it happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from sessionledger import AgentSwitch, Cursor, Message, Run, Session, SessionStore, UnavailableError
from sessionledger.drivers.memory import MemoryDriver
from sessionledger.protocol.driver import Driver
from sessionledger.registry import parse_url
from sessionledger.store import Store
from sessionledger.testing.suite.bench import small_pages

pytestmark = pytest.mark.anyio

WALKS: dict[str, Callable[[SessionStore], Cursor[Any]]] = {
    "messages": lambda store: store.messages("s"),
    "last messages": lambda store: store.messages("s", last=7),
    "messages of a run": lambda store: store.messages("s", run_id="r4"),
    "history": lambda store: store.history("s"),
    "last history": lambda store: store.history("s", last_messages=5),
    "runs": lambda store: store.runs("s"),
    "last runs": lambda store: store.runs("s", last=5),
    "last runs with messages": lambda store: store.runs("s", last=5, include_messages=True),
    "runs of a fork": lambda store: store.runs("fork", last=5),
    "search for runs": lambda store: store.runs(agent_id="a"),
    "switches": lambda store: store.switches("s"),
    "last switches": lambda store: store.switches("s", last=5),
    "sessions": lambda store: store.sessions(reverse=True),
}


class Faltering:
    """A driver on another one, one of whose calls finds the storage away."""

    def __init__(self, driver: Driver) -> None:
        self._driver, self.info = driver, driver.info
        self.calls, self.fails_at = 0, 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._driver, name)
        if not callable(method):
            return method

        async def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.fails_at:
                raise UnavailableError("the storage is away: try again", driver="memory")
            return await method(*arguments, **options)

        return call


async def fill(store: SessionStore) -> None:
    for number in range(8):
        messages = [Message(role="user", content=f"q{number}"), Message(role="assistant", content=f"a{number}")]
        run = Run(run_id=f"r{number}", session_id="s", agent_id="a", messages=messages)
        await store.append(run, switch=AgentSwitch(to_agent=f"a{number}"))
    await store.retract("s", run_id="r5")
    await store.fork("s", new_session_id="fork")
    await store.create_session(Session(session_id="other"))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("walk", WALKS)
async def test_a_walk_goes_on_when_one_of_its_reads_fails(walk: str) -> None:
    driver = Faltering(MemoryDriver(parse_url("memory://")))
    async with Store.on(cast("Driver", driver)) as store:
        await fill(store)
        small_pages(store, rows=2)
        driver.calls = 0
        expected = await WALKS[walk](store).collect()
        assert expected
        for number in range(1, driver.calls + 1):
            driver.calls, driver.fails_at = 0, number
            assert await WALKS[walk](store).collect() == expected
            assert driver.calls > number
