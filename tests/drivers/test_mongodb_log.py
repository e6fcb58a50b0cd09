"""What only MongoDB has: a log and a register beside it, shards, documents of limited size, servers that take over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import anyio
import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.monitoring import CommandListener

from sessionledger.drivers.mongodb import MongoDriver
from sessionledger.errors import DecodeError, OutcomeUnknownError, UnavailableError
from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import (
    LAST,
    Change,
    ForkLink,
    HiddenQuery,
    Hide,
    MessageQuery,
    Reason,
    Refused,
    RunQuery,
    Seal,
    SessionKey,
    SwitchQuery,
)
from sessionledger.registry import parse_url
from sessionledger.store import Store
from sessionledger.testing.builders import run, texts, turn
from sessionledger.testing.rows import (
    ALL,
    MANY_BYTES,
    all_messages,
    all_runs,
    all_sessions,
    commit,
    dump,
    find_all_runs,
    key,
    message,
    new_session,
    outcome_of,
    patch,
    patch_session,
    put,
    send,
    send_group,
    switch,
)
from sessionledger.testing.servers import MongoServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def url(mongo_server: MongoServer) -> Iterator[str]:
    url = mongo_server.fresh_url()
    yield url
    mongo_server.drop(url)


@pytest.fixture(params=["motor", "pymongo"])
async def driver(url: str, request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    driver = MongoDriver(parse_url(url), client=request.param)
    await driver.open()
    yield driver
    await driver.close()


@pytest.fixture
async def other(url: str) -> AsyncIterator[Driver]:
    driver = MongoDriver(parse_url(url), client="pymongo")
    await driver.open()
    yield driver
    await driver.close()


@pytest.fixture
def collections(url: str) -> Iterator[Mapping[str, Any]]:
    """Past the driver."""
    with MongoClient(url) as client:
        database = client.get_default_database()
        yield {name: database[f"sessionledger_{name}"] for name in ("commits", "chunks", "lasting_runs")}


async def erase(driver: Driver) -> None:
    while await driver.erase(key(), limit=10):
        pass


# runs that are no plain ones


PLAIN = ("completed", "running")


async def test_runs_that_are_not_plain_are_found_among_many(driver: Driver, collections: Mapping[str, Any]) -> None:
    for number in range(1, 31):
        await send(driver, put(f"r{number}", status="failed" if number % 10 == 0 else "completed"))
    page = await driver.runs(RunQuery(key(), 2, MANY_BYTES, bodies=False, plain=PLAIN))
    assert [row.seq for row in page.rows] == [10, 20] and page.more
    page = await driver.runs(RunQuery(key(), 2, MANY_BYTES, bodies=False, first_seq=11, last_seq=29, plain=PLAIN))
    assert [row.seq for row in page.rows] == [20] and not page.more
    page = await driver.runs(RunQuery(key(), 1, MANY_BYTES, bodies=False, last_seq=9, plain=PLAIN))
    assert list(page.rows) == [] and not page.more
    assert collections["commits"].count_documents({"z": {"$exists": True}}) == 3


async def test_a_run_that_was_stored_open_is_no_plain_one(driver: Driver) -> None:
    await send(driver, put("open", status="running"))
    await send(driver, put("plain"))
    await send(driver, patch("open", 1, status="completed"))
    await send(driver, put("child", parent_run_id="plain"))
    page = await driver.runs(RunQuery(key(), 10, MANY_BYTES, bodies=False, plain=PLAIN))
    assert [(row.run_id, row.patch) for row in page.rows] == [("open", 1), ("child", 0)]


# pages of messages


class Finds(CommandListener):
    """How many documents each query has brought."""

    def __init__(self) -> None:
        self.brought: list[int] = []

    def started(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...

    def succeeded(self, event: Any) -> None:
        if event.command_name in ("find", "getMore"):
            cursor = event.reply["cursor"]
            self.brought.append(len(cursor.get("firstBatch", cursor.get("nextBatch", ()))))


@pytest.fixture
async def counted(url: str) -> AsyncIterator[tuple[Driver, list[int]]]:
    finds = Finds()
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url, event_listeners=[finds])
    driver = MongoDriver(parse_url(url), client=client)
    await driver.open()
    for number in range(1, 41):
        await send(driver, put(f"r{number}", 2))
    yield driver, finds.brought
    await driver.close()
    await client.close()


def pages_of(first: int, limit: int) -> MessageQuery:
    return MessageQuery(key(), ((first, LAST),), limit, MANY_BYTES)


async def test_a_walk_reads_each_page_by_one_query(counted: tuple[Driver, list[int]]) -> None:
    driver, brought = counted
    brought.clear()
    for first in range(1, 81, 20):
        page = await driver.messages(pages_of(first, 20))
        assert [row.position for row in page.rows] == list(range(first, first + 20))
        assert page.head is not None and page.head.version == 40 and page.more == (first < 61)
    # the head is one more, and one more is looked at where a page ends
    assert len(brought) == 4 and sum(brought) <= 40 + 8


async def test_a_page_that_ends_inside_a_document_goes_on_there(counted: tuple[Driver, list[int]]) -> None:
    driver, brought = counted
    brought.clear()
    seen = []
    while len(seen) < 80:
        page = await driver.messages(pages_of(len(seen) + 1, 7))
        seen += [(row.position, row.run_seq, row.index) for row in page.rows]
    assert seen == [(place + 1, place // 2 + 1, place % 2) for place in range(80)]
    assert len(brought) == 12


async def test_a_page_is_that_of_the_log_behind_which_others_have_written(
    counted: tuple[Driver, list[int]], other: Driver
) -> None:
    driver, _ = counted
    await driver.messages(pages_of(1, 20))
    await send(other, put("r41", 2))
    page = await driver.messages(pages_of(61, 30))
    assert page.head is not None and page.head.message_count == 82
    assert [row.position for row in page.rows] == list(range(61, 83))
    await driver.messages(pages_of(1, 20))
    await send(other, Seal())
    await erase(other)
    page = await driver.messages(pages_of(21, 20))
    assert page.head is not None and page.head.erased and not page.rows


async def test_pages_of_a_session_that_was_made_again_are_its_own(
    counted: tuple[Driver, list[int]], other: Driver
) -> None:
    driver, _ = counted
    await driver.messages(pages_of(1, 20))
    await send(other, Seal())
    await send(other, put("again", 30), must_create=True)
    page = await driver.messages(pages_of(21, 20))
    assert page.head is not None and page.head.incarnation == 2
    assert [row.run_seq for row in page.rows] == [1] * 10


async def test_a_history_looks_for_runs_only_where_some_are_not_plain(url: str) -> None:
    finds = Finds()
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url, event_listeners=[finds])
    async with Store.on(MongoDriver(parse_url(url), client=client)) as store:
        for number in range(20):
            await store.append(run(f"r{number}", "a", "b"))
        finds.brought.clear()
        assert len(await store.history("s").collect()) == 40
        # the session, and a page
        assert len(finds.brought) == 2
        await store.append(run("failed", "c", status="failed"))
        finds.brought.clear()
        assert len(await store.history("s").collect()) == 40
        assert len(finds.brought) > 2
    await client.close()


async def test_large_messages_are_not_read_to_be_left_out(counted: tuple[Driver, list[int]]) -> None:
    driver, brought = counted
    for number in range(40):
        await send(driver, put(f"r{number}", [message("x" * 10_000)]), session_id="large")
    brought.clear()
    page = await driver.messages(MessageQuery(key("large"), (ALL,), 40, 50_000))
    assert len(page.rows) == 5 and page.more
    assert sum(brought) <= 10


async def test_a_page_ends_where_messages_are_larger_than_most(counted: tuple[Driver, list[int]]) -> None:
    driver, brought = counted
    for first in range(0, 300, 50):
        await send_group(driver, [commit(put(f"s{n}", [message("x")])) for n in range(first, first + 50)])
    for first in range(0, 250, 50):
        await send_group(driver, [commit(put(f"l{n}", [message("x" * 100_000)])) for n in range(first, first + 50)])
    await driver.messages(pages_of(1, 380))
    brought.clear()
    page = await driver.messages(MessageQuery(key(), ((381, LAST),), 500, 8_000_000))
    assert len(page.rows) == 80 and page.more
    # one answer of the server, and a head
    assert len(brought) == 2 and sum(brought) < 180


async def test_a_damaged_outline_is_told(driver: Driver, collections: Mapping[str, Any]) -> None:
    await send(driver, put("r1", 2))
    for text in ("[[", "[[],[1],[]]", None):
        collections["commits"].update_one({"n": 1}, {"$set": {"t": text}})
        with pytest.raises(DecodeError):
            await all_messages(driver)


# a process that knows an old log


async def test_an_old_head_does_not_bring_an_erased_session_back(
    driver: Driver, other: Driver, collections: Mapping[str, Any]
) -> None:
    await send(driver, put("r1"))
    await send(other, put("r2"))
    for number in range(3, 9):
        await send(driver, put(f"r{number}"))
    await send(driver, Seal())
    await erase(driver)
    # the other one would write number 3, which is free again
    outcome = await outcome_of(other, commit(put("late")))
    assert isinstance(outcome, Refused) and outcome.reason is Reason.ERASED
    assert [row["n"] for row in collections["commits"].find({"n": {"$gt": 0}})] == [9]


async def test_an_old_head_does_not_reach_another_incarnation(driver: Driver, other: Driver) -> None:
    await send(driver, put("r1"))
    await send(other, put("r2"))
    await send(driver, put("r3"))
    await send(driver, Seal())
    await erase(driver)
    await send(driver, put("new"), must_create=True)
    late = await send(other, put("late"))
    assert (late.head.incarnation, late.head.version, late.receipts[0].run_seq) == (2, 2, 2)
    refused = await outcome_of(other, commit(put("later"), incarnation=1))
    assert isinstance(refused, Refused) and refused.reason is Reason.INCARNATION
    assert [row.run_id for row in await all_runs(driver)] == ["new", "late"]


async def test_an_old_head_patches_nothing_that_was_erased(driver: Driver, other: Driver) -> None:
    await send(other, put("r1", status="running"))
    await send(driver, put("r2"))
    await send(driver, Seal())
    await erase(driver)
    outcome = await outcome_of(other, commit(patch("r1", 1), create=False))
    assert isinstance(outcome, Refused) and outcome.reason is Reason.ERASED
    assert await all_messages(other) == []


async def test_an_old_head_renames_nothing_that_was_erased(driver: Driver, other: Driver) -> None:
    await send(driver, put("r1"))
    await send(other, patch_session(name="a"))
    await send(driver, put("r2"))
    await send(driver, put("r3"))
    await send(driver, Seal())
    await erase(driver)
    for late in (commit(patch_session(name="late")), commit(Seal())):
        outcome = await outcome_of(other, late)
        assert isinstance(outcome, Refused) and outcome.reason is Reason.ERASED
    await send(driver, put("r1"), must_create=True)
    assert [row.header.name for row in await all_sessions(other)] == [None]


async def test_an_old_head_reads_what_is_there_now(driver: Driver, other: Driver) -> None:
    await send(other, put("r1"), create=new_session(name="old"))
    await send(driver, patch_session(name="new", state='{"a":1}'))
    await send(driver, put("r2", 3))
    assert await dump(other) == await dump(driver)
    await send(driver, Seal())
    await erase(driver)
    row = await other.session(key(), state=True)
    assert row is not None and row.head.erased


@pytest.mark.parametrize("late", [[put("r1")], [put("r1"), put("r2")], [switch("w", "x")]])
@pytest.mark.parametrize("sessions", [1, 2])
async def test_where_the_server_may_lose_the_last_writes_a_head_is_read_before_it_is_written_behind(
    url: str, other: Driver, collections: Mapping[str, Any], late: list[Change], sessions: int
) -> None:
    driver = MongoDriver(parse_url(url), durability="interval")
    await driver.open()
    names = [f"s{number}" for number in range(sessions)]
    for name in names:
        for number in range(5):
            await send(driver, put(f"r{number}"), session_id=name)
    collections["commits"].delete_many({"n": {"$gt": 1}})
    await send_group(driver, [commit(change, session_id=name) for name in names for change in late])
    for name in names:
        stored = await dump(driver, key(name))
        assert stored == await dump(other, key(name))
        row = await driver.session(key(name), state=False)
        assert row is not None and row.head.version == 1 + len(late)
    await driver.close()


# rows that are found by their ids


@pytest.mark.parametrize("erased", [False, True])
async def test_what_others_have_just_written_is_found_by_its_id(driver: Driver, other: Driver, erased: bool) -> None:
    await send(driver, put("r1"))
    if erased:
        await send(other, Seal())
        await erase(other)
    await send(other, put("r2", [message("x", message_id="m")]), must_create=erased)
    page = await driver.messages(MessageQuery(key(), (ALL,), 10, MANY_BYTES, message_id="m"))
    assert page.head is not None and page.head.incarnation == 1 + erased and len(page.rows) == 1
    await send(other, put("r3"))
    found = await driver.runs(RunQuery(key(), 10, MANY_BYTES, run_id="r3"))
    assert found.head is not None and found.head.message_count == 3 - erased
    assert [row.run_id for row in found.rows] == ["r3"]


async def test_an_id_is_looked_up_by_one_query(counted: tuple[Driver, list[int]]) -> None:
    driver, brought = counted
    await send(driver, put("named", [message("x", message_id="m")]))
    await send(driver, put("last"))
    brought.clear()
    assert (await driver.messages(MessageQuery(key(), (ALL,), 10, MANY_BYTES, message_id="m"))).rows
    assert (await driver.runs(RunQuery(key(), 10, MANY_BYTES, run_id="named"))).rows
    # each with the head
    assert brought == [2, 2]


async def test_an_answer_that_comes_late_is_no_head_any_more(
    driver: MongoDriver, other: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(driver, put("r1"))
    await driver.messages(pages_of(1, 10))
    stored, late, store = anyio.Event(), anyio.Event(), driver._writer._store

    async def slow(*given: Any, **options: Any) -> Any:
        done = await store(*given, **options)
        stored.set()
        await late.wait()
        return done

    monkeypatch.setattr(driver._writer, "_store", slow)
    async with anyio.create_task_group() as group:
        group.start_soon(send, driver, put("r2"))
        await stored.wait()
        await send(other, put("r3", [message("x", message_id="m")]))
        assert len((await driver.messages(pages_of(1, 10))).rows) == 3
        known = driver._writer._heads.guess(key())
        late.set()
    assert known is not None and driver._writer._heads.guess(key()) is known
    found = await driver.runs(RunQuery(key(), 10, MANY_BYTES, run_id="r3"))
    assert [row.run_id for row in found.rows] == ["r3"]


# what is deleted while it is read


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets something happen before or behind the first call of a method."""

    def install(when: str, owner: Any, name: str, happens: Callable[[], Awaitable[Any]]) -> None:
        call = getattr(owner, name)

        async def first(*given: Any, **options: Any) -> Any:
            monkeypatch.setattr(owner, name, call)
            if when == "before":
                await happens()
            result = await call(*given, **options)
            if when == "behind":
                await happens()
            return result

        monkeypatch.setattr(owner, name, first)

    return install


