"""The PostgreSQL driver, on a server that is started for it. Its commits need not wait for the disk here."""

from __future__ import annotations

import pytest

from sessionledger.drivers.postgres import PostgresDriver
from sessionledger.testing import DriverSuite
from sessionledger.testing.histories import HistorySuite
from sessionledger.testing.servers import PostgresServer


@pytest.mark.one_python
class TestPostgres(DriverSuite, HistorySuite):
    factory = PostgresDriver
    slower = 20

    @pytest.fixture
    def url(self, postgres_server: PostgresServer) -> str:
        return postgres_server.fresh_url() + "&durability=interval"
