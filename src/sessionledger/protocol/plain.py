"""Commits that need little judgement: most of all there are. For drivers that write them in a shorter way."""

from __future__ import annotations

from collections.abc import Sequence

from sessionledger.protocol.rows import Commit, PutRun, SessionKey

__all__ = ["plain_chains", "plain_put"]


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


def plain_chains(commits: Sequence[Commit]) -> list[list[int]]:
    """For each session of which all commits are plain, of one owner and of different runs: their places, in order."""
    chains: dict[SessionKey, list[int]] = {}
    left_out: set[SessionKey] = set()
    seen: set[tuple[SessionKey, str]] = set()
    for index, commit in enumerate(commits):
        put, chain = plain_put(commit), chains.setdefault(commit.key, [])
        run = None if put is None else (commit.key, put.run_id)
        if run is None or run in seen or (chain and commits[chain[0]].owner != commit.owner):
            left_out.add(commit.key)
        else:
            seen.add(run)
        chain.append(index)
    return [chain for key, chain in chains.items() if key not in left_out]
