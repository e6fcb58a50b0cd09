"""The newest revision of a run, from which a write goes on, and the next one.

A driver recognises a revision that is put again by its number and digest. Revisions may have equal contents, and others
may have followed before a call is repeated: where it has an operation id, the digest of its revision is that of the
content, followed by that of the id.
"""

from __future__ import annotations

import msgspec

from sessionledger.context import Context, Scope
from sessionledger.digest import canonical, digest
from sessionledger.protocol.rows import Commit, Head, Reason, Refused, RunQuery, RunRow, SessionKey
from sessionledger.reading import readable
from sessionledger.refusals import error_of, run_not_found
from sessionledger.retry import retried

__all__ = ["NextRevision", "newest_run", "next_revision"]


class NextRevision(msgspec.Struct, frozen=True):
    """What a revision is put as."""

    incarnation: int  #: of the session in which `number` follows
    number: int
    digest: bytes
    status_before: str


async def newest_run(
    context: Context, scope: Scope, key: SessionKey, run_id: str, *, bodies: bool
) -> tuple[Head | None, RunRow | None]:
    """The session, if it is there, and the newest revision of a run of its own."""
    query = RunQuery(key, 1, context.limits.bytes, bodies, run_id=run_id, reverse=True)
    page = await retried(lambda: context.driver.runs(query))
    head = readable(scope, page.head)
    return head, page.rows[0] if head is not None and page.rows else None


async def next_revision(
    context: Context, scope: Scope, commit: Commit, run_id: str, content: bytes, operation_id: str | None
) -> NextRevision:
    """The one behind the newest, or one that is there: that of the operation; without an operation id the newest, when
    it is of that content and nothing was added to it since. `content` is the digest of what is to be stored.
    """
    head, newest = await newest_run(context, scope, commit.key, run_id, bodies=False)
    if head is None or newest is None:
        raise run_not_found(commit.key.session_id, run_id)
    put = content
    if operation_id is not None:
        mark = digest(canonical(operation_id))
        put = content + mark
        same = await _revision_of(context, commit.key, newest, content, mark)
        if same is not None and same.digest != put:
            raise error_of(Refused(Reason.OPERATION_CONFLICT, head, run_id), commit)
    else:
        same = newest if newest.digest[: len(content)] == content and not newest.patch else None
    status = newest.header.status
    if same is not None:
        return NextRevision(head.incarnation, same.revision, same.digest, status)
    return NextRevision(head.incarnation, newest.revision + 1, put, status)


async def _revision_of(context: Context, key: SessionKey, newest: RunRow, content: bytes, mark: bytes) -> RunRow | None:
    """The revision that an operation has put."""
    if newest.revision == 1:
        return None
    query = RunQuery(key, newest.revision, context.limits.bytes, bodies=False, run_id=newest.run_id)
    page = await retried(lambda: context.driver.runs(query))
    return next((row for row in page.rows if row.digest[len(content) :] == mark), None)
