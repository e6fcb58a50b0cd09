"""The MongoDB driver, with both of its clients, on servers that are started for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sessionledger.drivers.mongodb import MongoDriver
from sessionledger.testing import DriverSuite
from sessionledger.testing.histories import HistorySuite
from sessionledger.testing.servers import MongoServer


class TestMotor(DriverSuite, HistorySuite):
    factory = MongoDriver
    slower = 40

    @pytest.fixture
    def url(self, mongo_server: MongoServer) -> Iterator[str]:
        url = mongo_server.fresh_url()
        yield url
        mongo_server.drop(url)


class TestPyMongo(DriverSuite, HistorySuite):
    factory = MongoDriver
    options = {"client": "pymongo"}  # noqa: RUF012
    slower = 40

    @pytest.fixture
    def url(self, mongo_server: MongoServer) -> Iterator[str]:
        url = mongo_server.fresh_url()
        yield url
        mongo_server.drop(url)
