"""What the Redis driver asks of a server when it is opened, and of its options before."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis.exceptions
from redis.asyncio import Redis

from sessionledger import Durability
from sessionledger.drivers.redis import RedisDriver
from sessionledger.drivers.redis.errors import CLIENT_ERRORS, error_of
from sessionledger.drivers.redis.keys import Keys
from sessionledger.errors import (
    DecodeError,
    DriverError,
    InvalidRecordError,
    OutcomeUnknownError,
    PoolTimeoutError,
    SchemaTooNewError,
    StorageFullError,
    UnavailableError,
)
from sessionledger.protocol.rows import SessionKey
from sessionledger.registry import parse_url
from sessionledger.testing.rows import put, send
from sessionledger.testing.servers import RedisServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def driver_at(url: str, **options: Any) -> RedisDriver:
    parsed = parse_url(url)
    return RedisDriver(parsed, **{**parsed.query, **options})


async def opened(url: str, **options: Any) -> RedisDriver:
    driver = driver_at(url, **options)
    await driver.open()
    return driver


@contextmanager
def server_with(**settings: str) -> Iterator[RedisServer]:
    with RedisServer(settings={name.replace("_", "-"): value for name, value in settings.items()}) as server:
        yield server


# what a server keeps


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
async def test_a_server_that_throws_keys_away_is_refused(policy: str) -> None:
    with server_with(maxmemory_policy=policy) as server:
        with pytest.raises(DriverError, match="noeviction") as caught:
            await opened(server.url)
        assert policy in str(caught.value)


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "volatile-ttl"])
async def test_a_server_that_keeps_what_has_no_end_is_taken(policy: str) -> None:
    with server_with(maxmemory_policy=policy) as server:
        await (await opened(server.url)).close()


@pytest.mark.parametrize(
    ("settings", "durability"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, Durability.DISK),
        ({"appendonly": "yes", "appendfsync": "everysec"}, Durability.INTERVAL),
        ({"appendonly": "yes", "appendfsync": "no"}, Durability.PROCESS),
        ({"appendonly": "no"}, Durability.MEMORY),
    ],
)
async def test_durability_is_the_servers(settings: dict[str, str], durability: Durability) -> None:
    with server_with(**settings) as server:
        driver = await opened(server.url)
        assert driver.durability is durability
        await driver.close()


async def test_less_durability_than_asked_for_is_refused() -> None:
    with server_with(appendonly="yes", appendfsync="everysec") as server:
        await (await opened(server.url, durability="interval")).close()
        with pytest.raises(InvalidRecordError, match="appendfsync"):
            await opened(server.url, durability="disk")


async def test_where_settings_may_not_be_asked_for_the_least_is_said() -> None:
    with server_with(appendonly="yes", appendfsync="always") as server:
        async with Redis.from_url(server.url) as client:
            await client.execute_command("ACL", "SETUSER", "agent", "on", ">secret", "~*", "+@all", "-config")
        driver = await opened(server.url.replace("//", "//agent:secret@"))
        assert driver.durability is Durability.PROCESS
        await driver.close()


async def test_a_node_of_a_cluster_says_what_to_ask_for(redis_cluster: RedisServer) -> None:
    with pytest.raises(DriverError, match=r"redis\+cluster"):
        await opened(redis_cluster.url.replace("redis+cluster", "redis"))
    await (await opened(redis_cluster.url.replace("redis+cluster", "redis"), cluster="true")).close()


async def test_a_server_that_is_no_cluster_says_so(redis_server: RedisServer) -> None:
    with pytest.raises(DriverError, match="cluster"):
        await opened(redis_server.url, cluster=True)


async def test_waiting_for_a_log_needs_a_server_that_can(redis_server: RedisServer) -> None:
    async with Redis.from_url(redis_server.url) as client:
        version = (await client.info())["redis_version"]
    if tuple(map(int, version.split(".")[:2])) < (7, 2):
        with pytest.raises(DriverError, match="wait_aof"):
            await opened(redis_server.url, wait_aof=True)
    else:
        await (await opened(redis_server.url, wait_aof=True)).close()


async def test_replicas_that_do_not_confirm_are_told(redis_server: RedisServer) -> None:
    driver = await opened(redis_server.fresh_url(), wait_replicas=1, wait_timeout=0.05)
    for _ in range(2):
        # the second time it is there, and still nobody has it
        with pytest.raises(OutcomeUnknownError, match="0 of 1 replicas"):
            await send(driver, put("r1"))
    await driver.close()


async def test_a_replica_confirms() -> None:
    with server_with(repl_diskless_sync_delay="0") as master:
        port = master.url.rpartition(":")[2]
        with RedisServer() as replica:
            async with Redis.from_url(replica.url) as client:
                await client.execute_command("REPLICAOF", "127.0.0.1", port)
            driver = await opened(master.url, wait_replicas=1, wait_timeout=25)
            try:
                await send(driver, put("r1"))
                assert (await send(driver, put("r1"))).replayed
            finally:
                await driver.close()
            with pytest.raises(UnavailableError, match="replica"):
                await opened(replica.url)


# who may come in


async def test_a_wrong_password_is_told_without_it() -> None:
    with RedisServer(password="s3cret") as server:
        await (await opened(server.url)).close()
        for wrong in ("wr0ng", ""):
            url = server.url.replace("s3cret", wrong)
            with pytest.raises(DriverError) as caught:
                await opened(url)
            assert not isinstance(caught.value, UnavailableError | OutcomeUnknownError)
            assert "password" in str(caught.value)
            for secret in ("s3cret", "wr0ng"):
                assert secret not in f"{caught.value!r}{driver_at(url)!r}"


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with RedisServer() as server:
        url = server.url
    with pytest.raises(UnavailableError, match="is it running"):
        await opened(url)
    with pytest.raises(UnavailableError, match="is it running"):
        await opened(url.replace("redis:", "redis+cluster:"))


async def test_a_database_that_is_not_there_is_told(redis_server: RedisServer) -> None:
    with pytest.raises(DriverError, match="database"):
        await opened(f"{redis_server.url}/99")


async def test_what_speaks_no_tls_is_unavailable(redis_server: RedisServer) -> None:
    with pytest.raises(UnavailableError):
        await opened(redis_server.url.replace("redis:", "rediss:"), socket_connect_timeout=2)


async def test_a_newer_schema_is_refused(redis_server: RedisServer) -> None:
    url = redis_server.fresh_url()
    await (await opened(url)).close()
    async with Redis.from_url(redis_server.url) as client:
        await client.hset(f"{parse_url(url).query['prefix']}meta", "min_writer", 2)
    with pytest.raises(SchemaTooNewError):
        await opened(url)


# options


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("prefix=a{b}", "prefix"),
        ("prefix=", "prefix"),
        ("pool_size=1", "pool_size"),
        ("pool_timeout=0", "pool_timeout"),
        ("cluster=perhaps", "cluster"),
        ("durability=always", "durability"),
        ("wait_replicas=-1", "wait_replicas"),
        ("socket_timeout=soon", "socket_timeout"),
        ("ssl_ca_certs=x.pem", "ssl_ca_certs"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(query: str, path: str) -> None:
    with pytest.raises(InvalidRecordError) as caught:
        driver_at(f"redis://localhost?{query}")
    assert caught.value.path == path


@pytest.mark.parametrize("url", ["redis://localhost/chats", "redis://localhost:99999", "redis+cluster://localhost/3"])
def test_a_url_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(InvalidRecordError):
        driver_at(url)


@pytest.mark.parametrize("scheme", RedisDriver.info.schemes)
def test_all_schemes_are_taken(scheme: str) -> None:
    driver_at(f"{scheme}://user:pw@localhost:6379")


def test_a_prefix_keeps_stores_apart() -> None:
    keys = {Keys(prefix).head(SessionKey("", "s")) for prefix in ("a:", "b:", "a")}
    assert len(keys) == 3


def test_no_two_sessions_share_a_key_or_lie_apart() -> None:
    ids = ["", "}", "{", "{}", "/", "a/b", "a", "b", "%2F", "a%2Fb", "é", "}{", "a}b", " "]
    keys = [Keys("p:").session(SessionKey(namespace, name), 1) for namespace in ids for name in ids]
    assert len({key.head for key in keys}) == len(ids) ** 2
    for key in keys:
        tags = {name.partition("{")[2].partition("}")[0] for name in (key.head, key.sealed, key.runs, *key.content())}
        assert len(tags) == 1 and "" not in tags


# errors


def client_errors() -> list[type[BaseException]]:
    return [
        kind
        for _, kind in inspect.getmembers(redis.exceptions, inspect.isclass)
        if issubclass(kind, BaseException) and kind.__module__.startswith("redis")
    ]


def made(kind: type[BaseException]) -> BaseException:
    """One of that class; some take what the server said apart."""
    if issubclass(kind, redis.exceptions.AskError):
        return kind("3999 127.0.0.1:6381")
    return kind("it failed")


@pytest.mark.parametrize("kind", client_errors(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("writing", [False, True])
def test_every_error_of_the_client_is_mapped(kind: type[BaseException], writing: bool) -> None:
    error = made(kind)
    assert isinstance(error, CLIENT_ERRORS)
    mapped = error_of(error, writing=writing)
    assert isinstance(mapped, DriverError | DecodeError)
    assert str(mapped)


@pytest.mark.parametrize(
    ("error", "kind", "writing_kind"),
    [
        (redis.exceptions.ConnectionError("gone"), UnavailableError, OutcomeUnknownError),
        (redis.exceptions.TimeoutError("late"), UnavailableError, OutcomeUnknownError),
        (ConnectionResetError("gone"), UnavailableError, OutcomeUnknownError),
        (redis.exceptions.BusyLoadingError("loading"), UnavailableError, UnavailableError),
        (redis.exceptions.ReadOnlyError("READONLY"), UnavailableError, UnavailableError),
        (redis.exceptions.OutOfMemoryError("OOM"), StorageFullError, StorageFullError),
        (redis.exceptions.MaxConnectionsError("many"), PoolTimeoutError, PoolTimeoutError),
        (redis.exceptions.ClusterDownError("down"), UnavailableError, UnavailableError),
        (redis.exceptions.TryAgainError("later"), UnavailableError, UnavailableError),
        (
            redis.exceptions.ResponseError("Error running script: @user_script:1: -OOM command not allowed when used"),
            StorageFullError,
            StorageFullError,
        ),
    ],
)
def test_an_error_says_what_was_done(
    error: BaseException, kind: type[Exception], writing_kind: type[Exception]
) -> None:
    assert type(error_of(error, writing=False)) is kind
    assert type(error_of(error, writing=True)) is writing_kind
