"""Sessions in a PostgreSQL database: `postgresql://user@host/database`."""

from __future__ import annotations

from sessionledger.drivers.postgres.driver import PostgresDriver

__all__ = ["PostgresDriver"]
