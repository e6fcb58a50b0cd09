"""Digests, version 1: 16 bytes of BLAKE2b over canonical JSON.

Canonical: keys sorted, fields at their default left out, no white space, numbers as they are (-0.0 is not 0, 1 is not
1.0), without what the store fills in. Two records have one digest when they are equal.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

__all__ = ["canonical", "digest"]

_encode = msgspec.json.Encoder(order="sorted").encode

#: In front of what is digested, so that another version of the rules never gives the same digest.
_VERSION = b"sessionledger:1:"


def canonical(record: Any) -> bytes:
    return _encode(record)


def digest(text: bytes) -> bytes:
    """Of text that is canonical."""
    return hashlib.blake2b(_VERSION + text, digest_size=16).digest()
