"""What a PostgreSQL server does to a store: refuses, fills up, dies, follows, prunes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
import asyncpg
import pytest

from sessionledger import (
    DriverError,
    Durability,
    InvalidRecordError,
    Message,
    OutcomeUnknownError,
    PoolTimeoutError,
    Run,
    SchemaTooNewError,
    SessionStore,
    StorageFullError,
    ToolCall,
    UnavailableError,
    open_store,
)
from sessionledger.drivers.postgres.errors import error_of
from sessionledger.testing.builders import turn
from sessionledger.testing.servers import PostgresServer
from tests.drivers.postgres_servers import SmallDisk, bouncer, small_disk, standby

pytestmark = pytest.mark.anyio

SECRET = "horse-battery"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.fresh_url()


@asynccontextmanager
async def admin(server: PostgresServer, **options: Any) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.url, **options)
    try:
        yield connection
    finally:
        await connection.close()


def schema_of(url: str) -> str:
    return url.partition("schema=")[2].partition("&")[0]


def said(number: int, session_id: str = "s", content: str = "hi") -> Run:
    return Run(run_id=f"r{number}", session_id=session_id, messages=[Message(role="user", content=content)])


async def refused(url: str, kind: type[Exception], *words: str, **options: Any) -> None:
    """Opening it fails in time, with a remedy and without a secret."""
    started = time.monotonic()
    with pytest.raises(kind) as raised:
        async with open_store(url, timeout=5, **options):
            pass
    assert time.monotonic() - started < 5.5
    text = str(raised.value)
    assert SECRET not in text and SECRET not in repr(raised.value.__cause__)
    assert all(word in text for word in words), text


async def test_large_bodies_are_read_by_many_at_once(url: str) -> None:
    """How a page is asked for depends on the last one: who is behind it must not take the other's answer for his."""
    sizes: list[int] = []

    async def read(store: SessionStore) -> None:
        sizes.extend([len(message.content) async for message in store.messages("s")])

    async with open_store(url) as store:
        await store.append(said(1, content="x" * 50_000))
    async with open_store(url) as store, anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(read, store)
    assert sizes == [50_000] * 50


async def test_a_server_that_is_down_is_named() -> None:
    await refused(f"postgresql://ada:{SECRET}@127.0.0.1:1/agents", UnavailableError, "is it running?")


async def test_a_wrong_password_is_named() -> None:
    with PostgresServer(password="right") as server:
        wrong = server.url.replace(":right@", f":{SECRET}@")
        await refused(wrong, DriverError, "refused the user or the password", "store's URL")
        async with open_store(server.url) as store:
            await store.append(said(1))


async def test_a_password_that_breaks_the_url_is_not_shown() -> None:
    await refused(f"postgresql://ada:{SECRET}/x@127.0.0.1:1/agents", InvalidRecordError, "%2F")
    await refused("postgresql://127.0.0.1:1/agents?sslmode=perhaps", InvalidRecordError, "sslmode")


async def test_a_missing_database_is_named(postgres_server: PostgresServer) -> None:
    url = postgres_server.url.rpartition("/")[0] + "/nowhere"
    await refused(url, DriverError, "database does not exist", "create it")


async def test_a_schema_without_rights_is_named(postgres_server: PostgresServer, url: str) -> None:
    schema = schema_of(url)
    async with admin(postgres_server) as db:
        await db.execute(f'CREATE ROLE "{schema}" LOGIN; CREATE SCHEMA "{schema}"')
    theirs = url.replace("//sessionledger@", f"//{schema}@")
    await refused(theirs, DriverError, "lacks a right", "grant")
    async with open_store(url) as store:
        await store.append(said(1))
    # the tables are there, but are not theirs
    async with admin(postgres_server) as db:
        await db.execute(f'GRANT USAGE ON SCHEMA "{schema}" TO "{schema}"')
    await refused(theirs, DriverError, "lacks a right", "grant")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("pool_size", "0", "at least 1"),
        ("pool_size", "many", "at least 1"),
        ("pool_timeout", "-1", "seconds"),
        ("partitions", "-1", "at least 0"),
        ("statement_cache_size", "x", "at least 0"),
        ("durability", "none", "'disk' or 'interval'"),
        ("schema", 'x"; DROP TABLE y', "letters"),
        ("prefix", "a-b", "letters"),
        ("nonsense", "1", "it knows"),
    ],
)
async def test_an_option_is_checked_before_anything_is_sent(option: str, value: str, words: str) -> None:
    with pytest.raises(InvalidRecordError, match=words) as raised:
        open_store("postgresql://127.0.0.1:1/agents", **{option: value})
    assert raised.value.path == option


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
async def test_a_store_is_found_by_each_scheme(url: str, scheme: str) -> None:
    async with open_store(url.replace("postgresql", scheme, 1)) as store:
        assert (await store.append(said(1))).run_seq == 1


