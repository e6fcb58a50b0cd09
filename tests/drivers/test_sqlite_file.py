"""Which file an SQLite URL names, and what is asked of a file before it is used."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sessionledger import DriverError, Durability, InvalidRecordError, Message, Run, open_store
from sessionledger.drivers.sqlite import driver

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["run#1.db", "what?.db", "100%.db", "a b.db", "é.db"])
async def test_a_name_may_have_any_character(tmp_path: Path, name: str) -> None:
    encoded = name.replace("%", "%25").replace("#", "%23").replace("?", "%3F")
    async with open_store(f"sqlite:///{tmp_path}/{encoded}") as store:
        await store.append(Run(session_id="s"))
        assert name in names(tmp_path)


def test_a_fragment_is_refused(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/run#1.db", f"sqlite:///{tmp_path}/run.db#", "memory://a#b"):
        with pytest.raises(InvalidRecordError, match="%23") as raised:
            open_store(url)
        assert raised.value.path == "url"
    assert not names(tmp_path)


@pytest.mark.parametrize("path", ["file::memory:", "file:agents.db", "file%3Aagents.db"])
def test_a_uri_of_sqlites_is_refused(path: str) -> None:
    with pytest.raises(InvalidRecordError, match="names a path") as raised:
        open_store(f"sqlite:///{path}")
    assert raised.value.path == "url"


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE meta (name, value)"],
        ["CREATE TABLE meta (name, value)", "INSERT INTO meta VALUES ('schema_version', 'one')"],
        ["CREATE TABLE meta (name, value)", "INSERT INTO meta VALUES ('schema_version', 1), ('min_reader', NULL)"],
        ["CREATE TABLE meta (k, v)"],
        ["CREATE VIEW meta AS SELECT 1"],
    ],
)
async def test_a_file_of_another_program_is_left_alone(tmp_path: Path, statements: list[str]) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as file:
        for statement in statements:
            file.execute(statement)
        file.commit()
    with pytest.raises(DriverError, match="another program's"):
        await open_store(f"sqlite:///{tmp_path}/other.db").open()
    with closing(sqlite3.connect(tmp_path / "other.db")) as file:
        assert [name for (name,) in file.execute("SELECT name FROM sqlite_master")] == ["meta"]


@pytest.mark.parametrize("asked", list(driver._SYNCHRONOUS))
@pytest.mark.parametrize(
    ("synchronous", "is_"),
    [("OFF", "process"), ("NORMAL", "process"), ("FULL", "disk"), ("EXTRA", "disk")],
)
async def test_durability_is_what_sqlite_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Durability, synchronous: str, is_: str
) -> None:
    monkeypatch.setitem(driver._SYNCHRONOUS, asked, synchronous)
    async with open_store(f"sqlite:///{tmp_path}/a.db", durability=asked) as store:
        assert store.durability is (await store.health()).durability is Durability(is_)


async def test_what_is_in_memory_lasts_as_long_as_its_process() -> None:
    store = open_store("sqlite://")
    for _ in range(2):
        async with store:
            assert store.durability is Durability.MEMORY
            await store.append(Run(session_id="s", messages=[Message(role="user", content="hi")]))
            assert [message.content async for message in store.messages("s")] == ["hi"]
