"""One task that sends the queues of many recipients, on servers without direct send.

A task switch costs a third of a delivery. While a server's ``send`` returns without suspending, one task can call it
for one recipient after another. A recipient joins with its queue empty; the next item makes it *ready*, and the worker
task sends what waits. A recipient goes back to its own task (:mod:`telex.channels.delivery.forward`) when

- its ``send`` suspends: another worker takes over the ready recipients, and this one ends after that send;
- its ``send``, its encoding or its queue raises, or its connection closes: its own task raises the error;
- its ``send`` changes a context variable, which other recipients must not see: the value goes along to its own task;
- the hub ends.

A worker belongs to the sender; a worker whose send has suspended belongs to the task of the recipient, which awaits its
end, and cancels it if it is cancelled itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any

from telex.channels.delivery.encoding import Encoding
from telex.channels.delivery.queue import DeliveryQueue
from telex.channels.delivery.yield_budget import PIECES, YieldBudget
from telex.channels.events import Item
from telex.connection import Socket
from telex.connection_state import unmarked_context

__all__ = ("SharedSender",)


class _SenderTask:
    """A task that sends. ``at`` is the recipient that it sends to now."""

    __slots__ = ("at", "is_relieved", "task")

    def __init__(self) -> None:
        self.at: _Sending | None = None
        self.is_relieved = False
        self.task: asyncio.Task[None]


class SharedSender:
    """Sends the queues of the recipients of a hub that are in :meth:`send_queue`."""

    __slots__ = ("_context", "_worker", "ready", "wake")

    def __init__(self) -> None:
        self._context: Context | None = None
        self._worker: _SenderTask | None = None
        self.ready: deque[_Sending] = deque()
        """Recipients whose queue has an item, or has ended."""
        self.wake: Callable[[], object] | None = self._hand_back
        """Called after a recipient became ready; ``None`` while a worker runs."""

    def open(self) -> None:
        """Accept recipients, and send to them in the current context."""
        self._context = unmarked_context()
        self._start()

    async def close(self) -> None:
        """Accept no more recipients; those that are ready go on in their own tasks."""
        self._context = None
        self._hand_back()
        if self._worker is not None:
            self._relieve(self._worker)
        worker, self._worker, self.wake = self._worker, None, self._hand_back
        if worker is not None:
            worker.task.cancel()
            await asyncio.wait([worker.task])

    @property
    def is_usable(self) -> bool:
        """Whether this task may call :meth:`send_queue`: a send in the sender's context sees the same variables."""
        return self._context is not None and _are_equal(unmarked_context(), self._context)

    async def send_queue(self, socket: Socket, queue: DeliveryQueue[Item], encoding: Encoding) -> None:
        """Send the items of ``queue``; returns when the calling task must go on by itself.

        Raises what the send, the encoding or the queue raises.
        """
        sending = _Sending(self, socket, queue, encoding)
        if not queue.is_awaited_by(sending):
            sending.wake()
        try:
            await sending.handed_back
            for variable, value in sending.set_by_send:
                variable.set(value)
        finally:
            sending.is_over = True
            if self._worker is not None and self._worker.at is sending:
                self._relieve(self._worker)
            if sending.worker is not None:
                sending.worker.task.cancel()
                await asyncio.wait([sending.worker.task])
            # A worker and a traceback reference ``sending``: reference cycles.
            del sending.worker, sending.handed_back

    def _hand_back(self) -> None:
        while self.ready:
            self.ready.popleft().hand_back()

    def _start(self) -> None:
        if self._context is None:
            self._hand_back()
            return
        worker = self._worker = _SenderTask()
        worker.task = asyncio.create_task(
            self._work(worker), name="telex.channels.sender", context=self._context.copy()
        )
        # A task that is cancelled before it starts runs no code of its own.
        worker.task.add_done_callback(lambda _: self._replace(worker))
        self.wake = None

    def _relieve(self, worker: _SenderTask) -> None:
        """If ``worker`` is in a send, give it to that recipient's task, and the ready ones to another worker."""
        if worker.at is not None and not worker.is_relieved:
            worker.is_relieved = True
            worker.at.worker = worker
            self._replace(worker)

    def _replace(self, worker: _SenderTask) -> None:
        if self._worker is worker:
            self._worker, self.wake = None, self._start
            if self.ready:
                self._start()

    async def _work(self, worker: _SenderTask) -> None:
        loop, context = asyncio.get_running_loop(), copy_context()
        while True:
            # The check runs when this task suspends: in a send, or at the end of the turn.
            loop.call_soon(self._relieve, worker)
            await self._send_ready(worker, context)
            if worker.is_relieved:
                return
            worker.at = None
            if self.ready:
                await asyncio.sleep(0)
            else:
                awake: asyncio.Future[None] = loop.create_future()
                self.wake = partial(_wake, self, awake)
                await awake

    async def _send_ready(self, worker: _SenderTask, context: Context) -> None:
        """Send one item to each ready recipient in turn, until none is ready, a send suspends or the turn is over."""
        ready, budget = self.ready, YieldBudget(max(len(self.ready), PIECES))
        while ready:
            worker.at = sending = ready.popleft()
            try:
                message = sending.next_message()
                if message is not None:
                    key = "text" if message.__class__ is str else "bytes"
                    await sending.send({"type": "websocket.send", key: message})
                    if worker.task.cancelling() and not worker.is_relieved:
                        raise asyncio.CancelledError("send() cancelled its own task")
                    if not _are_equal(copy_context(), context):
                        sending.set_by_send = _changes(context)
                        self._relieve(worker)
                    if worker.is_relieved:
                        sending.hand_back()
                    else:
                        sending.wait()
            except BaseException as error:
                sending.hand_back(error)
                if worker.task.cancelling() or not isinstance(error, (Exception, asyncio.CancelledError)):
                    raise
            if worker.is_relieved or budget.is_spent():
                return


