"""The pytest plug-in, as an application's tests use it."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

TEST = """
    import os
    import pytest

    @pytest.mark.anyio
    async def test_it(session_store, session_store_url, anyio_backend):
        async with session_store as store:
            assert (await store.health()).driver == {driver!r}
        assert session_store_url.startswith({driver!r})
        assert os.environ.get("SESSIONLEDGER_HISTORIES") == {histories!r}

    @pytest.mark.anyio
    async def test_memory(memory_store):
        async with memory_store as store:
            assert await store.sessions().collect() == []
"""


@pytest.fixture
def outside(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project that only has the library installed."""
    monkeypatch.delenv("SESSIONLEDGER_HISTORIES", raising=False)
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"
        """
    )
    return pytester


def test_the_fixtures_give_stores(outside: pytest.Pytester) -> None:
    outside.makepyfile(TEST.format(driver="memory", histories=None))
    outside.runpytest_subprocess("-q").assert_outcomes(passed=2)


def test_the_options_name_a_store_and_a_dose(outside: pytest.Pytester) -> None:
    outside.makepyfile(TEST.format(driver="sqlite", histories="7"))
    options = ("--sessionledger-url", "sqlite:///{tmp}/a.db", "--sessionledger-histories", "7")
    outside.runpytest_subprocess("-q", *options).assert_outcomes(passed=2)


def test_fifteen_lines_test_a_driver(outside: pytest.Pytester) -> None:
    outside.makepyfile(
        """
        from uuid import uuid4

        import pytest

        from sessionledger.drivers.memory import MemoryDriver
        from sessionledger.testing import DriverSuite


        class TestMine(DriverSuite):
            factory = MemoryDriver

            @pytest.fixture
            def url(self):
                return f"memory://{uuid4()}"
        """
    )
    outcome = outside.runpytest_subprocess("-q", "-k", "test_a_driver_says_what_it_is or test_it_answers")
    outcome.assert_outcomes(passed=4)
