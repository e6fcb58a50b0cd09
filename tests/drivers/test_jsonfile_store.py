"""Files in particular: their names, their cost, other processes, and what the system refuses."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest

from sessionledger import (
    DecodeError,
    DriverError,
    Durability,
    InvalidRecordError,
    Message,
    Run,
    SchemaTooNewError,
    StorageFullError,
    UnavailableError,
    open_store,
)
from sessionledger.drivers.jsonfile import JSONFileDriver, driver
from sessionledger.drivers.jsonfile.errors import error_of
from sessionledger.drivers.jsonfile.handle import Handle
from sessionledger.drivers.jsonfile.index import Lookup, id_hash
from sessionledger.drivers.jsonfile.lock import locked
from sessionledger.drivers.jsonfile.names import directory_name
from sessionledger.protocol.rows import LAST, Committed, MessageQuery, Seal
from sessionledger.registry import parse_url
from sessionledger.testing import rows

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def turn(number: int = 0, *, session_id: str = "s", size: int = 10) -> Run:
    messages = [Message(role=role, content=f"{number} ".ljust(size, "x")) for role in ("user", "assistant")]
    return Run(run_id=f"r{number}", session_id=session_id, messages=messages)


# URLs and options


@pytest.mark.parametrize("url", ["file:kept", "file://./kept", "jsonfile:kept", "file:./kept"])
async def test_a_path_without_a_root_is_beside_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_store(url) as store:
        monkeypatch.chdir("/")
        await store.append(turn())
    assert (tmp_path / "kept" / "sessions" / "s" / "log-1.jsonl").exists()


@pytest.mark.parametrize("url", ["file:", "file://", "file://host/dir", "file:a%00b"])
def test_a_url_that_names_no_directory_here_is_refused(url: str) -> None:
    with pytest.raises(InvalidRecordError, match="names a directory"):
        open_store(url)


async def test_durability_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecordError, match="'disk' or 'process'"):
        open_store(f"file://{tmp_path}", durability="memory")
    async with open_store(f"file://{tmp_path}?durability=process") as store:
        assert store.durability is Durability.PROCESS
    async with open_store(f"file://{tmp_path}") as store:
        assert store.durability is Durability.DISK


@pytest.mark.parametrize(("durability", "synced"), [("disk", True), ("process", False)])
async def test_what_is_acknowledged_was_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str, synced: bool
) -> None:
    async with open_store(f"file://{tmp_path}/store", durability=durability) as store:
        await store.append(turn())
        logs: list[tuple[str, int]] = []
        sync = Handle.sync

        def note(handle: Handle) -> None:
            sync(handle)
            logs.append((handle.path.name, handle.size()))

        monkeypatch.setattr(Handle, "sync", note)
        await store.append(turn(1))
        size = (tmp_path / "store" / "sessions" / "s" / "log-1.jsonl").stat().st_size
        assert logs == ([("log-1.jsonl", size)] if synced else [])


# the schema


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"schema_version":3,"min_reader":1,"min_writer":2}')
    with pytest.raises(SchemaTooNewError) as caught:
        await open_store(f"file://{tmp_path}").open()
    assert (caught.value.found, caught.value.known) == (2, 1)
    (tmp_path / "store.json").write_text('{"schema_version":3,"min_reader":1,"min_writer":1}')
    async with open_store(f"file://{tmp_path}") as store:
        assert await store.schema_version() == 3


@pytest.mark.parametrize("text", ["", "[]", '{"name":"npm"}'])
async def test_another_programs_directory_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(DriverError, match="another program's"):
        await open_store(f"file://{tmp_path}").open()
    assert (tmp_path / "store.json").read_text() == text


# names

HOSTILE = [
    "../x", "..", ".", "...", "/", "/etc/passwd", "a/../../b", "~", "~root", "-rf", "CON", "con", "nul", "NUL.txt",
    "com1", "a", "A", "aA", "Aa", "a ", "a.", " ", "a\\b", "C:\\x", "%", "%2e", "%2E", "%-", "*", "?", "$HOME", "`id`",
    "\u00e9", "e\u0301", "\u212b", "\u00c5", "\u0130", "i\u0307", "\u2028", "\u202e", "\ufeff", "x" * 255, "x" * 256,
    "X" * 256, "\U0001f642" * 64, "\U0001f642" * 63, "log-1.jsonl", "head.json", "sessions", "namespaces", "lock",
    "store.json", "$(id)",
]  # fmt: skip


def test_names_are_safe_and_apart() -> None:
    names = [directory_name(text) for text in ["", *HOSTILE]]
    assert len({name.casefold() for name in names}) == len(HOSTILE) + 1
    for name in names:
        assert 0 < len(name) <= 200 and name.isascii() and name.isprintable()
        assert not set(name) & set("/\\.:*?\"<>| ~$`'") and name == name.lower() and name[0] != "-"
        assert name not in ("con", "nul", "com1")


async def test_hostile_ids_stay_inside(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    driver = JSONFileDriver(parse_url(f"file://{inside}"), durability="process")
    await driver.open()
    for number, name in enumerate(HOSTILE):
        for namespace in ("", name):
            await rows.send(driver, rows.put(f"r{number}", 1), session_id=name, namespace=namespace)
    for number, name in enumerate(HOSTILE):
        for namespace in ("", name):
            row = await driver.session(rows.key(name, namespace), state=False)
            assert row is not None and row.head.key == rows.key(name, namespace)
            assert [run.run_id for run in await rows.all_runs(driver, rows.key(name, namespace))] == [f"r{number}"]
    listed = await rows.all_sessions(driver, limit=7)
    assert sorted(row.head.key.session_id for row in listed) == sorted(HOSTILE)
    await driver.close()
    assert os.listdir(tmp_path) == ["inside"]


# lookups


def test_a_lookup_finds_what_was_added(tmp_path: Path) -> None:
    lookup = Lookup(Handle(tmp_path / "lookup", create=True))
    count = 5_000
    for number in range(count):
        lookup.add(id_hash("r", f"{number // 2}"), number, number)
        if number == count // 2:
            # what was added twice is there once
            lookup.add(id_hash("r", f"{number // 2}"), number, number)
    for number in range(count // 2):
        assert sorted(lookup.find(id_hash("r", f"{number}"), count)) == [2 * number, 2 * number + 1]
    assert list(lookup.find(id_hash("m", "1"), count)) == list(lookup.find(id_hash("r", "1"), 0)) == []
    assert Lookup.size(count) == (tmp_path / "lookup").stat().st_size


def test_a_lookup_keeps_many_of_one_id(tmp_path: Path) -> None:
    lookup = Lookup(Handle(tmp_path / "lookup", create=True))
    for number in range(600):
        lookup.add(id_hash("m", "same"), number, number)
    assert sorted(lookup.find(id_hash("m", "same"), 600)) == list(range(600))


# costs


async def test_an_append_costs_the_same_however_long_the_session_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs: list[int] = []
    read, write = Handle.read, Handle.write

    def counted_read(handle: Handle, offset: int, size: int) -> bytes:
        data = read(handle, offset, size)
        costs.append(len(data))
        return data

    def counted_write(handle: Handle, offset: int, data: bytes) -> None:
        costs.append(len(data))
        write(handle, offset, data)

    monkeypatch.setattr(Handle, "read", counted_read)
    monkeypatch.setattr(Handle, "write", counted_write)
    sums = []
    async with open_store(f"file://{tmp_path}/store", durability="process") as store:
        for number in range(2_000):
            costs.clear()
            await store.append(turn(number))
            sums.append((sum(costs), len(costs)))
    early, late = sorted(sums[50:150]), sorted(sums[-100:])
    # a table more is looked into each time the session doubles
    assert late[50][0] < 1.5 * early[50][0] and late[50][1] <= early[50][1] + 6
    assert late[-1][0] < 2 * early[50][0]


async def test_a_page_reads_little_more_than_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_store(f"file://{tmp_path}/store", durability="process") as store:
        for first in range(0, 1_000, 100):
            await store.append([turn(number, size=1_000) for number in range(first, first + 100)])
        sizes: list[int] = []
        read = Handle.read

        def counted(handle: Handle, offset: int, size: int) -> bytes:
            sizes.append(size)
            return read(handle, offset, size)

        monkeypatch.setattr(Handle, "read", counted)
        for ranges, reverse in ((((1, LAST),), True), (((700, 2_000),), False), (((1, 10),), False)):
            sizes.clear()
            page = await store._context.driver.messages(MessageQuery(rows.key(), ranges, 500, 10_000, reverse))
            assert 9 <= len(page.rows) <= 10
            assert sum(sizes) < 60_000 and len(sizes) < 40


async def test_a_walk_needs_the_memory_of_its_pages(tmp_path: Path) -> None:
    async with open_store(f"file://{tmp_path}/store", durability="process") as store:
        for first in range(0, 10_000, 500):
            await store.append([turn(number, size=500) for number in range(first, first + 500)])
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            assert len({one.position async for one in store.messages("s") if one.position % 100 == 0}) == 200  # type: ignore[operator]
            assert tracemalloc.get_traced_memory()[1] - before < 5_000_000
        finally:
            tracemalloc.stop()


# large fields


async def test_a_large_state_is_a_file_of_which_the_newest_stays(tmp_path: Path) -> None:
    large = [{"text": letter * 50_000} for letter in "abc"]
    place = tmp_path / "store" / "sessions" / "s"

    def beside() -> list[str]:
        return sorted(path.name for path in place.iterdir() if path.name.startswith(("state", "session")))

    async with open_store(f"file://{tmp_path}/store") as store:
        for number, state in enumerate(large):
            await store.append(turn(number), state=state)
        assert beside() == ["state-1.3.json"] and json.loads((place / "state-1.3.json").read_text()) == large[-1]
        log = (place / "log-1.jsonl").stat().st_size
        assert log < 10_000
    async with open_store(f"file://{tmp_path}/store") as store:
        await store.update_session("s", change={"metadata": {"k": "x" * 50_000}})
        assert beside() == ["session-1.4.json", "state-1.3.json"]
        (listed,) = await store.sessions().collect()
        assert listed.metadata == {"k": "x" * 50_000}
        session = await store.get_session("s")
        assert session is not None and session.state == large[-1] and session.metadata == listed.metadata
        await store.append(turn(7), state={"text": ""})
        assert beside() == ["session-1.5.json"]
        kept = (place / "session-1.5.json").read_bytes()
        (place / "session-1.5.json").unlink()
        with pytest.raises(DecodeError, match=r"files of session 's' are missing"):
            await store.get_session("s")
        (place / "session-1.5.json").write_bytes(kept)
        await store.delete_session("s", soft=False)
        assert beside() == []


async def test_a_session_is_sealed_and_made_again_in_one_group(tmp_path: Path) -> None:
    place = tmp_path / "sessions" / "s"
    driver = JSONFileDriver(parse_url(f"file://{tmp_path}"))
    await driver.open()
    await rows.send(driver, rows.put("r1", 3))
    sealed, made = await rows.send_group(
        driver, [rows.commit(Seal()), rows.commit(rows.put("r1", 1), must_create=True)]
    )
    assert isinstance(sealed, Committed) and isinstance(made, Committed) and not made.replayed
    before = await rows.dump(driver)
    assert [row.position for row in before.messages] == [1]
    await driver.close()
    assert sorted(path.name for path in place.glob("log-*")) == ["log-2.jsonl"]
    await driver.open()
    assert await rows.dump(driver) == before
    assert os.listdir(tmp_path / "erasing") == []
    await driver.close()


# processes


WRITER = """
    import anyio, sys
    from sessionledger import *

    async def main(url, name):
        async with open_store(url, durability="process") as store:
            for number in range(60):
                await store.append(Run(run_id=f"{name}{number}", session_id="s", messages=[
                    Message(role="user", content=f"{name}{number}"), Message(role="assistant", content="!")]))
                await store.update_session("s", change=count)

    def count(session):
        return session.__replace__(state={"n": session.state.get("n", 0) + 1}) if hasattr(session, "__replace__") else (
            __import__("msgspec").structs.replace(session, state={"n": session.state.get("n", 0) + 1}))

    anyio.run(main, *sys.argv[1:])
