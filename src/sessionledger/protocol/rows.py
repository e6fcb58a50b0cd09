"""What passes between the core and a driver: encoded rows, commits and outcomes. A driver moves them, knows no record.

Times are integers, microseconds since 1970-01-01 UTC. Bodies are JSON text, or bytes once they are compressed or
encrypted; a driver gives them back to the byte. Every other text field is free of NUL and at most 256 bytes long, or
None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from sessionledger.records import RunStatus

__all__ = [
    "FIRST",
    "LAST",
    "OPEN_STATUSES",
    "SEALED",
    "Body",
    "Change",
    "Commit",
    "Committed",
    "CountForks",
    "ForkLink",
    "FoundRuns",
    "Head",
    "HiddenPage",
    "HiddenQuery",
    "HiddenRow",
    "Hide",
    "MessagePage",
    "MessageQuery",
    "MessageRow",
    "NewSession",
    "Outcome",
    "PatchRun",
    "PatchSession",
    "Place",
    "PutRun",
    "PutSwitch",
    "Reason",
    "Refused",
    "RunHeader",
    "RunPage",
    "RunQuery",
    "RunReceipt",
    "RunRow",
    "RunSearch",
    "Seal",
    "SessionHeader",
    "SessionKey",
    "SessionPage",
    "SessionQuery",
    "SessionRow",
    "SetDeleted",
    "Show",
    "SwitchPage",
    "SwitchQuery",
    "SwitchRow",
]

Body: TypeAlias = str | bytes

FIRST = 1  #: the first position, and the first seq
#: Statuses of runs that may still be patched. A driver keeps the bodies of such runs where a patch is cheap.
OPEN_STATUSES: Final = tuple(status.value for status in RunStatus if not status.terminal)
LAST = 2**53  #: behind every position and seq: the open end of a range


class Row(msgspec.Struct, frozen=True, gc=False):
    """A value without behaviour."""


# What is stored ------------------------------------------------------------------------------------------------------


class SessionKey(Row, frozen=True):
    """Names a session. Both parts are bound, never interpolated."""

    namespace: str
    session_id: str


class ForkLink(Row, frozen=True):
    """Where a session shares another's beginning, of the same namespace. A driver stores it and gives it back."""

    session_id: str
    incarnation: int
    position: int  #: the last position that is shared
    run_seq: int  #: the last run that is shared
    version: int  #: of the other session's log, as which it is seen


class Head(Row, frozen=True):
    """Where a session's log stands. Every read brings it, from the same instant as its rows."""

    key: SessionKey
    incarnation: int  #: 1, and one more each time the session is made again after it was erased
    version: int
    state_version: int
    run_count: int
    message_count: int
    user_id: str | None
    created_at: int
    last_activity_at: int
    deleted_at: int | None = None
    erased: bool = False  #: only a tombstone is left: identity, version and times
    has_hidden: bool = False  #: there are, or were, hidden rows
    has_summary: bool = False  #: there is a run whose header says so
    forks: int = 0  #: sessions that share this one's messages
    fork: ForkLink | None = None


class SessionHeader(Row, frozen=True):
    """The fields of a session that `PatchSession` replaces."""

    kind: str
    agent_id: str | None
    current_agent: str | None
    name: str | None
    parent_session_id: str | None
    updated_at: int
    body: Body  #: all other fields but the state


#: What a `Seal` leaves of a session's fields. Of its state it leaves "{}".
SEALED: Final = SessionHeader("agent", None, None, None, None, 0, "{}")


class SessionRow(Row, frozen=True):
    head: Head
    header: SessionHeader
    state: Body | None  #: None where it was not asked for
    counters: Mapping[str, int]  #: empty in lists


class RunHeader(Row, frozen=True):
    """The fields of a run that change while it lasts."""

    status: str
    updated_at: int
    finished_at: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    has_summary: bool = False  #: one of its messages is a summary


