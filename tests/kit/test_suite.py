"""The kit itself: nobody overrides its tests, none of them hides another, and a subclass takes fifteen lines."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from sessionledger.drivers.memory import MemoryDriver
from sessionledger.testing import DriverSuite, suite
from sessionledger.testing.suite.bench import Bench

MODULES = sorted(Path(suite.__file__).parent.glob("*.py"))


def test_a_subclass_does_not_override_a_test() -> None:
    with pytest.raises(TypeError, match="test_a_commit_makes_its_session"):

        class TestMine(DriverSuite):
            async def test_a_commit_makes_its_session(self) -> None:
                pass


def test_a_subclass_does_not_switch_a_test_off() -> None:
    with pytest.raises(TypeError, match="test_bodies_come_back_to_the_byte"):

        class TestMine(DriverSuite):
            test_bodies_come_back_to_the_byte = None


def test_a_subclass_of_a_subclass_does_not_override_a_test_either() -> None:
    class TestMine(DriverSuite):
        factory = MemoryDriver

    with pytest.raises(TypeError, match="test_it_answers"):

        class TestOthers(TestMine):
            test_it_answers = None


def test_a_test_of_two_themes_is_refused() -> None:
    class One(Bench):
        def test_this(self) -> None:
            pass

    class Other(Bench):
        def test_this(self) -> None:
            pass

    with pytest.raises(TypeError, match="test_this"):

        class Both(One, Other):
            pass


def test_a_subclass_adds_tests_of_its_own() -> None:
    class TestMine(DriverSuite):
        factory = MemoryDriver

        async def test_something_of_mine(self) -> None:
            pass

    assert TestMine.factory is MemoryDriver


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_every_test_of_the_suite_is_in_it(module: Path) -> None:
    """A theme that was left out of `DriverSuite` would be tested nowhere."""
    names = {line.split("def ")[1].split("(")[0] for line in module.read_text().splitlines() if "def test_" in line}
    assert names <= set(dir(DriverSuite))


def test_every_test_says_what_it_is_about() -> None:
    for name, test in inspect.getmembers(DriverSuite, inspect.isfunction):
        if name.startswith("test_"):
            assert "_" in name.removeprefix("test_"), name
            assert inspect.iscoroutinefunction(test), name
