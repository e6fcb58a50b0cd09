"""What makes the rows of a log be found: derived from it, and made again from it whenever in doubt.

`Index` is a file of records of one size, one for each line that is a row. The counts of messages and runs grow from
record to record, so that a position or a seq is found by bisection. `Lookup` finds records by ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

from sessionledger.drivers.jsonfile.handle import Handle

__all__ = ["RECORD_SIZE", "Index", "IndexDamagedError", "Kind", "Lookup", "Record", "id_hash"]

_RECORD: Final = Struct("<BBHIIIQQIIQQQ")
_NEWEST: Final = Struct("<Q")
_NEWEST_OFFSET: Final = 40
RECORD_SIZE: Final = _RECORD.size
_CHUNK: Final = 256  #: records that are read at once


class IndexDamagedError(Exception):
    """It does not agree with the log."""


class Kind:
    MESSAGE, RUN, PATCH, PART, SWITCH, HIDE, SHOW, OPERATION = range(1, 9)


class Record(NamedTuple):
    kind: int
    is_open: int  #: of a run or a patch: its status may still change
    spare: int
    length: int  #: of the line
    prefix: int  #: of the line, in front of its body; 0: unknown. Of a patch: its number
    size: int  #: of the body. Of a patch: how many messages it added
    offset: int  #: of the line in the log
    position: int  #: how many messages there are with this record, those of the session that was forked too
    version: int
    seq: int  #: how many runs there are with it
    #: Of the first revision of a run: the record of its last change. Of a patch: how many parts it has. Of a part: the
    #: hash of its name
    newest: int
    previous: int  #: the record before of the same run, or of the same kind, plus 1
    first: int  #: of a run or a patch: the record of the run's first revision

    def pack(self) -> bytes:
        return _RECORD.pack(*self)


class Index:
    def __init__(self, file: Handle) -> None:
        self.file = file

    def get(self, number: int) -> Record:
        data = self.file.read(number * RECORD_SIZE, RECORD_SIZE)
        if len(data) < RECORD_SIZE:
            raise IndexDamagedError
        return Record._make(_RECORD.unpack(data))

    def read(self, first: int, behind: int) -> list[Record]:
        data = self.file.read(first * RECORD_SIZE, (behind - first) * RECORD_SIZE)
        if len(data) < (behind - first) * RECORD_SIZE:
            raise IndexDamagedError
        return list(map(Record._make, _RECORD.iter_unpack(data)))

    def write(self, number: int, data: bytes) -> None:
        self.file.write(number * RECORD_SIZE, data)

    def set_newest(self, number: int, newest: int) -> None:
        """The one field that changes."""
        self.file.write(number * RECORD_SIZE + _NEWEST_OFFSET, _NEWEST.pack(newest))

    def unlink(self, records: int) -> None:
        """Let no run's newest record be one behind so many."""
        there = self.file.size() // RECORD_SIZE
        for _, record in self.ascending(records, there):
            if record.kind in (Kind.RUN, Kind.PATCH) and record.first < records:
                number = newest = self.get(record.first).newest
                while newest >= records:
                    newest = self.get(newest).previous - 1
                if newest != number:
                    self.set_newest(record.first, newest)
        self.file.truncate(records * RECORD_SIZE)

    def ascending(self, first: int, behind: int) -> Iterator[tuple[int, Record]]:
        size = 16
        while first < behind:
            end = min(first + size, behind)
            yield from enumerate(self.read(first, end), first)
            first, size = end, _CHUNK

    def descending(self, first: int, behind: int) -> Iterator[tuple[int, Record]]:
        size = 16
        while first < behind:
            start = max(first, behind - size)
            records = self.read(start, behind)
            yield from zip(range(behind - 1, start - 1, -1), reversed(records), strict=True)
            behind, size = start, _CHUNK

    def find_position(self, position: int, records: int) -> int:
        """The first record of so many with that many messages; `records` when there is none."""
        return self._find(7, position, records)

    def find_seq(self, seq: int, records: int) -> int:
        return self._find(9, seq, records)

    def _find(self, field: int, value: int, records: int) -> int:
        low, high = 0, records
        while high - low > 16:
            middle = (low + high) // 2
            if self.get(middle)[field] < value:
                low = middle + 1
            else:
                high = middle
        for number, record in enumerate(self.read(low, high), low):
            if record[field] >= value:
                return number
        return high


_SLOT: Final = Struct("<QQ")
_BUCKET: Final = 16  #: slots that are read at once
_BUCKET_SIZE: Final = _BUCKET * _SLOT.size
_FIRST_BUCKETS: Final = 16  #: of the first table; each table has twice as many as the one before
_FIRST_ENTRIES: Final = _FIRST_BUCKETS * _BUCKET // 2  #: a table is half full at most


def id_hash(kind: str, text: str) -> int:
    return int.from_bytes(blake2b(f"{kind}{text}".encode(), digest_size=8).digest(), "little") or 1


class Lookup:
    """Records by the hashes of ids, in tables of doubling size: adding never moves what is there, and costs the same
    however many there are; finding looks into each table. What is found has to be compared with the id.
    """

    def __init__(self, file: Handle) -> None:
        self.file = file

    @staticmethod
    def size(entries: int) -> int:
        """Of the file, at least."""
        return _offset(_level(entries - 1) + 1) if entries else 0

    def add(self, hashed: int, record: int, entries: int) -> None:
        """The entry number `entries`, from 0."""
        level = _level(entries)
        value = record + 1
        if entries == _first_of(level):
            self.file.truncate(_offset(level + 1))
        buckets = _FIRST_BUCKETS << level
        for step in range(buckets):
            place = _offset(level) + (hashed + step) % buckets * _BUCKET_SIZE
            for slot, (there, found) in enumerate(_SLOT.iter_unpack(self.file.read(place, _BUCKET_SIZE))):
                if not found or (there, found) == (hashed, value):
                    self.file.write(place + slot * _SLOT.size, _SLOT.pack(hashed, value))
                    return
        raise IndexDamagedError

    def find(self, hashed: int, entries: int) -> Iterator[int]:
        """The newest tables first."""
        for level in range(_level(entries - 1) if entries else -1, -1, -1):
            buckets = _FIRST_BUCKETS << level
            for step in range(buckets):
                place = _offset(level) + (hashed + step) % buckets * _BUCKET_SIZE
                data = self.file.read(place, _BUCKET_SIZE)
                if len(data) < _BUCKET_SIZE:
                    raise IndexDamagedError
                slots = list(_SLOT.iter_unpack(data))
                yield from [value - 1 for there, value in slots if there == hashed and value]
                if not slots[-1][1]:
                    break


def _level(entry: int) -> int:
    return (entry // _FIRST_ENTRIES + 1).bit_length() - 1


def _first_of(level: int) -> int:
    return _FIRST_ENTRIES * ((1 << level) - 1)


def _offset(level: int) -> int:
    return _FIRST_BUCKETS * _BUCKET_SIZE * ((1 << level) - 1)
