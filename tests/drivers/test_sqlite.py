"""The SQLite driver. A power cut has tests of its own: here a commit need not wait for the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessionledger.drivers.sqlite import SQLiteDriver
from sessionledger.testing import DriverSuite
from sessionledger.testing.histories import HistorySuite


class TestSQLite(DriverSuite, HistorySuite):
    factory = SQLiteDriver
    slower = 4

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/sessions.db?durability=process"
