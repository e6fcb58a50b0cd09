"""The chat service does what it says, on memory and on SQLite."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sessionledger import Message, Run, SessionDeletedError, SessionStore, open_store

pytestmark = pytest.mark.anyio

_PATH = Path(__file__).parents[2] / "examples" / "chat_service.py"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("chat_service", _PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


chat_service = _load()


class Script:
    """A model that says its lines, and at an ellipsis waits until it may go on."""

    def __init__(self, *lines: str) -> None:
        self._lines = iter(lines)
        self.asked: list[list[Any]] = []
        self.waits = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def waiting(self) -> None:
        async with asyncio.timeout(10):
            await self.waits.wait()

    async def __call__(self, history: list[Message]) -> AsyncIterator[str]:
        self.asked.append([message.content for message in history])
        for word in next(self._lines).split(" "):
            if word == "…":
                self.waits.set()
                await self.goes_on.wait()
            elif word == "!":
                raise RuntimeError("the model is out of order")
            else:
                yield word


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionStore]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/chats.db"
    async with open_store(url) as store:
        yield store


def silent(_: str) -> None:
    pass


async def contents(store: SessionStore, chat: str = "chat") -> list[Any]:
    return [message.content async for message in store.messages(chat)]


async def statuses(store: SessionStore, chat: str = "chat") -> list[str]:
    return [run.status.value async for run in store.runs(chat)]


async def test_an_answer_is_streamed_and_remembered(store: SessionStore) -> None:
    model, heard = Script("one two", "three"), list[str]()
    service = chat_service.ChatService(store, model)
    await service.ask("chat", "first?", heard.append)
    await service.ask("chat", "second?", heard.append)
    assert heard == ["one", "two", "three"]
    assert model.asked == [["first?"], ["first?", "onetwo", "second?"]]
    assert await contents(store) == ["first?", "onetwo", "second?", "three"]
    assert await statuses(store) == ["completed", "completed"]


async def test_the_answer_goes_on_when_the_listener_leaves(store: SessionStore) -> None:
    model = Script("one … two")
    service = chat_service.ChatService(store, model)
    listener = asyncio.create_task(service.ask("chat", "?", silent))
    await model.waiting()
    listener.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listener
    model.goes_on.set()
    await asyncio.wait(service._answers.values())
    assert await contents(store) == ["?", "onetwo"]


async def test_stop_keeps_what_has_been_said(store: SessionStore) -> None:
    model = Script("one … two", "three")
    service = chat_service.ChatService(store, model)
    asking = asyncio.create_task(service.ask("chat", "?", silent))
    await model.waiting()
    await service.stop("chat")
    await asking
    assert await contents(store) == ["?", "one"]
    assert await statuses(store) == ["cancelled"]
    await service.stop("chat")
    await service.ask("chat", "and?", silent)
    assert model.asked[-1] == ["?", "one", "and?"]


async def test_stop_from_another_process(store: SessionStore) -> None:
    model = Script("one … two")
    here, there = chat_service.ChatService(store, model), chat_service.ChatService(store, Script())
    asking = asyncio.create_task(here.ask("chat", "?", silent))
    await model.waiting()
    await there.stop("chat")
    assert await statuses(store) == ["cancelled"]
    model.goes_on.set()
    await asking
    assert await contents(store) == ["?"]
    assert await statuses(store) == ["cancelled"]


async def test_regenerate_hides_the_old_answer(store: SessionStore) -> None:
    model = Script("one", "two", "three")
    service = chat_service.ChatService(store, model)
    await service.ask("chat", "first?", silent)
    await service.ask("chat", "second?", silent)
    await service.regenerate("chat", silent)
    assert await contents(store) == ["first?", "one", "second?", "three"]
    assert model.asked[1] == model.asked[2] == ["first?", "one", "second?"]
    everything = await store.messages("chat", include_retracted=True).collect()
    assert [message.content for message in everything] == ["first?", "one", "second?", "two", "second?", "three"]


async def test_edit_asks_in_a_chat_of_its_own(store: SessionStore) -> None:
    model = Script("one", "two", "three", "four")
    service = chat_service.ChatService(store, model)
    await service.ask("chat", "first?", silent)
    await service.ask("chat", "second?", silent)
    fork = await service.edit("chat", 3, "instead?", silent)
    assert model.asked[-1] == ["first?", "one", "instead?"]
    assert await contents(store, fork) == ["first?", "one", "instead?", "three"]
    assert await contents(store) == ["first?", "one", "second?", "two"]
    again = await service.edit(fork, 1, "from the start?", silent)
    assert await contents(store, again) == ["from the start?", "four"]


async def test_a_deleted_chat_is_not_written_to(store: SessionStore) -> None:
    model = Script("one … two")
    service = chat_service.ChatService(store, model)
    asking = asyncio.create_task(service.ask("chat", "?", silent))
    await model.waiting()
    await service.delete("chat")
    model.goes_on.set()
    await asking
    assert await store.get_session("chat") is None
    assert await contents(store) == []
    with pytest.raises(SessionDeletedError):
        await store.append(Run(session_id="chat"))


async def test_a_model_that_fails_leaves_a_failed_run(store: SessionStore) -> None:
    service = chat_service.ChatService(store, Script("one !"))
    with pytest.raises(RuntimeError, match="out of order"):
        await service.ask("chat", "?", silent)
    run = await store.runs("chat", include_messages=True).first()
    assert run is not None and run.status == "failed"
    assert run.error == {"type": "RuntimeError", "message": "the model is out of order"}
    assert [message.content for message in run.messages] == ["?", "one"]


async def test_it_runs_as_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    await chat_service.main()
    out = capsys.readouterr().out
    assert "chat:\n  Tell me a long story.\n  That was message 1, and you said: Tell me a long story. \n" in out
    assert out.endswith(":\n  Tell me a short one.\n  That was message 1, and you said: Tell me a short one. \n")
