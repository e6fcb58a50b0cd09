"""The pytest plug-in: stores and servers for the tests of an application, and the options of the conformance kit.

The stores are not open yet, so that the fixtures work with any plug-in for async tests:

```python
async def test_my_agent(memory_store):
    async with memory_store as store:
        await my_agent(store)
```
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from sessionledger import SessionStore, open_store
from sessionledger.testing.faults import Dose, Tally
from sessionledger.testing.faults.tally import Record, add_up
from sessionledger.testing.servers import MongoServer, PostgresServer, RedisServer

__all__ = [
    "dose",
    "memory_store",
    "mongo_replica_set",
    "mongo_server",
    "postgres_server",
    "redis_cluster",
    "redis_server",
    "session_store",
    "session_store_url",
    "tally",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sessionledger", "stores of AI agents' sessions")
    group.addoption(
        "--sessionledger-url",
        default="memory://",
        metavar="URL",
        help="the store of the fixture session_store; {tmp} stands for the test's own directory (default: memory://)",
    )
    group.addoption(
        "--sessionledger-histories",
        type=int,
        metavar="N",
        help="how many random histories the conformance kit tries (default: the environment's "
        "SESSIONLEDGER_HISTORIES, or 100)",
    )
    group.addoption(
        "--faults-long",
        action="store_true",
        help="try each fault as often as its promise asks for, not just some times",
    )
    group.addoption("--faults-report", metavar="FILE", help="write how often each fault was tried, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    histories = config.getoption("--sessionledger-histories")
    if histories is not None:
        os.environ["SESSIONLEDGER_HISTORIES"] = str(histories)
    # Hypothesis takes what threads of a database's client draw meanwhile for its strategies' own
    config.addinivalue_line("filterwarnings", "ignore:Do not use the `random` module inside strategies")
    if config.getoption("--faults-report") is not None:
        config.pluginmanager.register(_FaultReport(config.getoption("--faults-report")))


class _FaultReport:
    """Adds up what the tests that passed have tried, those of other processes too."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._records: list[Record] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self._records += [cast("Record", value) for name, value in report.user_properties if name == "fault"]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        # a process of pytest-xdist leaves it to the one that started it
        if not hasattr(session.config, "workerinput"):
            text = msgspec.json.format(msgspec.json.encode(add_up(self._records)), indent=2)
            self._path.write_bytes(text + b"\n")


@pytest.fixture
def dose(request: pytest.FixtureRequest) -> Dose:
    """How often the faults are tried."""
    return Dose(request.config.getoption("--faults-long"))


@pytest.fixture
def tally(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Tally:
    """What a test of a fault has tried, on the storage of its class."""
    return Tally(getattr(request.cls, "storage", "memory"), record_property)


@pytest.fixture
def session_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """As `--sessionledger-url` says."""
    url: str = request.config.getoption("--sessionledger-url")
    return url.replace("{tmp}", str(tmp_path))


@pytest.fixture
def session_store(session_store_url: str) -> SessionStore:
    """A store at `session_store_url`, not open yet."""
    return open_store(session_store_url)


@pytest.fixture
def memory_store() -> SessionStore:
    """An empty store in memory, not open yet."""
    return open_store("memory://")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server, started once for all tests of a process."""
    with PostgresServer(durable=True) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis server, started once for all tests of a process; it keeps nothing on disk."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisServer]:
    """A Redis Cluster of three masters, started once for all tests of a process."""
    with RedisServer(cluster=True) as server:
        yield server


@pytest.fixture(scope="session")
def mongo_server() -> Iterator[MongoServer]:
    """A MongoDB server on its own, started once for all tests of a process; one without a power cut to fear."""
    with MongoServer() as server:
        yield server


@pytest.fixture(scope="session")
def mongo_replica_set() -> Iterator[MongoServer]:
    """A MongoDB replica set of three members, started once for all tests of a process."""
    with MongoServer(replica_set=3) as server:
        yield server
