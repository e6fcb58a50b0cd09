"""What a session's log must look like after many writers were at it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sessionledger import AppendReceipt, Message, Run, SessionStore

MESSAGES = 3  #: of each run


def run_of(writer: int, number: int, session_id: str = "s") -> Run:
    """The run of that number of a writer: its messages tell whose they are, and their number."""
    run_id = f"{writer}-{number}"
    messages = [
        Message(role="user" if index == 0 else "assistant", content=[run_id, index]) for index in range(MESSAGES)
    ]
    return Run(run_id=run_id, session_id=session_id, messages=messages)


def check_whole_runs(messages: Sequence[Message]) -> None:
    """Dense positions from 1 on, each run's messages together, none of them missing."""
    assert [message.position for message in messages] == list(range(1, len(messages) + 1))
    contents: list[Any] = [message.content for message in messages]
    for begin in range(0, len(contents), MESSAGES):
        run_id = contents[begin][0]
        assert contents[begin : begin + MESSAGES] == [[run_id, index] for index in range(MESSAGES)]


async def check_log(store: SessionStore, receipts: Iterable[AppendReceipt], session_id: str = "s") -> None:
    """The receipts are of all runs that are there, and tell where they are."""
    told = {receipt.run_id: receipt for receipt in receipts}
    count = len(told)
    found = await store.runs(session_id, include_messages=True).collect()
    assert {run.run_id for run in found} == set(told)
    assert [run.seq for run in found] == list(range(1, count + 1))
    assert sorted(receipt.version for receipt in told.values()) == list(range(1, count + 1))
    for run in found:
        receipt = told[run.run_id or ""]
        positions = [message.position for message in run.messages]
        assert receipt.run_seq == run.seq and not receipt.replayed
        assert (receipt.first_position, receipt.last_position) == (positions[0], positions[-1])
        assert [message.content for message in run.messages] == [[run.run_id, index] for index in range(MESSAGES)]
    check_whole_runs(await store.messages(session_id).collect())
    session = await store.get_session(session_id)
    assert session is not None
    assert (session.version, session.run_count, session.message_count) == (count, count, count * MESSAGES)
    stats = await store.stats(session_id)
    assert (stats.runs, stats.messages) == (count, count * MESSAGES)
    assert stats.messages_by_role == {"user": count, "assistant": count * (MESSAGES - 1)}
