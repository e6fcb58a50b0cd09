"""Flaws of judging and writing."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from anyio.lowlevel import checkpoint

from sessionledger.drivers import memory
from sessionledger.protocol.decide import Decision, Known
from sessionledger.protocol.rows import (
    Commit,
    Committed,
    Head,
    Outcome,
    PatchRun,
    PutRun,
    Reason,
    Refused,
    Seal,
    SessionKey,
)

from .flawed import Flawed, replace


class LosesIdempotency(Flawed):
    """It does not look whether a run is there already."""

    caught_by = "test_a_run_that_is_there_is_replayed"

    def judge(self, commit: Commit, known: Known) -> Decision:
        return super().judge(commit, replace(known, named={}))


class ForgetsOperations(Flawed):
    """It recognises runs, and no other write."""

    caught_by = "test_a_patch_is_replayed"

    def judge(self, commit: Commit, known: Known) -> Decision:
        return super().judge(commit, replace(known, operation=None))


class ForgetsOperationsWhenItIsClosed(Flawed):
    """It keeps them in memory alone."""

    caught_by = "test_replays_are_recognised_when_it_is_opened_again"

    async def open(self) -> None:
        await super().open()
        for log in self._storage.logs.values():
            log.operations.clear()


class ReplaysWhateverTheDigest(Flawed):
    """A run's id is all that it looks at."""

    caught_by = "test_a_run_with_another_digest_conflicts"

    def judge(self, commit: Commit, known: Known) -> Decision:
        puts = {(put.run_id, put.revision): put.digest for put in commit.changes if isinstance(put, PutRun)}
        named = {place: replace(stored, digest=puts[place]) for place, stored in known.named.items()}
        return super().judge(commit, replace(known, named=named))


class ReplaysTheLastReceipt(Flawed):
    """A replayed run has the positions that it has now."""

    caught_by = "test_a_replay_has_the_first_receipt_after_later_commits"

    def judge(self, commit: Commit, known: Known) -> Decision:
        decision = super().judge(commit, known)
        outcome = decision.outcome
        if isinstance(outcome, Committed) and outcome.replayed:
            receipts = [replace(receipt, version=outcome.head.version) for receipt in outcome.receipts]
            return replace(decision, outcome=replace(outcome, receipts=receipts))
        return decision


class RefusesAReplayInPart(Flawed):
    """Of several runs it knows one: then it takes none of them."""

    caught_by = "test_of_several_runs_the_new_ones_are_written"

    def judge(self, commit: Commit, known: Known) -> Decision:
        puts = [change for change in commit.changes if isinstance(change, PutRun)]
        if 0 < len(known.named) < len(puts):
            return Decision(Refused(Reason.RUN_CONFLICT, known.head, puts[0].run_id))
        return super().judge(commit, known)


class LeavesAGap(Flawed):
    """It takes the positions first, and does not give them back when it refuses."""

    caught_by = "test_each_fails_alone"

    def settle(self, commit: Commit, decision: Decision, log: memory._Log | None) -> Outcome:
        if isinstance(decision.outcome, Refused) and log is not None:
            log.head = replace(log.head, message_count=log.head.message_count + 1)
            log.messages.append(log.messages[-1])
        return super().settle(commit, decision, log)


class FailsAsAWhole(Flawed):
    """One commit of a group that is refused takes the others with it."""

    caught_by = "test_each_fails_alone"

    def group(self, commits: Sequence[Commit]) -> list[Outcome]:
        known = [self.judge(commit, self.known(commit, self.log(commit))) for commit in commits]
        refused = [decision.outcome for decision in known if isinstance(decision.outcome, Refused)]
        return [refused[0] for _ in commits] if refused else super().group(commits)


class JudgesAGroupAtItsBeginning(Flawed):
    """A commit does not see those before it in its group."""

    caught_by = "test_commits_of_one_session_see_those_before"

    def group(self, commits: Sequence[Commit]) -> list[Outcome]:
        decisions = [self.judge(commit, self.known(commit, self.log(commit))) for commit in commits]
        return [
            self.settle(commit, decision, self.log(commit)) for commit, decision in zip(commits, decisions, strict=True)
        ]


