"""The scripts, which run inside the server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache

from sessionledger.drivers.statements import load_text

__all__ = ["Script", "all_scripts", "script"]

_NAMES = ("append", "apply", "hidden", "look", "mend", "messages", "runs", "session", "switches")


class Script:
    """One script, as it is sent and as it is called afterwards."""

    __slots__ = ("name", "sha", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = _bare(load_text("lua/head.lua")) + _bare(load_text(f"lua/{name}.lua"))
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: list[str], arguments: list[str | bytes | int]) -> list[str | bytes | int]:
        return ["EVALSHA", self.sha, len(keys), *keys, *arguments]


@cache
def script(name: str) -> Script:
    return Script(name)


def all_scripts() -> Iterator[Script]:
    return map(script, _NAMES)


def _bare(text: str) -> str:
    """Without comments: the text goes over the wire each time a server has forgotten it."""
    return "".join(f"{line}\n" for line in text.splitlines() if line and not line.startswith("--"))