async def test_two_prefixes_are_two_stores(url: str) -> None:
    async with open_store(f"{url}&prefix=a_") as one, open_store(f"{url}&prefix=b_") as other:
        await one.append(said(1))
        assert await other.get_session("s") is None


async def test_the_servers_durability_is_told(url: str) -> None:
    async with open_store(url) as store:
        assert store.durability is Durability.DISK
    async with open_store(url, durability="interval") as store:
        assert store.durability is Durability.INTERVAL


async def test_a_newer_schema_is_refused(postgres_server: PostgresServer, url: str) -> None:
    async with open_store(url) as store:
        await store.append(said(1))
    async with admin(postgres_server) as db:
        await db.execute(f"UPDATE {schema_of(url)}.sessionledger_meta SET value = 99 WHERE name = 'min_writer'")
    await refused(url, SchemaTooNewError, "99", "upgrade sessionledger")


async def test_a_busy_pool_says_so(postgres_server: PostgresServer, url: str) -> None:
    async with (
        open_store(url, pool_size=1, pool_timeout=0.2) as store,
        admin(postgres_server) as db,
        db.transaction(),
        anyio.create_task_group() as tasks,
    ):
        await store.append(said(1))
        await db.execute(f"LOCK TABLE {schema_of(url)}.sessionledger_sessions")
        tasks.start_soon(store.append, said(2))
        await anyio.sleep(0.1)
        with pytest.raises(PoolTimeoutError, match="pool_size"):
            await store.get_session("s")
        await db.execute("COMMIT; BEGIN")


async def test_a_connection_that_the_server_ended_is_replaced(postgres_server: PostgresServer, url: str) -> None:
    async with open_store(f"{url}&application_name={schema_of(url)}") as store:
        for number in range(1, 4):
            await store.append(said(number))
            async with admin(postgres_server) as db:
                await db.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", schema_of(url)
                )
        assert [run.seq async for run in store.runs("s")] == [1, 2, 3]


async def test_a_server_that_was_killed_has_all_that_was_acknowledged() -> None:
    with PostgresServer(durable=True) as server:
        acknowledged: list[str] = []
        enough = anyio.Event()

        async def write(session_id: str) -> None:
            for number in range(10_000):
                try:
                    await store.append(said(number, session_id))
                except (UnavailableError, OutcomeUnknownError):
                    return
                acknowledged.append(f"{session_id}/r{number}")
                if len(acknowledged) == 50:
                    enough.set()

        async with open_store(server.url) as store:
            async with anyio.create_task_group() as tasks:
                for name in "abcd":
                    tasks.start_soon(write, name)
                with anyio.fail_after(60):
                    await enough.wait()
                await anyio.to_thread.run_sync(server.process.kill)
            await anyio.to_thread.run_sync(server.process.start)
            found = {f"{name}/{run.run_id}" for name in "abcd" async for run in store.runs(name)}
            assert set(acknowledged) <= found
            await store.append(said(1, "again"))


async def test_a_standby_takes_over() -> None:
    settings = {"synchronous_standby_names": "*"}
    with PostgresServer(durable=True) as plain:
        async with open_store(plain.url) as store:
            await store.append(said(0))
        with standby(plain) as (_, place):
            async with admin(plain) as db:
                for name, value in settings.items():
                    await db.execute(f"ALTER SYSTEM SET {name} = '{value}'")
                await db.execute("SELECT pg_reload_conf()")
            parts = urlsplit(plain.url)
            both = f"postgresql://{parts.username}@127.0.0.1:{parts.port},{place}/postgres"
            async with open_store(f"postgresql://{parts.username}@{place}/postgres") as reader:
                assert [run.run_id async for run in reader.runs("s")] == ["r0"]
                with pytest.raises(UnavailableError, match="connect to the primary"):
                    await reader.append(said(1))
            async with open_store(both, target_session_attrs="read-write") as store:
                for number in range(1, 30):
                    await store.append(said(number))
                await anyio.to_thread.run_sync(plain.process.kill)
                promoted = await asyncpg.connect(f"postgresql://{parts.username}@{place}/postgres")
                assert await promoted.fetchval("SELECT pg_promote()")
                await promoted.close()
                receipt = await store.append(said(30))
                assert receipt.run_seq == 31
                assert [run.seq async for run in store.runs("s")] == list(range(1, 32))


