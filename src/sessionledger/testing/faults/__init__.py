"""What breaks things for real: the tests of a store's promises under faults, for any driver.

Each theme is a class with tests, to be subclassed for a driver as `DriverSuite` is. A subclass says which storage it is
about, and has the fixtures that its themes ask for, as `url` of an empty storage.

How often each fault is tried is the `dose`: some tries, or with `--faults-long` the whole. What was tried is counted by
`tally`; `--faults-report FILE` writes the counts.
"""

from __future__ import annotations

from sessionledger.testing.faults.bench import Dose, FaultBench
from sessionledger.testing.faults.tally import FAULTS, Tally

__all__ = ["FAULTS", "Dose", "FaultBench", "Tally"]
