"""The MongoDB driver, with both of its clients, on servers that are started for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from pymongo import MongoClient

from sessionledger.drivers.mongodb import MongoDriver
from sessionledger.testing import DriverSuite
from sessionledger.testing.histories import HistorySuite
from sessionledger.testing.servers import MongoServer
from sessionledger.testing.suite.appending import AppendTests
from sessionledger.testing.suite.cancelling import CancelTests
from sessionledger.testing.suite.commits import CommitTests
from sessionledger.testing.suite.deleting import DeleteTests
from sessionledger.testing.suite.forking import ForkTests
from sessionledger.testing.suite.grouping import GroupTests
from sessionledger.testing.suite.judging import JudgingTests
from sessionledger.testing.suite.keeping import KeepingTests
from sessionledger.testing.suite.living import LifeTests
from sessionledger.testing.suite.replaying import ReplayTests

#: By server, databases that tests are through with, oldest first.
used: dict[str, deque[str]] = {}
RESTING = 24  #: tests until a database serves again: what a cancelled call still does has come to its end by then


@pytest.fixture(scope="session")
def clients() -> Iterator[Callable[[MongoServer], MongoClient[Any]]]:
    """One that blocks for each server, to clear databases with."""
    made: dict[str, MongoClient[Any]] = {}

    def of(server: MongoServer) -> MongoClient[Any]:
        if server.url not in made:
            made[server.url] = MongoClient(server.url)
        return made[server.url]

    yield of
    for client in made.values():
        client.close()


def empty_database(server: MongoServer, client: MongoClient[Any]) -> Iterator[str]:
    """The URL of a database with nothing in it: to make one anew takes longer than most tests."""
    resting = used.setdefault(server.url, deque())
    if len(resting) < RESTING:
        url = server.fresh_url()
    else:
        url = resting.popleft()
        database = client[urlsplit(url).path.strip("/")]
        for name in database.list_collection_names():
            database[name].delete_many({})
    yield url
    resting.append(url)


@pytest.mark.one_python
class TestMotor(DriverSuite, HistorySuite):
    factory = MongoDriver
    slower = 40

    @pytest.fixture
    def url(self, mongo_server: MongoServer, clients: Callable[[MongoServer], MongoClient[Any]]) -> Iterator[str]:
        yield from empty_database(mongo_server, clients(mongo_server))


@pytest.mark.one_python
class TestPyMongo(DriverSuite, HistorySuite):
    factory = MongoDriver
    options: ClassVar[Mapping[str, Any]] = {"client": "pymongo"}
    slower = 40

    @pytest.fixture
    def url(self, mongo_server: MongoServer, clients: Callable[[MongoServer], MongoClient[Any]]) -> Iterator[str]:
        yield from empty_database(mongo_server, clients(mongo_server))


@pytest.mark.one_python
class TestReplicaSet(
    CommitTests,
    JudgingTests,
    ReplayTests,
    GroupTests,
    KeepingTests,
    AppendTests,
    ForkTests,
    DeleteTests,
    LifeTests,
    CancelTests,
):
    """All that writes, where a majority of three has to confirm it."""

    factory = MongoDriver

    @pytest.fixture
    def url(self, mongo_replica_set: MongoServer, clients: Callable[[MongoServer], MongoClient[Any]]) -> Iterator[str]:
        yield from empty_database(mongo_replica_set, clients(mongo_replica_set))
