"""The file driver, in a directory of its own. What a power cut leaves has tests of its own: here nothing is synced."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessionledger.drivers.jsonfile import JSONFileDriver
from sessionledger.testing import DriverSuite
from sessionledger.testing.histories import HistorySuite


class TestJSONFile(DriverSuite, HistorySuite):
    factory = JSONFileDriver
    slower = 20

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"file://{tmp_path}/sessions?durability=process"
