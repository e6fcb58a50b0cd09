"""What goes wrong between the driver and its server, as errors that tell what helps; and what it says of itself."""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import bson.errors
import pymongo
import pymongo.errors
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, MongoClient

from sessionledger.drivers.mongodb import MongoDriver
from sessionledger.drivers.mongodb.errors import error_of, mapped
from sessionledger.errors import (
    DecodeError,
    DriverError,
    DriverTimeoutError,
    InvalidRecordError,
    OutcomeUnknownError,
    PoolTimeoutError,
    SchemaTooNewError,
    StorageFullError,
    UnavailableError,
)
from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import MessageQuery
from sessionledger.records import Durability
from sessionledger.registry import parse_url
from sessionledger.store import Store
from sessionledger.testing.builders import turn
from sessionledger.testing.rows import all_messages, all_runs, commit, key, put, send, send_group
from sessionledger.testing.servers import MongoServer

pytestmark = pytest.mark.anyio

CLIENTS = pytest.mark.parametrize("client", ["motor", "pymongo"])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def url(mongo_server: MongoServer) -> Iterator[str]:
    url = mongo_server.fresh_url()
    yield url
    mongo_server.drop(url)


def driver_of(url: str, **options: Any) -> MongoDriver:
    parsed = parse_url(url)
    return MongoDriver(parsed, **{**parsed.query, **options})


async def opened(url: str, **options: Any) -> MongoDriver:
    driver = driver_of(url, **options)
    await driver.open()
    return driver


# what the clients raise


def classes() -> list[type[BaseException]]:
    """Of all exceptions that the modules of PyMongo and bson define; motor has none of its own."""
    found = {error for _, error in inspect.getmembers(bson.errors, inspect.isclass)}
    for module in pkgutil.walk_packages(pymongo.__path__, "pymongo."):
        if "encrypt" in module.name or "kms" in module.name:
            continue
        try:
            names = vars(importlib.import_module(module.name))
        except ImportError:
            continue
        found |= {value for value in names.values() if inspect.isclass(value)}
    kinds = (pymongo.errors.PyMongoError, bson.errors.BSONError)
    return sorted((one for one in found if issubclass(one, kinds)), key=lambda one: one.__name__)


def made(kind: type[BaseException]) -> BaseException:
    """One of that class, as its constructor wants it."""
    first: Any = {} if "BulkWrite" in kind.__name__ else "what happened"
    for arguments in ((first,), (first, 1), (first, "then"), (first, False), ()):
        try:
            return kind(*arguments)
        except TypeError:
            continue
    return kind.__new__(kind)


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("writing", [False, True])
async def test_every_exception_of_the_clients_is_mapped(kind: type[BaseException], writing: bool) -> None:
    with pytest.raises((DriverError, DecodeError)) as caught, mapped(writing=writing):
        raise made(kind)
    assert isinstance(caught.value.__cause__, kind)
    assert ":" in str(caught.value), "it names no remedy"


def failure(code: int, **details: Any) -> pymongo.errors.OperationFailure:
    return pymongo.errors.OperationFailure(f"code {code}", code, {"code": code, **details})


