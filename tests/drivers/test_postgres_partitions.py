"""Partitioned messages: every statement of the append and read paths looks into one partition of sixteen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anyio
import asyncpg
import pytest

from sessionledger import Message, Run, open_store
from sessionledger.testing.servers import PostgresServer

pytestmark = pytest.mark.anyio

PARTITIONS = 16


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def scans(plan: Any) -> Iterator[dict[str, Any]]:
    if isinstance(plan, dict):
        if "Node Type" in plan:
            yield plan
        plan = list(plan.values())
    if isinstance(plan, list):
        for part in plan:
            yield from scans(part)


def read_by(plan: Any) -> set[str]:
    """The partitions that a statement looked into."""
    return {
        node["Relation Name"]
        for node in scans(plan)
        if "message_rows_" in node.get("Relation Name", "") and node["Actual Loops"]
    }


async def explain(db: asyncpg.Connection, fetchval: Any, text: str, values: tuple[Any, ...]) -> Any:
    """What it does, done and undone."""
    transaction = db.transaction()
    await transaction.start()
    try:
        return json.loads(await fetchval(db, f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", *values))
    finally:
        await transaction.rollback()


async def test_each_statement_prunes_to_one_partition(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: dict[str, set[str]] = {}
    fetchval = asyncpg.Connection.fetchval

    def watch(name: str) -> None:
        original = getattr(asyncpg.Connection, name)

        async def send(self: asyncpg.Connection, text: str, *values: Any, **options: Any) -> Any:
            if "message_rows" in text and "EXPLAIN" not in text:
                read[text] = read.get(text, set()) | read_by(await explain(self, fetchval, text, values))
            return await original(self, text, *values, **options)

        monkeypatch.setattr(asyncpg.Connection, name, send)

    messages = [Message(role="user", content="hi", message_id=f"m{number}") for number in range(40)]
    async with open_store(postgres_server.fresh_url(), partitions=PARTITIONS) as store:
        for name in ("fetch", "fetchrow", "fetchval", "execute"):
            watch(name)
        await store.append([Run(run_id=f"a{number}", session_id="a", messages=messages) for number in (1, 2)])
        await store.append(Run(run_id="a3", session_id="a", status="running", messages=messages))
        await store.update_run("a", run_id="a3", messages=messages)
        await store.append(Run(run_id="a4", session_id="a", messages=messages))
        async with anyio.create_task_group() as tasks:
            for number in range(5, 8):
                tasks.start_soon(store.append, Run(run_id=f"a{number}", session_id="a", messages=messages))
        await store.messages("a").collect()
        await store.messages("a", last=5).collect()
        await store.messages("a", offset=50, limit=5).collect()
        await store.history("a", last_runs=1).collect()
        assert await store.get_message("a", message_id="m7") is not None
        await store.delete_session("a", soft=False)
        monkeypatch.undo()
    assert len(read) >= 8 and set().union(*read.values())
    assert {text: parts for text, parts in read.items() if len(parts) > 1} == {}
