"""The storages whose writers are killed: where they are, and what they must look like past the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from .lines import check_lines, leftover_files
from .tables import check_tables, leftovers

__all__ = ["FILES", "SQLITE", "Engine"]


class Engine(msgspec.Struct, frozen=True):
    name: str
    url: Callable[[Path], str]
    check: Callable[[Path], None]
    leftovers: Callable[[Path], Any]

    def __str__(self) -> str:
        return self.name


SQLITE = Engine("sqlite", lambda path: f"sqlite:///{path}", check_tables, leftovers)
FILES = Engine("files", lambda path: f"file://{path}", check_lines, leftover_files)
