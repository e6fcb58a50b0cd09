"""Contenders by name. To add a store: one class in a module here and one line below."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.contenders.contender import Contender

__all__ = ["REGISTRY", "Entry", "load"]


class Entry(NamedTuple):
    backend: str  #: contenders of one backend are compared with each other
    module: str  #: of this package
    class_name: str
    packages: tuple[str, ...] = ("msgspec",)  #: distributions whose versions the report names
    default: bool = False  #: measured unless the command line names others
    python: str = sys.executable  #: the interpreter that has the packages

    @property
    def raw(self) -> bool:
        """It is there for others to be compared with."""
        return self.module.startswith("raw_")


OURS = ("sessionledger", "msgspec", "anyio", "aiosqlite")
OURS_ON_MONGO = ("sessionledger", "msgspec", "anyio", "motor", "pymongo")

REGISTRY: dict[str, Entry] = {
    "sessionledger-sqlite": Entry("sqlite", "sessionledger_store", "Sqlite", OURS, default=True),
    "sessionledger-memory": Entry("memory", "sessionledger_store", "Memory", OURS),
    "sessionledger-postgres": Entry("postgres", "sessionledger_store", "Postgres", ("sessionledger", "asyncpg")),
    "sessionledger-motor": Entry("motor", "sessionledger_store", "Motor", OURS_ON_MONGO),
    "sessionledger-pymongo": Entry("mongodb", "sessionledger_store", "PyMongo", OURS_ON_MONGO),
    "sessionledger-redis": Entry("redis", "sessionledger_store", "OnRedis", ("sessionledger", "redis", "hiredis")),
    "sessionledger-files": Entry("files", "sessionledger_store", "Files", OURS),
    # the raw limit: the least code that stores the same data atomically
    "raw-sqlite3-normal": Entry("sqlite", "raw_sqlite", "SyncNormal"),
    "raw-sqlite3-full": Entry("sqlite", "raw_sqlite", "SyncFull"),
    "raw-sqlite3-thread": Entry("sqlite", "raw_sqlite", "Thread", default=True),
    "raw-aiosqlite-naive": Entry("sqlite", "raw_sqlite", "AioNaive", ("msgspec", "aiosqlite")),
    "raw-aiosqlite-onehop": Entry("sqlite", "raw_sqlite", "AioOneHop", ("msgspec", "aiosqlite")),
    "raw-sqlite3-group": Entry("sqlite", "raw_sqlite", "GroupNormal"),
    "raw-sqlite3-group-full": Entry("sqlite", "raw_sqlite", "GroupFull", default=True),
    "raw-asyncpg": Entry("postgres", "raw_postgres", "OneStatement", ("asyncpg",)),
    "raw-asyncpg-group": Entry("postgres", "raw_postgres", "Group", ("asyncpg",)),
    "raw-pymongo-majority": Entry("mongodb", "raw_mongo", "PyMongoMajority", ("pymongo",)),
    "raw-motor-majority": Entry("motor", "raw_mongo", "MotorMajority", ("motor", "pymongo")),
    "raw-redis-lua": Entry("redis", "raw_redis", "Lua", ("redis", "hiredis")),
}


def load(name: str, directory: Path) -> Contender:
    entry = REGISTRY[name]
    kind = getattr(importlib.import_module(f"{__name__}.{entry.module}"), entry.class_name)
    contender: Contender = kind(directory)
    contender.name = name
    return contender
