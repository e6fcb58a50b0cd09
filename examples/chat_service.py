"""A chat service: answers are streamed, stopped, asked for again; questions are edited; chats are deleted meanwhile.

Run it: ``python examples/chat_service.py``
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from sessionledger import Message, Run, RunFinishedError, SessionDeletedError, SessionNotFoundError, open_store
from sessionledger import SessionStore as Store

Model = Callable[[list[Message]], AsyncIterator[str]]  # takes the conversation so far, says the answer piece by piece
Say = Callable[[str], None]  # hands a piece to whoever listens
GONE = (RunFinishedError, SessionDeletedError, SessionNotFoundError)


class ChatService:
    def __init__(self, store: Store, model: Model) -> None:
        self._store, self._model = store, model
        self._answers: dict[str, asyncio.Task[None]] = {}  # what is being said, by chat

    async def ask(self, chat: str, question: str, say: Say) -> None:
        """Return when the answer is complete or was stopped. It goes on when the listener leaves."""
        run = Run(session_id=chat, messages=[Message(role="user", content=question)])
        answer = self._answers[chat] = asyncio.create_task(self._answer(run, say))
        answer.add_done_callback(lambda _: self._answers.pop(chat) if self._answers.get(chat) is answer else None)
        await asyncio.wait([answer])
        if not answer.cancelled():
            answer.result()

    async def _answer(self, run: Run, say: Say) -> None:
        try:
            async with self._store.recording(run) as recorder:  # from here on the question is stored
                history = await self._store.history(run.session_id, for_run=recorder.run_id).collect()
                said = ""
                async for piece in self._model(history):
                    said += piece
                    recorder.partial(Message(role="assistant", content=said))  # stored if this is where it ends
                    say(piece)
                await recorder.add(Message(role="assistant", content=said))
        except GONE:
            pass  # another process has stopped it, or the chat was deleted: nobody wants the answer any more

    async def stop(self, chat: str) -> None:
        if chat in self._answers and self._answers[chat].cancel():  # ours: what has been said so far is kept
            await asyncio.wait([self._answers[chat]])
        async for run in self._store.runs(chat, status="running"):  # another process's, which learns it when it writes
            await self._store.update_run(chat, run_id=run.run_id or "", status="cancelled")

    async def regenerate(self, chat: str, say: Say) -> None:
        async for run in self._store.runs(chat, last=1, include_messages=True):
            await self._store.retract(chat, run_id=run.run_id)  # hidden, not erased: unretract brings it back
            await self.ask(chat, run.messages[0].content, say)

    async def edit(self, chat: str, position: int, question: str, say: Say) -> str:
        """Ask something else at that place, in a new chat that shares what was before it."""
        fork = await self._store.fork(chat, at=position - 1)
        await self.ask(fork.session_id, question, say)
        return fork.session_id

    async def delete(self, chat: str) -> None:
        await self._store.delete_session(chat, soft=False)


async def parrot(history: list[Message]) -> AsyncIterator[str]:
    for word in f"That was message {len(history)}, and you said: {history[-1].content}".split():
        await asyncio.sleep(0.05)
        yield word + " "


async def main() -> None:
    async with open_store("memory://") as store:
        service = ChatService(store, parrot)
        answer = asyncio.create_task(service.ask("chat", "Tell me a long story.", print))
        await asyncio.sleep(0.25)
        await service.stop("chat")
        await answer
        await service.regenerate("chat", print)
        fork = await service.edit("chat", 1, "Tell me a short one.", print)
        for chat in ("chat", fork):
            print(f"{chat}:", *[message.content async for message in store.history(chat)], sep="\n  ")


if __name__ == "__main__":
    asyncio.run(main())
