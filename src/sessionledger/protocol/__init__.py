"""The two interfaces: `SessionStore` is what users call, `Driver` is what a plug-in author writes."""

from sessionledger.protocol.driver import PROTOCOL_VERSION, Driver, DriverFactory, DriverInfo, StoreURL
from sessionledger.protocol.store import CONTEXT_STATUSES, UNSET, Cursor, RunRecorder, SessionStore, Unset

__all__ = [
    "CONTEXT_STATUSES",
    "PROTOCOL_VERSION",
    "UNSET",
    "Cursor",
    "Driver",
    "DriverFactory",
    "DriverInfo",
    "RunRecorder",
    "SessionStore",
    "StoreURL",
    "Unset",
]
