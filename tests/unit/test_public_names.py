"""The names that users and plug-in authors rely on. Whoever changes a list here changes what they can write."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import entry_points
from typing import Any

import pytest

import sessionledger
from sessionledger import Cursor, Durability, RunRecorder, RunStatus, SessionKind, SessionStore
from sessionledger.protocol import Driver
from sessionledger.store import Store

NAMES = """
    AgentSwitch AppendReceipt CONTEXT_STATUSES ConflictError Cursor DecodeError DriverError DriverIncompatibleError
    DriverNotFoundError DriverTimeoutError Durability Health InstalledDriver InvalidCursorError InvalidRecordError
    Message MissingDependencyError OutcomeUnknownError Page PoolTimeoutError Run RunConflictError RunFinishedError
    RunNotFoundError RunRecorder RunStatus SchemaOutdatedError SchemaTooNewError Session SessionDeletedError
    SessionExistsError SessionHasForksError SessionKind SessionLedgerError SessionNotFoundError SessionStats
    SessionStore StorageFullError StoreClosedError ToolCall UnavailableError UnsupportedError Usage WrongLoopError
    WrongProcessError drivers open_store
"""

STORE = """
    append close create_session delete_session durability fork get_message get_run get_session health history
    messages open recording restore_session retract runs schema_version scoped sessions stats switches unretract
    update_run update_session upgrade_schema upsert_session
"""

CURSOR = "collect count first page token"
RECORDER = "add partial receipt run_id update"

DRIVER = """
    close commit durability erase find_runs hidden info messages open ping runs schema_version session sessions
    switches upgrade_schema
"""

ERRORS = {
    "ConflictError": "SessionLedgerError",
    "DecodeError": "SessionLedgerError",
    "DriverError": "SessionLedgerError",
    "DriverIncompatibleError": "SessionLedgerError",
    "DriverNotFoundError": "SessionLedgerError",
    "DriverTimeoutError": "DriverError TimeoutError",
    "InvalidCursorError": "SessionLedgerError ValueError",
    "InvalidRecordError": "SessionLedgerError ValueError",
    "MissingDependencyError": "SessionLedgerError ImportError",
    "OutcomeUnknownError": "DriverError",
    "PoolTimeoutError": "DriverError",
    "RunConflictError": "SessionLedgerError",
    "RunFinishedError": "SessionLedgerError",
    "RunNotFoundError": "SessionLedgerError LookupError",
    "SchemaOutdatedError": "SessionLedgerError",
    "SchemaTooNewError": "SessionLedgerError",
    "SessionDeletedError": "SessionLedgerError",
    "SessionExistsError": "SessionLedgerError",
    "SessionHasForksError": "SessionLedgerError",
    "SessionLedgerError": "Exception",
    "SessionNotFoundError": "SessionLedgerError LookupError",
    "StorageFullError": "DriverError",
    "StoreClosedError": "SessionLedgerError",
    "UnavailableError": "DriverError",
    "UnsupportedError": "SessionLedgerError",
    "WrongLoopError": "SessionLedgerError",
    "WrongProcessError": "SessionLedgerError",
}


def public(kind: type) -> list[str]:
    named = {name for parent in kind.__mro__ for name in [*vars(parent), *vars(parent).get("__annotations__", ())]}
    return sorted(name for name in named if not name.startswith("_"))


def parameters(method: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(method).parameters.values())


def test_names_of_the_package() -> None:
    assert sorted(sessionledger.__all__) == sorted(NAMES.split())
    assert all(hasattr(sessionledger, name) for name in sessionledger.__all__)


def test_drivers_is_a_function_also_when_one_was_loaded() -> None:
    """There is a package of that name, which the import system would put in its place."""
    code = "import sessionledger; sessionledger.open_store('memory://'); sessionledger.drivers()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("protocol", "names"), [(SessionStore, STORE), (Cursor, CURSOR), (RunRecorder, RECORDER), (Driver, DRIVER)]
)
def test_names_of_a_protocol(protocol: type, names: str) -> None:
    assert public(protocol) == sorted(names.split())


def test_the_store_has_what_the_protocol_has_and_a_way_to_make_it() -> None:
    assert public(Store) == sorted([*STORE.split(), "on"])


@pytest.mark.parametrize("name", sorted(set(STORE.split()) - {"durability"}))
def test_the_store_takes_what_the_protocol_says(name: str) -> None:
    specified = getattr(SessionStore, name)
    assert parameters(getattr(Store, name)) == parameters(specified)
    behind_the_first = [parameter.kind for parameter in parameters(specified)[2:]]
    assert set(behind_the_first) <= {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("protocol", [SessionStore, Driver, Cursor, RunRecorder])
def test_a_protocol_is_its_own_specification(protocol: type) -> None:
    assert inspect.getdoc(protocol)
    unsaid = {"schema_version", "runs", "find_runs", "hidden", "switches", "run_id", "info"}
    silent = {name for name in public(protocol) if not getattr(getattr(protocol, name, None), "__doc__", None)}
    assert silent <= (unsaid if protocol is not SessionStore else set())


def test_errors_and_what_else_they_are() -> None:
    kinds = [value for name in sessionledger.__all__ if isinstance(value := getattr(sessionledger, name), type)]
    errors = [kind for kind in kinds if issubclass(kind, Exception)]
    assert {kind.__name__: " ".join(parent.__name__ for parent in kind.__bases__) for kind in errors} == ERRORS


def test_every_error_says_what_it_means() -> None:
    assert all(vars(getattr(sessionledger, name)).get("__doc__") for name in ERRORS)


def test_words_that_are_stored() -> None:
    assert [*RunStatus] == ["pending", "running", "paused", "completed", "failed", "cancelled"]
    assert [*SessionKind] == ["agent", "team", "workflow"]
    assert [*Durability] == ["memory", "process", "interval", "disk", "majority"]


def test_our_drivers_are_found_like_anybodys() -> None:
    ours = {
        entry.name for entry in entry_points(group="sessionledger.drivers") if entry.module.startswith("sessionledger.")
    }
    postgres = {"postgres", "postgresql", "postgresql+asyncpg"}
    assert ours == {"file", "jsonfile", "memory", "sqlite", "sqlite+aiosqlite", *postgres}
