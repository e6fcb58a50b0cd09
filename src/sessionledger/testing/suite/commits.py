"""What a commit writes, change by change, read back past the store."""

from __future__ import annotations

import msgspec

from sessionledger.protocol.driver import Driver
from sessionledger.protocol.rows import (
    FIRST,
    LAST,
    Change,
    Committed,
    CountForks,
    ForkLink,
    HiddenRow,
    Hide,
    Reason,
    Refused,
    Seal,
    SetDeleted,
    Show,
)
from sessionledger.testing.rows import (
    ALL,
    all_hidden,
    all_messages,
    all_runs,
    all_switches,
    commit,
    dump,
    header,
    key,
    message,
    new_session,
    outcome_of,
    patch,
    patch_session,
    plain_message,
    put,
    run_header,
    send,
    switch,
)
from sessionledger.testing.suite.bench import Bench

__all__ = ["CommitTests"]


class CommitTests(Bench):
    async def test_a_commit_makes_its_session(self, driver: Driver) -> None:
        new = new_session(user_id="u", created_at=17, state='{"a":1}', agent_id="a", name="n", counters={"c": 2})
        outcome = await send(driver, create=new, at=1_000)
        row = await driver.session(key(), state=True)
        assert row is not None and row.head == outcome.head
        head = row.head
        assert (head.incarnation, head.version, head.state_version) == (1, 1, 1)
        assert (head.run_count, head.message_count, head.forks, head.fork) == (0, 0, 0, None)
        assert (head.user_id, head.created_at) == ("u", 17)
        assert (head.deleted_at, head.erased, head.has_hidden, head.has_summary) == (None, False, False, False)
        assert (row.header, row.state, dict(row.counters)) == (new.header, '{"a":1}', {"c": 2})

    async def test_a_session_that_is_there_keeps_its_fields(self, driver: Driver) -> None:
        await send(driver, create=new_session(user_id="u", name="first"))
        await send(driver, put(), create=new_session(user_id="other", name="second", state='{"b":2}'))
        row = await driver.session(key(), state=True)
        assert row is not None
        assert (row.head.user_id, row.header.name, row.state) == ("u", "first", "{}")

    async def test_the_state_comes_only_when_asked_for(self, driver: Driver) -> None:
        await send(driver, create=new_session(state='{"a":1}'))
        row = await driver.session(key(), state=False)
        assert row is not None and row.state is None

    async def test_a_session_that_is_not_there_is_none(self, driver: Driver) -> None:
        assert await driver.session(key(), state=True) is None

    async def test_every_commit_adds_one_to_the_version(self, driver: Driver) -> None:
        versions = [
            (await send(driver, *changes)).head.version
            for changes in ([], [put("r1", status="running")], [patch()], [patch_session()], [Hide([(ALL, (1, 1))])])
        ]
        assert versions == [1, 2, 3, 4, 5]

    async def test_runs_and_positions_are_dense(self, driver: Driver) -> None:
        receipts = [(await send(driver, put(f"r{n}", n))).receipts[0] for n in range(4)]
        assert [(r.run_seq, r.first_position, r.last_position) for r in receipts] == [
            (1, 1, 0),
            (2, 1, 1),
            (3, 2, 3),
            (4, 4, 6),
        ]
        rows = await all_messages(driver)
        assert [row.position for row in rows] == [1, 2, 3, 4, 5, 6]
        assert [row.run_seq for row in rows] == [2, 3, 3, 4, 4, 4]
        assert [row.seq for row in await all_runs(driver)] == [1, 2, 3, 4]

    async def test_several_runs_of_one_commit_follow_each_other(self, driver: Driver) -> None:
        outcome = await send(driver, put("b", 2), put("a", 1))
        assert [(r.run_id, r.run_seq, r.first_position, r.last_position) for r in outcome.receipts] == [
            ("b", 1, 1, 2),
            ("a", 2, 3, 3),
        ]
        assert {r.version for r in outcome.receipts} == {1}
        assert (outcome.head.run_count, outcome.head.message_count) == (2, 3)
        assert not outcome.replayed and not any(r.replayed for r in outcome.receipts)

    async def test_a_run_comes_back_as_it_was_put(self, driver: Driver) -> None:
        finished = run_header("failed", updated_at=6, finished_at=7, input_tokens=8, output_tokens=2**62)
        run = put(
            "r1",
            2,
            user_id="u",
            agent_id="a",
            parent_run_id="p",
            model="m",
            created_at=5,
            header=finished,
            body='{"output":1}',
        )
        await send(driver, put("r0"), run)
        (row,) = await all_runs(driver, run_id="r1")
        assert (row.seq, row.revision, row.run_id, row.version, row.patch) == (2, 1, "r1", 1, 0)
        assert (row.digest, row.user_id, row.agent_id, row.parent_run_id, row.model) == (run.digest, "u", "a", "p", "m")
        assert (row.created_at, row.header, row.body, dict(row.parts)) == (5, finished, '{"output":1}', {})
        assert (row.first_position, row.last_position, list(row.segments)) == (2, 3, [])

    async def test_a_message_comes_back_as_it_was_put(self, driver: Driver) -> None:
        one = message("x", message_id="m-1", created_at=-5, role="tool", tool_call_id="c", tool_calls=[("c", "n")])
        two = message("y", index=1, input_tokens=2**62, error="e")
        await send(driver, put("r1", [one, two]))
        given, derived = map(plain_message, await all_messages(driver))
        assert (given.message_id, given.created_at, given.body, given.index) == ("m-1", -5, one.body, 0)
        assert (given.position, given.run_seq, given.revision) == (1, 1, 1)
        assert (derived.message_id, derived.body, derived.index) == (None, two.body, 1)

    async def test_bodies_come_back_to_the_byte(self, driver: Driver) -> None:
        text, raw = '{"é":"\\u0000 🙂","n":1e400}', b"\x00\xff\x01{"
        await send(
            driver,
            put("r1", [message(body=text), message(body=raw, index=1)], body=raw, status="running"),
            switch("w", "a", reason=raw),
            create=new_session(state=raw, body=text),
        )
        await send(driver, patch(parts={"output": raw, "extra": text}))
        row = await driver.session(key(), state=True)
        (run,) = await all_runs(driver)
        assert row is not None
        assert (row.state, row.header.body) == (raw, text)
        assert [one.body for one in await all_messages(driver)] == [text, raw]
        assert (run.body, dict(run.parts)) == (raw, {"output": raw, "extra": text})
        assert [one.reason for one in await all_switches(driver)] == [raw]

    async def test_ids_are_kept_apart_and_to_the_byte(self, driver: Driver) -> None:
        ids = [
            "a",
            "A",
            "a ",
            " a",
            "é",
            "e\u0301",
            "'; --",
            '"',
            "%",
            "_",
            "{x}",
            "}",
            "a/b",
            "../a",
            "*",
            "\\",
            "🙂" * 64,
        ]
        for index, name in enumerate(ids):
            await send(
                driver,
                put(name, [message(name, message_id=name)]),
                session_id=name,
                create=new_session(name=str(index)),
            )
        for index, name in enumerate(ids):
            row = await driver.session(key(name), state=False)
            assert row is not None and (row.head.key, row.header.name) == (key(name), str(index))
            assert [run.run_id for run in await all_runs(driver, key(name))] == [name]
            assert [one.message_id for one in await all_messages(driver, key(name), message_id=name)] == [name]

    async def test_namespaces_are_kept_apart(self, driver: Driver) -> None:
        for namespace in ("", "a", "A", "a:s", "🙂"):
            await send(driver, put("r1", [message(namespace)]), namespace=namespace)
        for namespace in ("", "a", "A", "a:s", "🙂"):
            (row,) = await all_messages(driver, key("s", namespace))
            assert row.body == message(namespace).body
        assert await driver.session(key("s", "b"), state=False) is None
        assert await driver.session(key("s:s", "a"), state=False) is None

    # patches

    async def test_a_patch_extends_a_run(self, driver: Driver) -> None:
        await send(driver, put("r1", 1, status="running"))
        await send(driver, put("r2", 1))
        outcome = await send(driver, patch("r1", 2, status="paused"))
        receipt = outcome.receipts[0]
        assert (receipt.run_id, receipt.run_seq, receipt.revision) == ("r1", 1, 1)
        assert (receipt.first_position, receipt.last_position, receipt.version) == (3, 4, 3)
        (run,) = await all_runs(driver, run_id="r1")
        assert (run.patch, run.header.status, run.version) == (1, "paused", 1)
        assert (run.first_position, run.last_position, list(run.segments)) == (1, 1, [(3, 4)])
        assert [(row.run_seq, row.index) for row in await all_messages(driver)] == [(1, 0), (2, 0), (1, 1), (1, 2)]

    async def test_segments_of_a_run_tell_all_its_positions(self, driver: Driver) -> None:
        await send(driver, put("r1", 0, status="running"))
        for number in range(4):
            await send(driver, patch("r1", 1, expected_patch=number, start=number))
            if number % 2:
                await send(driver, put(f"between-{number}", 2))
        (run,) = await all_runs(driver, run_id="r1")
        positions = [place for first, last in run.segments for place in range(first, last + 1)]
        assert positions == [1, 2, 5, 6]
        assert [row.position for row in await all_messages(driver) if row.run_seq == 1] == positions

    async def test_a_patch_without_messages_has_an_empty_receipt(self, driver: Driver) -> None:
        await send(driver, put("r1", 3, status="running"))
        receipt = (await send(driver, patch())).receipts[0]
        assert (receipt.first_position, receipt.last_position) == (4, 3)
        (run,) = await all_runs(driver)
        assert (run.patch, list(run.segments)) == (1, [])

    async def test_parts_override_one_by_one(self, driver: Driver) -> None:
        await send(driver, put("r1", status="running", body='{"output":0}'))
        await send(driver, patch(parts={"output": "1", "extra": "{}"}))
        await send(driver, patch(parts={"output": "2"}, expected_patch=1))
        (run,) = await all_runs(driver)
        assert (run.body, dict(run.parts), run.patch) == ('{"output":0}', {"output": "2", "extra": "{}"}, 2)

    async def test_runs_that_are_open_at_once_interleave(self, driver: Driver) -> None:
        await send(driver, put("a", 1, status="running"), put("b", 1, status="running"))
        await send(driver, patch("a", 1), patch("b", 1))
        await send(driver, patch("a", 1, expected_patch=1, start=2))
        rows = await all_messages(driver)
        assert [(row.position, row.run_seq, row.index) for row in rows] == [
            (1, 1, 0),
            (2, 2, 0),
            (3, 1, 1),
            (4, 2, 1),
            (5, 1, 2),
        ]

    # revisions

    async def test_a_revision_keeps_the_seq_and_hides_the_one_before(self, driver: Driver) -> None:
        await send(driver, put("r1", 2), put("r2", 1))
        outcome = await send(driver, put("r1", 1, revision=2), operation_id="revise")
        receipt = outcome.receipts[0]
        assert (receipt.run_seq, receipt.revision, receipt.first_position, receipt.last_position) == (1, 2, 4, 4)
        assert (outcome.head.run_count, outcome.head.message_count, outcome.head.has_hidden) == (2, 4, True)
        assert await all_hidden(driver) == [HiddenRow("revise", ALL, (1, 1), 1, 2, reach=4)]
        assert [(row.seq, row.revision) for row in await all_runs(driver)] == [(1, 1), (1, 2), (2, 1)]
        assert [(row.run_seq, row.revision) for row in await all_messages(driver)] == [(1, 1), (1, 1), (2, 1), (1, 2)]

    async def test_a_revision_without_messages_reaches_to_the_head(self, driver: Driver) -> None:
        await send(driver, put("r1", 2))
        await send(driver, put("r1", 0, revision=2), operation_id="revise")
        assert await all_hidden(driver) == [HiddenRow("revise", ALL, (1, 1), 1, 2, reach=2)]

    async def test_each_revision_hides_only_the_one_before(self, driver: Driver) -> None:
        for revision in (1, 2, 3):
            await send(driver, put("r1", 1, revision=revision), operation_id=f"o{revision}")
        assert [(row.revision, row.since, row.reach) for row in await all_hidden(driver)] == [(1, 2, 2), (2, 3, 3)]

    async def test_several_revisions_of_one_commit_hide_each_their_own(self, driver: Driver) -> None:
        await send(driver, put("r1", 1), put("r2", 1))
        await send(driver, put("r2", 1, revision=2), put("r1", 1, revision=2), operation_id="o")
        await send(driver, put("r1", 1, revision=3), operation_id="o")
        await send(driver, Hide([((1, 1), ALL), ((2, 2), ALL)]), operation_id="o")
        found = [(row.hide_id, row.positions, row.runs, row.revision, row.since) for row in await all_hidden(driver)]
        assert found == [
            ("o", ALL, (1, 1), 1, 2),
            ("o", ALL, (2, 2), 1, 2),
            ("o", ALL, (1, 1), 2, 3),
            ("o", (1, 1), ALL, None, 4),
            ("o", (2, 2), ALL, None, 4),
        ]

    async def test_a_patch_goes_to_the_newest_revision(self, driver: Driver) -> None:
        await send(driver, put("r1", 1))
        await send(driver, put("r1", 1, revision=2, status="running"))
        await send(driver, patch("r1", 1, revision=2))
        old, new = await all_runs(driver)
        assert (old.patch, list(old.segments), new.patch, list(new.segments)) == (0, [], 1, [(3, 3)])
        assert [row.revision for row in await all_messages(driver)] == [1, 2, 2]

    # the session itself

    async def test_the_header_is_replaced_and_the_state_kept(self, driver: Driver) -> None:
        await send(driver, create=new_session(state='{"a":1}', name="old", agent_id="a"))
        await send(driver, patch_session(name="new", current_agent="b", body='{"x":1}', updated_at=9))
        row = await driver.session(key(), state=True)
        assert row is not None
        assert row.header == header(name="new", current_agent="b", body='{"x":1}', updated_at=9)
        assert (row.state, row.head.state_version, row.head.version) == ('{"a":1}', 2, 2)

    async def test_the_state_is_replaced(self, driver: Driver) -> None:
        await send(driver, create=new_session(state='{"a":1}'))
        await send(driver, patch_session(state='{"b":2}'))
        row = await driver.session(key(), state=True)
        assert row is not None and row.state == '{"b":2}'

    async def test_runs_leave_the_state_version_alone(self, driver: Driver) -> None:
        await send(driver, put("r1", status="running"))
        assert (await send(driver, patch())).head.state_version == 1

    async def test_the_activity_goes_on_with_runs_alone_and_never_back(self, driver: Driver) -> None:
        async def activity(*changes: Change, at: int) -> int:
            """What it is after a commit, as the commit says and as it is stored."""
            outcome = await send(driver, *changes, on_deleted=True, at=at)
            row = await driver.session(key(), state=False)
            assert row is not None and row.head == outcome.head
            return outcome.head.last_activity_at

        begun = await activity(put("r1", status="running"), at=2_000_000_000_000_000)
        for change in (patch_session(), switch("w", "a"), Hide([(ALL, (1, 1))]), SetDeleted(5), SetDeleted(None)):
            assert await activity(change, at=2_100_000_000_000_000) == begun
        earlier = await activity(put("r2"), at=1_000)
        assert earlier >= begun
        assert await activity(patch("r1"), at=2_200_000_000_000_000) >= earlier

    async def test_counters_add_up(self, driver: Driver) -> None:
        await send(driver, put("r1", counters={"a": 2, "b": 2**70}, status="running"), put("r2", counters={"a": 1}))
        await send(driver, patch("r1", counters={"a": -1, "c/ü": 5}))
        row = await driver.session(key(), state=False)
        assert row is not None
        assert {name: n for name, n in row.counters.items() if n} == {"a": 2, "b": 2**70, "c/ü": 5}

    async def test_a_summary_is_remembered(self, driver: Driver) -> None:
        assert not (await send(driver, put("r1", status="running"))).head.has_summary
        assert (await send(driver, patch("r1", header=run_header("running", has_summary=True)))).head.has_summary
        assert (await send(driver, put("r2"))).head.has_summary
        (run,) = await all_runs(driver, run_id="r1")
        assert run.header.has_summary

    async def test_switches_come_in_the_order_of_commit(self, driver: Driver) -> None:
        await send(driver, switch("z", "b", from_agent="a", reason='"why"', switched_at=77))
        await send(driver, put("r1"), switch("a", "c"))
        first, second = await all_switches(driver)
        assert (first.switch_id, first.from_agent, first.to_agent) == ("z", "a", "b")
        assert (first.reason, first.switched_at, first.version) == ('"why"', 77, 1)
        assert (second.switch_id, second.version) == ("a", 2)

    # hiding

    async def test_hidden_rows_are_kept_with_their_version(self, driver: Driver) -> None:
        await send(driver, put("r1", 3))
        outcome = await send(driver, Hide([((2, 3), ALL), (ALL, (1, 1))]), operation_id="h")
        assert outcome.head.has_hidden
        assert await all_hidden(driver) == [
            HiddenRow("h", (FIRST, LAST), (1, 1), None, 2),
            HiddenRow("h", (2, 3), (FIRST, LAST), None, 2),
        ]

    async def test_showing_ends_hidden_rows_at_its_version(self, driver: Driver) -> None:
        await send(driver, put("r1", 3))
        await send(driver, Hide([((2, 3), ALL), (ALL, (1, 1))]), operation_id="h")
        await send(driver, Hide([((1, 1), ALL)]), operation_id="other")
        await send(driver, put("r2", 1))
        outcome = await send(driver, Show("h"))
        assert outcome.head.has_hidden
        assert [(row.hide_id, row.since, row.until) for row in await all_hidden(driver)] == [
            ("h", 2, 5),
            ("h", 2, 5),
            ("other", 3, None),
        ]

    async def test_showing_twice_keeps_the_first_end(self, driver: Driver) -> None:
        await send(driver, put("r1", 3))
        await send(driver, Hide([((2, 3), ALL)]), operation_id="h")
        await send(driver, Show("h"))
        assert (await send(driver, Show("h"))).head.version == 4
        assert [row.until for row in await all_hidden(driver)] == [3]

    async def test_showing_leaves_revisions_hidden(self, driver: Driver) -> None:
        await send(driver, put("r1", 1))
        await send(driver, put("r1", 1, revision=2), operation_id="revise")
        outcome = await outcome_of(driver, commit(Show("revise")))
        assert isinstance(outcome, Refused) and outcome.reason is Reason.HIDE_MISSING
        assert [row.until for row in await all_hidden(driver)] == [None]

    # deleting

    async def test_a_session_is_deleted_softly_and_restored(self, driver: Driver) -> None:
        await send(driver, put("r1", 2))
        before = await dump(driver)
        assert (await send(driver, SetDeleted(123))).head.deleted_at == 123
        assert (await send(driver, SetDeleted(None), on_deleted=True)).head.deleted_at is None
        after = await dump(driver)
        assert before.session is not None and after.session is not None
        assert (after.runs, after.messages, after.session.header) == (
            before.runs,
            before.messages,
            before.session.header,
        )

    async def test_a_seal_leaves_a_tombstone(self, driver: Driver) -> None:
        new = new_session(user_id="u", created_at=17, name="n", state='{"a":1}', agent_id="a", body='{"x":1}')
        await send(driver, put("r1", 2, counters={"c": 1}), create=new)
        outcome = await send(driver, Seal(), on_deleted=True)
        row = await driver.session(key(), state=True)
        assert row is not None and row.head == outcome.head
        head = row.head
        assert head.erased and (head.incarnation, head.version) == (1, 2)
        assert (head.user_id, head.created_at, head.run_count, head.message_count) == ("u", 17, 0, 0)
        assert (row.header.name, row.header.agent_id, row.state, dict(row.counters)) == (None, None, "{}", {})
        assert row.header.body == "{}"

    async def test_a_session_is_made_again_as_another_incarnation(self, driver: Driver) -> None:
        await send(driver, put("r1", 2), switch("w", "a"), Hide([(ALL, (1, 1))]), create=new_session(user_id="u"))
        await send(driver, Seal())
        again = await send(driver, put("r1", 1), must_create=True, create=new_session(user_id="v", name="again"))
        head = again.head
        assert (head.incarnation, head.version, head.state_version, head.user_id) == (2, 1, 1, "v")
        assert (head.run_count, head.message_count, head.erased, head.has_hidden) == (1, 1, False, False)
        assert not again.replayed and again.receipts[0].first_position == 1
        after = await dump(driver)
        assert [row.position for row in after.messages] == [1]
        assert [row.run_id for row in after.runs] == ["r1"]
        assert (after.hidden, after.switches) == ([], [])

    # forks

    async def test_a_fork_goes_on_from_its_link(self, driver: Driver) -> None:
        link = ForkLink("parent", 1, 7, 3, 9)
        outcome = await send(driver, put("r1", 2), create=new_session(fork=link))
        receipt, head = outcome.receipts[0], outcome.head
        assert (receipt.run_seq, receipt.first_position, receipt.last_position) == (4, 8, 9)
        assert (head.run_count, head.message_count, head.version, head.fork) == (4, 9, 1, link)
        row = await driver.session(key(), state=False)
        assert row is not None and row.head.fork == link
        assert [row.position for row in await all_messages(driver)] == [8, 9]
        assert [row.seq for row in await all_runs(driver)] == [4]

    async def test_a_tombstone_knows_its_parent(self, driver: Driver) -> None:
        link = ForkLink("parent", 1, 7, 3, 9)
        await send(driver, put("r1", 2), create=new_session(fork=link))
        await send(driver, Seal())
        row = await driver.session(key(), state=False)
        assert row is not None and (row.head.erased, row.head.fork) == (True, link)
        again = await send(driver, put("r1", 1), must_create=True)
        assert (again.head.fork, again.receipts[0].first_position) == (None, 1)

    async def test_forks_are_counted_and_guard_their_parent(self, driver: Driver) -> None:
        await send(driver)
        assert (await send(driver, CountForks(1))).head.forks == 1
        assert (await send(driver, CountForks(1))).head.forks == 2
        refused = await outcome_of(driver, commit(Seal()))
        assert isinstance(refused, Refused) and refused.reason is Reason.FORKS
        assert (await send(driver, CountForks(-1))).head.forks == 1
        assert (await send(driver, CountForks(-5))).head.forks == 0
        assert isinstance(await outcome_of(driver, commit(Seal())), Committed)

    # all at once

    async def test_a_commit_of_many_changes_is_one(self, driver: Driver) -> None:
        outcome = await send(
            driver,
            put("r1", 1, status="running"),
            patch_session(state='{"a":1}', current_agent="b"),
            switch("w", "b"),
        )
        assert (outcome.head.version, outcome.head.state_version, len(outcome.receipts)) == (1, 2, 1)
        row = await driver.session(key(), state=True)
        assert row is not None and (row.state, row.header.current_agent) == ('{"a":1}', "b")
        assert [one.version for one in await all_switches(driver)] == [1]

    async def test_a_refused_commit_writes_nothing(self, driver: Driver) -> None:
        await send(driver, put("r1", 2, status="running"))
        before = await dump(driver)
        changes = (put("r2", 2, counters={"a": 1}), patch_session(name="n"), switch("w", "b"), Hide([(ALL, (1, 1))]))
        refusals = [
            commit(*changes, patch("r1", 1, expected_patch=7), patch_session(state='{"a":1}')),
            commit(*changes, Show("nothing")),
            commit(*changes, expected_version=7),
            commit(*changes, patch("unknown", 1), create=False),
        ]
        for refused in refusals:
            assert isinstance(await outcome_of(driver, refused), Refused)
            assert await dump(driver) == before

    async def test_a_session_that_was_not_made_leaves_nothing(self, driver: Driver) -> None:
        outcome = await outcome_of(driver, commit(put("r1"), patch("unknown")))
        assert isinstance(outcome, Refused) and outcome.reason is Reason.RUN_CHANGED
        assert await driver.session(key(), state=True) is None
        assert await all_messages(driver) == []

    async def test_a_large_run_is_one_commit(self, driver: Driver) -> None:
        rows = [message("x" * 2000, index=index) for index in range(3000)]
        outcome = await send(driver, put("r1", rows))
        assert outcome.receipts[0].last_position == 3000
        found = await all_messages(driver, ranges=((2995, 3000),), limit=3000)
        assert [row.position for row in found] == [2995, 2996, 2997, 2998, 2999, 3000]
        assert msgspec.json.decode(found[-1].body)["content"] == "x" * 2000
