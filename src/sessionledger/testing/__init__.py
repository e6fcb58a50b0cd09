"""The conformance kit."""

import pytest

pytest.register_assert_rewrite(
    "sessionledger.testing.suite", "sessionledger.testing.rows", "sessionledger.testing.model"
)
from sessionledger.testing.suite import DriverSuite