async def end(driver: Driver) -> None:
    await send(driver, Seal())
    while await driver.erase(key(), limit=1000):
        pass


async def test_a_large_state_is_replaced_while_it_is_read(
    driver: MongoDriver, other: Driver, once: Callable[..., None]
) -> None:
    await send(driver, put("r1"), create=new_session(state="x" * 300_000, body="x" * 300_000))
    newer = patch_session(state="y" * 300_000, body="y" * 300_000)
    once("before", driver._reader._blobs, "_read", lambda: send(other, newer))
    row = await driver.session(key(), state=True)
    assert row is not None and row.head.version == 2
    assert (row.state, row.header.body) == ("y" * 300_000, "y" * 300_000)
    once("before", driver._reader._blobs, "_read", lambda: send(other, patch_session(body="z" * 300_000)))
    assert [row.header.body for row in await all_sessions(driver)] == ["z" * 300_000]


async def test_a_large_run_is_deleted_while_it_is_read(
    driver: MongoDriver, other: Driver, once: Callable[..., None]
) -> None:
    rows = [message("x" * 1000, index=index, message_id="m") for index in range(1000)]
    large = put("r1", rows, body="y" * 300_000, agent_id="a")
    reads: list[Callable[[], Awaitable[Any]]] = [
        lambda: driver.messages(MessageQuery(key(), (ALL,), 1000, MANY_BYTES)),
        lambda: driver.messages(MessageQuery(key(), (ALL,), 1000, MANY_BYTES, message_id="m")),
        lambda: driver.runs(RunQuery(key(), 10, MANY_BYTES)),
        lambda: driver.runs(RunQuery(key(), 10, MANY_BYTES, run_id="r1")),
    ]
    for incarnation, read in enumerate(reads, 1):
        await send(driver, large, must_create=True)
        once("before", driver._reader._blobs, "_read", lambda: end(other))
        page = await read()
        assert page.head.erased and page.head.incarnation == incarnation and not page.rows
    await send(driver, large, must_create=True)
    once("before", driver._reader._blobs, "_read", lambda: end(other))
    assert await find_all_runs(driver, agent_id="a") == []