async def test_it_works_through_pgbouncer(postgres_server: PostgresServer, url: str) -> None:
    program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
    if program is None:
        pytest.skip("there is no PgBouncer on this machine")
    with bouncer(postgres_server, program) as front:
        async with open_store(f"{front}&schema={schema_of(url)}") as store, anyio.create_task_group() as tasks:
            # more at once than PgBouncer has connections
            for task in range(8):
                tasks.start_soon(append_some, store, f"s{task}")
                tasks.start_soon(append_some, store, "s", 100 * (task + 1))
        async with open_store(f"{front}&schema={schema_of(url)}") as store:
            for name in [f"s{task}" for task in range(8)]:
                assert [run.seq async for run in store.runs(name)] == list(range(1, 11))
            assert [run.seq async for run in store.runs("s")] == list(range(1, 81))
            await store.update_session("s", change={"name": "renamed"})
            assert len(await store.history("s").collect()) == 80


async def append_some(store: Any, session_id: str, first: int = 0) -> None:
    for number in range(first, first + 10):
        await store.append(said(number, session_id))


async def test_a_full_disk_is_named_and_goes_on_when_there_is_room(postgres_server: PostgresServer, url: str) -> None:
    if os.environ.get("SESSIONLEDGER_TEST_POSTGRES") or os.geteuid() != 0:
        pytest.skip("a small disk is mounted by root alone, under a server of the tests' own")
    try:
        await fill_a_small_disk(postgres_server, url)
    except PermissionError:
        pytest.skip("nobody may mount a disk here")


async def fill_a_small_disk(server: PostgresServer, url: str) -> None:
    name = schema_of(url)
    with small_disk("24m") as disk:
        async with admin(server) as db:
            await db.execute(f"CREATE TABLESPACE \"{name}\" LOCATION '{disk.directory}'")
            await db.execute(f'CREATE DATABASE "{name}" TABLESPACE "{name}"')
        try:
            await fill_and_go_on(server.url.rpartition("/")[0] + f"/{name}", disk)
        finally:
            async with admin(server) as db:
                await db.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
                await db.execute(f'DROP TABLESPACE "{name}"')


async def fill_and_go_on(url: str, disk: SmallDisk) -> None:
    async with open_store(url) as store:
        acknowledged: list[str] = []
        with pytest.raises(StorageFullError, match="make room"):
            for number in range(1000):
                receipt = await store.append(said(number, content=os.urandom(50_000).hex()))
                acknowledged.append(receipt.run_id)
        assert [run.run_id async for run in store.runs("s")] == acknowledged
        disk.grow("64m")
        receipt = await store.append(said(1000))
        assert receipt.run_seq == len(acknowledged) + 1


@pytest.mark.parametrize("partitions", [0, 4])
async def test_views_show_what_was_said(postgres_server: PostgresServer, url: str, partitions: int) -> None:
    call = ToolCall(tool_call_id="c1", name="we\0ather", arguments="{}")
    async with open_store(url, partitions=partitions) as store:
        await store.append(
            Run(
                session_id="s",
                run_id="r",
                messages=[
                    Message(role="user", content="nul: \0, not: \\u0000"),
                    Message(role="assistant", tool_calls=[call]),
                ],
            )
        )
        schema = schema_of(url)
        async with admin(postgres_server) as db:
            contents = await db.fetch(f"SELECT content FROM {schema}.sessionledger_messages ORDER BY position")
            calls = await db.fetch(f"SELECT name FROM {schema}.sessionledger_tool_calls")
            log = await db.fetch(f"SELECT run_id, status FROM {schema}.sessionledger_run_log")
        assert [row["content"] for row in contents] == ["nul: \ufffd, not: \\ufffd", None]
        assert [row["name"] for row in calls] == ["we\ufffdather"]
        assert [tuple(row) for row in log] == [("r", "completed")]


def test_every_exception_of_asyncpg_becomes_one_of_ours() -> None:
    kinds = [
        kind
        for kind in vars(asyncpg.exceptions).values()
        if isinstance(kind, type)
        and issubclass(kind, asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError)
    ]
    assert len(kinds) > 200
    for kind in [*kinds, OSError, ConnectionResetError, TimeoutError]:
        for writing in (False, True):
            error = error_of(kind("it said no"), writing=writing)
            assert isinstance(error, DriverError) and ":" in str(error), kind


async def test_a_storage_that_went_back_gives_nobody_anothers_session(
    postgres_server: PostgresServer, url: str
) -> None:
    """As after a restore: the key that a store remembers is of another session then."""
    async with open_store(url) as one, open_store(url) as other:
        await one.append(turn("r1", session_id="alice"))
        await forget(postgres_server, schema_of(url))
        await other.append(turn("r1", session_id="bob"))
        assert (await one.append(turn("r2", session_id="alice"))).run_seq == 1
        assert [run.run_id for run in await other.runs("bob").collect()] == ["r1"]


async def forget(server: PostgresServer, schema: str) -> None:
    """What the store of a schema holds is gone, past the store."""
    async with admin(server) as db:
        tables = await db.fetchval(
            "SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables "
            "WHERE schemaname = $1 AND tablename <> 'sessionledger_meta'",
            schema,
        )
        await db.execute(f"TRUNCATE {tables} RESTART IDENTITY")