class RunRow(Row, frozen=True):
    """One revision of a run, without its messages."""

    seq: int
    revision: int
    run_id: str
    version: int  #: of the session's log when this revision was put
    patch: int  #: how often it was patched
    digest: bytes
    user_id: str | None
    agent_id: str | None
    parent_run_id: str | None
    model: str | None
    created_at: int
    first_position: int
    last_position: int  #: of the messages that it was put with; first_position - 1 where there were none
    segments: Sequence[tuple[int, int]]  #: of the messages that patches added: first and last position, ascending
    header: RunHeader
    body: Body
    parts: Mapping[str, Body]  #: fields that patches replaced; they override those of the body


class MessageRow(Row, frozen=True):
    """One message. The body has it all but its place, message_id and created_at.

    role to tool_calls are copies for whoever queries the storage. They are there for drivers that ask for them
    (`DriverInfo.message_copies`), and need not come back.
    """

    message_id: str | None  #: None where it derives from the run's id
    created_at: int
    body: Body
    index: int  #: in its run's revision, from 0
    position: int = 0  #: these three are given by the driver at the commit
    run_seq: int = 0
    revision: int = 1
    role: str | None = None
    kind: str | None = None  #: None stands for "message"
    name: str | None = None
    tool_call_id: str | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    error: str | None = None
    tool_calls: Sequence[tuple[str, str]] = ()  #: id and name of each call


class SwitchRow(Row, frozen=True):
    switch_id: str
    from_agent: str | None
    to_agent: str
    reason: Body | None
    switched_at: int
    version: int = 0  #: given by the driver at the commit: switches are ordered by it


class HiddenRow(Row, frozen=True):
    """Hides the messages that lie in both ranges, and the runs whose seq lies in `runs` if `positions` has no end.

    It counts for a reader of version v whose view ends at position p when since <= v, until is None or > v,
    and reach <= p.
    """

    hide_id: str
    positions: tuple[int, int]
    runs: tuple[int, int]
    revision: int | None  #: only this revision of the runs; None: all
    since: int
    until: int | None = None
    reach: int = 0


# What is written -----------------------------------------------------------------------------------------------------


class PutRun(Row, frozen=True):
    """Store a run, or a new revision of one, with its messages at the next positions.

    Replay: the revision is there with the same digest. With another: `Reason.RUN_CONFLICT`.
    Revision 1 gets the next seq. A later one keeps the run's seq; the revision before it must be the newest, else
    `Reason.RUN_CHANGED`, and is hidden from this commit's version on: a `HiddenRow` of this commit's operation id over
    all positions, the run's seq and that revision, whose reach is the first new position (the head where there is
    none).
    """

    run_id: str
    revision: int
    digest: bytes
    user_id: str | None
    agent_id: str | None
    parent_run_id: str | None
    model: str | None
    created_at: int
    header: RunHeader
    body: Body
    messages: Sequence[MessageRow]
    counters: Mapping[str, int]


class PatchRun(Row, frozen=True):
    """Replace a run's header and some parts of it, and add messages at the next positions.

    The run must be there in that revision, and patched that often: else `Reason.RUN_CHANGED`. Its cost must not depend
    on what the run already holds.
    """

    run_id: str
    revision: int
    expected_patch: int
    header: RunHeader
    parts: Mapping[str, Body]
    messages: Sequence[MessageRow]
    counters: Mapping[str, int]


class PatchSession(Row, frozen=True):
    """Replace the session's header and, when given, its state. Adds one to state_version."""

    header: SessionHeader
    state: Body | None = None


class PutSwitch(Row, frozen=True):
    switch: SwitchRow


class Hide(Row, frozen=True):
    """Store hidden rows under the commit's operation id, valid from this commit's version on."""

    ranges: Sequence[tuple[tuple[int, int], tuple[int, int]]]  #: positions and runs of each row, both ends included


class Show(Row, frozen=True):
    """End the rows of a `Hide` of that id at this commit's version, where they have no end.

    Those that a revision hides, which name one, are not meant. No such rows: `Reason.HIDE_MISSING`.
    """

    hide_id: str


