"""A driver from another distribution, found by its entry point, passes the kit like ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from sessionledger_shelf import ShelfDriver

from sessionledger import Message, Run, drivers, open_store
from sessionledger.testing import DriverSuite


class TestShelf(DriverSuite):
    factory = ShelfDriver

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"shelf:///{tmp_path}"


@pytest.mark.anyio
async def test_a_plugin_is_found_by_its_entry_point(tmp_path: Path) -> None:
    async with open_store(f"shelf:///{tmp_path}") as store:
        await store.append(Run(session_id="s", messages=[Message(role="user", content="hi")]))
        assert [message.content async for message in store.messages("s")] == ["hi"]
    listed = {driver.scheme: driver for driver in drivers()}
    assert listed["shelf"].package == "sessionledger-shelf"
    assert listed["shelf"].info is ShelfDriver.info
