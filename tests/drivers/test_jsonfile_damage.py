"""What a crash, a power cut or a disk leaves of a session's files."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from zlib import crc32

import anyio
import pytest

from sessionledger import DecodeError, Message, Run, open_store
from sessionledger.drivers.jsonfile import JSONFileDriver, files, session
from sessionledger.drivers.jsonfile.index import id_hash
from sessionledger.protocol.rows import Committed, Hide, MessageQuery, Seal
from sessionledger.registry import parse_url
from sessionledger.testing import rows
from sessionledger.testing.rows import Dump, commit, dump, patch, patch_session, put, send, switch

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def driver_at(path: Path) -> JSONFileDriver:
    return JSONFileDriver(parse_url(f"file://{path}"), durability="process")


async def held(path: Path) -> Dump:
    """All that a process that comes anew finds."""
    driver = driver_at(path)
    await driver.open()
    try:
        return await dump(driver)
    finally:
        await driver.close()


async def write_some(path: Path, *, runs: int = 3) -> None:
    driver = driver_at(path)
    await driver.open()
    for number in range(runs):
        named = [rows.message(f"{number}", message_id=f"m{number}")]
        await send(driver, put(f"r{number}", named, status="running"), operation_id=f"put {number}")
        await send(driver, patch(f"r{number}", 1, parts={"output": f"{number}"}, start=1), operation_id=f"o{number}")
    await send(driver, Hide([((1, 1), rows.ALL)]), switch("w", "b"), patch_session(name="n"), operation_id="hide")
    await driver.close()


def log_of(path: Path, name: str = "s", incarnation: int = 1) -> Path:
    return path / "sessions" / name / f"log-{incarnation}.jsonl"


def head_of(path: Path) -> Path:
    return path / "sessions" / "s" / "head.json"


def lines_of(log: Path) -> list[bytes]:
    return log.read_bytes().splitlines(keepends=True)


def kinds(log: Path) -> list[str]:
    return [json.loads(line)["type"] for line in lines_of(log)]


@pytest.mark.parametrize("published", [True, False], ids=["published", "unpublished"])
async def test_a_torn_commit_is_dropped_at_each_byte(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, published: bool
) -> None:
    """`published`: the disk lost what had been acknowledged. Else the writer died before it could say so; then whoever
    has looked saw nothing of it, also where it is whole, and that stays so.
    """
    path = tmp_path / "store"
    await write_some(path, runs=2)
    before, head, whole = await held(path), head_of(path).read_bytes(), log_of(path).read_bytes()
    driver = driver_at(path)
    await driver.open()
    last = commit(put("last", 1))
    await send(driver, *last.changes)
    after = await dump(driver)
    await driver.close()
    text = log_of(path).read_bytes()
    if not published:
        head_of(path).write_bytes(head)
    saved = head_of(path).read_bytes()
    assert text.startswith(whole) and text.endswith(b"\n")
    for end in range(len(whole), len(text) + 1):
        log_of(path).write_bytes(text[:end])
        head_of(path).write_bytes(saved)
        caplog.clear()
        there = published and end == len(text)
        assert await held(path) == (after if there else before), f"cut at {end}"
        driver = driver_at(path)
        await driver.open()
        again = await send(driver, *last.changes, operation_id=last.operation_id)
        assert again.replayed == there, f"cut at {end}"
        assert (again.receipts[0].run_seq, again.receipts[0].first_position) == (3, 5)
        assert [row.position for row in (await dump(driver)).messages] == [1, 2, 3, 4, 5]
        await driver.close()
        if len(whole) < end and not there:
            assert "torn commit" in caplog.text, f"cut at {end}"
        assert all(map(json.loads, lines_of(log_of(path))))


async def test_the_first_commit_of_a_session_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "store"
    driver = driver_at(path)
    await driver.open()
    await send(driver, put("r1", 2))
    await driver.close()
    text = log_of(path).read_bytes()
    for end in (0, 1, len(text) // 2, len(text) - 1):
        shutil.rmtree(path / "sessions" / "s")
        (path / "sessions" / "s").mkdir()
        log_of(path).write_bytes(text[:end])
        assert (await held(path)).session is None
        driver = driver_at(path)
        await driver.open()
        assert not (await send(driver, put("r1", 2))).replayed
        await driver.close()


async def test_the_first_commit_of_a_new_incarnation_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "store"
    await write_some(path)
    driver = driver_at(path)
    await driver.open()
    sealed = await send(driver, Seal())
    await driver.close()
    log_of(path, incarnation=2).write_bytes(lines_of(log_of(path))[0])
    head_of(path).unlink()
    found = (await held(path)).session
    assert found is not None and found.head == sealed.head
    assert not log_of(path, incarnation=2).exists()


@pytest.mark.parametrize("lost", ["head.json", "index-1", "lookup-1", "head.json index-1 lookup-1"])
@pytest.mark.parametrize("how", ["gone", "empty", "zeros"])
async def test_what_is_derived_is_made_again(
    tmp_path: Path, lost: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    await write_some(path)
    before = await held(path)
    for name in lost.split():
        file = head_of(path).with_name(name)
        size = file.stat().st_size
        file.unlink()
        if how != "gone":
            file.write_bytes(bytes(size if how == "zeros" else 0))
    if how == "zeros":
        # as after a power cut, which is where zeros come from
        start_the_machine_again(monkeypatch)
    assert await held(path) == before
    driver = driver_at(path)
    await driver.open()
    assert (await send(driver, put("r2", [], status="running"), operation_id="x")).replayed
    assert (await send(driver, patch("r2", 1, parts={}, start=1), operation_id="o2")).replayed
    assert len(await rows.all_messages(driver, message_id="m1")) == 1
    await driver.close()


async def test_what_a_commit_that_was_taken_back_left_hides_no_message(tmp_path: Path) -> None:
    """An entry of the lookup outlives its record; another record is at that number then, and may fill a page."""
    driver = driver_at(tmp_path / "store")
    await driver.open()
    await send(driver, put("r1", [rows.message("a", message_id="wanted")]))
    view = driver._directory.session(rows.key()).view()
    assert view is not None
    view.files.lookup.add(id_hash("m", "wanted"), view.snapshot.records + 1, view.snapshot.lookups)
    await send(driver, put("r2", [rows.message("x" * 3000, message_id="large")]))
    for reverse in (False, True):
        query = MessageQuery(rows.key(), (rows.ALL,), 10, 2000, reverse, "wanted")
        page = await driver.messages(query)
        assert ([row.position for row in page.rows], page.more) == ([1], False)
    await driver.close()


def start_the_machine_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_BOOT_ID", "another")


@pytest.mark.parametrize("text", [None, b"", bytes(512)], ids=["gone", "empty", "zeros"])
async def test_a_session_whose_head_is_lost_is_listed(tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "store"
    await write_some(path)
    if text is None:
        head_of(path).unlink()
    else:
        head_of(path).write_bytes(text)
    (path / "sessions" / "empty").mkdir()
    driver = driver_at(path)
    await driver.open()
    found = await rows.find_all_runs(driver, run_id="r1")
    assert [row.head.key for row in await rows.all_sessions(driver)] == [head.key for head, _ in found] == [rows.key()]
    await driver.close()


@pytest.mark.parametrize("commits", [1, 3, 7, 1024])
async def test_a_power_cut_takes_of_the_index_what_was_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    """Old links and missing ids in it would be a run without its last messages, and a copy of a run."""
    monkeypatch.setattr(session, "_CHECKPOINT_COMMITS", commits)
    path = tmp_path / "store"
    driver = JSONFileDriver(parse_url(f"file://{path}"))
    await driver.open()
    saved = tmp_path / "saved"
    for number in range(10):
        await send(driver, put(f"r{number}", 1, status="running"))
        await send(driver, patch(f"r{number // 2}", 1, expected_patch=number % 2, start=1))
        if number == 4:
            shutil.copytree(path, saved)
    expected = await dump(driver)
    await driver.close()
    # the log was synced; head and index are as they were, filled up with zeros
    for name in ("head.json", "index-1", "lookup-1"):
        new, old = head_of(path).with_name(name), head_of(saved).with_name(name)
        new.write_bytes(old.read_bytes().ljust(new.stat().st_size, b"\0"))
    checkpoint = head_of(path).with_name("checkpoint.json")
    assert checkpoint.exists() == (commits < 1024)
    if checkpoint.exists():
        # what it vouches for is on the disk
        shutil.copy(head_of(saved).with_name("checkpoint.json"), checkpoint)
    start_the_machine_again(monkeypatch)
    assert await held(path) == expected
    driver = driver_at(path)
    await driver.open()
    for number in range(10):
        assert (await send(driver, put(f"r{number}", 1, status="running"))).replayed
    listed = await rows.all_sessions(driver)
    assert [row.head.version for row in listed] == [20]
    await driver.close()


async def test_damage_in_the_middle_is_told_and_nothing_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "store"
    await write_some(path)
    log = log_of(path)
    lines = lines_of(log)
    torn = next(number for number, line in enumerate(lines) if b'"message"' in line)
    lines[torn] = lines[torn][: len(lines[torn]) // 2] + b"\n"
    damaged = b"".join(lines)
    for missing in ("head.json", None):
        log.write_bytes(damaged)
        if missing is not None:
            head_of(path).unlink()
        with pytest.raises(DecodeError, match=r"session 's' is damaged behind byte 0 of .*log-1\.jsonl") as caught:
            await held(path)
        assert caught.value.session_id == "s"
        assert log.read_bytes() == damaged
        driver = driver_at(path)
        await driver.open()
        outcome, other = await driver.commit([commit(put("x", 1)), commit(put("x", 1), session_id="other")])
        assert isinstance(outcome, DecodeError) and isinstance(other, Committed)
        await driver.close()
    assert log.read_bytes() == damaged


async def test_a_log_that_contradicts_itself_is_told(tmp_path: Path) -> None:
    """Each of its commits is whole, and one of them updates a run that is not there."""
    path = tmp_path / "store"
    await write_some(path, runs=1)
    texts = [text for text in lines_of(log_of(path)) if b'"type":"run"' not in text and b'"index":0' not in text]
    mended: list[bytes] = []
    commit_of: list[bytes] = []
    for text in texts:
        if b'"type":"commit"' in text:
            line = {**json.loads(text), "size": sum(map(len, commit_of)), "crc": crc32(b"".join(commit_of))}
            mended += [*commit_of, json.dumps(line).encode() + b"\n"]
            commit_of = []
        else:
            commit_of.append(text)
    log_of(path).write_bytes(b"".join(mended))
    head_of(path).unlink()
    with pytest.raises(DecodeError, match="contradicts itself"):
        await held(path)
    driver = driver_at(path)
    await driver.open()
    (outcome,) = await driver.commit([commit(put("x", 1))])
    assert isinstance(outcome, DecodeError)
    await driver.close()


async def test_damage_of_the_same_size_is_told_by_its_place(tmp_path: Path) -> None:
    async with open_store(f"file://{tmp_path}/store") as store:
        for number in range(3):
            await store.append(Run(session_id="s", messages=[Message(role="user", content=f"text {number}")]))
        log = log_of(tmp_path / "store")
        log.write_bytes(log.read_bytes().replace(b'"text 1"', b'"text\0 "'))
        with pytest.raises(DecodeError, match=r"session 's' is damaged at byte \d+ of log-1\.jsonl") as caught:
            await store.messages("s").collect()
        assert (caught.value.session_id, caught.value.position) == ("s", 2)
        assert [one.content for one in await store.messages("s", last=1).collect()] == ["text 2"]


async def test_a_moved_session_is_told(tmp_path: Path) -> None:
    path = tmp_path / "store"
    await write_some(path)
    shutil.copytree(path / "sessions" / "s", path / "sessions" / "t")
    driver = driver_at(path)
    await driver.open()
    with pytest.raises(DecodeError, match="move it back"):
        await driver.session(rows.key("t"), state=False)
    head_of(path).with_name("head.json").parent.parent.joinpath("t", "head.json").unlink()
    with pytest.raises(DecodeError, match="move it back"):
        await driver.session(rows.key("t"), state=False)
    await driver.close()


async def test_an_erasure_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    """After the log was replaced, and before anything else."""
    path = tmp_path / "store"
    await write_some(path)
    driver = driver_at(path)
    await driver.open()
    sealed = await send(driver, Seal())
    await driver.close()
    saved = tmp_path / "saved"
    shutil.copytree(path, saved)
    driver = driver_at(path)
    await driver.open()
    await driver.erase(rows.key(), limit=1)
    await driver.close()
    shutil.copy(log_of(path), log_of(saved))
    found = await held(saved)
    assert found.session is not None and found.session.head == sealed.head
    assert kinds(log_of(saved)) == ["begin", "session", "state", "commit"]


def test_what_is_logged_names_no_content(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = tmp_path / "store"
    anyio.run(write_some, path)
    with log_of(path).open("ab") as log:
        log.write(b'{"type":"message","secret":')

    async def write() -> None:
        driver = driver_at(path)
        await driver.open()
        await send(driver, put("new", 1))
        await driver.close()

    with caplog.at_level(logging.WARNING):
        anyio.run(write)
    assert [record.name for record in caplog.records] == ["sessionledger.jsonfile"]
    assert "secret" not in caplog.text and "27 bytes" in caplog.text
