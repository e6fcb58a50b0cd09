"""The conformance kit: what the author of a driver tests it with.

`DriverSuite` has a test for every promise, `sessionledger.testing.model` compares a store with plain lists over random
histories, and the pytest plug-in `sessionledger.testing.plugin` has fixtures for whoever tests an application. It needs
pytest, and the model hypothesis, which the library itself does not. `sessionledger.testing.servers` does without both:
the suite is loaded when it is asked for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessionledger.testing.suite import DriverSuite, Storage

__all__ = ["DriverSuite", "Storage"]

_WITH_ASSERTS = (
    "sessionledger.testing.faults",
    "sessionledger.testing.model",
    "sessionledger.testing.rows",
    "sessionledger.testing.suite",
)

if "pytest" in sys.modules:
    sys.modules["pytest"].register_assert_rewrite(*_WITH_ASSERTS)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sessionledger.testing import suite  # noqa: PLC0415

    return getattr(suite, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
