"""Flaws of keeping and reading."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sessionledger.drivers import memory
from sessionledger.protocol.decide import Decision
from sessionledger.protocol.rows import (
    FIRST,
    Commit,
    FoundRuns,
    HiddenPage,
    HiddenQuery,
    MessagePage,
    MessageQuery,
    Outcome,
    RunPage,
    RunQuery,
    RunSearch,
    SessionKey,
    SessionPage,
    SessionQuery,
    SessionRow,
    SwitchPage,
    SwitchQuery,
)

from .flawed import Flawed, replace

MUCH = 1 << 40


class IsOffByOne(Flawed):
    """A page begins one message too late."""

    caught_by = "test_pages_of_messages_join_without_a_seam"

    async def messages(self, query: MessageQuery) -> MessagePage:
        ranges = [(first + 1 if first > FIRST and first < last else first, last) for first, last in query.ranges]
        return await super().messages(replace(query, ranges=ranges))


class LosesTheLastPage(Flawed):
    """What does not fill a page is no page."""

    caught_by = "test_a_page_of_messages_ends_at_its_limit"

    async def messages(self, query: MessageQuery) -> MessagePage:
        page = await super().messages(query)
        two = await super().messages(replace(query, limit=2 * query.limit))
        return replace(page, more=page.more and len(two.rows) == 2 * query.limit)


class IgnoresTheBytes(Flawed):
    """A page of large messages is as large as they are."""

    caught_by = "test_a_page_of_messages_ends_with_its_bytes"

    async def messages(self, query: MessageQuery) -> MessagePage:
        return await super().messages(replace(query, max_bytes=MUCH))


class IgnoresTheBytesOfRuns(Flawed):
    caught_by = "test_a_page_of_runs_ends_with_its_bytes"

    async def runs(self, query: RunQuery) -> RunPage:
        return await super().runs(replace(query, max_bytes=MUCH))


class IgnoresTheBytesOfASearch(Flawed):
    caught_by = "test_a_page_of_found_runs_ends_with_its_bytes"

    async def find_runs(self, search: RunSearch) -> FoundRuns:
        return await super().find_runs(replace(search, max_bytes=MUCH))


class CountsNoPartsAsBytes(Flawed):
    caught_by = "test_parts_count_as_bytes_of_a_run"

    async def runs(self, query: RunQuery) -> RunPage:
        whole = await super().runs(replace(query, max_bytes=MUCH))
        size = 0
        for count, row in enumerate(whole.rows, 1):
            size += len(row.body)
            if size >= query.max_bytes and count < len(whole.rows):
                return replace(whole, rows=whole.rows[:count], more=True)
        return whole


class SortsRanges(Flawed):
    """It reads by position, whatever order was asked for."""

    caught_by = "test_ranges_come_in_the_order_given"

    async def messages(self, query: MessageQuery) -> MessagePage:
        return await super().messages(replace(query, ranges=sorted(query.ranges, reverse=query.reverse)))


class ReversesRangesToo(Flawed):
    """Backwards, it begins with the last range."""

    caught_by = "test_ranges_come_in_the_order_given"

    async def messages(self, query: MessageQuery) -> MessagePage:
        ranges = query.ranges[::-1] if query.reverse else query.ranges
        return await super().messages(replace(query, ranges=ranges))


class ReadsWithoutAHead(Flawed):
    """A page of nothing does not say of what."""

    caught_by = "test_every_page_brings_the_head"

    async def messages(self, query: MessageQuery) -> MessagePage:
        page = await super().messages(query)
        return page if page.rows else replace(page, head=None)


class ReadsTheHeadFirst(Flawed):
    """Head and rows are of two instants."""

    caught_by = "test_a_page_and_its_head_are_of_one_instant"

    async def messages(self, query: MessageQuery) -> MessagePage:
        row = await self.session(query.key, state=False)
        return replace(await super().messages(query), head=row.head if row else None)


class GivesTheNewestRevisionAlone(Flawed):
    caught_by = "test_runs_come_with_all_revisions_in_order"

    async def runs(self, query: RunQuery) -> RunPage:
        page = await super().runs(query)
        newest = {row.seq: row.revision for row in sorted(page.rows, key=lambda row: row.revision)}
        return replace(page, rows=[row for row in page.rows if newest[row.seq] == row.revision])


class ForgetsEndedHiddenRows(Flawed):
    caught_by = "test_ended_hidden_rows_come_too"

    async def hidden(self, query: HiddenQuery) -> HiddenPage:
        page = await super().hidden(query)
        return replace(page, rows=[row for row in page.rows if row.until is None])


class FindsHiddenRowsThatBeginInside(Flawed):
    """One that began before the range is missed."""

    caught_by = "test_hidden_rows_overlap_both_ranges"

    async def hidden(self, query: HiddenQuery) -> HiddenPage:
        page = await super().hidden(query)
        first, last = query.positions
        return replace(page, rows=[row for row in page.rows if first <= max(row.positions[0], FIRST) <= last])


class ReadsTheHeadOfHiddenRowsFirst(Flawed):
    """They and their head are of two instants."""

    caught_by = "test_a_page_and_its_head_are_of_one_instant"

    async def hidden(self, query: HiddenQuery) -> HiddenPage:
        row = await self.session(query.key, state=False)
        return replace(await super().hidden(query), head=row.head if row else None)


class SortsSwitchesById(Flawed):
    caught_by = "test_switches_come_by_version"

    async def switches(self, query: SwitchQuery) -> SwitchPage:
        page = await super().switches(query)
        return replace(page, rows=sorted(page.rows, key=lambda row: row.switch_id, reverse=query.reverse))


class ListsByCreation(Flawed):
    caught_by = "test_sessions_come_latest_activity_first"

    async def sessions(self, query: SessionQuery) -> SessionPage:
        page = await super().sessions(replace(query, limit=1000))
        rows = sorted(page.rows, key=lambda row: row.head.created_at, reverse=not query.reverse)
        return SessionPage(rows[: query.limit], len(rows) > query.limit)


class LosesTies(Flawed):
    """It goes on behind a time, and forgets the ids."""

    caught_by = "test_pages_of_sessions_join_without_a_seam"

    async def sessions(self, query: SessionQuery) -> SessionPage:
        if query.after is not None:
            query = replace(query, after=(query.after[0], "\U0010ffff" if query.reverse else ""))
        return await super().sessions(query)


class ListsTheDeleted(Flawed):
    caught_by = "test_deleted_sessions_are_listed_on_request"

    async def sessions(self, query: SessionQuery) -> SessionPage:
        return await super().sessions(replace(query, include_deleted=True))


class ListsAllNamespaces(Flawed):
    caught_by = "test_lists_are_of_one_namespace"

    async def sessions(self, query: SessionQuery) -> SessionPage:
        rows: list[SessionRow] = []
        for namespace in {key.namespace for key in self._storage.logs}:
            rows += (await super().sessions(replace(query, namespace=namespace))).rows
        return SessionPage(rows[: query.limit], len(rows) > query.limit)


class FindsRunsOfTheDeleted(Flawed):
    caught_by = "test_runs_of_deleted_sessions_are_not_found"

    async def find_runs(self, search: RunSearch) -> FoundRuns:
        deleted = {key: log for key, log in self._storage.logs.items() if log.head.deleted_at and not log.head.erased}
        heads = {key: log.head for key, log in deleted.items()}
        for log in deleted.values():
            log.head = replace(log.head, deleted_at=None)
        try:
            return await super().find_runs(search)
        finally:
            for key, head in heads.items():
                deleted[key].head = head


class FindsOldRevisions(Flawed):
    caught_by = "test_the_newest_revision_is_found"

    async def find_runs(self, search: RunSearch) -> FoundRuns:
        logs = self._storage.logs.values()
        for log in logs:
            log.runs = {run_id: rows[::-1] for run_id, rows in log.runs.items()}
        try:
            return await super().find_runs(search)
        finally:
            for log in logs:
                log.runs = {run_id: rows[::-1] for run_id, rows in log.runs.items()}


class IgnoresTheOwnerOfRuns(Flawed):
    caught_by = "test_nothing_of_another_users_is_reached"

    async def find_runs(self, search: RunSearch) -> FoundRuns:
        return await super().find_runs(replace(search, owner=None))


class FoldsCase(Flawed):
    """As a collation does that ignores it."""

    caught_by = "test_ids_are_kept_apart_and_to_the_byte"

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Outcome]:
        return await super().commit([replace(commit, key=folded(commit.key)) for commit in commits])

    async def session(self, key: SessionKey, *, state: bool) -> SessionRow | None:
        return await super().session(folded(key), state=state)


def folded(key: SessionKey) -> SessionKey:
    return SessionKey(key.namespace, key.session_id.casefold())


class ReadsJSON(Flawed):
    """It keeps what the text means, as jsonb does, not the text."""

    caught_by = "test_bodies_come_back_to_the_byte"

    def write(self, log: memory._Log, commit: Commit, decision: Decision) -> None:
        super().write(log, commit, decision)
        log.messages = [
            replace(row, body=json.dumps(json.loads(row.body))) if isinstance(row.body, str) else row
            for row in log.messages
        ]


class LosesNul(Flawed):
    """As a storage does whose texts end there."""

    caught_by = "test_content_comes_back_equal"

    def write(self, log: memory._Log, commit: Commit, decision: Decision) -> None:
        super().write(log, commit, decision)
        log.messages = [
            replace(row, body=row.body.replace("\\u0000", "")) if isinstance(row.body, str) else row
            for row in log.messages
        ]
