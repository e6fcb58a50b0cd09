"""A folder with a file a session: `shelf:///folder` beside the working directory, `shelf:////folder` absolute."""

from sessionledger_shelf.driver import ShelfDriver

__all__ = ["ShelfDriver"]
