"""Who may import whom, and that a rule is found in one place.

records, errors ← protocol ← core ← cli, testing; drivers import records, errors and protocol.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import sessionledger

ROOT = Path(sessionledger.__file__).parent

MODULES = {
    ".".join(["sessionledger", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

MOST_LINES = 500
#: A file that is longer, and why.
REASONS: dict[str, str] = {
    "store.py": "a method for each of the public protocol; most of it is their signatures",
    "protocol/rows.py": "the words of the driver protocol, to be read as one page",
}

#: Packages that each part may import beside the standard library and sessionledger.
CLIENTS = {
    "records": {"msgspec"},
    "errors": set[str](),
    "protocol": {"msgspec"},
    "core": {"anyio", "msgspec", "uuid_utils"},
    "cli": {"anyio", "click", "msgspec", "rich"},
    "testing": {"anyio", "hypothesis", "msgspec", "pymongo", "pytest"},
    "drivers.jsonfile": {"anyio", "msgspec"},
    "drivers.memory": {"anyio", "msgspec"},
    "drivers.mongodb": {"anyio", "bson", "motor", "msgspec", "pymongo"},
    "drivers.postgres": {"anyio", "asyncpg", "msgspec"},
    "drivers.redis": {"hiredis", "msgspec", "redis"},
    "drivers.relational": {"msgspec"},
    "drivers.sqlite": {"aiosqlite", "anyio", "msgspec"},
    "drivers.statements": set[str](),
}

#: Errors that a driver raises; all others follow from its outcomes, in the core.
ERRORS_OF_DRIVERS = {
    "DecodeError",
    "DriverError",
    "DriverTimeoutError",
    "InvalidRecordError",  # an option or a URL, before it is opened
    "MissingDependencyError",
    "OutcomeUnknownError",
    "PoolTimeoutError",
    "SchemaOutdatedError",
    "SchemaTooNewError",
    "StorageFullError",
    "UnavailableError",
}

ENGINES = re.compile(r"sqlite|postgres|psycopg|asyncpg|mongo|motor|redis|valkey|mysql|dynamo", re.IGNORECASE)
POLICY = re.compile(r"lineage|ancest|inherit|history|retract|revise|scoped|visible|for_run|last_runs", re.IGNORECASE)


def part_of(module: str) -> str:
    """records, errors, protocol, cli, testing, drivers.<name>, package (`__init__`, `__main__`) or core."""
    parts = module.split(".")[1:]
    if not parts or parts == ["__main__"]:
        return "package"
    if parts[0] == "drivers":
        return ".".join(parts[:2])
    return parts[0] if parts[0] in ("records", "errors", "protocol", "cli", "testing") else "core"


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[tuple[str, str]]:
    """Of each import, wherever it stands: the module, and the name taken from it, if one was."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports from a dot"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                of_the_package = node.module == "sessionledger" and alias.name in sessionledger.__all__
                yield (inner, "") if inner in MODULES and not of_the_package else (node.module, alias.name)


def ours(module: str) -> Iterator[tuple[str, str]]:
    return ((source, name) for source, name in imports(module) if source.split(".")[0] == "sessionledger")


def words(module: str) -> Iterator[tuple[int, str]]:
    """Names and texts of the code; comments and docstrings say what they like."""
    docstrings = {
        node.body[0].lineno
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node, clean=False) is not None
    }
    source = io.StringIO(MODULES[module].read_text(encoding="utf-8"))
    for token in tokenize.generate_tokens(source.readline):
        text = token.type == tokenize.STRING and token.start[0] not in docstrings
        if text or token.type == tokenize.NAME or "FSTRING" in tokenize.tok_name[token.type]:
            yield token.start[0], token.string


def modules(*parts: str) -> list[str]:
    return [module for module in MODULES if part_of(module).partition(".")[0] in parts]


def test_all_parts_are_seen() -> None:
    assert {part_of(module).partition(".")[0] for module in MODULES} == {
        "cli", "core", "drivers", "errors", "package", "protocol", "records", "testing"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("part", "below"),
    [
        ("records", set[str]()),
        ("errors", set[str]()),
        ("protocol", {"records", "errors", "protocol"}),
        ("core", {"records", "errors", "protocol", "core"}),
        ("testing", {"records", "errors", "protocol", "core", "testing", "package"}),
    ],
)
def test_a_part_imports_what_is_below_it(part: str, below: set[str]) -> None:
    wrong = [
        f"{module} → {source}" for module in modules(part) for source, _ in ours(module) if part_of(source) not in below
    ]
    assert not wrong


@pytest.mark.parametrize("module", modules("drivers"))
def test_a_driver_imports_the_protocol_and_its_own_modules(module: str) -> None:
    allowed = {"records", "errors", "protocol", "drivers.relational", "drivers.statements", part_of(module)}
    assert not [source for source, _ in ours(module) if part_of(source) not in allowed]


@pytest.mark.parametrize("module", modules("drivers"))
def test_a_driver_raises_only_what_is_the_storages(module: str) -> None:
    assert {name for source, name in ours(module) if source == "sessionledger.errors"} <= ERRORS_OF_DRIVERS


@pytest.mark.parametrize("module", modules("drivers"))
def test_a_driver_knows_no_records(module: str) -> None:
    assert {name for source, name in ours(module) if source == "sessionledger.records"} <= {"Durability"}


@pytest.mark.parametrize("module", modules("drivers"))
def test_a_driver_has_no_policy(module: str) -> None:
    assert not [f"{line}: {word}" for line, word in words(module) if POLICY.search(word)]


@pytest.mark.parametrize("module", modules("cli"))
def test_the_command_line_uses_the_public_names(module: str) -> None:
    # `dev` starts the servers that the tests have
    public = {"sessionledger", *(["sessionledger.testing.servers"] if module == "sessionledger.cli.dev" else [])}
    wrong = [source for source, _ in ours(module) if part_of(source) != "cli" and source not in public]
    assert not wrong


@pytest.mark.parametrize("module", modules("records", "errors", "protocol", "core"))
def test_the_core_names_no_engine(module: str) -> None:
    # the sentence that asks for a URL gives an example
    found = [f"{line}: {word}" for line, word in words(module) if ENGINES.search(word) and "give one like" not in word]
    assert not found


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in CLIENTS])
def test_a_part_uses_its_own_client_library_alone(module: str) -> None:
    outside = {source.split(".")[0] for source, _ in imports(module)} - sys.stdlib_module_names - {"sessionledger"}
    assert outside <= CLIENTS[part_of(module)]


def test_every_driver_has_a_line_here() -> None:
    assert {part_of(module) for module in modules("drivers")} - {"drivers"} <= set(CLIENTS)


def test_a_file_is_short_or_has_a_reason() -> None:
    lines = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").count("\n")
        for path in ROOT.rglob("*")
        if path.suffix in (".py", ".sql", ".lua")
    }
    assert {name: count for name, count in lines.items() if count > MOST_LINES and name not in REASONS} == {}
    assert not [name for name in REASONS if lines.get(name, 0) <= MOST_LINES], "a reason for nothing"


def test_a_module_is_named_after_what_it_is() -> None:
    empty = {"base", "common", "helpers", "manager", "misc", "util", "utils"}
    assert not [module for module in MODULES if empty & set(module.split("."))]


@pytest.mark.parametrize("part", ["drivers/lua", "drivers/sql", "cli/samples"])
def test_files_beside_the_code_are_installed(part: str) -> None:
    assert [path for path in (ROOT / part).iterdir() if path.suffix in (".lua", ".sql", ".jsonl")]


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "py.typed").is_file()
