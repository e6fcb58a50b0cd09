"""The names of the tables, with their schema and prefix, put into statements; and the schema itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

import asyncpg

from sessionledger.drivers.statements import load_statements, load_text
from sessionledger.errors import InvalidRecordError, SchemaTooNewError

__all__ = ["SCHEMA_VERSION", "Tables"]

SCHEMA_VERSION = 1

_TOKEN = re.compile(r"\{(index:)?([a-z_]+)\}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,39}")


class Tables:
    """Where one store's tables are."""

    def __init__(self, schema: str, prefix: str, partitions: int) -> None:
        for name, value, empty in (("schema", schema, False), ("prefix", prefix, True)):
            if not (_IDENTIFIER.fullmatch(value) or (empty and not value)):
                raise InvalidRecordError(
                    f"{name} is {value!r}: give up to 40 letters, digits and underscores", path=name
                )
        self.schema, self.prefix, self.partitions = schema, prefix, partitions

    def named(self, text: str) -> str:
        """The text with the names of this store's tables in it."""
        return _TOKEN.sub(self._name, text)

    def _name(self, token: re.Match[str]) -> str:
        index, name = token.groups()
        if name == "partitioned":
            return "PARTITION BY HASH (session_key)" if self.partitions else ""
        return f'"{self.prefix}{name}"' if index else f'"{self.schema}"."{self.prefix}{name}"'

    def statements(self) -> Mapping[str, str]:
        return {name: self.named(text) for name, text in _statements().items()}

    async def make(self, connection: asyncpg.Connection) -> None:
        """Once among all processes: each holds a lock from the look on."""
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", self.named("{meta}"))
            if await connection.fetchval("SELECT to_regclass($1) IS NULL", self.named("{meta}")):
                if not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", self.schema):
                    await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self.schema}"')
                await connection.execute(self.named(load_text("sql/postgres_schema.sql")))
                for number in range(self.partitions):
                    table, name = self.named("{message_rows}"), self.named("{message_rows}")
                    part = f'{name[:-1]}_{number}"'
                    await connection.execute(
                        f"CREATE TABLE {part} PARTITION OF {table} "
                        f"FOR VALUES WITH (MODULUS {self.partitions}, REMAINDER {number})"
                    )
                values = [("schema_version", SCHEMA_VERSION), ("min_reader", 1), ("min_writer", 1)]
                await connection.executemany(self.named("INSERT INTO {meta} VALUES ($1, $2)"), values)
            await self.version(connection)

    async def version(self, connection: asyncpg.Connection) -> int:
        meta = dict(await connection.fetch(self.named("SELECT name, value FROM {meta}")))
        least = max(meta.get("min_reader", 0), meta.get("min_writer", 0))
        if least > SCHEMA_VERSION:
            raise SchemaTooNewError(
                f"the PostgreSQL tables ask for schema {least}, this release knows {SCHEMA_VERSION}: "
                "upgrade sessionledger",
                found=least,
                known=SCHEMA_VERSION,
            )
        return int(meta["schema_version"])


@cache
def _statements() -> Mapping[str, str]:
    return load_statements("sql/postgres.sql")
