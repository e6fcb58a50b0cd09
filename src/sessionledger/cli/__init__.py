"""The command line. It uses the public API alone, so that it shows what any program can do."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run `sessionledger`; without click or rich, say in one sentence which extra brings them, and exit with 1."""
    try:
        from sessionledger.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"click", "rich"}:
            raise
        print(
            f"the command line needs {error.name!r}, which is not installed: "
            'python -m pip install "sessionledger[cli]"',
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    app(prog_name="sessionledger")