"""


def python(code: str, *arguments: str, **options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)  # type: ignore[call-overload, no-any-return]


async def test_processes_write_one_session_densely(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    writers = [python(WRITER, url, name) for name in "abc"]
    async with open_store(url) as store:
        while any(writer.poll() is None for writer in writers):
            found = await store.messages("s").collect()
            assert [one.position for one in found] == list(range(1, len(found) + 1)) and len(found) % 2 == 0
            assert len(await store.sessions().collect()) <= 1
            await anyio.sleep(0.01)
        for writer in writers:
            assert writer.wait() == 0, writer.communicate()[0]
            writer.communicate()
        runs = await store.runs("s", include_messages=True).collect()
        assert [run.seq for run in runs] == list(range(1, 181))
        assert sorted(run.run_id or "" for run in runs) == sorted(f"{name}{n}" for name in "abc" for n in range(60))
        assert all(run.messages[0].content == run.run_id for run in runs)
        session = await store.get_session("s")
        assert session is not None and session.state == {"n": 180} and session.version == 360


async def test_a_locked_session_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_store(f"file://{tmp_path}/store") as store:
        await store.append(turn())
        path = tmp_path / "store" / "sessions" / "s" / "lock"
        done = []

        async def append() -> None:
            await store.append(turn(1))
            done.append(1)

        async with anyio.create_task_group() as group:
            with locked(path):
                group.start_soon(append)
                await anyio.sleep(0.2)
                await store.append(turn(2, session_id="other"))
                assert not done
                assert len(await store.messages("s").collect()) == 2
        assert done
        monkeypatch.setattr(driver, "_PATIENCE", 0.05)
        monkeypatch.setattr(driver, "_PATIENCE_OF_A_GROUP", 0.05)
        one, other = rows.commit(rows.put("r9", 1)), rows.commit(rows.put("r9", 1), session_id="other")
        with locked(path):
            with pytest.raises(UnavailableError, match="try again"):
                await store._context.driver.commit([one])
            refused, committed = await store._context.driver.commit([one, other])
            assert isinstance(refused, UnavailableError) and isinstance(committed, Committed)
        assert (await store.append(turn(3))).run_seq == 3


# errors


@pytest.mark.parametrize("number", sorted(errno.errorcode), ids=lambda number: errno.errorcode[number])
def test_every_error_of_the_system_is_mapped(number: int) -> None:
    error = error_of(OSError(number, os.strerror(number), "/x"))
    assert isinstance(error, DriverError) and error.driver == "jsonfile" and ": " in str(error)
    assert isinstance(error, StorageFullError) == (errno.errorcode[number] in ("ENOSPC", "EDQUOT", "EFBIG"))


@contextmanager
def limited(kind: int, soft: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


async def test_a_full_disk_takes_nothing_and_goes_on_with_room(tmp_path: Path) -> None:
    place = tmp_path / "store" / "sessions" / "s"
    async with open_store(f"file://{tmp_path}/store") as store:
        for number in range(3):
            await store.append(turn(number, size=10_000))
        await store.append(Run(run_id="open", session_id="s", status="running"))
        before = await rows.dump(store._context.driver)
        size = (place / "log-1.jsonl").stat().st_size
        # full at each place of what would be written
        for room in (0, 1, 300, 5_000, 20_000):
            with limited(resource.RLIMIT_FSIZE, size + room):
                with pytest.raises(StorageFullError, match="nothing was stored"):
                    await store.append(turn(9, size=20_000))
                with pytest.raises(StorageFullError):
                    await store.append(turn(9, size=200_000, session_id="new"))
                if not room:
                    with pytest.raises(StorageFullError):
                        await store.update_run("s", run_id="open", status="completed")
            assert (place / "log-1.jsonl").stat().st_size == size
            assert await rows.dump(store._context.driver) == before
            assert await store.get_session("new") is None
        await store.update_run("s", run_id="open", status="completed")
        assert not (await store.append(turn(9, size=20_000))).replayed
        assert not (await store.append(turn(9, session_id="new"))).replayed
    async with open_store(f"file://{tmp_path}/store") as store:
        assert [run.status for run in await store.runs("s").collect()] == ["completed"] * 5


async def test_a_disk_that_is_full_for_the_index_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_store(f"file://{tmp_path}/store") as store:
        await store.append(Run(run_id="open", session_id="s", status="running"))
        driver = store._context.driver
        before = await rows.dump(driver)
        write = Handle.write
        # what is there already can be written over: the index alone has to grow
        for name in ("index-1", "lookup-1", "head.json"):

            def fail(handle: Handle, offset: int, data: bytes, name: str = name) -> None:
                if handle.path.name == name and (offset == handle.size() or name != "index-1"):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(handle.path))
                write(handle, offset, data)

            with monkeypatch.context() as patched:
                patched.setattr(Handle, "write", fail)
                for changes in ([rows.put("r1", 2)], [rows.patch("open", 1)], [rows.put("open", 1, revision=2)]):
                    (outcome,) = await driver.commit([rows.commit(*changes)])
                    # a lookup is only written to where there is a new id
                    assert isinstance(outcome, StorageFullError) or name == "lookup-1"
                    if name == "lookup-1":
                        break
            assert await rows.dump(driver) == before, name
        await rows.send(driver, rows.put("open", 1, revision=2, status="running"))
        await rows.send(driver, rows.patch("open", 1, revision=2, start=1))


async def test_a_file_in_the_directorys_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for url in (f"file://{tmp_path}/file", f"file://{tmp_path}/file/below"):
        with pytest.raises(DriverError, match="there is a file where a directory should be"):
            await open_store(url).open()


async def test_too_many_open_files_are_told_and_survived(tmp_path: Path) -> None:
    async with open_store(f"file://{tmp_path}/store", durability="process") as store:
        for number in range(60):
            await store.append(turn(number, session_id=f"s{number}"))
        with limited(resource.RLIMIT_NOFILE, max(map(int, os.listdir("/proc/self/fd"))) + 1):
            # files that were kept open only to be used again make room
            for number in range(60):
                assert len(await store.messages(f"s{number}").collect()) == 2
                await store.append(turn(100, session_id=f"s{number}"))
            store._context.driver._directory.forget_files()  # type: ignore[attr-defined]
            with all_files_taken(), pytest.raises(UnavailableError, match="too many files"):
                await store.messages("s0").collect()
            assert len(await store.messages("s0").collect()) == 4


@contextmanager
def all_files_taken() -> Iterator[None]:
    held: list[int] = []
    with suppress(OSError):
        while True:
            held.append(os.dup(0))
    try:
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


READER = """
    import anyio, anyio.to_thread, os, sys
    from sessionledger import *
    from sessionledger.drivers.jsonfile import JSONFileDriver

    async def main(url):
        store = open_store(url)
        await anyio.to_thread.run_sync(int)
        # what is imported later than this may not be readable
        if os.geteuid() == 0:
            os.setegid(65534)
            os.seteuid(65534)
        async with store:
            assert [one.content async for one in store.messages("s")] == ["0 xxxxxxxx"] * 2
            assert len(await store.sessions().collect()) == 1
            try:
                await store.append(Run(session_id="s"))
            except DriverError as error:
                assert "a right is missing" in str(error), error
            else:
                raise SystemExit("written without the right to")

    anyio.run(main, *sys.argv[1:])