class JudgesVersionsAtTheBeginning(Flawed):
    """Only the version is that of the group's beginning."""

    caught_by = "test_versions_are_judged_in_the_group"

    def group(self, commits: Sequence[Commit]) -> list[Outcome]:
        versions = {commit.key: log.head.version if (log := self.log(commit)) else 0 for commit in commits}
        outcomes: list[Outcome] = []
        for commit in commits:
            log = self.log(commit)
            if commit.expected_version is not None and commit.expected_version == versions[commit.key]:
                commit = replace(commit, expected_version=log.head.version if log else 0)
            outcomes.append(self._commit(commit))
        return outcomes


class IgnoresTheVersion(Flawed):
    caught_by = "test_another_version_is_refused"

    def judge(self, commit: Commit, known: Known) -> Decision:
        return super().judge(replace(commit, expected_version=None), known)


class IgnoresTheStateVersion(Flawed):
    caught_by = "test_another_state_version_is_refused"

    def judge(self, commit: Commit, known: Known) -> Decision:
        return super().judge(replace(commit, expected_state_version=None), known)


class IgnoresTheIncarnation(Flawed):
    caught_by = "test_another_incarnation_is_refused"

    def judge(self, commit: Commit, known: Known) -> Decision:
        return super().judge(replace(commit, incarnation=None), known)


class IgnoresTheOwner(Flawed):
    caught_by = "test_nothing_of_another_users_is_reached"

    def judge(self, commit: Commit, known: Known) -> Decision:
        return super().judge(replace(commit, owner=None), known)


class JudgesTheOwnerAfterAReplay(Flawed):
    """Whoever guesses a run learns that it is there."""

    caught_by = "test_the_owner_comes_before_a_replay"

    def judge(self, commit: Commit, known: Known) -> Decision:
        decision = super().judge(replace(commit, owner=None), known)
        replayed = isinstance(decision.outcome, Committed) and decision.outcome.replayed
        return decision if replayed else super().judge(commit, known)


class WritesToTheDeleted(Flawed):
    """A softly deleted session takes what comes."""

    caught_by = "test_a_softly_deleted_session_takes_nothing"

    def judge(self, commit: Commit, known: Known) -> Decision:
        return super().judge(replace(commit, on_deleted=True), known)


class WritesToTombstones(Flawed):
    """A late append brings an erased chat back."""

    caught_by = "test_a_tombstone_takes_nothing"

    def judge(self, commit: Commit, known: Known) -> Decision:
        late = known.head is not None and known.head.erased and commit.create is not None
        return super().judge(replace(commit, must_create=True) if late else commit, known)


class LeavesNoTombstone(Flawed):
    caught_by = "test_a_seal_leaves_a_tombstone"

    def settle(self, commit: Commit, decision: Decision, log: memory._Log | None) -> Outcome:
        outcome = super().settle(commit, decision, log)
        if isinstance(outcome, Committed) and any(isinstance(change, Seal) for change in commit.changes):
            del self._storage.logs[commit.key]
        return outcome


class KeepsTheOldIncarnationsRows(Flawed):
    """Made again before it was erased, a session shows what was in it."""

    caught_by = "test_what_an_incarnation_left_is_never_seen_again"

    def _make(self, commit: Commit, head: Head) -> memory._Log:
        old = self._storage.logs.get(commit.key)
        log = super()._make(commit, head)
        if old is not None:
            log.hidden, log.switches, log.given = old.hidden, old.switches, old.given
            log.messages = old.messages
        return log


class ErasesWhatIsNotSealed(Flawed):
    caught_by = "test_what_is_not_sealed_is_not_erased"

    async def erase(self, key: SessionKey, *, limit: int) -> bool:
        log = self._storage.logs.get(key)
        if log is not None:
            log.runs.clear()
            log.order.clear()
            log.messages.clear()
        return False


