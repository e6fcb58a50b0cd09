"""How the command line starts: as a module, and without the packages that it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

WITHOUT_PACKAGE = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from sessionledger.cli import main
main()
"""


def python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SESSIONLEDGER_URL"}
    command: Sequence[str] = [sys.executable, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=environment, timeout=60)


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_the_extra_one_sentence_names_it(package: str) -> None:
    result = python("-c", WITHOUT_PACKAGE.format(package=package))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f'the command line needs {package!r}, which is not installed: python -m pip install "sessionledger[cli]"'
    ]


def test_an_import_error_of_our_own_is_not_hidden() -> None:
    result = python("-c", WITHOUT_PACKAGE.format(package="msgspec"))
    assert "ModuleNotFoundError" in result.stderr


def test_module_is_the_command(tmp_path: Path) -> None:
    result = python("-m", "sessionledger", "--help", cwd=tmp_path)
    assert result.returncode == 0
    for command in ("import", "sessions", "show", "runs", "messages", "stats", "drivers", "dev", "demo"):
        assert f"\n  {command} " in result.stdout


def test_an_error_is_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    result = python("-m", "sessionledger", "sessions", "--store", "nothing://x", cwd=tmp_path)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "nothing" in result.stderr