@pytest.mark.parametrize(
    ("error", "reading", "writing"),
    [
        (failure(14031), StorageFullError, StorageFullError),
        (pymongo.errors.WriteError("no space", 14031, {}), StorageFullError, StorageFullError),
        (failure(18), DriverError, DriverError),
        (failure(13), DriverError, DriverError),
        (failure(10107), UnavailableError, OutcomeUnknownError),
        (failure(11602), UnavailableError, OutcomeUnknownError),
        (failure(91), UnavailableError, OutcomeUnknownError),
        (pymongo.errors.NotPrimaryError("not primary"), UnavailableError, OutcomeUnknownError),
        (pymongo.errors.AutoReconnect("closed"), UnavailableError, OutcomeUnknownError),
        (pymongo.errors.NetworkTimeout("timed out"), UnavailableError, OutcomeUnknownError),
        (pymongo.errors.ServerSelectionTimeoutError("none"), UnavailableError, UnavailableError),
        (pymongo.errors.WaitQueueTimeoutError("busy"), PoolTimeoutError, PoolTimeoutError),
        (pymongo.errors.WTimeoutError("waited", 64, {}), OutcomeUnknownError, OutcomeUnknownError),
        (pymongo.errors.WriteConcernError("waited", 100, {}), OutcomeUnknownError, OutcomeUnknownError),
        (
            pymongo.errors.BulkWriteError({"writeConcernErrors": [{"code": 64, "errmsg": "x"}]}),
            DriverError,
            OutcomeUnknownError,
        ),
        (
            pymongo.errors.BulkWriteError({"writeErrors": [{"code": 14031, "errmsg": "x"}]}),
            DriverError,
            StorageFullError,
        ),
        (bson.errors.InvalidBSON("cut off"), DecodeError, DecodeError),
        (ConnectionResetError("reset"), UnavailableError, OutcomeUnknownError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_an_error_is_what_it_means(error: Exception, reading: type, writing: type) -> None:
    found = error_of(error, writing=False)
    assert isinstance(found, reading)
    assert type(error_of(error, writing=True)) is writing


async def test_errors_keep_the_urls_secret() -> None:
    error = pymongo.errors.ConfigurationError("cannot use mongodb://somebody:secret@host/ so")
    assert "secret" not in str(error_of(error, writing=False))


# the server


@CLIENTS
async def test_a_wrong_password_is_told(client: str) -> None:
    with MongoServer(password="right") as server:
        driver = await opened(server.url, client=client)
        await send(driver, put("r1"))
        await driver.close()
        wrong = driver_of(server.url.replace("right", "wrong-one"), client=client)
        with pytest.raises(DriverError, match="password") as caught:
            await wrong.open()
        assert type(caught.value) is DriverError and "wrong-one" not in str(caught.value)
        with MongoClient(server.url) as admin:
            roles = [{"role": "read", "db": "sessionledger"}]
            admin["sessionledger"].command("createUser", "reader", pwd="right", roles=roles)
        url = server.url.replace("sessionledger:right", "reader:right").replace(
            "authSource=admin", "authSource=sessionledger"
        )
        reader = await opened(url, client=client)
        assert len(await all_messages(reader)) == 1
        with pytest.raises(DriverError, match="grant it readWrite"):
            await reader.commit([commit(put("r2"))])
        await reader.close()


@contextmanager
def sockets_left() -> Iterator[list[str]]:
    """Afterwards: those that were thrown away unclosed."""
    left: list[str] = []
    gc.collect()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield left
        gc.collect()
    left += [str(one.message) for one in told if issubclass(one.category, ResourceWarning)]


@CLIENTS
async def test_a_server_that_is_down_is_told_in_time(client: str) -> None:
    driver = driver_of("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300", client=client)
    with anyio.fail_after(5), pytest.raises(UnavailableError, match="is it running"):
        await driver.open()


@CLIENTS
async def test_an_open_that_fails_leaves_no_socket(client: str) -> None:
    with sockets_left() as left:
        for _ in range(5):
            with pytest.raises(UnavailableError):
                await driver_of("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300", client=client).open()
    assert left == []


async def prepared(server: MongoServer) -> str:
    """The URL of a database with the store's collections. To make them takes a busy machine longer than the timeouts
    of the tests that follow, which are of calls to a server that is not there.
    """
    url = server.fresh_url()
    await (await opened(url)).close()
    return url


@CLIENTS
async def test_a_server_that_stops_and_starts_again(client: str) -> None:
    with MongoServer() as server:
        driver = driver_of(await prepared(server), client=client, serverSelectionTimeoutMS="500")
        async with Store.on(driver, timeout=10) as store:
            await store.append(turn("r1"))
            server.process.kill()
            with anyio.fail_after(20), pytest.raises((UnavailableError, OutcomeUnknownError, DriverTimeoutError)):
                await store.append(turn("r2"))
            server.process.start()
            await store.append(turn("r2"))
            stored = await store.runs("s").collect()
            assert [one.run_id for one in stored] == ["r1", "r2"]


async def test_nothing_is_written_behind_what_a_killed_server_has_lost() -> None:
    # half a second until it is on disk
    with MongoServer(arguments=["--journalCommitInterval", "500"]) as server:
        url = server.fresh_url()
        lossy, sure = await opened(url, durability="interval"), await opened(url)
        await send(sure, put("r0"))
        await send(lossy, put("r1"))
        await send_group(lossy, [commit(put(f"r{number}")) for number in range(2, 9)])
        server.process.kill()
        server.process.start()
        left = [row.run_id for row in await all_runs(sure)]
        assert 0 < len(left) < 9, "nothing was lost"
        assert (await send(lossy, put("late"))).head.version == len(left) + 1
        for driver in (lossy, sure):
            assert [row.run_id for row in await all_runs(driver)] == [*left, "late"]
            await driver.close()


@CLIENTS
async def test_a_server_that_is_silent_ends_in_a_timeout(client: str) -> None:
    with MongoServer() as server:
        driver = driver_of(await prepared(server), client=client, socketTimeoutMS="9000")
        async with Store.on(driver, timeout=3) as store:
            await store.append(turn("r1"))
            server.process.pause()
            try:
                with anyio.fail_after(7), pytest.raises(DriverTimeoutError):
                    await store.append(turn("r2"))
                with anyio.fail_after(7), pytest.raises((DriverTimeoutError, UnavailableError)):
                    await store.messages("s").collect()
            finally:
                server.process.resume()
            await anyio.sleep(0.5)
            assert (await store.append(turn("r2"))).run_seq == 2
            assert (await store.append(turn("r3"))).run_seq == 3


@CLIENTS
async def test_a_read_that_is_cancelled_while_it_connects_leaves_no_socket(
    url: str, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = await opened(url, client=client)
    loop = asyncio.get_running_loop()
    connect, connecting = loop.sock_connect, asyncio.Event()

    async def slow(*arguments: Any) -> None:
        connecting.set()
        await asyncio.sleep(0.1)
        await connect(*arguments)

    monkeypatch.setattr(loop, "sock_connect", slow)
    with sockets_left() as left:
        async with anyio.create_task_group() as group:
            # more than there are connections
            for _ in range(5):
                group.start_soon(driver.messages, MessageQuery(key(), ((1, 10),), 10, 1_000_000))
            with anyio.move_on_after(1):
                await connecting.wait()
            group.cancel_scope.cancel()
        await asyncio.sleep(0.3)
    assert left == []
    assert await all_messages(driver) == []
    await driver.close()


async def test_a_full_disk_is_told(url: str) -> None:
    """As the server says it."""
    with MongoServer(arguments=["--setParameter", "enableTestCommands=1"]) as server:
        driver = await opened(server.fresh_url())
        with MongoClient(server.url) as admin:
            point = {"errorCode": 14031, "failCommands": ["insert"]}
            admin.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": point})
        with pytest.raises(StorageFullError, match="make room"):
            await driver.commit([commit(put("r1"))])
        await send(driver, put("r1"))
        await driver.close()


@pytest.mark.parametrize("code", [10107, 11602, 91, 189])
async def test_a_primary_that_steps_down_is_waited_for(code: int) -> None:
    with MongoServer(replica_set=1, arguments=["--setParameter", "enableTestCommands=1"]) as server:
        async with Store.on(await _unopened(server)) as store:
            await store.append(turn("r1"))
            with MongoClient(server.url) as admin:
                point = {"errorCode": code, "failCommands": ["insert", "update", "find"]}
                admin.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 3}, "data": point})
            assert (await store.append(turn("r2"))).run_seq == 2


async def test_a_majority_that_does_not_confirm_leaves_the_outcome_open() -> None:
    with MongoServer(replica_set=1, arguments=["--setParameter", "enableTestCommands=1"]) as server:
        driver = await opened(server.fresh_url())
        await send(driver, put("r1"))
        with MongoClient(server.url) as admin:
            concern = {"code": 64, "errmsg": "waiting for replication timed out"}
            point = {"failCommands": ["insert", "update"], "writeConcernError": concern}
            admin.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": point})
        with pytest.raises(OutcomeUnknownError):
            await driver.commit([commit(put("r2"))])
        assert (await send(driver, put("r2"))).replayed
        await driver.close()


async def _unopened(server: MongoServer) -> Driver:
    return driver_of(server.fresh_url())


# what it says of itself, and its options


async def test_its_durability(url: str, mongo_replica_set: MongoServer) -> None:
    for options, durability in (({}, "disk"), ({"durability": "interval"}, "interval")):
        driver = await opened(url, **options)
        assert driver.durability is Durability(durability)
        await send(driver, put("r1"))
        await driver.close()
    driver = driver_of(url, durability="majority")
    with pytest.raises(DriverError, match="replica set"):
        await driver.open()
    replicated = mongo_replica_set.fresh_url()
    driver = await opened(replicated, durability="majority")
    assert driver.durability is Durability.MAJORITY
    await driver.close()
    mongo_replica_set.drop(replicated)


@pytest.mark.parametrize("kind", [AsyncMongoClient, AsyncIOMotorClient])
async def test_a_client_that_was_given_is_left_open(url: str, kind: Any) -> None:
    client = kind(url)
    driver = await opened(url, client=client)
    await send(driver, put("r1"))
    await driver.close()
    assert await client.admin.command("ping")
    closing = client.close()
    if inspect.isawaitable(closing):
        await closing


async def test_stores_of_one_database_are_told_apart_by_prefix(url: str) -> None:
    one, two = await opened(url, prefix="one_"), await opened(url, prefix="")
    await send(one, put("r1"))
    assert await all_messages(two) == []
    await one.close()
    await two.close()


async def test_the_database_is_the_urls_or_the_options(mongo_server: MongoServer) -> None:
    driver = await opened(f"mongodb+pymongo://{mongo_server.url.partition('//')[2]}?database=given", client="motor")
    await send(driver, put("r1"))
    await driver.close()
    with MongoClient(mongo_server.url) as client:
        assert "sessionledger_commits" in client["given"].list_collection_names()
        client.drop_database("given")


@pytest.mark.parametrize(
    "options",
    [
        {"client": "pymongo-sync"},
        {"client": MongoClient},
        {"pool_size": "0"},
        {"pool_size": True},
        {"prefix": "with-dash"},
        {"durability": "process"},
        {"database": "a.b"},
    ],
)
async def test_a_wrong_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecordError):
        await opened("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100", **options)