class IgnoresForks(Flawed):
    """A session is sealed though others share its messages."""

    caught_by = "test_forks_are_counted_and_guard_their_parent"

    def judge(self, commit: Commit, known: Known) -> Decision:
        head = known.head
        if head is not None and any(isinstance(change, Seal) for change in commit.changes):
            known = replace(known, head=replace(head, forks=0))
        return super().judge(commit, known)


class LosesUpdates(Flawed):
    """A run is patched whatever was done to it meanwhile."""

    caught_by = "test_a_patch_behind_another_is_refused"

    def judge(self, commit: Commit, known: Known) -> Decision:
        changes = [
            replace(change, expected_patch=known.newest[change.run_id].patch)
            if isinstance(change, PatchRun) and change.run_id in known.newest
            else change
            for change in commit.changes
        ]
        return super().judge(replace(commit, changes=changes), known)


class LeavesRevisionsVisible(Flawed):
    caught_by = "test_a_revision_keeps_the_seq_and_hides_the_one_before"

    def write(self, log: memory._Log, commit: Commit, decision: Decision) -> None:
        super().write(log, commit, decision)
        log.hidden = [row for row in log.hidden if row.revision is None]


class ForgetsTheReach(Flawed):
    """A revision is hidden in a fork that was made before it."""

    caught_by = "test_a_fork_before_a_revision_shows_what_was_revised"

    def write(self, log: memory._Log, commit: Commit, decision: Decision) -> None:
        super().write(log, commit, decision)
        log.hidden = [replace(row, reach=0) for row in log.hidden]


class LosesHiddenRowsWhenTheyAreShown(Flawed):
    """A walk that began before an undo sees it."""

    caught_by = "test_a_walk_that_has_begun_goes_on_as_it_was"

    def write(self, log: memory._Log, commit: Commit, decision: Decision) -> None:
        super().write(log, commit, decision)
        log.hidden = [row for row in log.hidden if row.until is None]


class WritesInPart(Flawed):
    """What stands before the change that is refused stays."""

    caught_by = "test_a_refused_commit_writes_nothing"

    def judge(self, commit: Commit, known: Known) -> Decision:
        decision = super().judge(commit, known)
        if isinstance(decision.outcome, Refused) and len(commit.changes) > 1 and known.head is not None:
            part = super().judge(replace(commit, changes=commit.changes[:1], expected_version=None), known)
            return replace(part, outcome=decision.outcome)
        return decision


class WritesInSteps(Flawed):
    """One change after the other: who is cancelled in between, or reads, finds half a commit."""

    caught_by = "test_a_commit_that_is_cancelled_is_whole_or_absent"

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Outcome]:
        outcomes = []
        for commit in commits:
            await self._turn()
            before = self.log(commit)
            kept = copy(before) if before is not None else None
            outcome = self._commit(commit)
            log = self.log(commit)
            if log is not None and isinstance(outcome, Committed) and len(commit.changes) > 1:
                whole = list(log.messages)
                log.messages = whole[: len(whole) - 1]
                await checkpoint()
                log.messages = whole
            del kept
            outcomes.append(outcome)
        return outcomes


class LosesCounters(Flawed):
    """Those that a patch brings."""

    caught_by = "test_counters_add_up"

    def write(self, log: memory._Log, commit: Commit, decision: Decision) -> None:
        counters = log.counters
        super().write(log, commit, decision)
        if any(isinstance(change, PatchRun) for change in commit.changes):
            log.counters = counters


class CountsIn64Bits(Flawed):
    caught_by = "test_a_cost_of_many_digits_is_counted_exactly"

    def write(self, log: memory._Log, commit: Commit, decision: Decision) -> None:
        super().write(log, commit, decision)
        log.counters = {name: min(count, 2**63 - 1) for name, count in log.counters.items()}


class LetsActivityGoBack(Flawed):
    caught_by = "test_the_activity_goes_on_with_runs_alone_and_never_back"

    def write(self, log: memory._Log, commit: Commit, decision: Decision) -> None:
        super().write(log, commit, decision)
        if any(isinstance(change, PutRun | PatchRun) for change in commit.changes):
            log.head = replace(log.head, last_activity_at=commit.at)
