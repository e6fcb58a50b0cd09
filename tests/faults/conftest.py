from __future__ import annotations

import pytest

pytest.register_assert_rewrite(*(f"{__package__}.{name}" for name in ("trial", "tables", "lines", "snapshot")))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
