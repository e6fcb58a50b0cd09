"""Sessions of AI agents, kept: one atomic append a run, lazy reads, promises that hold."""

from importlib.metadata import PackageNotFoundError, version

import sessionledger.drivers  # noqa: F401 - first, or the package would replace the function `drivers` later
from sessionledger import errors, records
from sessionledger.errors import *  # noqa: F403
from sessionledger.protocol.store import CONTEXT_STATUSES, Cursor, RunRecorder, SessionStore
from sessionledger.records import *  # noqa: F403
from sessionledger.registry import InstalledDriver, drivers, open_store

try:
    __version__ = version("sessionledger")
except PackageNotFoundError:  # a checkout on the path, not installed
    __version__ = "0"

__all__ = [
    "CONTEXT_STATUSES",
    "Cursor",
    "InstalledDriver",
    "RunRecorder",
    "SessionStore",
    "drivers",
    "open_store",
]
__all__ += errors.__all__
__all__ += records.__all__
