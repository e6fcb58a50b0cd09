"""What all tests of faults stand on: a storage that others can open too, a dose, a tally."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

from sessionledger.testing.theme import Theme

__all__ = ["Dose", "FaultBench"]


class Dose(msgspec.Struct, frozen=True):
    """How often a fault is tried."""

    long: bool = False

    def of(self, some: int, all_of_them: int) -> int:
        """As many as a test run among others has time for, or all that the promise asks for."""
        return all_of_them if self.long else some


class FaultBench(Theme):
    """The fixtures. A subclass names its storage, and by `url` an empty one that other processes can open too."""

    storage: ClassVar[str]  #: as the report names it: "PostgreSQL"
    options: ClassVar[dict[str, Any]] = {}  #: for `open_store`, beside those of the URL's query

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"
