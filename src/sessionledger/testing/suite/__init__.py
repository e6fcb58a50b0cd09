"""The suite: one class that holds every test a driver must pass, put together from its themes."""

from sessionledger.testing.suite.bench import Storage
from sessionledger.testing.suite.appending import AppendTests
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
from sessionledger.testing.suite.remembering import HistoryTests
from sessionledger.testing.suite.replaying import ReplayTests
from sessionledger.testing.suite.retracting import RetractTests
from sessionledger.testing.suite.scopes import ScopeTests
from sessionledger.testing.suite.sessions import SessionTests
from sessionledger.testing.suite.updating import UpdateTests
from sessionledger.testing.suite.walking import CursorTests

__all__ = ["DriverSuite", "Storage"]


class DriverSuite(
    CommitTests,
    JudgingTests,
    ReplayTests,
    GroupTests,
    PageTests,
    ListingTests,
    KeepingTests,
    FaithfulTests,
    AppendTests,
    UpdateTests,
    RetractTests,
    ForkTests,
    DeleteTests,
    HistoryTests,
    CursorTests,
    SessionTests,
    LifeTests,
    ScopeTests,
    CancelTests,
):
    """TODO"""
