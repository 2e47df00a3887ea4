"""Runs the calls and notifies of one connection, and sends each call exactly one final frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final

from telex.connection import Socket
from telex.defaults import MIB
from telex.event_reader import as_unexpected
from telex.exception_handling import familiar
from telex.exceptions import WebSocketDisconnect, WebSocketException
from telex.protocol import frames
from telex.protocol.failures import SettledError
from telex.protocol.frames import Encoded
from telex.protocol.jobs import NO_TARGET, CallTarget, FramePlan, Job
from telex.protocol.output import FrameOutput
from telex.protocol.stepping import watching
from telex.types import RouteConnection

__all__ = ("MAX_QUEUED_BYTES", "CallRunner")

MAX_QUEUED_BYTES: Final = 4 * MIB
"""Bytes of the calls and notifies of one socket that are in work or wait."""
MORE_WITHIN: Final = 60.0
"""Seconds that an answer in parts waits for credit."""
_TEXTS: Final = {"cancelled": "the call was cancelled", "timeout": "the call took too long"}


class CallRunner:
    """The work of one connection: at most ``max_concurrency`` at once, in order; the others wait in a queue.

    One at a time runs in the task that serves the connection; answers in parts, and several at a time, in tasks.
    """

    __slots__ = (
        "_context",
        "_output",
        "_plan",
        "_reader",
        "_route",
        "_socket",
        "_streams",
        "_taken",
        "_waiter",
        "bytes",
        "calls",
        "max_concurrency",
        "queue",
        "running",
        "used",
    )

    def __init__(self, plan: FramePlan, socket: Socket, output: FrameOutput) -> None:
        self._plan = plan
        self._socket = socket
        self._output = output
        self._context: Context
        """That of the handler, set by :meth:`begin`."""
        self._route = socket.route
        self.max_concurrency: int = plan.max_concurrency
        self.queue: list[Job] = []  # an empty deque takes more memory than a connection has jobs
        """What was read and waits."""
        self._waiter: asyncio.Future[None] | None = None
        self._reader = socket.event_reader
        self.running: int = 0
        """How many calls run, generators apart."""
        self._streams = 0
        self._taken = 0
        """Notifies that were taken since the last ``credit`` frame."""
        self.calls: dict[int, Job] = {}
        """The calls in work or waiting, by their ids."""
        self.used: int = 0
        """The client's credit in use: calls without a final frame, and notifies that no handler has taken."""
        self.bytes: int = 0

    # -- taking

    def start(self, job: Job, timeout: float | None) -> None:
        """``job`` was read: run it when its turn comes; it ends after ``timeout`` seconds."""
        self.used += 1
        self._count_bytes(job.size)
        self._reader.calls += 1
        if job.id:
            self.calls[job.id] = job
            if timeout is not None:
                job.timer = asyncio.get_running_loop().call_later(timeout, self.interrupt, job, "timeout")
        self.queue.append(job)
        if self.max_concurrency == 1:
            self._wake()
        else:
            self._start_tasks()

    def _count_bytes(self, size: int) -> None:
        self.bytes += size
        if self._route is not None:
            self._route.count_bytes(size)

    def has_room(self, size: int, times: int = 1) -> bool:
        """Whether the window has room for a message of ``size`` bytes; with ``times``, one that is larger."""
        if self._route is not None:
            return self._route.has_room(size, times)
        return self.bytes + size <= times * MAX_QUEUED_BYTES or not self.bytes

    async def next(self) -> Job:
        """The next call or notify; a notify's credit is free again."""
        while not self.queue:
            await self.wait()
        job = self.queue.pop(0)
        if not job.id:
            self._free_credit(job)
        return job

    async def wait(self) -> None:
        """Wait until there is a call, or a place is free."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        elif self._reader.resting is not None:
            self._reader.resting.wake()

    def stop(self) -> None:
        """The connection has ended: begin nothing more."""
        self._output.takes_work = False
        self.queue.clear()
        for job in self.calls.values():
            if job.timer is not None:
                job.timer.cancel()

    # -- running

    def begin(self, target_of: Callable[[Any], CallTarget]) -> None:
        """The handler is ready for what was read, and what will be."""
        self._output.takes_work = True
        self._context = copy_context()
        for job in self.queue:
            job.target = self.keyed(job, target_of(job.data))
        self._start_tasks()

    def keyed(self, job: Job, target: CallTarget) -> CallTarget:
        """The target of ``job``, which may have a key."""
        once = self._plan.once
        return target if once is None or job.key is None else once.target(self._plan, self._socket, job, target)

    def rest(self, route: RouteConnection) -> None:
        """There is nothing to do until ``route`` wakes the handler, in the context that it leaves."""
        self._context = route.context = copy_context()
        self.calls.clear()  # there are none: it frees the table
        self._reader.resting = route

    async def run_next(self, task: asyncio.Task[Any] | None, read: Callable[[], None] | None) -> None:
        """Run the next of :attr:`queue` in ``task``, which calls this; a generator runs in a task of its own.

        ``read`` is called as soon as the handler waits for something.
        """
        job = self.queue.pop(0)
        if not job.id:
            self._free_credit(job)
        target = job.target
        self.running, job.has_place = 1, True
        if target.parts:
            await self._run_generator(job)
            return
        job.task, job.started = task, True
        try:
            reply = target.handle(job.data, partial(self._answer, job)) if target.answers else target.handle(job.data)
            if target.awaits:
                reply = await (reply if read is None else watching(reply, read))
            if not target.answers:
                answered = self._answer_now(job, reply)
                if answered is not None:
                    await answered
        except BaseException as exc:
            failing = self._fail_job(job, exc)
            await (failing if read is None else watching(failing, read))
        else:
            self._leave(job)
            if job.reason is not None:
                _uncancel(job, task)
        if not self._socket.is_open:
            self._check_open()

    async def _run_generator(self, job: Job) -> None:
        self._start_task(job)
        while job.has_place:
            await self.wait()

    def run_inline(self, call_id: int, data: Any, size: int, target: CallTarget) -> None:
        """Run a sync function here, in the context of the handler; nothing of it needs to be kept."""
        try:
            reply = self._context.run(target.handle, data)
            if call_id:
                write = target.write
                answer = None if write is None else write(reply)
                self._output.write(frames.frame(f'{{"type":"reply","id":{call_id}', answer))
                if self._plan.counts is not None:
                    self._plan.counts.calls_ok += 1
            else:
                self.count_notify()
        except BaseException as exc:
            self.answer_failure(call_id, size, exc)

    def answer_failure(self, call_id: int, size: int, exc: BaseException) -> bool:
        """Answer a call or notify that has failed when its turn comes; false before anything can run.

        It uses credit and a place as one that runs: exception handlers may take long, and the answers keep their order.
        """
        if not self._output.takes_work:
            return False
        self.start(Job(call_id, None, size, NO_TARGET._replace(handle=partial(_raise, exc))), None)
        self.calls.pop(call_id, None)  # it has run: a cancel is too late
        return True

    def _start_tasks(self) -> None:
        """With ``max_concurrency`` above 1: run what waits in tasks, as many as may run at once."""
        limit = self.max_concurrency
        while limit > 1 and self.running < limit and self.queue and self._output.takes_work:
            job = self.queue.pop(0)
            self.running += 1
            job.has_place = True
            if not job.id:
                self._free_credit(job)
            self._start_task(job)

    def _start_task(self, job: Job) -> None:
        job.task = self._output.spawn(self._run_beside(job))

    async def _run_beside(self, job: Job) -> None:
        """Run ``job`` in a task. Its failure interrupts the handler as soon as no answered message is finished."""
        try:
            await self._run(job)
        except Exception as exc:
            self._reader.end_with(exc)
        finally:
            self._output.finished()

    async def _run(self, job: Job) -> None:
        target = job.target
        try:
            if job.reason is not None:
                raise asyncio.CancelledError
            job.started = True
            if target.answers:
                await target.handle(job.data, partial(self._answer, job))
            elif target.parts:
                await self._send_parts(job, target.handle(job.data))
            else:
                reply = target.handle(job.data)
                if target.awaits:
                    reply = await reply
                answered = self._answer_now(job, reply)
                if answered is not None:
                    await answered
        except BaseException as exc:
            await self._fail_job(job, exc)
        else:
            self._leave(job)
        self._check_open()

    def _check_open(self) -> None:
        """Raise if the work has closed the connection: some servers then do not wake a task in ``receive``."""
        if not self._socket.is_open:
            self.stop()
            raise WebSocketDisconnect(self._socket.close_code, self._socket.close_reason)

    def _answer_now(self, job: Job, reply: Any) -> Awaitable[None] | None:
        """Send the reply of a call; returns what to await, if anything."""
        if not job.id:
            return None
        write = job.target.write
        data = None if write is None else write(reply)
        if not self._finish(job, "ok"):
            return None
        return self._output.answer(frames.frame(f'{{"type":"reply","id":{job.id}', data))

    async def _fail_job(self, job: Job, exc: BaseException) -> None:
        """The work of ``job`` has raised ``exc``: send the error, unless the connection has ended."""
        was_started, job.started = job.started, False
        try:
            if isinstance(exc, asyncio.CancelledError):
                task = asyncio.current_task()
                if job.reason is not None and task is not None and (not was_started or not task.uncancel()):
                    text = frames.error_frame(job.id, job.reason, _TEXTS[job.reason])
                    await self._send_final(job, text, job.reason)
                    return
                exc = as_unexpected(exc)
            if not isinstance(exc, Exception):
                raise exc
            await self._fail(job, exc)
        except BaseException:
            self.stop()
            raise
        finally:
            self._leave(job)

    async def _fail(self, job: Job, exc: Exception) -> None:
        """Send the error for an exception of the handler.

        :raises Exception: ``exc``, if it closes the connection.
        """
        if self._plan.counts is not None:
            self._plan.counts.failed[job.data.__class__] += 1
        if isinstance(familiar(exc), WebSocketException):
            raise exc
        settled = exc if isinstance(exc, SettledError) else await self._plan.settle(self._socket, exc)
        if not job.final:  # else it was answered before its cleanup failed
            await self._send_error(job, settled)

    async def _send_error(self, job: Job, error: SettledError) -> None:
        text = frames.error_frame(
            job.id or None,
            error.code,
            error.message,
            path=error.path,
            data=error.data,
            about="connection" if job.id else "notify",
            retry_after=error.retry_after,
        )
        await self._send_final(job, text, "error")

    # -- answering

    async def _answer(self, job: Job, reply: Any) -> None:
        if job.target.parts:
            await self._send_parts(job, reply)
        elif job.id:
            await self._send_final(job, _reply(job.id, job.target, reply), "ok")
        else:
            self._finish(job, "ok")

    async def _send_parts(self, job: Job, parts: AsyncIterator[Any]) -> None:
        self._give_place(job)
        try:
            if self._streams >= self._plan.max_streams:
                text = f"at most {self._plan.max_streams} answers in parts at once"
                await self._send_error(job, SettledError("too_many_calls", text))
                return
            self._streams += 1
            try:
                await self._send_each(job, parts)
            finally:
                self._streams -= 1
        finally:
            aclose = getattr(parts, "aclose", None)
            if aclose is not None:
                await aclose()
        if job.id:
            await self._send_final(job, f'{{"type":"end","id":{job.id}}}', "ok")

    async def _send_each(self, job: Job, parts: AsyncIterator[Any]) -> None:
        write, head = job.target.write or self._plan.write_value, f'{{"type":"item","id":{job.id}'
        async for part in parts:
            if job.timer is not None:
                job.timer.cancel()
            if not job.id:
                continue  # nobody waits for the answer to a notify
            while not job.credit:
                await self._until_more(job)
            job.credit -= 1
            await self._output.send(frames.frame(head, write(part)))

    async def _until_more(self, job: Job) -> None:
        job.more = asyncio.get_running_loop().create_future()
        timer = asyncio.get_running_loop().call_later(MORE_WITHIN, self.interrupt, job, "timeout")
        try:
            await job.more
        finally:
            timer.cancel()
            job.more = None

    # -- for handlers that take calls themselves

    async def reply(self, job: Job, data: object) -> None:
        """Answer a call with ``data``."""
        if job.id and not job.final:
            payload = self._plan.write_value(data) if data is not None else None
            await self._send_final(job, frames.frame(f'{{"type":"reply","id":{job.id}', payload), "ok")
        self._leave(job)

    async def refuse(self, job: Job, code: str, message: str, data: object) -> None:
        """Answer a call with an error, also a notify."""
        if not job.final:
            written = None if data is None else self._plan.write_value(data)
            await self._send_error(job, SettledError(code, message, data=written))
        self._leave(job)

    async def stream(self, job: Job, parts: AsyncIterator[object]) -> None:
        """Answer a call with ``parts``, in the caller's task."""
        task = job.task = asyncio.current_task()
        job.started = not job.final
        try:
            if job.started:
                await self._send_parts(job, parts)
        except asyncio.CancelledError as exc:
            if job.reason is None and task is not None and task.cancelling():
                self._write_reason(job, "cancelled")
                raise
            await self._fail_job(job, exc)
        except Exception as exc:
            await self._fail_job(job, exc)
        else:
            self._leave(job)
            _uncancel(job, task)

    def drop(self, job: Job) -> None:
        """A handler has taken ``job``, which gets no answer from here."""
        self._finish(job, "error")
        self._leave(job)

    # -- ends

    def interrupt(self, job: Job, reason: str) -> None:
        """Stop a call that waits or runs. One that runs is answered after its cleanup."""
        if job.final or job.reason is not None:
            return
        job.reason = reason
        if job.started and job.task is not None:
            job.task.cancel()
        elif job.task is None:
            if job in self.queue:
                self.queue.remove(job)
            self._write_reason(job, reason)

    def _write_reason(self, job: Job, reason: str) -> None:
        if self._finish(job, reason):
            self._output.write(frames.error_frame(job.id, reason, _TEXTS[reason]))
        self._leave(job)

    def _finish(self, job: Job, outcome: str) -> bool:
        """Whether the caller may send the final frame of ``job``: only the first may. The credit is free again."""
        if job.final:
            return False
        job.final = True
        if job.timer is not None:
            job.timer.cancel()
        if job.id:
            self.calls.pop(job.id, None)
            if self._plan.counts is not None:
                self._plan.counts.answered(outcome)
        self._free_credit(job)
        return True

    async def _send_final(self, job: Job, text: Encoded, outcome: str) -> None:
        if self._finish(job, outcome):
            await self._output.send(text)

    def _leave(self, job: Job) -> None:
        """``job`` needs nothing more: give back its bytes and its place."""
        if job.size:
            self._count_bytes(-job.size)
            job.size = 0
            self._reader.calls -= 1
        self._give_place(job)

    def _give_place(self, job: Job) -> None:
        """Let the next call run."""
        if job.has_place:
            job.has_place = False
            self.running -= 1
            if self.max_concurrency > 1:
                self._start_tasks()
            elif self._waiter is not None:
                self._wake()

    def _free_credit(self, job: Job) -> None:
        """A call has its final frame, or a handler takes a notify: the client may send another."""
        if not job.counted or not job.size:
            return
        job.counted = False
        self.used -= 1
        if not job.id:
            self.count_notify()

    def count_notify(self) -> None:
        """Return the credit of notifies in batches of half the window."""
        self._taken += 1
        if 2 * self._taken >= self._plan.max_calls:
            self._output.write(f'{{"type":"credit","n":{self._taken}}}')
            self._taken = 0


def _reply(call_id: int, target: CallTarget, reply: Any) -> Encoded:
    write = target.write
    return frames.frame(f'{{"type":"reply","id":{call_id}', None if write is None else write(reply))


def _uncancel(job: Job, task: asyncio.Task[Any] | None) -> None:
    """After work that has ignored its cancellation."""
    if job.reason is not None and job.started and task is not None and task.cancelling():
        task.uncancel()


def _raise(exc: BaseException, _: Any) -> None:
    raise exc
