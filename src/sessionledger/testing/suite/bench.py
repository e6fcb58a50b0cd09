"""What all tests of the kit stand on: a storage that the author of a driver names, drivers and stores on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

import pytest

from sessionledger.context import Limits
from sessionledger.protocol.driver import Driver, DriverFactory
from sessionledger.registry import parse_url
from sessionledger.store import Store
from sessionledger.testing.theme import Theme

__all__ = ["Bench", "Storage"]


class Storage:
    """One storage, to which any number of drivers and stores can be made."""

    def __init__(self, factory: DriverFactory, url: str, options: Mapping[str, Any]) -> None:
        self._factory, self._url, self._options = factory, url, options

    def driver(self) -> Driver:
        """Not open yet."""
        parsed = parse_url(self._url)
        return self._factory(parsed, **{**parsed.query, **self._options})

    def store(self, **options: Any) -> Store:
        """Not open yet."""
        return Store.on(self.driver(), **options)


class Bench(Theme):
    """The fixtures. A subclass names the driver's factory and the URL of a fresh storage, and overrides no test."""

    factory: ClassVar[DriverFactory]  #: the driver's class, or whatever its entry point names
    options: ClassVar[Mapping[str, Any]] = {}  #: for the factory, beside those of the URL's query

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "factory" in vars(cls):
            cls.anyio_backend = _backends(cls.factory.info.backends)  # type: ignore[attr-defined]

    @pytest.fixture
    def storage(self, url: str) -> Storage:
        return Storage(type(self).factory, url, type(self).options)

    @pytest.fixture
    async def driver(self, storage: Storage) -> AsyncIterator[Driver]:
        driver = storage.driver()
        await driver.open()
        yield driver
        await driver.close()

    @pytest.fixture
    async def store(self, storage: Storage) -> AsyncIterator[Store]:
        async with storage.store() as store:
            yield store


def _backends(names: Sequence[str]) -> Any:
    @pytest.fixture(params=list(names))
    def anyio_backend(self: Bench, request: pytest.FixtureRequest) -> Any:
        return request.param

    return anyio_backend


class _Interrupted:
    """A driver on which something happens right before the first call of a method."""

    def __init__(self, driver: Driver, method: str, act: Callable[[], Awaitable[Any]]) -> None:
        self._driver, self._method, self._act = driver, method, act

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._driver, name)
        if name != self._method:
            return call

        async def interrupted(*arguments: Any, **keywords: Any) -> Any:
            self._method = ""
            await self._act()
            return await call(*arguments, **keywords)

        return interrupted


def interrupt(store: Store, method: str, act: Callable[[], Awaitable[Any]]) -> None:
    """Let something happen between two reads of the store: right before the driver's next call of that name."""
    store._context.driver = cast("Driver", _Interrupted(store._context.driver, method, act))


def small_pages(store: Store, *, rows: int = 3, size: int = 1 << 20) -> Store:
    """The same store, whose pages hold no more than that: a few rows are enough to need many."""
    store._context.limits = Limits(rows=rows, bytes=size)
    return store
