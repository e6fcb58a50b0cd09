"""`SessionStore.recording`: a run while it lasts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio
import msgspec

from sessionledger.background import Background
from sessionledger.errors import DriverError, InvalidRecordError, RunFinishedError, SessionLedgerError
from sessionledger.ids import new_id
from sessionledger.protocol.rows import LAST
from sessionledger.protocol.store import UNSET, SessionStore, Unset
from sessionledger.records import AppendReceipt, Message, Run, RunStatus, Usage
from sessionledger.waiting import Waiter

__all__ = ["Recorder", "recording"]

_NO_VERSION: Final = LAST  #: that no session's log has


class Recorder:
    """Implements `RunRecorder` on the public API."""

    def __init__(self, store: SessionStore, run: Run) -> None:
        # the id is made here and not by the append: one that was not answered is found again by it
        self._run_id = new_id() if run.run_id is None else run.run_id
        self._store = store
        self._run = msgspec.structs.replace(run, run_id=self._run_id, status=RunStatus.RUNNING)
        self._begun: Waiter[None] = Waiter()
        self._in_doubt = False  #: the append failed, and the run may be stored
        self._receipt: AppendReceipt | None = None
        self._partial: Message | None = None
        self._unsettled: tuple[Sequence[Message], str] | None = (
            None  #: what `add` was interrupted at, with its operation id
        )
        self._finished = False

    @property
    def run_id(self) -> str:
        return self._run_id

    @property
    def receipt(self) -> AppendReceipt:
        assert self._receipt is not None
        return self._receipt

    async def begin(self) -> None:
        try:
            self._receipt = await self._store.append(self._run)
        except DriverError:
            self._in_doubt = True
            raise
        finally:
            self._begun.set(None)

    async def add(self, *messages: Message) -> AppendReceipt:
        operation_id = new_id()
        self._unsettled = messages, operation_id
        try:
            receipt = await self._update(messages=messages, operation_id=operation_id)
        except InvalidRecordError:
            self._unsettled = None
            raise
        self._unsettled = self._partial = None
        return receipt

    def partial(self, message: Message | None) -> None:
        self._partial = message

    async def update(
        self,
        *,
        status: RunStatus | str | None = None,
        output: Any = UNSET,
        error: Any = UNSET,
        usage: Usage | Unset | None = UNSET,
        metadata: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> AppendReceipt:
        return await self._update(
            status=status, output=output, error=error, usage=usage, metadata=metadata, extra=extra
        )

    async def _update(self, **changes: Any) -> AppendReceipt:
        try:
            receipt = await self._store.update_run(self._run.session_id, run_id=self.run_id, **changes)
        except RunFinishedError:
            self._finished = True
            raise
        status = changes.get("status")
        self._finished = self._finished or (status is not None and RunStatus(status).terminal)
        return receipt

    async def complete(self) -> None:
        if not self._finished:
            await self._update(status=RunStatus.COMPLETED)

    async def abandon(self, error: BaseException) -> None:
        """Finish a run whose block ended by an exception, with the answer as far as it had come."""
        await self._begun.wait()
        if self._in_doubt:
            await self._look_for_run()
        if self._receipt is None or self._finished:
            return
        # a generator that is closed has lost its listener
        cancelled = isinstance(error, (anyio.get_cancelled_exc_class(), GeneratorExit))
        changes: dict[str, Any] = {"status": RunStatus.CANCELLED if cancelled else RunStatus.FAILED}
        if not cancelled:
            changes["error"] = {"type": type(error).__name__, "message": _plain(str(error))}
        try:
            if self._unsettled is not None:
                # it may be stored or not, and the partial message may be a part of it: once more with its id settles it
                await self._add_again(*self._unsettled)
            if self._partial is not None:
                changes["messages"] = (self._partial,)
            await self._update(**changes)
        except InvalidRecordError:
            # a partial message that cannot be stored must not keep the run from being finished
            changes.pop("messages", None)
            await self._update(**changes)
        except RunFinishedError:
            pass

    async def _look_for_run(self) -> None:
        """Once more what `begin` did, as a write that can only be a replay: it comes behind the first one, which may be
        on its way, and stores nothing if that did not.
        """
        try:
            self._receipt = await self._store.append(self._run, expected_version=_NO_VERSION)
        except DriverError:
            raise
        except SessionLedgerError:
            pass

    async def _add_again(self, messages: Sequence[Message], operation_id: str) -> None:
        await self._update(messages=messages, operation_id=operation_id)
        self._partial = None


@asynccontextmanager
async def recording(store: SessionStore, background: Background, run: Run) -> AsyncIterator[Recorder]:
    recorder = Recorder(store, run)
    try:
        await background.run(recorder.begin)
        yield recorder
    except BaseException as error:
        try:
            with anyio.CancelScope(shield=True):
                await background.run(partial(recorder.abandon, error))
        except SessionLedgerError as second:
            # the first exception says more; the run stays there as running
            error.add_note(f"its run {recorder.run_id!r} could not be finished: {second}")
        raise
    await background.run(recorder.complete)


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
