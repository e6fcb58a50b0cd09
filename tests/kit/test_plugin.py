"""The pytest plug-in, as an application's tests use it."""

from __future__ import annotations

import json

import pytest

from sessionledger.testing.faults.tally import FAULTS, as_table

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


FAULT_TESTS = """
    import pytest

    from sessionledger.testing.faults import FaultBench


    class TestMine(FaultBench):
        storage = "mine"

        @pytest.mark.parametrize("goes_on", [True, False])
        def test_it(self, dose, tally, goes_on):
            times = dose.of(2, 30)
            tally.add("clock", times)
            tally.add("clock", 1)
            assert goes_on

        def test_a_name_is_checked(self, tally):
            with pytest.raises(ValueError, match="there is no fault 'clocks'"):
                tally.add("clocks")
"""


@pytest.mark.parametrize(("options", "counted"), [([], 3), (["--faults-long"], 31), (["-n", "2"], 3)])
def test_what_was_tried_and_passed_is_reported(outside: pytest.Pytester, options: list[str], counted: int) -> None:
    outside.makepyfile(FAULT_TESTS)
    outcome = outside.runpytest_subprocess("-q", "--faults-report", "report.json", *options)
    outcome.assert_outcomes(passed=2, failed=1)
    report = json.loads((outside.path / "report.json").read_text())
    assert report == {"clock": {"mine": counted}}
    assert f"| clock | jumps | {counted} |" in as_table(report)
    assert as_table(report).count("—") == len(FAULTS) - 1


def test_a_client_whose_threads_draw_numbers_fails_no_random_test(outside: pytest.Pytester) -> None:
    outside.makepyfile(
        """
        import random, threading
        from hypothesis import given, strategies as st

        def drawn(number):
            thread = threading.Thread(target=random.random)
            thread.start()
            thread.join()
            return number

        @given(st.integers().map(drawn))
        def test_it(number):
            pass
        """
    )
    outside.makeini("[pytest]\nfilterwarnings = error")
    outside.runpytest_subprocess("-q").assert_outcomes(passed=1)


def test_a_suite_of_faults_overrides_no_test(outside: pytest.Pytester) -> None:
    outside.makepyfile(
        """
        import pytest
        from sessionledger.testing.faults import FaultBench

        class Theme(FaultBench):
            def test_it(self):
                pass

        def test_it_says_so():
            with pytest.raises(TypeError, match="Mine overrides 'test_it'"):
                class Mine(Theme):
                    def test_it(self):
                        pass
        """
    )
    outside.runpytest_subprocess("-q").assert_outcomes(passed=1)
