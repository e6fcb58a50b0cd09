"""Statements kept in files, each under its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

__all__ = ["load_statements", "load_text"]

_NAME = re.compile(r"^-- ([a-z_]+)$", re.MULTILINE)


def load_text(path: str) -> str:
    return files("sessionledger.drivers").joinpath(path).read_text("utf-8")


def load_statements(path: str) -> Mapping[str, str]:
    """The statements of a file, by name, without comments."""
    parts = _NAME.split(load_text(path))[1:]
    return {name: _bare(text) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _bare(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line and not line.startswith("--"))
