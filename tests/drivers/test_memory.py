from __future__ import annotations

from uuid import uuid4

import pytest

from sessionledger.drivers.memory import MemoryDriver
from sessionledger.testing import DriverSuite


class TestMemory(DriverSuite):
    factory = MemoryDriver

    @pytest.fixture
    def url(self) -> str:
        return f"memory://{uuid4()}"
