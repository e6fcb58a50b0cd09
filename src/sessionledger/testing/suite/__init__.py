"""The suite: one class with every test that a driver must pass, put together from its themes."""

from __future__ import annotations

from sessionledger.testing.suite.appending import AppendTests
from sessionledger.testing.suite.bench import Storage
from sessionledger.testing.suite.cancelling import CancelTests
from sessionledger.testing.suite.commits import CommitTests
from sessionledger.testing.suite.deleting import DeleteTests
from sessionledger.testing.suite.faithful import FaithfulTests
from sessionledger.testing.suite.forking import ForkTests
from sessionledger.testing.suite.grouping import GroupTests
from sessionledger.testing.suite.judging import JudgingTests
from sessionledger.testing.suite.keeping import KeepingTests
from sessionledger.testing.suite.listing import ListingTests
from sessionledger.testing.suite.living import LifeTests
from sessionledger.testing.suite.paging import PageTests
from sessionledger.testing.suite.racing import ForkRaceTests
from sessionledger.testing.suite.remembering import HistoryTests
from sessionledger.testing.suite.replaying import ReplayTests
from sessionledger.testing.suite.retracting import RetractTests
from sessionledger.testing.suite.scopes import ScopeTests
from sessionledger.testing.suite.sessions import SessionTests
from sessionledger.testing.suite.snapshots import SnapshotTests
from sessionledger.testing.suite.updating import UpdateTests
from sessionledger.testing.suite.walking import CursorTests

__all__ = ["DriverSuite", "Storage"]


class DriverSuite(
    # the driver, past the store
    CommitTests,
    JudgingTests,
    ReplayTests,
    GroupTests,
    PageTests,
    ListingTests,
    KeepingTests,
    # the store on it
    FaithfulTests,
    AppendTests,
    UpdateTests,
    RetractTests,
    ForkTests,
    ForkRaceTests,
    DeleteTests,
    HistoryTests,
    CursorTests,
    SnapshotTests,
    SessionTests,
    LifeTests,
    ScopeTests,
    CancelTests,
):
    """Every test of the kit, for the driver that a subclass names.

    ```python
    class TestShelf(DriverSuite):
        factory = ShelfDriver

        @pytest.fixture
        def url(self, tmp_path):
            return f"shelf://{tmp_path}"
    ```

    `url` names a storage that is empty, and still there when it is opened once more, at the same time or later. It may
    be a fixture of any kind, so that it can start a server and stop it. The tests run by anyio's pytest plug-in, on
    every event loop that the driver's `info.backends` names. A subclass may add tests; it overrides none.
    """