class _Sending:
    """A recipient in :meth:`SharedSender.send_queue`. It is the waiter of its queue: an item makes it ready."""

    __slots__ = (
        "_encoding",
        "_queue",
        "_reader",
        "_sender",
        "_socket",
        "handed_back",
        "is_over",
        "send",
        "set_by_send",
        "worker",
    )

    def __init__(self, sender: SharedSender, socket: Socket, queue: DeliveryQueue[Item], encoding: Encoding) -> None:
        self._sender = sender
        self._socket = socket
        self._reader = socket.event_reader
        self._queue = queue
        self._encoding = encoding
        self.send = socket.asgi_send
        self.handed_back: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_over = False
        self.set_by_send: Sequence[tuple[ContextVar[Any], Any]] = ()
        """The context variables that the last send has set, and their values."""
        self.worker: _SenderTask | None = None
        """The worker whose send for this recipient has suspended."""

    def done(self) -> bool:
        """Whether the recipient has gone back to its own task."""
        return self.is_over

    def wake(self) -> None:
        """Become ready: the queue has an item, or has ended."""
        sender = self._sender
        sender.ready.append(self)
        if sender.wake is not None:
            sender.wake()

    def hand_back(self, error: BaseException | None = None) -> None:
        """Let the recipient's own task go on, or raise ``error`` there."""
        if self.is_over:
            return
        self.is_over = True
        if self.handed_back.done():  # its own task is cancelled, and has not run since
            return
        if error is None:
            self.handed_back.set_result(None)
        elif isinstance(error, StopIteration):  # a future does not accept it, and a coroutine converts it too
            self.handed_back.set_exception(RuntimeError("a codec or an encoder raised StopIteration"))
        else:
            self.handed_back.set_exception(error)

    def next_message(self) -> str | bytes | None:
        """The next message to send; ``None`` if the recipient goes back, or has gone back, to its own task."""
        if self.is_over:
            return None
        if not self._socket.is_open or self._reader.disconnect is not None:
            self.hand_back()
            return None
        try:
            item = self._queue.get_nowait()
        except IndexError:  # the queue has ended: the recipient's own task raises the reason
            self.hand_back()
            return None
        return self._encoding(item)

    def wait(self) -> None:
        """Become ready again when the queue has another item, at once if it has."""
        if not self._queue.is_awaited_by(self):
            self._sender.ready.append(self)


def _are_equal(one: Context, other: Context) -> bool:
    try:
        return one == other
    except Exception:  # a new value that cannot be compared, such as an array
        return False


def _changes(before: Context) -> list[tuple[ContextVar[Any], Any]]:
    return [(variable, value) for variable, value in copy_context().items() if before.get(variable) is not value]


def _wake(sender: SharedSender, awake: asyncio.Future[None]) -> None:
    sender.wake = None
    if not awake.done():
        awake.set_result(None)
