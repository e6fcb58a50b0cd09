"""Sessions in a MongoDB database: `mongodb://user@host/database`."""

from __future__ import annotations

from sessionledger.drivers.mongodb.driver import MongoDriver

__all__ = ["MongoDriver"]
