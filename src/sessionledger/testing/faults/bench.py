"""What all tests of faults stand on: a storage that others can open too, a dose, a tally."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import pytest

from sessionledger.testing.servers.process import Process

__all__ = ["Dose", "FaultBench"]


class Dose(msgspec.Struct, frozen=True):
    """How often a fault is tried."""

    long: bool = False

    def of(self, some: int, all_of_them: int) -> int:
        """As many as a test run among others has time for, or all that the promise asks for."""
        return all_of_them if self.long else some


class FaultBench:
    """The fixtures. A subclass names its storage and the URL of an empty one, and overrides no test."""

    storage: ClassVar[str]  #: as the report names it: "PostgreSQL"
    options: ClassVar[dict[str, Any]] = {}  #: for `open_store`, beside those of the URL's query

    pytestmark = pytest.mark.anyio

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        names = Counter(name for base in cls.__mro__ for name in vars(base) if name.startswith("test_"))
        overridden = sorted(name for name, count in names.items() if count > 1)
        if overridden:
            raise TypeError(f"{cls.__name__} overrides {overridden[0]!r}: a test of the kit stays as it is")

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def url(self) -> str:
        """The URL of a fresh, empty storage, which other processes can open too."""
        raise NotImplementedError(
            f"{type(self).__name__} needs a fixture 'url' that returns the URL of an empty storage"
        )

    @pytest.fixture
    def processes(self) -> Sequence[Process]:
        """The server's, any of which may be killed or paused: nobody else's tests need it."""
        raise NotImplementedError(
            f"{type(self).__name__} needs a fixture 'processes' that returns those of its own server"
        )
