"""What a driver says of itself, what it still holds when it is opened again, and how it erases."""

from __future__ import annotations

import anyio

from sessionledger.protocol.driver import PROTOCOL_VERSION, Driver, DriverInfo
from sessionledger.protocol.rows import (
    LAST,
    Committed,
    CountForks,
    ForkLink,
    Hide,
    MessageQuery,
    MessageRow,
    Reason,
    Refused,
    Seal,
    SetDeleted,
    Show,
)
from sessionledger.testing.rows import (
    ALL,
    MANY_BYTES,
    all_messages,
    all_runs,
    all_sessions,
    commit,
    digest_of,
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
    switch,
)
from sessionledger.testing.suite.bench import Bench, Storage

__all__ = ["KeepingTests"]

_MANY_STEPS = 1000


async def erase(driver: Driver, limit: int = 100) -> int:
    """All of it; how many steps that took."""
    for step in range(1, _MANY_STEPS):
        if not await driver.erase(key(), limit=limit):
            return step
    raise AssertionError(f"erase said {_MANY_STEPS} times that there is more")


def named(count: int) -> list[MessageRow]:
    """Messages with ids of their own."""
    return [message(str(index), index=index, message_id=f"m{index}") for index in range(count)]


class KeepingTests(Bench):
    # what it says

    async def test_a_driver_has_the_whole_protocol(self, driver: Driver) -> None:
        assert isinstance(driver, Driver)

    async def test_a_driver_says_what_it_is_before_it_is_opened(self) -> None:
        info = type(self).factory.info  # type: ignore[attr-defined]
        assert isinstance(info, DriverInfo)
        assert info.name and info.protocol_version == PROTOCOL_VERSION
        assert info.schemes and info.durabilities
        assert "asyncio" in info.backends
        assert info.writers >= 1 and info.max_group >= 1
        assert info.max_run_bytes is None or info.max_run_bytes > 0

    async def test_its_durability_is_one_it_can_be_asked_for(self, driver: Driver) -> None:
        assert driver.durability in driver.info.durabilities

    async def test_it_answers(self, driver: Driver) -> None:
        await driver.ping()

    async def test_the_schema_is_the_newest_once_it_is_open(self, driver: Driver) -> None:
        version = await driver.schema_version()
        assert version >= 1
        assert await driver.upgrade_schema() == version
        assert await driver.schema_version() == version

    # what it keeps

    async def test_everything_is_there_when_it_is_opened_again(self, storage: Storage) -> None:
        driver = storage.driver()
        await driver.open()
        await send(
            driver, put("r1", 3, status="running", agent_id="x"), create=new_session(user_id="u", state='{"a":1}')
        )
        await send(driver, patch("r1", 2, parts={"output": "1"}, counters={"c": 3}), operation_id="patched")
        await send(driver, put("r1", 1, revision=2), put("r2", 2))
        await send(driver, Hide([((2, 3), ALL)]), operation_id="h")
        await send(driver, Show("h"), switch("w", "b", reason='"why"'), patch_session(name="n"))
        await send(driver, put("r1", 1), session_id="fork", create=new_session(fork=ForkLink("s", 1, 4, 1, 2)))
        await send(driver, CountForks(1), SetDeleted(7))
        before = await dump(driver)
        fork = await dump(driver, key("fork"))
        listed = await all_sessions(driver, include_deleted=True)
        found = [(head, row.run_id) for head, row in await find_all_runs(driver, run_id="r1")]
        await driver.close()

        driver = storage.driver()
        await driver.open()
        try:
            assert await dump(driver) == before
            assert await dump(driver, key("fork")) == fork
            assert [row.head for row in await all_sessions(driver, include_deleted=True)] == [
                row.head for row in listed
            ]
            assert [(head, row.run_id) for head, row in await find_all_runs(driver, run_id="r1")] == found
        finally:
            await driver.close()

    async def test_replays_are_recognised_when_it_is_opened_again(self, storage: Storage) -> None:
        driver = storage.driver()
        await driver.open()
        run = await send(driver, put("r1", 2, status="running"))
        patched = await send(driver, patch("r1", 2), operation_id="o")
        await driver.close()

        driver = storage.driver()
        await driver.open()
        try:
            again = await send(driver, put("r1", 2, status="running"))
            assert again.replayed and again.receipts[0].first_position == run.receipts[0].first_position
            again = await send(driver, patch("r1", 2), operation_id="o")
            assert again.replayed and again.receipts[0].first_position == patched.receipts[0].first_position
            conflict = await outcome_of(driver, commit(put("r1", digest=digest_of("other"))))
            assert isinstance(conflict, Refused) and conflict.reason is Reason.RUN_CONFLICT
            follower = await send(driver, put("r2", 1))
            assert (follower.receipts[0].run_seq, follower.receipts[0].first_position) == (2, 5)
        finally:
            await driver.close()

    async def test_a_tombstone_is_there_when_it_is_opened_again(self, storage: Storage) -> None:
        driver = storage.driver()
        await driver.open()
        await send(driver, put("r1", 2))
        await send(driver, Seal())
        await erase(driver)
        await driver.close()

        driver = storage.driver()
        await driver.open()
        try:
            outcome = await outcome_of(driver, commit(put("r1", 2)))
            assert isinstance(outcome, Refused) and outcome.reason is Reason.ERASED
        finally:
            await driver.close()

    async def test_two_drivers_see_one_storage(self, storage: Storage, driver: Driver) -> None:
        other = storage.driver()
        await other.open()
        try:
            await send(driver, put("r1", 1))
            outcome = await send(other, put("r2", 1))
            assert outcome.receipts[0].run_seq == 2
            assert [row.run_id for row in await all_runs(driver)] == ["r1", "r2"]
            assert (await send(driver, put("r2", 1))).replayed
        finally:
            await other.close()

    async def test_two_drivers_write_one_session_densely(self, storage: Storage, driver: Driver) -> None:
        other = storage.driver()
        await other.open()

        async def write(one: Driver, name: str) -> None:
            for number in range(20):
                await send(one, put(f"{name}{number}", 2))

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(write, driver, "a")
                group.start_soon(write, other, "b")
            rows = await all_messages(driver)
            assert [row.position for row in rows] == list(range(1, 81))
            assert [row.seq for row in await all_runs(other)] == list(range(1, 41))
        finally:
            await other.close()

    # erasing

    async def test_a_sealed_session_is_erased(self, driver: Driver) -> None:
        await send(driver, put("r1", named(5), status="running"), switch("w", "a"))
        await send(driver, patch("r1", 3, start=5))
        await send(driver, put("r1", 1, revision=2), put("r2", 2))
        await send(driver, Hide([(ALL, (1, 1))]))
        sealed = await send(driver, Seal())
        await erase(driver)
        after = await dump(driver)
        assert (after.runs, after.messages, after.hidden, after.switches) == ([], [], [], [])
        assert after.session is not None and after.session.head == sealed.head
        page = await driver.messages(MessageQuery(key(), (ALL,), 10, MANY_BYTES, message_id="m0"))
        assert list(page.rows) == [] and page.head == sealed.head

    async def test_erasing_goes_in_steps_and_ends(self, driver: Driver) -> None:
        await send(driver, put("r1", 100))
        for number in range(20):
            await send(driver, put(f"x{number}", 5))
        await send(driver, Seal())
        await erase(driver, limit=10)
        assert not await driver.erase(key(), limit=10)
        assert await all_messages(driver) == [] and await all_runs(driver) == []

    async def test_what_is_not_sealed_is_not_erased(self, driver: Driver) -> None:
        await send(driver, put("r1", 5))
        before = await dump(driver)
        assert not await driver.erase(key(), limit=100)
        await send(driver, SetDeleted(5))
        assert not await driver.erase(key(), limit=100)
        await send(driver, SetDeleted(None), on_deleted=True)
        after = await dump(driver)
        assert (after.runs, after.messages) == (before.runs, before.messages)

    async def test_an_unknown_session_is_not_erased(self, driver: Driver) -> None:
        assert not await driver.erase(key("unknown"), limit=10)
        assert await driver.session(key("unknown"), state=False) is None

    async def test_others_are_not_erased(self, driver: Driver) -> None:
        for name in ("s", "s1", "S"):
            await send(driver, put("r1", 3), session_id=name)
        await send(driver, put("r1", 3), namespace="n")
        await send(driver, Seal())
        await erase(driver)
        for other in (key("s1"), key("S"), key("s", "n")):
            assert len(await all_messages(driver, other)) == 3

    async def test_an_erasure_does_not_wait_for_anothers(self, driver: Driver) -> None:
        for name in ("a", "s", "z"):
            await send(driver, put("r1", 3 if name == "s" else 600), session_id=name)
            await send(driver, Seal(), session_id=name)
        assert await erase(driver) <= 2
        assert await all_messages(driver) == [] and await all_runs(driver) == []
        for name in ("a", "z"):
            while await driver.erase(key(name), limit=100):
                pass
            assert await all_messages(driver, key(name)) == []

    async def test_what_an_incarnation_left_is_never_seen_again(self, driver: Driver) -> None:
        await send(driver, put("r1", named(9), agent_id="x"), switch("w", "a"), operation_id="o")
        await send(driver, patch_session(), operation_id="patched")
        await send(driver, Seal())
        # made again before it was erased
        await send(driver, put("r1", 1, agent_id="y", digest=digest_of("new")), must_create=True)
        await driver.erase(key(), limit=2)
        stored = await dump(driver)
        assert [row.position for row in stored.messages] == [1]
        assert [row.digest for row in stored.runs] == [digest_of("new")]
        assert (stored.hidden, stored.switches) == ([], [])
        assert await find_all_runs(driver, agent_id="x") == []
        assert await all_messages(driver, message_id="m3") == []
        assert [row.position for row in await all_messages(driver, ranges=((1, LAST),), reverse=True)] == [1]
        outcome = await outcome_of(driver, commit(patch_session(), operation_id="patched"))
        assert isinstance(outcome, Committed) and not outcome.replayed