async def test_what_is_really_missing_is_told(driver: Driver, collections: Mapping[str, Any]) -> None:
    rows = [message("x" * 1000, index=index) for index in range(1000)]
    await send(driver, put("r1", rows, body="x" * 300_000), create=new_session(state="x" * 300_000, body="x" * 300_000))
    collections["chunks"].delete_many({})
    for read in (
        lambda: driver.session(key(), state=True),
        lambda: driver.messages(MessageQuery(key(), (ALL,), 1000, MANY_BYTES)),
        lambda: driver.runs(RunQuery(key(), 10, MANY_BYTES)),
        lambda: find_all_runs(driver, run_id="r1"),
        lambda: all_sessions(driver),
    ):
        with pytest.raises(DecodeError, match="restore"):
            await read()


async def test_what_is_not_dense_is_of_one_instant_too(
    driver: MongoDriver, other: Driver, once: Callable[..., None]
) -> None:
    heads, runs = driver._reader._heads, driver._runs
    reads: list[tuple[Any, str, Callable[[], Awaitable[Any]]]] = [
        (heads, "read", lambda: driver.hidden(HiddenQuery(key(), ALL, ALL))),
        (heads, "read", lambda: driver.switches(SwitchQuery(key(), 10))),
        (heads, "read", lambda: driver.runs(RunQuery(key(), 10, MANY_BYTES, bodies=False, plain=PLAIN))),
        (runs, "with_patches", lambda: driver.runs(RunQuery(key(), 10, MANY_BYTES, run_id="r1"))),
        (runs, "with_patches", lambda: driver.runs(RunQuery(key(), 10, MANY_BYTES))),
    ]
    for incarnation, (owner, name, read) in enumerate(reads, 1):
        await send(driver, put("r0", 2), must_create=True)
        await send(driver, put("r1", 2, status="running"), switch("w", "x"))
        await send(driver, patch("r1", 1, status="completed"))
        await send(driver, Hide([((1, 2), (1, 1))]))
        assert (await read()).rows
        once("behind" if name == "read" else "before", owner, name, lambda: end(other))
        page = await read()
        assert page.head.erased and page.head.incarnation == incarnation and not page.rows


