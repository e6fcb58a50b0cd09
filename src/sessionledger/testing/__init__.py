"""The conformance kit: what the author of a driver tests it with.

`DriverSuite` has a test for every promise, `sessionledger.testing.model` compares a store with plain lists over random
histories, and the pytest plug-in `sessionledger.testing.plugin` has fixtures for whoever tests an application. It needs
pytest, and the model hypothesis, which the library itself does not.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "sessionledger.testing.model", "sessionledger.testing.rows", "sessionledger.testing.suite"
)

from sessionledger.testing.suite import DriverSuite, Storage  # noqa: E402

__all__ = ["DriverSuite", "Storage"]