class SetDeleted(Row, frozen=True):
    """Delete softly at a time, or restore (None)."""

    at: int | None


class Seal(Row, frozen=True):
    """The first step of an erasure: drop the session's fields, state, name and counters, leave a tombstone with
    the fields of `SEALED`.

    `Reason.FORKS` while `Head.forks` is more than `abandoned`; it is 0 afterwards. The rest goes by `Driver.erase`.
    """

    abandoned: int = 0  #: how many of the forks that were counted are known never to have been made


class CountForks(Row, frozen=True):
    """Add to `Head.forks`."""

    by: int


Change: TypeAlias = PutRun | PatchRun | PatchSession | PutSwitch | Hide | Show | SetDeleted | Seal | CountForks


class NewSession(Row, frozen=True):
    """The session that a commit makes where there is none. Its counts begin where the fork's link says, or at 0."""

    header: SessionHeader
    state: Body
    user_id: str | None
    created_at: int
    fork: ForkLink | None = None
    counters: Mapping[str, int] = {}


class Commit(Row, frozen=True):
    """Changes of one session, all or none of them. A commit that is not a replay adds one to the version.

    A driver judges in this order, at the commit's turn, and stops at the first that fails:

    1. `owner`: the session's user_id is this one, when given: `Reason.NOT_OWNER`.
    2. Replay. A commit with `PutRun` is recognised by its runs: when all are there with these digests, the outcome has
       their first receipts and nothing is written; those of several that are there are left out. Any other commit is
       recognised by its operation id, kept with digest and outcome until the session is erased: the same digest gives
       the first outcome, another `Reason.OPERATION_CONFLICT`.
    3. Presence: a tombstone is `Reason.ERASED` unless `must_create`; softly deleted is `Reason.DELETED` unless
       `on_deleted`; there though `must_create` is `Reason.EXISTS`; not there without `create` is `Reason.MISSING`.
    4. `incarnation`, then `expected_version` (0: no session), then `expected_state_version`, each when given:
       `Reason.INCARNATION`, `Reason.VERSION`, `Reason.STATE_VERSION`.
    5. What each change asks for.
    6. Writing. `last_activity_at` becomes `at`, or the server's own clock, when a run is put or patched; it never goes
       back.
    """

    key: SessionKey
    operation_id: str
    digest: bytes
    at: int
    changes: Sequence[Change]
    create: NewSession | None = None
    must_create: bool = False
    on_deleted: bool = False
    owner: str | None = None
    incarnation: int | None = None
    expected_version: int | None = None
    expected_state_version: int | None = None


class RunReceipt(Row, frozen=True):
    """Of a `PutRun` or `PatchRun`. Without messages: last_position == first_position - 1."""

    run_id: str
    run_seq: int
    revision: int
    first_position: int
    last_position: int
    version: int
    replayed: bool = False


class Committed(Row, frozen=True):
    """Done, now or (`replayed`) by an earlier commit. A replay's `head` is the session's present one."""

    head: Head
    receipts: Sequence[RunReceipt] = ()
    replayed: bool = False


class Reason(Enum):
    NOT_OWNER = "owned by another user"
    OPERATION_CONFLICT = "an operation of that id had another content"
    RUN_CONFLICT = "a run of that id has another content"
    MISSING = "no such session"
    EXISTS = "the session exists"
    DELETED = "softly deleted"
    ERASED = "deleted for good"
    INCARNATION = "the session was deleted and made again"
    VERSION = "the log is at another version"
    STATE_VERSION = "the session is at another state version"
    RUN_CHANGED = "the run is missing, or was changed by somebody else"
    HIDE_MISSING = "no hidden range of that id"
    FORKS = "other sessions share its messages"
    TOO_LARGE = "larger than the storage takes"


class Refused(Row, frozen=True):
    """Nothing was written. `head` is the session's actual one, if there is any."""

    reason: Reason
    head: Head | None = None
    run_id: str | None = None  #: of the run that it is about


