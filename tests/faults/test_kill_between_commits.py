"""Writes that take several transactions, killed between each two of them: a repetition completes them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from sessionledger import Message, Run, SessionStore, open_store

from .tables import check_tables, leftovers
from .trial import Writer
from .writer import CALLS, Orders

pytestmark = pytest.mark.anyio

#: More than two steps of an erasure.
MESSAGES = 5_000


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session, and a fork of it that has much of its own."""
    path = tmp_path_factory.mktemp("prepared") / "sessions.db"
    messages = [Message(role="user", content=f"{number}") for number in range(MESSAGES)]

    async def write() -> None:
        async with open_store(f"sqlite:///{path}") as store:
            await store.append(Run(run_id="r", session_id="parent", messages=messages[:3]))
            await store.fork("parent", new_session_id="fork")
            await store.append(Run(run_id="r", session_id="fork", messages=messages))

    anyio.run(write)
    return path


def killed(call: str, prepared: Path, tmp_path: Path) -> Iterator[Path]:
    """A database whose writer was killed one transaction after it began, after two, and so on to its end."""
    code, commits = -9, 0
    while code:
        commits += 1
        path = tmp_path / f"{commits}.db"
        shutil.copy(prepared, path)
        writer = Writer()
        writer.order(Orders(url=f"sqlite:///{path}", begin=[], only=call, last_commit=commits))
        code = writer.end()
        yield path
    assert commits > 1  # it was killed at least once


@pytest.mark.parametrize("call", ["erase", "erase with forks"])
async def test_an_erasure_is_completed_by_the_next_delete(call: str, prepared: Path, tmp_path: Path) -> None:
    interrupted = 0
    for path in killed(call, prepared, tmp_path):
        check_tables(path)
        interrupted += bool(leftovers(path))
        async with open_store(f"sqlite:///{path}") as store:
            there = await store.get_session("fork") is not None
            assert await count(store, "fork") == (MESSAGES + 3 if there else 0)
            await CALLS[call](store)
            assert await store.get_session("fork") is None
            # its parent is not held by what is gone
            assert await store.delete_session("parent", soft=False) == (call == "erase")
        assert not leftovers(path)
    assert interrupted > 2


async def test_a_fork_is_completed_by_its_repetition(prepared: Path, tmp_path: Path) -> None:
    for path in killed("fork", prepared, tmp_path):
        check_tables(path)
        async with open_store(f"sqlite:///{path}") as store:
            assert await count(store, "new") in (0, 3)
            await CALLS["fork"](store)
            assert await count(store, "new") == 3
            assert await store.delete_session("new", soft=False)
            assert await store.delete_session("fork", soft=False)
            assert await store.delete_session("parent", soft=False)
        assert not leftovers(path)


async def test_a_fork_that_is_not_repeated_does_not_keep_its_parent(prepared: Path, tmp_path: Path) -> None:
    for path in killed("fork", prepared, tmp_path):
        async with open_store(f"sqlite:///{path}") as store:
            assert await store.delete_session("parent", soft=False, forks=True)
            assert await store.sessions(include_deleted=True).collect() == []
        assert not leftovers(path)


async def count(store: SessionStore, session_id: str) -> int:
    return await store.messages(session_id).count()
