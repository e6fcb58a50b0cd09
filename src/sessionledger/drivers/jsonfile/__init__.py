"""Sessions in plain files: `file:///var/lib/agents`, `file:agents` beside the working directory."""

from __future__ import annotations

from sessionledger.drivers.jsonfile.driver import JSONFileDriver

__all__ = ["JSONFileDriver"]