async def test_a_url_that_is_malformed_is_refused() -> None:
    with pytest.raises(InvalidRecordError) as caught:
        await opened("mongodb://user:secret@:/x")
    assert "secret" not in str(caught.value)


async def test_a_newer_schema_is_refused(url: str) -> None:
    driver = await opened(url)
    await driver.close()
    with MongoClient(url) as client:
        client.get_default_database()["sessionledger_meta"].update_one({}, {"$set": {"min_reader": 99}})
    with pytest.raises(SchemaTooNewError):
        await opened(url)


async def test_a_driver_that_is_not_open_says_so(url: str) -> None:
    driver = driver_of(url)
    with pytest.raises(DriverError, match="open it first"):
        await driver.ping()


async def test_a_damaged_document_is_told(url: str) -> None:
    driver = await opened(url)
    await send(driver, put("r1"))
    with MongoClient(url) as client:
        client.get_default_database()["sessionledger_commits"].update_one({"n": 1}, {"$set": {"h": "[1"}})
    second = await opened(url)
    with pytest.raises(DecodeError):
        await all_messages(second)
    (answer,) = await second.commit([commit(put("r2"))])
    assert isinstance(answer, DecodeError)
    await second.close()
    await driver.close()


async def test_a_server_can_be_named(monkeypatch: pytest.MonkeyPatch, mongo_server: MongoServer) -> None:
    monkeypatch.setenv("SESSIONLEDGER_TEST_MONGODB", mongo_server.url)
    with MongoServer() as named:
        driver = await opened(named.fresh_url())
        await send(driver, put("r1"))
        await driver.close()
    assert mongo_server.process.running
