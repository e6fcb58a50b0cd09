"""The Redis driver, on a server and on a cluster that are started for it."""

from __future__ import annotations

import pytest

from sessionledger.drivers.redis import RedisDriver
from sessionledger.testing import DriverSuite
from sessionledger.testing.histories import HistorySuite
from sessionledger.testing.servers import RedisServer


@pytest.mark.one_python
class TestRedis(DriverSuite, HistorySuite):
    factory = RedisDriver
    slower = 20

    @pytest.fixture
    def url(self, redis_server: RedisServer) -> str:
        return redis_server.fresh_url()


@pytest.mark.one_python
class TestRedisCluster(DriverSuite, HistorySuite):
    factory = RedisDriver
    slower = 40

    @pytest.fixture
    def url(self, redis_cluster: RedisServer) -> str:
        return redis_cluster.fresh_url()
