"""Tokens: a place in a cursor's order, as text that survives a process, a URL and a browser.

A token is bound to the kind of cursor and to what it walks over, so that one cannot be used for another by mistake. It
is no secret and no proof: whoever holds one sees what the store's scope shows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any, TypeVar

import msgspec

from sessionledger.errors import InvalidCursorError

__all__ = ["decode_token", "encode_token"]

T = TypeVar("T")

_CHECK_BYTES = 6
_MAX_LENGTH = 2048


def encode_token(kind: str, over: str, place: Any) -> str:
    """`kind` of cursor, `over` what it walks, `place` any JSON."""
    text = msgspec.json.encode(place)
    return base64.urlsafe_b64encode(_check(kind, over, text) + text).rstrip(b"=").decode()


def decode_token(token: str, kind: str, over: str, place: type[T]) -> T:
    if not isinstance(token, str):
        raise InvalidCursorError(f"{token!r} is no token: give the token of a cursor")
    if len(token) <= _MAX_LENGTH:
        try:
            raw = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
            check, text = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
            if check == _check(kind, over, text):
                return msgspec.json.decode(text, type=place)
        except (binascii.Error, UnicodeError, ValueError):
            pass
    shown = token if len(token) <= 40 else f"{token[:37]}…"
    raise InvalidCursorError(f"the token {shown!r} is damaged or of another cursor: begin without one")


def _check(kind: str, over: str, text: bytes) -> bytes:
    state = hashlib.blake2b(digest_size=_CHECK_BYTES, person=b"slcursor")
    for part in (kind.encode(), over.encode("utf-8", "surrogatepass"), text):
        state.update(len(part).to_bytes(4, "big") + part)
    return state.digest()
