"""The collections of a store, their indexes, and the version of all this."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Final

from pymongo import IndexModel, WriteConcern
from pymongo.errors import CollectionInvalid, OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference

from sessionledger.errors import InvalidRecordError, SchemaTooNewError
from sessionledger.protocol.rows import SessionKey

__all__ = ["SCHEMA_VERSION", "Layout", "shard_key"]

SCHEMA_VERSION: Final = 1
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,40}")
_META: Final = "schema"


def shard_key(key: SessionKey) -> str:
    """What all documents of a session have as `s`: its id, behind which the namespace stands where there is one."""
    return f"{key.session_id}\0{key.namespace}" if key.namespace else key.session_id


def _there(*fields: str) -> dict[str, Any]:
    return {"partialFilterExpression": {field: {"$exists": True} for field in fields}}


def _index(name: str, *fields: str, **options: Any) -> IndexModel:
    """A field that begins with "-" is descending."""
    keys = [(field.removeprefix("-"), -1 if field.startswith("-") else 1) for field in fields]
    return IndexModel(keys, name=name, **options)


_COMMITS = (
    _index("by_number", "s", "n", unique=True),
    _index("by_operation", "s", "i", "op", unique=True),
    _index("by_position", "s", "i", "l"),
    _index("by_run", "s", "i", "q"),
    _index("by_other_run", "s", "i", "z", **_there("z")),
    _index("by_message_id", "s", "i", "g", **_there("g")),
    _index("by_patched_run", "s", "i", "pq", **_there("pq")),
    _index("by_hidden_run", "s", "i", "hq", **_there("hq")),
    _index("by_kind", "s", "i", "k", "n", **_there("k")),
    _index("runs_by_id", "r.id"),
    _index("runs_by_agent", "r.a", "s", "n", **_there("r.a")),
    _index("runs_by_user", "r.u", "s", "n", **_there("r.u")),
    _index("runs_by_parent", "r.pa", "s", "n", **_there("r.pa")),
    _index("runs_by_ending", "x", "s", "n", **_there("x")),
    # of the documents with number 0
    _index("sessions_by_activity", "namespace", "-active", "-session_id", **_there("active")),
    _index("sessions_by_user", "namespace", "user_id", "-active", "-session_id", **_there("active")),
    _index("sessions_by_origin", "namespace", "forked_from", **_there("forked_from")),
)
_CHUNKS = (_index("by_place", "s", "c", "j", unique=True),)
_LASTING = (
    _index("open", "open", "s", "n", **_there("open")),
    _index("by_status", "st", "s", "n"),
    _index("by_session", "s", "i"),
    _index("by_id", "id"),
    _index("by_agent", "a", "s", "n", **_there("a")),
    _index("by_user", "u", "s", "n", **_there("u")),
    _index("by_parent", "pa", "s", "n", **_there("pa")),
)


class Layout:
    """Collections of a database, whose writes and reads are those of a majority."""

    def __init__(self, prefix: str) -> None:
        if prefix and not _IDENTIFIER.fullmatch(prefix):
            raise InvalidRecordError(
                f"prefix is {prefix!r}: give up to 41 small letters, digits and underscores", path="prefix"
            )
        self.prefix = prefix
        self.commits: Any = None
        self.chunks: Any = None
        self.lasting: Any = None
        self._meta: Any = None
        self._database: Any = None

    def bind(self, client: Any, database: str, write_concern: WriteConcern) -> None:
        bound = client.get_database(
            database,
            write_concern=write_concern,
            read_concern=ReadConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        self._database = bound
        for name in ("commits", "chunks"):
            setattr(self, name, bound[f"{self.prefix}{name}"])
        self.lasting = bound[f"{self.prefix}lasting_runs"]
        self._meta = bound[f"{self.prefix}meta"]

    async def make(self) -> None:
        """The indexes, then the note that they are there: whoever finds it is done, others do the same twice."""
        if await self.version():
            return
        for collection, indexes in (
            (self.commits, _COMMITS),
            (self.chunks, _CHUNKS),
            (self.lasting, _LASTING),
        ):
            await self._create(collection.name)
            await collection.create_indexes(list(indexes))
        values = {"schema_version": SCHEMA_VERSION, "min_reader": 1, "min_writer": 1}
        await self._meta.update_one({"_id": _META}, {"$setOnInsert": values}, upsert=True)

    async def _create(self, name: str) -> None:
        """Compressed by zstd, which takes a quarter less than what is usual, where the server lets us say so."""
        if name not in await self._database.list_collection_names(filter={"name": name}):
            with suppress(OperationFailure, CollectionInvalid):
                await self._database.create_collection(
                    name, storageEngine={"wiredTiger": {"configString": "block_compressor=zstd"}}
                )

    async def version(self) -> int:
        """0 where nothing is."""
        meta = await self._meta.find_one({"_id": _META})
        if meta is None:
            return 0
        least = max(meta.get("min_reader", 0), meta.get("min_writer", 0))
        if least > SCHEMA_VERSION:
            raise SchemaTooNewError(
                f"the MongoDB collections ask for schema {least}, this release knows {SCHEMA_VERSION}: "
                "upgrade sessionledger",
                found=least,
                known=SCHEMA_VERSION,
            )
        return int(meta["schema_version"])