@pytest.mark.parametrize("name", ["_later_ones", "_with_bodies", "with_patches"])
async def test_revisions_that_are_deleted_while_they_are_read(
    driver: MongoDriver, other: Driver, once: Callable[..., None], name: str
) -> None:
    for revision in (1, 2):
        await send(driver, put("r1", 2, revision=revision))
    once("before", driver._runs, name, lambda: end(other))
    page = await driver.runs(RunQuery(key(), 10, MANY_BYTES))
    assert page.head is not None and page.head.erased and not page.rows


async def test_a_search_finds_no_run_as_it_was_before_its_patches(
    driver: MongoDriver, other: Driver, once: Callable[..., None]
) -> None:
    await send(driver, put("r1", status="running", agent_id="a"))
    await send(driver, patch("r1", 1, status="completed"))
    once("before", driver._runs, "with_patches", lambda: end(other))
    assert await find_all_runs(driver, agent_id="a") == []


async def test_others_who_write_do_not_keep_a_reader_from_its_rows(
    driver: MongoDriver, other: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(driver, put("r0", [message("x", message_id="m")]), switch("w", "x"))
    await send(driver, Hide([((1, 1), (1, 1))]))
    read = driver._reader._heads.read
    number = 0

    async def read_and_write(of: SessionKey) -> Any:
        nonlocal number
        number += 1
        log = await read(of)
        await send(other, put(f"r{number}"))
        return log

    monkeypatch.setattr(driver._reader._heads, "read", read_and_write)
    assert (await driver.hidden(HiddenQuery(key(), ALL, ALL))).rows
    assert (await driver.switches(SwitchQuery(key(), 10))).rows
    assert (await driver.runs(RunQuery(key(), 10, MANY_BYTES, run_id="r0"))).rows
    assert (await driver.messages(MessageQuery(key(), (ALL,), 10, MANY_BYTES, message_id="m"))).rows


async def test_bodies_are_read_of_a_session_that_was_made_again_without_revisions(
    driver: Driver, other: Driver
) -> None:
    for revision in (1, 2):
        await send(driver, put("r1", revision=revision))
    await driver.runs(RunQuery(key(), 10, MANY_BYTES))
    await end(other)
    for number in range(4):
        await send(other, put(f"n{number}", body='{"x":1}'), must_create=not number)
    page = await driver.runs(RunQuery(key(), 10, MANY_BYTES))
    assert [row.body for row in page.rows] == ['{"x":1}'] * 4


# a process that was stopped between log and register


async def test_an_append_lists_a_session_that_nobody_listed(driver: Driver, collections: Mapping[str, Any]) -> None:
    await send(driver, put("r1"), create=new_session(user_id="u", name="n"))
    collections["commits"].delete_many({"n": 0})
    assert await all_sessions(driver) == []
    await send(driver, put("r2"))
    (listed,) = await all_sessions(driver, user_id="u", name="n")
    assert listed.head.run_count == 2


async def test_a_copy_of_a_commit_lists_what_the_first_one_did_not(
    driver: Driver, collections: Mapping[str, Any]
) -> None:
    one = commit(must_create=True, create=new_session(name="n"), operation_id="o")
    await outcome_of(driver, one)
    collections["commits"].delete_many({"n": 0})
    assert await outcome_of(driver, one)
    assert [row.header.name for row in await all_sessions(driver)] == ["n"]


async def test_lists_tell_what_the_log_says(driver: Driver, collections: Mapping[str, Any]) -> None:
    await send(driver, put("r1"), create=new_session(name="old", user_id="u"))
    before = collections["commits"].find_one({"n": 0})
    await send(driver, patch_session(name="new"))
    collections["commits"].replace_one({"n": 0}, before)
    (listed,) = await all_sessions(driver)
    assert listed.header.name == "new"
    assert collections["commits"].find_one({"n": 0})["name"] == "new", "it was put right"
    assert await all_sessions(driver, name="old") == []
    await send(driver, Seal())
    collections["commits"].replace_one({"n": 0}, before)
    assert await all_sessions(driver) == []


async def test_a_session_that_was_reserved_and_not_made_is_not_listed(
    driver: Driver, collections: Mapping[str, Any]
) -> None:
    await send(driver, put("r1"))
    collections["commits"].delete_many({"n": {"$gt": 0}})
    collections["commits"].update_one({"n": 0}, {"$set": {"facts": 0}})
    assert await all_sessions(driver) == []


async def test_an_append_that_came_to_nothing_moves_no_session(driver: Driver, other: Driver) -> None:
    first = await send(driver, put("r1"))
    await send(driver, put("r1"), session_id="t")
    # a replay, that the driver tries to write at first
    assert (await send(driver, put("r1"))).replayed
    assert [row.head.key.session_id for row in await all_sessions(other)] == ["t", "s"]
    assert (await all_sessions(other))[1].head.last_activity_at == first.head.last_activity_at


async def test_open_runs_are_found_wherever_a_process_was_stopped(
    driver: Driver, collections: Mapping[str, Any]
) -> None:
    await send(driver, put("r1", status="running", agent_id="a"))
    entry = collections["lasting_runs"].find_one()
    # before it noted where the run is
    collections["lasting_runs"].update_one({}, {"$unset": {"n": ""}})
    assert [row.run_id for _, row in await find_all_runs(driver, statuses=["running"])] == ["r1"]
    await send(driver, patch("r1", status="failed"))
    # before it noted that the run ended
    collections["lasting_runs"].replace_one({"_id": entry["_id"]}, entry)
    assert await find_all_runs(driver, statuses=["running"]) == []
    assert [row.run_id for _, row in await find_all_runs(driver, statuses=["failed"])] == ["r1"]


async def test_replaced_fields_and_states_leave_the_log(driver: Driver, collections: Mapping[str, Any]) -> None:
    for number in range(4):
        await send(driver, put(f"r{number}"), patch_session(state="x" * 300_000, body="y" * 300_000))
    assert [row["n"] for row in collections["commits"].find({"ss": {"$exists": True}})] == [4]
    assert [row["n"] for row in collections["commits"].find({"sf": {"$exists": True}})] == [4]
    assert collections["chunks"].count_documents({}) == 2
    row = await driver.session(key(), state=True)
    assert row is not None and (row.state, row.header.body) == ("x" * 300_000, "y" * 300_000)


# size


@pytest.mark.parametrize("sizes", [[20_000_000], [1_000_000] * 20, [20_000] * 1000, [100] * 100_000])
async def test_a_run_larger_than_a_document(driver: Driver, other: Driver, sizes: list[int]) -> None:
    rows = [message(body="é" * (size // 2), index=index) for index, size in enumerate(sizes)]
    await send(driver, put("r0", 3))
    done = await send(driver, put("r1", rows, body="b" * 17_000_000))
    await send(driver, put("r2", 3))
    assert done.receipts[0].last_position == 3 + len(sizes)
    found: list[str | bytes] = []
    position = 4
    while position <= done.receipts[0].last_position:
        bounds = (position, done.receipts[0].last_position)
        page = await other.messages(MessageQuery(key(), (bounds,), 5000, 2_000_000))
        assert [row.position for row in page.rows] == list(range(position, position + len(page.rows)))
        found += [row.body for row in page.rows]
        position += len(page.rows)
    assert found == [row.body for row in rows]
    (stored,) = await all_runs(other, run_id="r1")
    assert stored.body == "b" * 17_000_000
    assert [row.position for row in await all_messages(other, ranges=((3, 3), (4, 4)))] == [3, 4]


async def test_a_large_run_that_is_there_already_leaves_nothing(
    driver: Driver, other: Driver, collections: Mapping[str, Any]
) -> None:
    large = put("r1", [message("x" * 1_000_000)])
    await send(driver, large)
    count = collections["chunks"].count_documents({})
    assert (await send(other, large)).replayed
    assert collections["chunks"].count_documents({}) == count
    await send(driver, Seal())
    await erase(driver)
    assert collections["chunks"].count_documents({}) == 0


async def test_state_larger_than_a_document(driver: Driver, other: Driver) -> None:
    state = b"\x00\xff" * 9_000_000
    await send(driver, put("r1"), create=new_session(state=state, body="b" * 17_000_000))
    row = await other.session(key(), state=True)
    assert row is not None and row.state == state and row.header.body == "b" * 17_000_000
    (listed,) = await all_sessions(driver)
    assert listed.header.body == "b" * 17_000_000


async def test_a_message_of_a_large_run_is_found_by_its_id(driver: Driver) -> None:
    rows = [message("x" * 1000, index=index, message_id=f"m{index}") for index in range(2000)]
    await send(driver, put("r1", rows))
    (found,) = await all_messages(driver, message_id="m1777")
    assert found.position == 1778


# shards


class Commands(CommandListener):
    """The commands that a client sent."""

    def __init__(self) -> None:
        self.sent: list[Mapping[str, Any]] = []

    def started(self, event: Any) -> None:
        self.sent.append({"name": event.command_name, **event.command})

    def succeeded(self, event: Any) -> None:
        pass

    def failed(self, event: Any) -> None:
        pass


def conditions(command: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Of what a command reads, changes or removes; a document that it stores is its own condition."""
    name = command["name"]
    if name == "insert":
        yield from command["documents"]
    elif name in ("update", "delete"):
        yield from (one["q"] for one in command["updates" if name == "update" else "deletes"])
    elif name == "find":
        yield command["filter"]
    elif name == "findAndModify":
        yield command["query"]
    elif name == "aggregate":
        yield command["pipeline"][0]["$match"]


def names_its_shard(condition: Mapping[str, Any], field: str) -> bool:
    if "$or" in condition and field not in condition:
        return all(names_its_shard(one, field) for one in condition["$or"])
    value = condition.get(field)
    return isinstance(value, str) or (isinstance(value, Mapping) and set(value) == {"$in"})


async def work(driver: Driver) -> None:
    """Every write, and every read of one session."""
    await send_group(
        driver, [commit(put(f"r{n}", [message(message_id="m")]), session_id=f"s{n % 3}") for n in range(9)]
    )
    await send_group(driver, [commit(put(f"x{n}"), session_id=f"s{n % 3}") for n in range(9)])
    await send(driver, put("r1", status="running"), switch("w", "a"))
    await send(driver, patch("r1", 1, parts={"output": "1"}), operation_id="o")
    await send(driver, patch("r1", 1, parts={"output": "1"}), operation_id="o")
    await send(driver, put("r1", 1, revision=2), patch_session(name="n", state="{}"))
    await send(driver, put("large", [message("x" * 1_000_000)]))
    await send(driver, Hide([(ALL, (1, 1))]))
    await send(driver, put("r9"), create=new_session(fork=ForkLink("s", 1, 1, 1, 1)), session_id="fork")
    for reverse in (False, True):
        await driver.messages(MessageQuery(key(), (ALL,), 2, MANY_BYTES, reverse))
        await driver.messages(MessageQuery(key(), ((2, 3), (1, 1)), 2, MANY_BYTES, reverse))
        await driver.runs(RunQuery(key(), 2, MANY_BYTES, reverse=reverse))
        await driver.runs(RunQuery(key(), 2, MANY_BYTES, reverse=reverse, run_id="r1"))
        await driver.switches(SwitchQuery(key(), 2, reverse=reverse))
    await driver.messages(MessageQuery(key("s0"), (ALL,), 2, MANY_BYTES, message_id="m"))
    await dump(driver)
    await send(driver, Seal())
    await erase(driver)


async def test_all_that_concerns_a_session_goes_to_its_shard(mongo_server: MongoServer) -> None:
    url, commands = mongo_server.fresh_url(), Commands()
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url, event_listeners=[commands])
    driver, second = (MongoDriver(parse_url(url), client=client) for _ in range(2))
    await driver.open()
    await second.open()
    commands.sent.clear()
    await work(driver)
    for number in range(4):
        await second.messages(MessageQuery(key(f"s{number}"), (ALL,), 2, MANY_BYTES))
    fields = {"commits": "s", "chunks": "s", "lasting_runs": "s"}
    seen = set()
    for command in commands.sent:
        collection = str(command.get(command["name"], "")).removeprefix("sessionledger_")
        for condition in conditions(command) if collection in fields else ():
            assert names_its_shard(condition, fields[collection]), f"asks every shard: {command}"
            seen.add((command["name"], collection))
    assert {("insert", "commits"), ("find", "commits"), ("update", "commits"), ("insert", "chunks")} <= seen
    await second.close()
    await driver.close()
    # what was given stays open
    assert await client.admin.command("ping")
    await client.close()
    mongo_server.drop(url)


async def test_nothing_is_looked_through_without_an_index(driver: Driver, url: str) -> None:
    await work(driver)
    with MongoClient(url) as client:
        database = client.get_default_database()
        database.command("profile", 2)
        await work_again(driver)
        database.command("profile", 0)
        entries = list(database["system.profile"].find({"ns": {"$regex": "sessionledger_"}}))
    assert any("IXSCAN" in entry.get("planSummary", "") for entry in entries)
    assert [entry["command"] for entry in entries if entry.get("planSummary") == "COLLSCAN"] == []


async def work_again(driver: Driver) -> None:
    await send(driver, put("again"), must_create=True)
    await all_messages(driver, key("s0"))
    await all_runs(driver, key("s0"))
    await all_messages(driver, key("s0"), message_id="m")
    await all_sessions(driver)
    for search in ({"run_id": "r1"}, {"agent_id": "a"}, {"statuses": ["running"]}, {"statuses": ["failed"]}):
        await find_all_runs(driver, **search)


# servers that take over


async def test_a_primary_that_is_killed_loses_nothing() -> None:
    done: list[str] = []
    enough = anyio.Event()
    with MongoServer(replica_set=3) as server:
        async with (
            Store.on(MongoDriver(parse_url(server.fresh_url()))) as one,
            Store.on(MongoDriver(parse_url(server.fresh_url()), client="pymongo")) as two,
        ):

            async def write(store: Store, name: str) -> None:
                for number in range(150):
                    run_id = f"{name}{number}"
                    await append(store, run_id)
                    done.append(run_id)
                    if len(done) == 60:
                        enough.set()

            async with anyio.create_task_group() as group:
                for number, store in enumerate((one, two) * 2):
                    group.start_soon(write, store, f"w{number}-")
                with anyio.fail_after(60):
                    await enough.wait()
                server.primary.kill()
            for store, names in ((one, "02"), (two, "13")):
                stored = await store.runs("s", include_messages=True).collect()
                assert [one.seq for one in stored] == list(range(1, len(stored) + 1))
                assert {one.run_id for one in stored} == {name for name in done if name[1] in names}
                assert all(texts(one.messages) == [f"{one.run_id}?", f"{one.run_id}!"] for one in stored)
    assert len(done) == 600


async def append(store: Store, run_id: str) -> None:
    """As long as the set has no primary, as somebody does who cares for his run."""
    for _ in range(100):
        try:
            await store.append(turn(run_id))
            return
        except (UnavailableError, OutcomeUnknownError):
            await anyio.sleep(0.1)
    raise AssertionError("the set has no primary for ten seconds")


async def test_a_member_that_is_away_is_not_missed(mongo_replica_set: MongoServer) -> None:
    url = mongo_replica_set.fresh_url()
    secondary = next(member for member in mongo_replica_set.members if member is not mongo_replica_set.primary)
    async with Store.on(MongoDriver(parse_url(url))) as store:
        await store.append(run("r1", "a"))
        secondary.kill()
        try:
            await store.append(run("r2", "b"))
            assert texts(await store.messages("s").collect()) == ["a", "b"]
        finally:
            secondary.start()
    mongo_replica_set.drop(url)


# runs that a process announced or wrote, and ended before it could say where they are


async def test_runs_of_a_writer_that_ended_early_are_found_however_many(
    driver: Driver, collections: Mapping[str, Any]
) -> None:
    await send(driver, *[put(f"r{number:02}", 1, status="running", agent_id="x") for number in range(40)])
    lasting = collections["lasting_runs"]
    (row, *_) = lasting.find().limit(1)
    lasting.update_many({}, {"$unset": {"n": ""}})
    # what was announced and never written, sooner than those
    dead = [{**row, "_id": f"a{number}", "s": "gone", "id": "dead", "n": None, "at": 1 << 40} for number in range(40)]
    lasting.insert_many(dead)
    found = await find_all_runs(driver, agent_id="x", statuses=("running",))
    assert [row.run_id for _, row in found] == [f"r{number:02}" for number in range(40)]
