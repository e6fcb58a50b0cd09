"""The kit for each broken driver, and for the one that they are made of. Not collected: the tests beside it run it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from sessionledger.testing import DriverSuite

from . import reading, writing
from .flawed import Flawed

BROKEN: list[type[Flawed]] = [
    value
    for module in (writing, reading)
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, Flawed) and value is not Flawed
]


def _theme(test: str) -> type:
    """The part of the kit that has a test: to collect all of it for each driver would take most of the time."""
    return next(base for base in DriverSuite.__mro__ if test in vars(base))


@pytest.fixture
def _url(self: Any) -> str:
    return f"memory://{uuid4()}"


def _suite(driver: type[Flawed], part: type) -> type:
    return type(f"Test{driver.__name__}", (part,), {"factory": driver, "url": _url, "__module__": __name__})


TestFlawed = _suite(Flawed, DriverSuite)
for _driver in BROKEN:
    globals()[f"Test{_driver.__name__}"] = _suite(_driver, _theme(_driver.caught_by))
