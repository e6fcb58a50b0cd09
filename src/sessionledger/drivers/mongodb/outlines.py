"""What a document has of its messages beside their bodies: one text, which is read sooner than many fields are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sessionledger.errors import DecodeError

__all__ = ["Entry", "Outline", "outline_of", "text_of"]


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A stretch of a document's messages, which are of one run."""

    run_id: str
    run_seq: int
    revision: int
    first: int
    count: int
    numbers: int | list[int]  #: the index in the run of the first message, or of each

    @property
    def last(self) -> int:
        return self.first + self.count - 1

    def indexes(self, first: int, last: int) -> Sequence[int]:
        """Of the messages from one position to another."""
        low, high = first - self.first, last - self.first + 1
        if isinstance(self.numbers, int):
            return range(self.numbers + low, self.numbers + high)
        return self.numbers[low:high]


class Outline(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The text `t` of a document, or of a portion of its messages; later releases may add to its end."""

    entries: list[Entry]  #: in the order of their positions; none in a portion
    times: list[int]  #: none where the messages are in portions
    ids: list[str | None] = []  #: those that were given, if any was
    elsewhere: bool = False  #: a body is kept apart


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Outline).decode


def text_of(outline: Outline) -> str:
    return _encode(outline).decode()


def outline_of(document: Mapping[str, Any]) -> Outline:
    """Of a document, or of a portion."""
    try:
        outline = _decode(document["t"])
    except (KeyError, TypeError, msgspec.MsgspecError) as error:
        raise _damaged() from error
    if len(outline.times) != len(document.get("m", ())):
        raise _damaged()
    return outline


def _damaged() -> DecodeError:
    return DecodeError("a document with messages is damaged: restore it from a backup")