"""


async def test_whoever_may_not_write_reads(tmp_path: Path) -> None:
    async with open_store(f"file://{tmp_path}/store") as store:
        await store.append(turn())
    readable = [tmp_path / "store", *(tmp_path / "store").rglob("*")]
    for path in (*readable, *list(tmp_path.parents)[:3], tmp_path):
        path.chmod(0o555 if path.is_dir() and path in readable else 0o755 if path.is_dir() else 0o444)
    try:
        reading = python(READER, f"file://{tmp_path}/store")
        output, _ = reading.communicate(timeout=60)
        assert reading.returncode == 0, output.decode()
    finally:
        for path in readable:
            path.chmod(0o755)


# for people


async def test_whatever_its_checksum_is_a_head_is_json(tmp_path: Path) -> None:
    async with open_store(f"file://{tmp_path}/store?durability=process") as store:
        for number in range(60):
            await store.append(Run(run_id=f"r{number}", session_id="s"))
            head = json.loads((tmp_path / "store" / "sessions" / "s" / "head.json").read_text())
            assert head["head"]["run_count"] == number + 1


async def test_the_commands_of_the_page_print_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By jq where there is one, else by the same reading of the same lines."""
    page = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    commands = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    printed = re.search(r"print\n\n```text\n(.*?)```", page, re.DOTALL)
    assert example and commands and printed
    monkeypatch.chdir(tmp_path)
    code = compile(example[1], "files.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    await eval(code, {})
    assert read_as_jq_does(tmp_path / "agents" / "sessions" / "s1") == printed[1]
    if shutil.which("jq") is not None:
        done = await anyio.run_process(["sh", "-ec", commands[1]], cwd=tmp_path)
        assert done.stdout.decode() == printed[1]


def read_as_jq_does(place: Path) -> str:
    lines = [json.loads(line) for line in (place / "log-1.jsonl").read_bytes().splitlines()]
    told = [
        f"{line['position']} {line['body']['role']}: {line['body'].get('content', 'null')}"
        for line in lines
        if line["type"] == "message"
    ]
    told += [f"{line['run_id']} {line['header']['status']}" for line in lines if line["type"] == "run"]
    head = json.loads((place / "head.json").read_text())["head"]
    told.append(f"{head['user_id']} {head['run_count']} {head['message_count']}")
    return "".join(f"{line}\n" for line in told)


async def test_whatever_is_stored_is_a_line_of_json(tmp_path: Path) -> None:
    bodies: list[str | bytes] = [
        '{"n":1.0,"big":123456789012345678901234567890,"e":1e400}', '{ "a" : [ 1 , 2 ] }', '{"a":\n1}', '"\\u0000"',
        "no JSON", "", " {}", '{"a":1}{"b":2}', '{"a":1,"a":2}', "{'a':1}", b"", b"\x00\xff\n", '"\u2028\x7f"',
    ]  # fmt: skip
    driver = JSONFileDriver(parse_url(f"file://{tmp_path}"), durability="process")
    await driver.open()
    await rows.send(driver, rows.put("r", [rows.message(body=body, index=n) for n, body in enumerate(bodies)]))
    assert [row.body for row in await rows.all_messages(driver)] == bodies
    await driver.close()
    lines = (tmp_path / "sessions" / "s" / "log-1.jsonl").read_bytes().split(b"\n")
    messages = [json.loads(line) for line in lines[:-1] if b'"message"' in line]
    assert ["body" in line for line in messages] == [
        True, True, False, True, False, False, False, False, True, False, False, False, True,
    ]  # fmt: skip
    (tmp_path / "sessions" / "s" / "index-1").unlink()
    await driver.open()
    assert [row.body for row in await rows.all_messages(driver)] == bodies
    await driver.close()
