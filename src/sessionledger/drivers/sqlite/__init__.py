"""Sessions in an SQLite file, through aiosqlite. `sqlite:///agents.db`, `sqlite:////var/lib/agents.db`,
`sqlite:///:memory:`.
"""

from sessionledger.drivers.sqlite.driver import SQLiteDriver

__all__ = ["SQLiteDriver"]
