"""The memory driver, which the others are held to."""

from __future__ import annotations

from uuid import uuid4

import pytest

from sessionledger import run_order
from sessionledger.drivers.memory import MemoryDriver
from sessionledger.testing import DriverSuite
from sessionledger.testing.histories import HistorySuite


class TestMemory(DriverSuite, HistorySuite):
    factory = MemoryDriver

    @pytest.fixture
    def url(self) -> str:
        return f"memory://{uuid4()}"


class TestSmallWindows(HistorySuite):
    """A history that is put together from many windows of its runs."""

    factory = MemoryDriver
    slower = 4

    @pytest.fixture
    def url(self, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setattr(run_order, "_WINDOW", 2)
        return f"memory://{uuid4()}"
