"""`python -m sessionledger` is `sessionledger`."""

from __future__ import annotations

from sessionledger.cli import main

main()
