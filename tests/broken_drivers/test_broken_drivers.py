"""Each broken driver fails the kit, by the test that is meant for it."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .flawed import Flawed
from .suites import BROKEN

SUITES = Path(__file__).with_name("suites.py")


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[bool]]:
    """By suite and test: whether each of its cases failed."""
    report = tmp_path_factory.mktemp("broken") / "report.xml"
    nodes = [f"{SUITES}::Test{driver.__name__}::{driver.caught_by}" for driver in BROKEN]
    # what the flaws are made of has none
    nodes += [f"{SUITES}::TestFlawed::{name}" for name in sorted({driver.caught_by for driver in BROKEN})]
    options = ["-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", *options, *nodes]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SUITES.parents[2])
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for case in ElementTree.parse(report).iter("testcase"):
        suite = case.attrib["classname"].rpartition(".")[2]
        assert case.find("error") is None, f"{suite} {case.attrib['name']} could not be run"
        found[suite, case.attrib["name"].partition("[")[0]].append(case.find("failure") is not None)
    return found


@pytest.mark.parametrize("driver", BROKEN, ids=lambda driver: driver.__name__)
def test_a_broken_driver_fails_by_the_test_that_is_meant_for_it(
    driver: type[Flawed], failed: dict[tuple[str, str], list[bool]]
) -> None:
    assert any(failed[f"Test{driver.__name__}", driver.caught_by])


@pytest.mark.parametrize("name", sorted({driver.caught_by for driver in BROKEN}))
def test_a_driver_without_a_flaw_passes_it(name: str, failed: dict[tuple[str, str], list[bool]]) -> None:
    cases = failed["TestFlawed", name]
    assert cases and not any(cases)
