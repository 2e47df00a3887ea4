"""Runs the calls and notifies of one connection, and sends each call exactly one final frame."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Final

from telex.connection import Socket
from telex.event_reader import as_unexpected
from telex.exception_handling import familiar
from telex.exceptions import WebSocketDisconnect, WebSocketException
from telex.protocol import frames
from telex.protocol.frames import Encoded
from telex.protocol.jobs import CallPlan, CallTarget, Job
from telex.protocol.output import FrameOutput

__all__ = ("CallRunner",)

MORE_WITHIN: Final = 60.0
"""Seconds that an answer in parts waits for credit."""
_TEXTS: Final = {"cancelled": "the call was cancelled", "timeout": "the call took too long"}


class CallRunner:
    """The work of one connection: at most ``max_concurrency`` at once, in order; the others wait in a queue."""

    __slots__ = (
        "_output",
        "_plan",
        "_queue",
        "_run_in_context",
        "_running",
        "_socket",
        "_streams",
        "_taken",
        "bytes",
        "calls",
        "used",
    )

    def __init__(self, plan: CallPlan, socket: Socket, output: FrameOutput) -> None:
        self._plan = plan
        self._socket = socket
        self._output = output
        self._run_in_context: Callable[..., Any] = _directly
        self._queue: deque[Job] = deque()
        self._running = 0
        self._streams = 0
        self._taken = 0
        """Notifies that were taken since the last ``credit`` frame."""
        self.calls: dict[int, Job] = {}
        """The calls in work or waiting, by their ids."""
        self.used = 0
        """The client's credit in use: calls without a final frame, and notifies that no handler has taken."""
        self.bytes = 0

    def run_here(self) -> None:
        """Run sync functions in the context of the caller, that of the handler."""
        self._run_in_context = copy_context().run

    def stop(self) -> None:
        """The connection has ended: begin nothing more."""
        self._output.group = None
        self._queue.clear()
        for job in self.calls.values():
            if job.timer is not None:
                job.timer.cancel()

    def start(self, job: Job, timeout: float | None) -> None:
        """Run ``job`` now, or when its turn comes; it ends after ``timeout`` seconds."""
        self.used += 1
        self.bytes += job.size
        self._socket.event_reader.calls += 1
        if job.id:
            self.calls[job.id] = job
            if timeout is not None:
                job.timer = asyncio.get_running_loop().call_later(timeout, self.interrupt, job, "timeout")
        if self._running < self._plan.max_concurrency:
            self._start_task(job)
        else:
            self._queue.append(job)

    @property
    def is_idle(self) -> bool:
        """Whether a sync function may run at once."""
        return not (self._running or self._queue)

    def run_inline(self, call_id: int, data: Any, target: CallTarget) -> None:
        """Run a sync function here, in the context of the handler; nothing of it needs to be kept."""
        try:
            reply = self._run_in_context(target.handle, data)
            if call_id:
                self._output.write(_reply(call_id, target, reply))
            else:
                self._count_notify()
        except BaseException as exc:
            self._output.spawn(self._fail_job(Job(call_id, data, 0, target), exc))

    def _start_task(self, job: Job) -> None:
        self._running += 1
        job.has_place = True
        if not job.id:
            self._free_credit(job)
        job.task = self._output.spawn(self._run(job))

    async def _run(self, job: Job) -> None:
        target = job.target
        try:
            if job.reason is not None:
                raise asyncio.CancelledError
            job.started = True
            if target.answers:
                await target.handle(job.data, partial(self._answer, job))
            else:
                reply = target.handle(job.data)
                if target.parts:
                    await self._send_parts(job, reply)
                else:
                    if target.awaits:
                        reply = await reply
                    if job.id:
                        payload = _reply(job.id, target, reply)
                        if self._finish(job):
                            await self._output.send(payload)
        except BaseException as exc:
            await self._fail_job(job, exc)
        else:
            self._leave(job)
        if not self._socket.is_open:
            # Some servers do not wake a task in ``receive`` after the app has closed the connection.
            self.stop()
            raise WebSocketDisconnect(self._socket.close_code, self._socket.close_reason)

    async def _fail_job(self, job: Job, exc: BaseException) -> None:
        """The work of ``job`` has raised ``exc``: send the error, unless the connection has ended."""
        try:
            if isinstance(exc, asyncio.CancelledError):
                task = asyncio.current_task()
                if job.reason is not None and task is not None and (not job.started or not task.uncancel()):
                    await self._send_final(job, frames.error_frame(job.id, job.reason, _TEXTS[job.reason]))
                    return
                exc = as_unexpected(exc)
            if not isinstance(exc, Exception):
                raise exc
            await self.fail(job, exc)
        except BaseException:
            self.stop()
            raise
        finally:
            self._leave(job)

    async def fail(self, job: Job, exc: Exception) -> None:
        """Send the error for an exception of the handler.

        :raises Exception: ``exc``, if it closes the connection.
        """
        plan, error = self._plan, familiar(exc)
        if isinstance(error, WebSocketException):
            raise exc
        if not plan.failures.is_declared(error):
            plan.errors.report(self._socket, error)
        handler, data = plan.errors.find(exc), None
        if handler is not None:
            answer = await plan.errors.answer(self._socket, handler, exc)
            data = None if answer is None else plan.write_value(answer)
        if job.final:
            return  # it was answered before its cleanup failed
        failure = plan.failures.of(error)
        if failure.data is not None and data is None:
            data = plan.write_value(failure.data)
        about = "connection" if job.id else "notify"
        text = frames.error_frame(
            job.id or None, failure.code, failure.message, path=failure.path, data=data, about=about
        )
        await self._send_final(job, text)

    async def _answer(self, job: Job, reply: Any) -> None:
        if job.target.parts:
            await self._send_parts(job, reply)
        elif job.id:
            await self._send_final(job, _reply(job.id, job.target, reply))
        else:
            self._finish(job)

    async def _send_parts(self, job: Job, parts: AsyncGenerator[Any, None]) -> None:
        write, head = job.target.write or self._plan.write_value, f'{{"type":"item","id":{job.id}'
        self._give_place(job)
        if self._streams >= self._plan.max_streams:
            await parts.aclose()
            text = f"at most {self._plan.max_streams} answers in parts at once"
            await self._send_final(job, frames.error_frame(job.id or None, "too_many_calls", text))
            return
        self._streams += 1
        try:
            async with contextlib.aclosing(parts):
                async for part in parts:
                    if job.timer is not None:
                        job.timer.cancel()
                    if not job.id:
                        continue  # nobody waits for the answer to a notify
                    while not job.credit:
                        await self._until_more(job)
                    job.credit -= 1
                    await self._output.send(frames.frame(head, write(part)))
        finally:
            self._streams -= 1
        if job.id:
            await self._send_final(job, f'{{"type":"end","id":{job.id}}}')

    async def _until_more(self, job: Job) -> None:
        job.more = asyncio.get_running_loop().create_future()
        timer = asyncio.get_running_loop().call_later(MORE_WITHIN, self.interrupt, job, "timeout")
        try:
            await job.more
        finally:
            timer.cancel()
            job.more = None

    def interrupt(self, job: Job, reason: str) -> None:
        """Stop a call that waits or runs. It is answered after its cleanup."""
        if job.final or job.reason is not None:
            return
        job.reason = reason
        if job.task is None:
            self._queue.remove(job)
            self._finish(job)
            self._leave(job)
            self._output.write(frames.error_frame(job.id, reason, _TEXTS[reason]))
        elif job.started:
            job.task.cancel()

    def _finish(self, job: Job) -> bool:
        """Whether the caller may send the final frame of ``job``: only the first may. The credit is free again."""
        if job.final:
            return False
        job.final = True
        if job.timer is not None:
            job.timer.cancel()
        if job.id:
            self.calls.pop(job.id, None)
        self._free_credit(job)
        return True

    async def _send_final(self, job: Job, text: Encoded) -> None:
        if self._finish(job):
            await self._output.send(text)

    def _leave(self, job: Job) -> None:
        """``job`` needs nothing more: give back its bytes and its place."""
        if job.size:
            self.bytes -= job.size
            job.size = 0
            self._socket.event_reader.calls -= 1
        self._give_place(job)

    def _give_place(self, job: Job) -> None:
        """Let the next call run."""
        if not job.has_place:
            return
        job.has_place = False
        self._running -= 1
        while self._queue and self._running < self._plan.max_concurrency and self._output.group is not None:
            self._start_task(self._queue.popleft())

    def _free_credit(self, job: Job) -> None:
        """A call has its final frame, or a handler takes a notify: the client may send another."""
        if not job.counted or not job.size:
            return
        job.counted = False
        self.used -= 1
        if not job.id:
            self._count_notify()

    def _count_notify(self) -> None:
        """Return the credit of notifies in batches of half the window."""
        self._taken += 1
        if 2 * self._taken >= self._plan.max_calls:
            self._output.write(f'{{"type":"credit","n":{self._taken}}}')
            self._taken = 0


def _reply(call_id: int, target: CallTarget, reply: Any) -> Encoded:
    write = target.write
    return frames.frame(f'{{"type":"reply","id":{call_id}', None if write is None else write(reply))


def _directly(fn: Callable[[Any], Any], data: Any) -> Any:
    return fn(data)
