from __future__ import annotations

from pathlib import Path

import pytest

from sessionledger.drivers.sqlite import SQLiteDriver
from sessionledger.testing import DriverSuite


class TestSQLite(DriverSuite):
    factory = SQLiteDriver

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/sessions.db"
