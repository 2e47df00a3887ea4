"""``IncomingSession``: the calls and notifies of a connection whose handler takes them itself, or takes none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from telex.protocol import frames
from telex.protocol.asking import read_data
from telex.protocol.envelope import Incoming
from telex.protocol.errors import checked_code
from telex.protocol.jobs import NO_TARGET, Job
from telex.protocol.runner import CallRunner
from telex.protocol.session import FrameSession

__all__ = ("IncomingSession",)


class IncomingSession(FrameSession):
    """The frames of one connection, for a low-level handler or a stream."""

    __slots__ = ()

    async def next(self, kind: Any) -> Incoming[Any]:
        """The next call or notify that is of type ``kind``. The others are answered with errors."""
        read_json, read_bytes = self._plan.read_as(kind)
        reader = self._socket.event_reader
        while True:
            reader.mark_idle()
            try:
                job = await self._runner.next()
            except asyncio.CancelledError:
                interrupt = reader.take_interrupt()
                if interrupt is None:
                    raise
                self._socket.has_left()  # updates its state
                raise interrupt from None
            finally:
                reader.mark_busy()
            found, payload = job.data
            try:
                data = read_data(found.data, payload, read_json, read_bytes)
            except Exception as exc:
                self._runner.drop(job)
                self._refuse_data(job.id, 0, exc)
                if self._failure is not None:
                    raise self._failure from None
                continue
            self._invalid_in_a_row = 0
            if not job.id:
                self._runner.drop(job)
            return _FramedIncoming(data, job, self._runner)

    def _take_in(
        self, call_id: int, found: frames.CallFrame | frames.NotifyFrame, payload: bytes | None, size: int
    ) -> None:
        on_unread = self._plan.on_unread
        if on_unread is None:
            self._runner.start(Job(call_id, (found, payload), size, NO_TARGET), self._timeout_of(found))
        elif call_id:
            self._output.write(frames.error_frame(call_id, "not_found", "this handler takes no calls"))
        else:
            verdict = on_unread(True)
            if isinstance(verdict, Exception):
                raise verdict
            self._runner.count_notify()


class _FramedIncoming(Incoming[Any]):
    """A call or notify in a frame."""

    __slots__ = ("_job", "_runner")

    def __init__(self, data: Any, job: Job, runner: CallRunner) -> None:
        super().__init__(data, wants_answer=bool(job.id))
        self._job = job
        self._runner = runner

    @property
    def is_answered(self) -> bool:
        return self._job.final

    async def reply(self, data: object = None) -> None:
        await self._runner.reply(self._job, data)

    async def error(self, code: str, message: str = "", data: object = None) -> None:
        await self._runner.refuse(self._job, checked_code(code), message, data)

    async def stream(self, parts: AsyncIterator[object]) -> None:
        await self._runner.stream(self._job, parts)
