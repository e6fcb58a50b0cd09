"""Names of directories for ids, which may hold anything: '/', '..', any Unicode, 256 bytes.

The encoding is faithful and free of collisions, also where the file system ignores case or normalises Unicode, and a
name never leads out of its directory: lower-case letters, digits, '-' and '_' stand for themselves, every other byte of
the UTF-8 is `%` and two hexadecimal digits. What becomes too long for a file system is cut, and ends with `%-` and a
digest of the whole.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

__all__ = ["directory_name"]

_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
_LONGEST: Final = 200  #: most file systems take 255 bytes
_KEPT: Final = 80  #: of a name that is too long
#: Windows keeps these for itself, in any directory.
_DEVICES: Final = frozenset({"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(10))})


def directory_name(text: str) -> str:
    raw = text.encode()
    name = "".join([chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in raw])
    if not name:
        return "%"
    if name in _DEVICES or name[0] == "-":
        name = f"%{raw[0]:02x}{name[1:]}"
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_KEPT]}%-{blake2b(raw, digest_size=32).hexdigest()}"