Outcome: TypeAlias = Committed | Refused


# What is read --------------------------------------------------------------------------------------------------------

Place: TypeAlias = tuple[int, str]  #: in the order of sessions: last_activity_at, session_id


class SessionQuery(Row, frozen=True):
    """Sessions by (last_activity_at, session_id), descending unless `reverse`, behind `after`; no tombstones."""

    namespace: str
    limit: int
    user_id: str | None = None
    agent_id: str | None = None
    kind: str | None = None
    name: str | None = None
    active_after: int | None = None  #: exclusive, as is the next
    active_before: int | None = None
    include_deleted: bool = False
    forked_from: str | None = None
    reverse: bool = False
    after: Place | None = None


class SessionPage(Row, frozen=True):
    rows: Sequence[SessionRow]
    more: bool


class RunQuery(Row, frozen=True):
    """All revisions of the runs from first_seq to last_seq, ascending by (seq, revision), or descending with `reverse`.

    With `run_id`: of that run only. A page ends after `limit` rows, or with the row that brings bodies and parts to
    `max_bytes`. Without `bodies`, body and parts are left empty and not read. With `plain`, a driver may leave out rows
    of revision 1 that were never patched, have no parent and are of one of these statuses: the fewer it brings, the
    quicker is the reader.
    """

    key: SessionKey
    limit: int
    max_bytes: int
    bodies: bool = True
    first_seq: int = FIRST
    last_seq: int = LAST
    run_id: str | None = None
    reverse: bool = False
    plain: Sequence[str] = ()


class RunPage(Row, frozen=True):
    head: Head | None
    rows: Sequence[RunRow]
    more: bool


class RunSearch(Row, frozen=True):
    """The newest revision of runs of all sessions that are not deleted, in an order that stays; by at least one filter.

    `owner` is the session's user; the other filters are the run's. `after` is a place that an earlier page gave. A page
    ends after `limit` rows, or with the row that brings bodies and parts to `max_bytes`.
    """

    namespace: str
    limit: int
    max_bytes: int
    owner: str | None = None
    run_id: str | None = None
    statuses: Sequence[str] | None = None
    agent_id: str | None = None
    user_id: str | None = None
    parent_run_id: str | None = None
    updated_before: int | None = None
    reverse: bool = False
    after: str | None = None


class FoundRuns(Row, frozen=True):
    rows: Sequence[tuple[Head, RunRow, str]]  #: the last is the run's place, in the driver's own words
    more: bool


class MessageQuery(Row, frozen=True):
    """Messages whose position lies in one of the ranges, both ends included.

    Rows come range by range in the order given, ascending, or descending inside each range with `reverse`. A page ends
    after `limit` rows, or with the row that brings its bodies to `max_bytes`. With `message_id`: only messages given
    that id, at a cost that does not depend on the session's length.
    """

    key: SessionKey
    ranges: Sequence[tuple[int, int]]
    limit: int
    max_bytes: int
    reverse: bool = False
    message_id: str | None = None


class MessagePage(Row, frozen=True):
    head: Head | None
    rows: Sequence[MessageRow]
    run_ids: Mapping[int, str]  #: by run_seq, of the rows' runs
    more: bool


class HiddenQuery(Row, frozen=True):
    """All hidden rows, ended ones too, that overlap both ranges."""

    key: SessionKey
    positions: tuple[int, int]
    runs: tuple[int, int]


class HiddenPage(Row, frozen=True):
    head: Head | None
    rows: Sequence[HiddenRow]


class SwitchQuery(Row, frozen=True):
    """Switches by version, from first_version to last_version; descending with `reverse`."""

    key: SessionKey
    limit: int
    first_version: int = 0
    last_version: int = LAST
    reverse: bool = False


class SwitchPage(Row, frozen=True):
    head: Head | None
    rows: Sequence[SwitchRow]
    more: bool
