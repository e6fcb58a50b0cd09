"""Redis and Valkey, through redis-py's asyncio client: one server, or a cluster."""

from __future__ import annotations

from sessionledger.drivers.redis.driver import RedisDriver

__all__ = ["RedisDriver"]
