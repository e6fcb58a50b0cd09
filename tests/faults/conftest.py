from __future__ import annotations

import pytest

pytest.register_assert_rewrite(f"{__package__}.trial", f"{__package__}.tables", f"{__package__}.snapshot")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
