"""Lists of sessions while others write, between the index that leads to them and what they say themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sessionledger import Run, SessionStore, open_store
from sessionledger.drivers.redis.lists import Lists
from sessionledger.testing.servers import RedisServer
from sessionledger.testing.suite.bench import small_pages

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def becomes_active(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """One of the sessions that a list has just named is appended to, so many times: before or after it is read."""
    heads = Lists._heads

    def begin(other: SessionStore, which: int, *, before: int = 0, after: int = 0) -> None:
        left = {"before": before, "after": after}

        async def write(when: str, members: Sequence[bytes]) -> None:
            if left[when]:
                left[when] -= 1
                name = members[which].partition(b"\0")[0].decode()
                await other.append(Run(run_id=f"{when} {left[when]}", session_id=name))

        async def busy(self: Lists, servers: Any, namespace: str, members: Sequence[bytes]) -> Any:
            await write("before", members)
            found = await heads(self, servers, namespace, members)
            await write("after", members)
            return found

        monkeypatch.setattr(Lists, "_heads", busy)

    return begin


@pytest.mark.parametrize("reverse", [False, True])
async def test_a_list_misses_nobody_beside_one_who_leaves_it(
    redis_server: RedisServer, becomes_active: Callable[..., None], reverse: bool
) -> None:
    url = redis_server.fresh_url()
    async with open_store(url) as store, open_store(url) as other:
        for number in range(20):
            agent = "x" if number in (3, 4, 15) else "y"
            await store.append(Run(run_id="r", session_id=f"s{number:02}", agent_id=agent))
        small_pages(store, rows=3)
        found = [one.session_id async for one in store.sessions(agent_id="x", reverse=reverse)]
        assert found == (["s03", "s04", "s15"] if reverse else ["s15", "s04", "s03"])
        # the last one of the first batch
        becomes_active(other, -1, after=1)
        assert [one.session_id async for one in store.sessions(agent_id="x", reverse=reverse)] == found


async def test_a_list_from_the_newest_on_brings_nobody_twice(
    redis_server: RedisServer, becomes_active: Callable[..., None]
) -> None:
    url = redis_server.fresh_url()
    async with open_store(url) as store, open_store(url) as other:
        for number in range(6):
            await store.append(Run(run_id="r", session_id=f"s{number}"))
        small_pages(store, rows=2)
        # the last one of a page, each time that the list is looked at
        becomes_active(other, 1, before=4)
        found = [one.session_id async for one in store.sessions()]
        assert len(found) == len(set(found))
        assert {"s0", "s1", "s2"} < set(found)
