"""`SessionStore.recording`: a run while it lasts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import msgspec

from sessionledger.background import Background
from sessionledger.errors import DriverError, InvalidRecordError, RunFinishedError
from sessionledger.protocol.store import UNSET, SessionStore, Unset
from sessionledger.records import AppendReceipt, Message, Run, RunStatus, Usage

__all__ = ["Recorder", "recording"]


class Recorder:
    """Implements `RunRecorder` on the public API."""

    def __init__(self, store: SessionStore, session_id: str, receipt: AppendReceipt) -> None:
        self._store, self._session_id, self._receipt = store, session_id, receipt
        self._partial: Message | None = None
        self._finished = False

    @property
    def run_id(self) -> str:
        return self._receipt.run_id

    @property
    def receipt(self) -> AppendReceipt:
        return self._receipt

    async def add(self, *messages: Message) -> AppendReceipt:
        receipt = await self._update(messages=messages)
        self._partial = None
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
            receipt = await self._store.update_run(self._session_id, run_id=self.run_id, **changes)
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
        if self._finished:
            return
        cancelled = isinstance(error, anyio.get_cancelled_exc_class())
        changes: dict[str, Any] = {"status": RunStatus.CANCELLED if cancelled else RunStatus.FAILED}
        if not cancelled:
            changes["error"] = {"type": type(error).__name__, "message": _plain(str(error))}
        if self._partial is not None:
            changes["messages"] = (self._partial,)
        try:
            await self._update(**changes)
        except InvalidRecordError:
            # a partial message that cannot be stored must not keep the run from being finished
            changes.pop("messages", None)
            await self._update(**changes)
        except RunFinishedError:
            pass


@asynccontextmanager
async def recording(store: SessionStore, background: Background, run: Run) -> AsyncIterator[Recorder]:
    receipt = await store.append(msgspec.structs.replace(run, status=RunStatus.RUNNING))
    recorder = Recorder(store, run.session_id, receipt)
    try:
        yield recorder
    except BaseException as error:
        try:
            with anyio.CancelScope(shield=True):
                await background.run(partial(recorder.abandon, error))
        except DriverError as second:
            # the block's own exception says more; the run stays there as running
            error.add_note(f"its run {recorder.run_id!r} could not be finished: {second}")
        raise
    await background.run(recorder.complete)


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
