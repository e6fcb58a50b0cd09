"""The MongoDB driver, with both of its clients, on servers that are started for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

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


def fresh(server: MongoServer) -> Iterator[str]:
    """The URL of a database that lasts as long as its test."""
    url = server.fresh_url()
    yield url
    server.drop(url)


class TestMotor(DriverSuite, HistorySuite):
    factory = MongoDriver
    slower = 40

    @pytest.fixture
    def url(self, mongo_server: MongoServer) -> Iterator[str]:
        yield from fresh(mongo_server)


@pytest.mark.variant
class TestPyMongo(DriverSuite, HistorySuite):
    factory = MongoDriver
    options: ClassVar[Mapping[str, Any]] = {"client": "pymongo"}
    slower = 40

    @pytest.fixture
    def url(self, mongo_server: MongoServer) -> Iterator[str]:
        yield from fresh(mongo_server)


@pytest.mark.variant
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
    def url(self, mongo_replica_set: MongoServer) -> Iterator[str]:
        yield from fresh(mongo_replica_set)
