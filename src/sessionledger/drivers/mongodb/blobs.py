"""What is too large for one document: bodies in pieces, and long lists of messages in portions.

They are written before the document that names them, and seen by nobody until it is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from bson import ObjectId

from sessionledger.drivers.mongodb.layout import Layout
from sessionledger.drivers.mongodb.outlines import Outline, text_of
from sessionledger.errors import DecodeError
from sessionledger.protocol.rows import Body

__all__ = ["Blobs", "MissingPartError", "Spill", "size_of"]

_LARGE_BODY: Final = 128 * 1024  #: characters or bytes of a body that is not kept in its document
_LARGE_DOCUMENT: Final = 256 * 1024  #: bytes of a document's bodies, behind which more go elsewhere
_SMALL_BODY: Final = 1024  #: which stays in its document all the same
_PORTION: Final = 64 * 1024  #: bytes of messages of one portion
_ROW: Final = 32  #: bytes of a message beside its body, about
_FIELDS: Final = {"_id": 0, "m": 1, "t": 1, "d": 1}
_PIECE: Final = 8 * 1024 * 1024  #: bytes of one piece


class MissingPartError(DecodeError):
    """Something that a document names is not there. It was damaged, unless the document too is gone by now."""


class Spill:
    """What one commit has beside its document."""

    def __init__(self, shard: str, incarnation: int) -> None:
        self.token = ObjectId()
        self.documents: list[dict[str, Any]] = []
        self._place = {"s": shard, "i": incarnation, "c": self.token}
        self._inline = 0

    def _add(self, **fields: Any) -> None:
        self.documents.append({**self._place, "j": len(self.documents), **fields})

    def body(self, body: Body) -> Any:
        """As its document has it: itself, or where it is."""
        size = len(body)
        if size < _SMALL_BODY or (size < _LARGE_BODY and self._inline + size < _LARGE_DOCUMENT):
            self._inline += size
            return body
        return self._elsewhere(body)

    def message_body(self, body: Body) -> Any:
        """As `body`, but for one that goes into a portion when there are many."""
        return body if len(body) < _LARGE_BODY else self._elsewhere(body)

    def _elsewhere(self, body: Body) -> dict[str, Any]:
        data = body.encode() if isinstance(body, str) else body
        first = len(self.documents)
        for start in range(0, len(data), _PIECE):
            self._add(d=data[start : start + _PIECE])
        pieces = len(self.documents) - first
        return {"c": self.token, "j": first, "k": pieces, "z": len(body), "t": isinstance(body, str)}

    def messages(self, bodies: list[Any], outline: Outline) -> dict[str, Any]:
        """The fields that hold them, or tell where they are."""
        sizes = [size_of(body, inline=True) + _ROW for body in bodies]
        elsewhere = any(isinstance(body, dict) for body in bodies)
        if sum(sizes) < _LARGE_DOCUMENT:
            return {"m": bodies, "t": text_of(msgspec.structs.replace(outline, elsewhere=elsewhere))}
        offsets: list[int] = []
        first = len(self.documents)
        for start, end in _portions(sizes):
            offsets.append(start)
            portion = Outline([], outline.times[start:end], outline.ids[start:end], elsewhere)
            self._add(m=bodies[start:end], t=text_of(portion))
        return {"ck": {"c": self.token, "j": first, "o": offsets}, "t": text_of(Outline(outline.entries, []))}


def size_of(body: Any, *, inline: bool = False) -> int:
    """Of a body as a document has it. `inline`: without what is elsewhere."""
    if isinstance(body, dict):
        return 0 if inline else int(body["z"])
    return len(body)


def _portions(sizes: Sequence[int]) -> Iterable[tuple[int, int]]:
    start, total = 0, 0
    for offset, size in enumerate(sizes):
        if total and total + size > _PORTION:
            yield start, offset
            start, total = offset, 0
        total += size
    yield start, len(sizes)


class Blobs:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    async def write(self, spill: Spill) -> None:
        if spill.documents:
            await self._layout.chunks.insert_many(spill.documents)

    async def drop(self, shard: str, tokens: Sequence[ObjectId]) -> None:
        """Those of a commit that was not written, or is no longer needed."""
        if tokens:
            await self._layout.chunks.delete_many({"s": shard, "c": {"$in": list(tokens)}})

    async def load(self, shard: str, body: Any) -> Body:
        """A body, wherever it is."""
        if not isinstance(body, dict):
            loaded: Body = body
            return loaded
        found = await self._read(shard, body["c"], body["j"], body["k"])
        return _whole(body, b"".join(piece["d"] for piece in found))

    async def portion(self, shard: str, chunks: dict[str, Any], number: int) -> dict[str, Any]:
        """One portion of a document's messages."""
        found = await self._read(shard, chunks["c"], chunks["j"] + number, 1)
        if not found:
            raise MissingPartError("a part of a run is missing: restore the collection of chunks from a backup")
        return found[0]

    async def _read(self, shard: str, token: ObjectId, first: int, count: int) -> list[dict[str, Any]]:
        query = {"s": shard, "c": token, "j": {"$gte": first, "$lt": first + count}}
        found: list[dict[str, Any]] = await self._layout.chunks.find(query, _FIELDS).sort("j", 1).to_list(None)
        return found


def _whole(body: dict[str, Any], data: bytes) -> Body:
    text: Body
    try:
        text = data.decode() if body["t"] else data
    except UnicodeDecodeError:
        text = ""
    if len(text) != body["z"]:
        raise MissingPartError("a part of a body is missing: restore the collection of chunks from a backup")
    return text
