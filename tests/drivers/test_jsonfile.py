"""The file driver, in a directory of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessionledger.drivers.jsonfile import JSONFileDriver
from sessionledger.testing import DriverSuite
from sessionledger.testing.histories import HistorySuite


class TestJSONFile(DriverSuite, HistorySuite):
    factory = JSONFileDriver

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"file://{tmp_path}/sessions"
