"""What every class of tests stands on that is subclassed for a driver: its tests stay as they are."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

__all__ = ["Theme"]


class Theme:
    """Tests for the storage at a URL, which a subclass names by the fixture `url`. It overrides none of them."""

    pytestmark = pytest.mark.anyio

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        names = Counter(name for base in cls.__mro__ for name in vars(base) if name.startswith("test_"))
        overridden = sorted(name for name, count in names.items() if count > 1)
        if overridden:
            raise TypeError(f"{cls.__name__} overrides {overridden[0]!r}: a test of the conformance kit stays as it is")

    @pytest.fixture
    def url(self) -> str:
        """The URL of a fresh, empty storage; whoever opens it again while the test lasts finds what was stored."""
        raise NotImplementedError(
            f"{type(self).__name__} needs a fixture 'url' that returns the URL of an empty storage"
        )
