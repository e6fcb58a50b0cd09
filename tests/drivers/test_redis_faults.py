"""What befalls a Redis server, its connections and its keys, and what the store makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
from redis.asyncio import Connection, Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from sessionledger import DriverTimeoutError, Message, Run, StorageFullError
from sessionledger.drivers.redis import RedisDriver
from sessionledger.drivers.redis.errors import UnsentError
from sessionledger.drivers.redis.keys import Keys, member_of
from sessionledger.drivers.redis.pool import Pool
from sessionledger.drivers.redis.servers import Request
from sessionledger.errors import DecodeError, DriverError, OutcomeUnknownError, PoolTimeoutError, UnavailableError
from sessionledger.protocol.rows import Committed, MessageQuery, RunSearch, Seal, SessionKey, SessionQuery
from sessionledger.registry import parse_url
from sessionledger.store import Store
from sessionledger.testing.rows import (
    ALL,
    MANY_BYTES,
    all_messages,
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
)
from sessionledger.testing.servers import RedisServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def driver_at(url: str, **options: Any) -> RedisDriver:
    parsed = parse_url(url)
    return RedisDriver(parsed, **{**parsed.query, **options})


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[RedisDriver]:
    driver = driver_at(url, **options)
    await driver.open()
    try:
        yield driver
    finally:
        await driver.close()


def turn(number: int, session_id: str = "s") -> Run:
    return Run(run_id=f"r{number}", session_id=session_id, messages=[Message(role="user", content=str(number))])


# memory


async def test_a_full_server_takes_nothing_and_keeps_what_it_has() -> None:
    with RedisServer() as server:
        async with opened(server.url) as driver, Redis.from_url(server.url) as client:
            await send(driver, put("r1", 2, status="running"))
            before = await dump(driver)
            await client.config_set("maxmemory", 1)
            large = [message("x" * 1000, index=index) for index in range(50)]
            for one in (commit(put("r2", large)), commit(patch("r1", large)), commit(put("r3", large), put("r4"))):
                with pytest.raises(StorageFullError, match="maxmemory"):
                    await outcome_of(driver, one)
            assert await dump(driver) == before
            assert await find_all_runs(driver, run_id="r2") == []
            await client.config_set("maxmemory", 0)
            assert (await send(driver, put("r2", large))).receipts[0].first_position == 3


async def test_in_a_group_the_full_server_refuses_each() -> None:
    with RedisServer() as server:
        async with opened(server.url) as driver, Redis.from_url(server.url) as client:
            await client.config_set("maxmemory", 1)
            outcomes = await driver.commit([commit(put("r1"), session_id=name) for name in "abc"])
            assert [type(outcome) for outcome in outcomes] == [StorageFullError] * 3
            await client.config_set("maxmemory", 0)
            assert await all_sessions(driver) == []


# scripts


@pytest.mark.parametrize("cluster", [False, True])
async def test_a_server_that_has_forgotten_the_scripts_learns_them(request: Any, cluster: bool) -> None:
    server: RedisServer = request.getfixturevalue("redis_cluster" if cluster else "redis_server")
    async with opened(server.fresh_url()) as driver:
        await send(driver, put("r1"), session_id="once")
        for _ in range(2):
            await driver._servers.ask_all(("SCRIPT", "FLUSH"))
            outcomes = await driver.commit([commit(put(f"r{n}"), session_id=f"s{n}") for n in range(20)])
            assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
            await driver._servers.ask_all(("SCRIPT", "FLUSH"))
            assert len(await all_messages(driver, key("once"))) == 1
            await driver._servers.ask_all(("SCRIPT", "FLUSH"))
            await send(driver, put("open", status="running"), put("other"))
        assert len(await all_messages(driver)) == 2


# the server's end


async def test_what_was_acknowledged_survives_the_servers_death() -> None:
    with RedisServer(durable=True) as server:
        acknowledged: list[str] = []
        async with Store.on(driver_at(server.url)) as store:
            for number in range(60):
                if number % 20 == 10:
                    server.process.kill()
                    server.process.start()
                receipt = await store.append(turn(number))
                acknowledged.append(receipt.run_id)
            assert [run.run_id async for run in store.runs("s")] == acknowledged
            assert [one.position async for one in store.messages("s")] == list(range(1, 61))
            assert store.durability.value == "disk"


async def test_writers_get_through_a_death_in_their_midst() -> None:
    with RedisServer(durable=True) as server:
        async with Store.on(driver_at(server.url), timeout=30) as store:

            async def write(name: str) -> None:
                for number in range(40):
                    for _ in range(50):
                        with suppress(UnavailableError, OutcomeUnknownError):
                            await store.append(turn(number, name))
                            break
                        await asyncio.sleep(0.05)
                    else:
                        raise AssertionError("it never came back")

            async def strike() -> None:
                for _ in range(3):
                    await asyncio.sleep(0.1)
                    server.process.kill()
                    await asyncio.sleep(0.05)
                    await asyncio.to_thread(server.process.start)

            await asyncio.gather(strike(), *(write(name) for name in "abcd"))
            for name in "abcd":
                assert [run.run_id async for run in store.runs(name)] == [f"r{number}" for number in range(40)]
                assert [one.position async for one in store.messages(name)] == list(range(1, 41))


async def test_a_server_that_stands_still_is_waited_for_no_longer_than_told() -> None:
    with RedisServer() as server:
        async with Store.on(driver_at(server.url), timeout=3) as store:
            await store.append(turn(1))
            server.process.pause()
            try:
                with pytest.raises(DriverTimeoutError):
                    await store.append(turn(2))
                with pytest.raises(DriverTimeoutError):
                    await store.messages("s").collect()
            finally:
                server.process.resume()
            assert (await store.append(turn(2))).run_seq == 2
            assert [one.content for one in await store.messages("s").collect()] == ["1", "2"]


async def test_a_socket_timeout_of_its_own_ends_a_call() -> None:
    with RedisServer() as server:
        async with opened(server.url, socket_timeout=2) as driver:
            server.process.pause()
            try:
                with pytest.raises(OutcomeUnknownError):
                    await driver.commit([commit(put("r1"))])
                with pytest.raises(UnavailableError):
                    await driver.session(key(), state=True)
            finally:
                server.process.resume()


# connections


@asynccontextmanager
async def between(url: str, cut: Callable[[bytes], bool]) -> AsyncIterator[str]:
    """The URL of a way to a server, which is cut when the server answers what `cut` says, once."""
    host, port = url.rpartition("//")[2].split(":")
    armed = True

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        asked = bytearray()

        # each way for itself: a request may come in pieces, and so may an answer
        async def there() -> None:
            while data := await reader.read(1 << 20):
                asked.extend(data)
                server_writer.write(data)
            server_writer.close()

        async def back() -> None:
            nonlocal armed
            while answer := await server_reader.read(1 << 20):
                if armed and cut(bytes(asked)):
                    armed = False
                    break
                asked.clear()
                writer.write(answer)
            writer.close()

        await asyncio.gather(there(), back(), return_exceptions=True)

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.sleep(0.05)


async def test_an_answer_that_was_cut_is_asked_for_again_and_nothing_is_written_twice(
    redis_server: RedisServer,
) -> None:
    prefix = redis_server.fresh_url().partition("?")[2]
    async with (
        between(redis_server.url, lambda data: b"precious" in data) as url,
        Store.on(driver_at(f"{url}?{prefix}")) as store,
    ):
        # more than comes in one piece
        text = "precious" + 1_000_000 * "x"
        first = Run(run_id="r1", session_id="s", messages=[Message(role="user", content=text)])
        receipt = await store.append(first)
        assert (receipt.run_seq, receipt.first_position, receipt.last_position) == (1, 1, 1)
        assert receipt.replayed
        assert [one.content for one in await store.messages("s").collect()] == [text]
        session = await store.get_session("s")
        assert session is not None and (session.version, session.message_count) == (1, 1)


async def test_the_driver_itself_repeats_nothing(redis_server: RedisServer) -> None:
    prefix = redis_server.fresh_url().partition("?")[2]
    async with (
        between(redis_server.url, lambda data: b"precious" in data) as url,
        opened(f"{url}?{prefix}") as driver,
    ):
        large = put("r1", [message("precious" + 1_000_000 * "x")])
        with pytest.raises(OutcomeUnknownError):
            await driver.commit([commit(large)])
        assert (await send(driver, large)).replayed


async def test_a_cancelled_call_leaves_no_answer_to_another(redis_server: RedisServer) -> None:
    async with opened(redis_server.fresh_url(), pool_size=2) as driver:
        for number in range(30):
            await send(driver, put(f"r{number}", [message(f"{number}-{i}", index=i) for i in range(20)]))
        query = MessageQuery(key(), (ALL,), 500, MANY_BYTES)
        whole = (await driver.messages(query)).rows
        for pause in range(60):
            task = asyncio.ensure_future(driver.messages(query))
            for _ in range(pause % 12):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            row = await driver.session(key(), state=True)
            assert row is not None and row.head.run_count == 30
        assert (await driver.messages(query)).rows == whole


async def test_who_gets_no_connection_is_told(redis_server: RedisServer) -> None:
    with RedisServer() as server:
        async with opened(server.url, pool_size=2, pool_timeout=0.2) as driver:
            server.process.pause()
            held = [asyncio.ensure_future(driver.session(key(), state=True)) for _ in range(2)]
            await asyncio.sleep(0.05)
            try:
                with pytest.raises(PoolTimeoutError, match="pool_size"):
                    await driver.session(key(), state=True)
            finally:
                server.process.resume()
            assert await asyncio.gather(*held) == [None, None]
            assert await driver.session(key(), state=True) is None


async def test_who_waits_for_a_connection_gets_one(redis_server: RedisServer) -> None:
    async with opened(redis_server.fresh_url(), pool_size=2) as driver:
        await send(driver, put("r1"))
        rows = await asyncio.gather(*(driver.session(key(), state=True) for _ in range(200)))
        assert all(row is not None and row.head.run_count == 1 for row in rows)
        async with Redis.from_url(redis_server.url) as client:
            assert await client.ping()


async def test_a_closed_driver_says_so(redis_server: RedisServer) -> None:
    driver = driver_at(redis_server.fresh_url())
    with pytest.raises(DriverError, match="not open"):
        await driver.ping()


# what a process leaves that ends half-way, on a cluster, where the lists lie on other nodes


@pytest.mark.parametrize("score", [1_000_000, 99_000_000])
async def test_an_entry_that_is_out_of_place_is_mended_by_who_reads_it(redis_cluster: RedisServer, score: int) -> None:
    async with opened(redis_cluster.fresh_url()) as driver:
        for number, name in enumerate("abc"):
            new = new_session(user_id="u")
            await send(driver, put("r1"), session_id=name, create=new, at=1_000_000 * (number + 1))
        await send(driver, put("r2"), session_id="a", at=2_500_000)
        keys: Keys = driver._keys
        for name in (keys.sessions(""), keys.sessions_of_user("", "u")):
            await ask(driver, "ZADD", name, score, member_of("a", 1))
        for filters in ({}, {"user_id": "u"}):
            rows = await all_sessions(driver, limit=1, **filters)
            assert [row.head.key.session_id for row in rows] == ["c", "a", "b"]
        assert await ask(driver, "ZSCORE", keys.sessions(""), member_of("a", 1)) == b"2500000"


async def test_an_entry_without_a_session_is_passed_over(redis_cluster: RedisServer) -> None:
    async with opened(redis_cluster.fresh_url()) as driver:
        await send(driver, put("r1", status="running", agent_id="x"))
        keys: Keys = driver._keys
        for number in range(150):
            ghost = member_of(f"ghost{number}", 1)
            await ask(driver, "ZADD", keys.sessions(""), 10**16, ghost)
            await ask(driver, "ZADD", keys.sessions_with("agent", "", "x"), 0, ghost)
            await ask(driver, "ZADD", keys.open_runs(""), 0, ghost + b"\x001\0r1")
        await ask(driver, "ZADD", keys.open_runs(""), 0, member_of("s", 1) + b"\x001\0never")
        page = await driver.sessions(SessionQuery("", 1))
        assert ([row.head.key.session_id for row in page.rows], page.more) == (["s"], False)
        for filters in ({"agent_id": "x"}, {"statuses": ["running"]}):
            found = await driver.find_runs(RunSearch("", 1, MANY_BYTES, **filters))
            assert ([row.run_id for _, row, _ in found.rows], found.more) == (["r1"], False)


@pytest.mark.parametrize("cluster", [False, True])
async def test_an_erasure_leaves_a_tombstone_and_nothing_else(request: Any, cluster: bool) -> None:
    server: RedisServer = request.getfixturevalue("redis_cluster" if cluster else "redis_server")
    url = server.fresh_url()
    async with opened(url) as driver:
        given = [message(str(index), index=index, message_id=f"m{index}") for index in range(20)]
        await send(driver, put("r1", given, status="running", agent_id="a", user_id="v", parent_run_id="p"))
        await send(driver, patch("r1", 2, start=20, parts={"output": "1"}), operation_id="o")
        await send(driver, put("r1", 1, revision=2, agent_id="b"))
        await send(driver, put("many", 5000))
        for number in range(40):
            await send(driver, put(f"x{number}"))
        assert len(await keys_of(driver)) > 15
        await send(driver, Seal())
        steps = 1
        while await driver.erase(key(), limit=10):
            steps += 1
        assert steps > 3
        left = [name.removeprefix(driver._keys.prefix) for name in await keys_of(driver)]
        assert sorted(left) == ["meta", "{/s}:head"]


# damage


async def test_what_is_damaged_is_told_and_stops_nobody_else(redis_server: RedisServer) -> None:
    async with opened(redis_server.fresh_url()) as driver:
        for name in "ab":
            await send(driver, put("r1", 3), session_id=name)
            await send(driver, patch_session(name="n"), session_id=name, operation_id="o")
        names = driver._keys.session(key("a"), 1)
        await ask(driver, "LSET", f"{names.messages}0", 1, b"\x97\xce\0\0\0\1\xce\0\0\0\1nonsense")
        await ask(driver, "HSET", names.operations, "o", b"nonsense")
        with pytest.raises(DecodeError, match="backup"):
            await driver.messages(MessageQuery(key("a"), (ALL,), 500, MANY_BYTES))
        again = [commit(patch_session(name="n"), session_id=name, operation_id="o") for name in "ab"]
        damaged, whole = await driver.commit(again)
        assert isinstance(damaged, DecodeError)
        assert isinstance(whole, Committed) and whole.replayed


async def ask(driver: RedisDriver, *command: Any) -> Any:
    assert driver._servers is not None
    (answer,) = await driver._servers.send([Request(command[1], command)])
    return answer


async def keys_of(driver: RedisDriver) -> list[str]:
    assert driver._servers is not None
    answers = await driver._servers.ask_all(("KEYS", f"{driver._keys.prefix}*"))
    return [name.decode() for answer in answers for name in answer]


def test_a_session_is_named_by_its_key_alone() -> None:
    assert Keys("p:").head(SessionKey("n", "s")) == "p:{n/s}:head"


async def test_a_session_without_its_log_is_damaged_and_nothing_else(redis_server: RedisServer) -> None:
    url = redis_server.fresh_url()
    async with opened(url) as driver, Redis.from_url(redis_server.url) as client:
        await send(driver, put("r1"))
        prefix = parse_url(url).query["prefix"]
        (name,) = [name async for name in client.scan_iter(match=f"{prefix}*:head")]
        await client.hdel(name, "log")
        with pytest.raises(DecodeError):
            await driver.session(key(), state=False)
        with pytest.raises(DecodeError):
            await all_messages(driver)


async def test_a_pool_that_closes_waits_for_nobody_who_does_not_read() -> None:
    """More is sent than the sockets hold."""
    clients: list[asyncio.StreamWriter] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer)
        with suppress(asyncio.IncompleteReadError):
            while line := await reader.readuntil(b"\r\n"):
                # what a client says when it connects
                if line.upper().startswith((b"CLIENT", b"SELECT", b"HELLO", b"PING")):
                    writer.write(b"+OK\r\n")

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = Pool(lambda: Connection(host="127.0.0.1", port=port, protocol=2, socket_timeout=None), 1, 1)
    async with asyncio.timeout(5):
        assert await pool.send([]) == []
        cast("asyncio.Transport", clients[0].transport).pause_reading()
        sending = asyncio.ensure_future(pool.send([("SET", "k", b"x" * 20_000_000)]))
        await asyncio.sleep(0.2)
        await pool.close()
        with pytest.raises((RedisConnectionError, UnsentError)):
            await sending
    clients[0].transport.abort()
    server.close()
