"""Commits that need little judgement: most of all there are. For drivers that write them in a shorter way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sessionledger.protocol.decide import summed
from sessionledger.protocol.rows import Commit, Committed, Head, PutRun, RunReceipt, SessionKey

__all__ = ["add_up", "chain_outcomes", "head_behind", "plain_chains", "plain_put", "put_of"]


def plain_put(commit: Commit) -> PutRun | None:
    """The run of a commit that puts one new run, into a session that is made where there is none.

    What is left to judge of such a commit: the session's owner, whether it is deleted, whether the run is there.
    """
    change, new = commit.changes[0] if len(commit.changes) == 1 else None, commit.create
    if (
        isinstance(change, PutRun)
        and change.revision == 1
        and new is not None
        and new.fork is None
        and not new.counters
        and not commit.must_create
        and not commit.on_deleted
        and commit.incarnation is commit.expected_version is commit.expected_state_version is None
    ):
        return change
    return None


def put_of(commit: Commit) -> PutRun:
    """The run of a plain commit."""
    put = commit.changes[0]
    assert isinstance(put, PutRun)
    return put


def plain_chains(commits: Sequence[Commit], suits: Callable[[PutRun], bool] = lambda put: True) -> list[list[int]]:
    """For each session of which all commits are plain, of one owner and of different runs: their places, in order.

    `suits`: what else a driver asks of a run.
    """
    if len(commits) == 1:
        alone = plain_put(commits[0])
        return [] if alone is None or not suits(alone) else [[0]]
    chains: dict[SessionKey, list[int]] = {}
    left_out: set[SessionKey] = set()
    seen: set[tuple[SessionKey, str]] = set()
    for index, commit in enumerate(commits):
        put, chain = plain_put(commit), chains.setdefault(commit.key, [])
        run = None if put is None or not suits(put) else (commit.key, put.run_id)
        if run is None or run in seen or (chain and commits[chain[0]].owner != commit.owner):
            left_out.add(commit.key)
        else:
            seen.add(run)
        chain.append(index)
    return [chain for key, chain in chains.items() if key not in left_out]


def add_up(puts: Sequence[PutRun]) -> dict[str, int]:
    """What they add to their session's counters."""
    return summed([put.counters for put in puts])


def head_behind(head: Head, commits: Sequence[Commit]) -> Head:
    """The head of their session once plain commits are written behind it."""
    puts = [put_of(commit) for commit in commits]
    behind: Head = msgspec.structs.replace(
        head,
        version=head.version + len(puts),
        run_count=head.run_count + len(puts),
        message_count=head.message_count + sum([len(put.messages) for put in puts]),
        last_activity_at=max(head.last_activity_at, *[commit.at for commit in commits]),
        has_summary=head.has_summary or any([put.header.has_summary for put in puts]),
    )
    return behind


def chain_outcomes(head: Head, commits: Sequence[Commit]) -> list[Committed]:
    """Of plain commits of one session that were written at once: `head` is the session's behind them all."""
    if len(commits) == 1:
        put = put_of(commits[0])
        first = head.message_count - len(put.messages) + 1
        return [Committed(head, [RunReceipt(put.run_id, head.run_count, 1, first, head.message_count, head.version)])]
    outcomes: list[Committed] = []
    version, seq, position = head.version, head.run_count, head.message_count
    for commit in reversed(commits):
        put = put_of(commit)
        first = position - len(put.messages) + 1
        receipt = RunReceipt(put.run_id, seq, 1, first, position, version)
        behind = _head_at(head, receipt, commit.at) if outcomes else head
        outcomes.append(Committed(behind, [receipt]))
        version, seq, position = version - 1, seq - 1, first - 1
    return outcomes[::-1]


def _head_at(head: Head, receipt: RunReceipt, at: int) -> Head:
    """The head right behind one commit of a chain, after which others were written."""
    return msgspec.structs.replace(
        head,
        version=receipt.version,
        run_count=receipt.run_seq,
        message_count=receipt.last_position,
        last_activity_at=min(head.last_activity_at, at),
    )
