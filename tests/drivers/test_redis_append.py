"""Plain appends of several processes to one session: whatever each takes it for, they leave what one would."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from sessionledger.drivers.redis import RedisDriver
from sessionledger.drivers.redis.keys import SEGMENT
from sessionledger.protocol.rows import Commit, Committed, MessageQuery, Reason, Refused, SetDeleted
from sessionledger.registry import parse_url
from sessionledger.testing.rows import (
    all_messages,
    commit,
    key,
    message,
    new_session,
    outcome_of,
    patch,
    put,
    run_header,
    send,
    send_group,
)
from sessionledger.testing.servers import RedisServer

pytestmark = pytest.mark.anyio

_LARGE = 2**31 - 1


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def opened(url: str, count: int) -> AsyncIterator[list[RedisDriver]]:
    """Drivers of as many processes."""
    async with AsyncExitStack() as stack:
        drivers = []
        for _ in range(count):
            parsed = parse_url(url)
            driver = RedisDriver(parsed, **parsed.query)
            await driver.open()
            stack.push_async_callback(driver.close)
            drivers.append(driver)
        yield drivers


async def contents(client: Redis, url: str) -> dict[bytes, Any]:
    """All keys of a store, without what their names begin with."""
    prefix = parse_url(url).query["prefix"].encode()
    found: dict[bytes, Any] = {}
    async for name in client.scan_iter(match=prefix + b"*"):
        readers: dict[bytes, Any] = {
            b"hash": lambda name: client.hgetall(name),
            b"list": lambda name: client.lrange(name, 0, -1),
            b"zset": lambda name: client.zrange(name, 0, -1, withscores=True),
        }
        found[name[len(prefix) :]] = await readers[await client.type(name)](name)
    return found


def some_commits(source: random.Random, count: int) -> list[Commit]:
    """Runs of all kinds; some message ids come again, in one run and in later ones."""
    commits = []
    for number in range(count):
        rows = [
            message(
                f"{number} {index}" * source.choice((1, 50)),
                index=index,
                message_id=source.choice((None, f"m{number}-{index}", f"m{source.randrange(4)}")),
            )
            for index in range(source.choice((0, 1, 2, 9)))
        ]
        status = source.choice(("completed", "running", "failed"))
        run = put(
            f"r{number}",
            rows,
            agent_id=source.choice((None, "a1", "a2")),
            user_id=source.choice((None, "ada", "bob")),
            parent_run_id=source.choice((None, "r0")),
            header=run_header(status, has_summary=source.random() < 0.05),
            counters={f"c{source.randrange(3)}": source.choice((1, -5, _LARGE)), "all": len(rows)},
        )
        commits.append(commit(run, create=new_session(user_id="ada"), at=1_800_000_000_000_000 + source.randrange(500)))
    return commits


def groups(source: random.Random, commits: Sequence[Commit]) -> list[Sequence[Commit]]:
    found, at = [], 0
    while at < len(commits):
        size = source.choice((1, 1, 1, 2, 7))
        found.append(commits[at : at + size])
        at += size
    return found


@pytest.mark.parametrize("seed", range(8))
async def test_processes_that_take_turns_leave_what_one_leaves(redis_server: RedisServer, seed: int) -> None:
    source = random.Random(seed)
    commits = some_commits(source, 60)
    alone, shared = redis_server.fresh_url(), redis_server.fresh_url()
    async with opened(alone, 1) as (one,), opened(shared, 3) as several, Redis.from_url(redis_server.url) as client:
        expected = [outcome for single in commits for outcome in await send_group(one, [single])]
        found = []
        for group in groups(source, commits):
            found += await send_group(source.choice(several), group)
        assert found[-1] == expected[-1]
        receipts = [
            [outcome.receipts for outcome in some if isinstance(outcome, Committed)] for some in (found, expected)
        ]
        assert receipts[0] == receipts[1]
        assert await contents(client, shared) == await contents(client, alone)


async def test_an_append_behind_another_process_crosses_the_end_of_a_list(redis_server: RedisServer) -> None:
    async with opened(redis_server.fresh_url(), 2) as (one, other):
        await send(one, put("r1", 2))
        await send(other, put("r2", SEGMENT - 3))
        committed = await send(one, put("r3", 5))
        assert committed.head.message_count == SEGMENT + 4
        rows = await all_messages(one, ranges=((SEGMENT - 1, SEGMENT + 4),))
        assert [(row.position, row.run_seq, row.index) for row in rows] == [
            (SEGMENT - 1, 2, SEGMENT - 4),
            *((SEGMENT + index, 3, index) for index in range(5)),
        ]


async def test_what_another_process_did_is_judged(redis_server: RedisServer) -> None:
    async with opened(redis_server.fresh_url(), 2) as (one, other):
        await send(one, put("r1"))
        await send(other, put("r2"))
        assert (await send(one, put("r2"))).replayed
        await send(other, SetDeleted(7), create=False, on_deleted=True)
        refused = await outcome_of(one, commit(put("r3")))
        assert isinstance(refused, Refused) and refused.reason is Reason.DELETED


async def test_a_session_that_a_server_has_lost_is_made_again_as_a_whole(redis_server: RedisServer) -> None:
    url = redis_server.fresh_url()
    async with opened(url, 1) as (driver,), Redis.from_url(redis_server.url) as client:
        for number in range(3):
            await send(driver, put(f"r{number}", agent_id="a1", counters={"n": 1}))
        before = await contents(client, url)
        await client.delete(*[parse_url(url).query["prefix"].encode() + name for name in before if name != b"meta"])
        committed = await send(driver, put("r9", agent_id="a1", counters={"n": 1}))
        assert (committed.head.version, committed.head.run_count, committed.head.message_count) == (1, 1, 1)
        row = await driver.session(key(), state=True)
        assert row is not None and row.counters == {"n": 1}
        assert b"agent:/a1" in await contents(client, url)


async def test_a_page_is_as_small_as_its_largest_messages_make_it(redis_server: RedisServer) -> None:
    """What updates bring counts as well: many large messages are not read for a page of few bytes."""
    url = redis_server.fresh_url()
    async with opened(url, 1) as (driver,), Redis.from_url(redis_server.url) as client:
        await send(driver, put("r1", status="running"))
        await send(driver, patch("r1", [message("x" * 5000, index=1)]), create=False)
        log = await client.hget(f"{parse_url(url).query['prefix']}{{/s}}:head", "log")
        assert log is not None and int(log.split()[4]) > 5000


async def test_counters_are_right_behind_a_server_that_lost_writes(redis_server: RedisServer) -> None:
    """As a replica does that takes over: others' runs stand in the places of those that were lost."""
    url = redis_server.fresh_url()
    async with opened(url, 2) as (one, other), Redis.from_url(redis_server.url) as client:
        prefix = parse_url(url).query["prefix"].encode()
        await send(one, put("r1", counters={"a": 1}))
        kept = {name: await client.dump(name) async for name in client.scan_iter(match=prefix + b"*")}
        await send(one, put("r2", counters={"a": 1}))
        await client.delete(*[name async for name in client.scan_iter(match=prefix + b"*")])
        for name, value in kept.items():
            await client.restore(name, 0, value)
        await send(other, put("x2", counters={"b": 1}))
        await send(one, put("r3", counters={"c": 1}))
        await send(one, put("r4", counters={"a": 1}))
        row = await other.session(key(), state=False)
    assert row is not None and dict(row.counters) == {"a": 2, "b": 1, "c": 1}


async def test_messages_that_came_since_are_not_taken_to_be_small(redis_server: RedisServer) -> None:
    url = redis_server.fresh_url()
    async with opened(url, 2) as (one, other), Redis.from_url(redis_server.url) as client:
        await send(one, put("r1", 3))
        query = MessageQuery(key(), ((1, 10_000),), 1000, 100_000)
        await one.messages(query)
        await send(other, put("r2", [message("x" * 20_000, index=index) for index in range(300)]))
        before = (await client.info("stats"))["total_net_output_bytes"]
        page = await one.messages(query)
        assert page.more and len(page.rows) == 8
        assert (await client.info("stats"))["total_net_output_bytes"] - before < 200_000
