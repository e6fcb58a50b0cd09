"""Ids that a call makes when its user gives none."""

from __future__ import annotations

import sys
import uuid
from typing import Final

__all__ = ["derived_uuid", "new_id"]

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils.compat import uuid7

_NAMESPACE: Final = uuid.UUID("6f1f4f0e-7c1a-5b0c-9f0a-5e551041ed6e")


def new_id() -> str:
    """A UUIDv7: ids that were made later sort behind those made earlier."""
    return str(uuid7())


def derived_uuid(*parts: str) -> str:
    """The same parts give the same id: what a repeated call makes is what the first one made."""
    return str(uuid.uuid5(_NAMESPACE, "".join(f"{len(part)}:{part}" for part in parts)))
