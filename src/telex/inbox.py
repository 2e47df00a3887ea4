"""The only reader of a connection.

A handler that awaits something else than the client cannot see that the client has left. Two readers on one connection
would lose frames between them. So one ``Inbox`` reads, and everybody listens to it: ``get`` hands out events in order,
and while a handler is busy for longer than ``WATCH_AFTER`` the inbox reads ahead into a bounded queue, so that a
disconnect interrupts the handler. When the queue is full it stops reading and TCP pushes back.

Reading ahead costs a task, so short handlers never start it: a timer does, which is armed once and re-armed only when
it has fired, not for every message.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar, cast

from telex.exceptions import ConcurrencyError, WebSocketDisconnect
from telex.types import Message, Receive

__all__ = ("AHEAD", "IDLE", "READING", "Inbox", "resumed", "supervised")

T = TypeVar("T")

WATCH_AFTER: Final = 0.02
"""Seconds for which a handler may keep the connection before the inbox reads ahead to watch for a disconnect."""

IDLE: Final = 0
READING: Final = 1
"""A task waits in ``receive`` itself."""
AHEAD: Final = 2
"""The inbox reads, or has read, ahead: events are in its queue."""

GRACE: Final = 0.5
"""Seconds that a handler has to end by itself when one of its own child tasks has received the disconnect."""


class Inbox:
    """Events of one connection, in order; at most ``max_messages`` and ``max_bytes`` are read ahead."""

    __slots__ = (
        "_bytes",
        "_interrupt",
        "_owner",
        "_pump",
        "_queue",
        "_timer",
        "_waiter",
        "disconnect",
        "max_bytes",
        "max_messages",
        "on_unread",
        "receive",
        "state",
    )

    def __init__(self, receive: Receive, max_messages: int = 16, max_bytes: int = 1024 * 1024) -> None:
        self.receive = receive
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self._queue: list[Message] = []  # short, and a tenth of an empty deque's memory
        self._bytes = 0
        self._pump: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[Message] | None = None
        self._owner: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._interrupt: Exception | None = None
        self.state = IDLE
        """Who reads. A loop may do as ``get`` does: when ``IDLE``, set ``READING``, await ``receive``, set it back."""
        self.disconnect: WebSocketDisconnect | None = None
        """How the client left, once it has."""
        self.on_unread: Callable[[bool], Exception | bool] | None = None
        """Decides about data that nobody waits for, given whether the queue is full: keep it, drop it, or end the
        handler with an exception. Without it, reading stops while the queue is full."""

    async def get(self) -> Message:
        """The next event.

        :raises ConcurrencyError: another task waits already.
        """
        if self.state == READING or self._waiter is not None:
            raise ConcurrencyError(
                "receive() called while another task waits in receive(): let one task read, and hand messages on"
            )
        if self.state == IDLE:
            return await self._get_directly()
        return self._take() if self._queue else await self._get_from_pump()

    async def _get_from_pump(self) -> Message:
        waiter: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._requeue(waiter.result())
            raise
        finally:
            self._waiter = None

    def _requeue(self, event: Message) -> None:
        """Put back what a cancelled ``get`` had already been given: nothing is lost."""
        self._queue.insert(0, event)
        self._bytes += _size(event)
        self.state = AHEAD

    async def _get_directly(self) -> Message:
        self.state = READING
        try:
            event = await self.receive()
        finally:
            self.state = IDLE
        self._note(event, child=asyncio.current_task() is not self._owner)
        if self._owner is not None and self._timer is None:
            self._arm()
        return event

    def _take(self) -> Message:
        event = self._queue.pop(0)
        self._bytes -= _size(event)
        if self._pump is None:
            self.state = AHEAD if self._queue else IDLE
            if self._owner is not None and self._timer is None:
                self._arm()
        return event

    # -- watching

    def attach(self, owner: asyncio.Task[object]) -> None:
        """``owner`` runs a handler: interrupt it when the client leaves."""
        self._owner = owner
        if self._timer is None:
            self._arm()

    def detach(self) -> Exception | None:
        """The handler has ended; what interrupted it, if something did."""
        self._owner = None
        interrupt, self._interrupt = self._interrupt, None
        return interrupt

    def watch_now(self) -> None:
        """Read ahead from now on, without waiting for the timer."""
        may_read = self.on_unread is not None or self._has_room()
        if self._pump is None and self.state != READING and self.disconnect is None and may_read:
            self.state = AHEAD
            self._pump = asyncio.get_running_loop().create_task(self._read_ahead())

    async def aclose(self) -> None:
        """Stop reading and forget what is queued."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._queue.clear()
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            await asyncio.wait((pump,))

    def fail(self, interrupt: Exception) -> None:
        """End the attached handler with ``interrupt``."""
        if self._owner is not None and self._interrupt is None:
            self._interrupt = interrupt
            self._owner.cancel()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        if self._owner is not None:
            self.watch_now()

    def _has_room(self) -> bool:
        return len(self._queue) < self.max_messages and self._bytes < self.max_bytes

    async def _read_ahead(self) -> None:
        try:
            while self.on_unread is not None or self._has_room():
                event = await self.receive()
                waiter = self._waiter
                if waiter is not None and not waiter.done():
                    self._note(event, child=False)
                    waiter.set_result(event)
                    return
                self._keep(event)
                if self.disconnect is not None:
                    self.fail(self.disconnect)
                    return
        except Exception as exc:
            self._pump_failed(exc)
        finally:
            self._pump = None
            self.state = AHEAD if self._queue else IDLE

    def _pump_failed(self, exc: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc)
        else:
            self.fail(exc)

    def _keep(self, event: Message) -> None:
        self._note(event, child=False)
        if self.disconnect is None and self.on_unread is not None:
            verdict = self.on_unread(not self._has_room())
            if isinstance(verdict, Exception):
                self.fail(verdict)
            if verdict is not True:
                return
        self._queue.append(event)
        self._bytes += _size(event)

    def _note(self, event: Message, *, child: bool) -> None:
        if event["type"] != "websocket.disconnect":
            return
        self.disconnect = as_disconnect(event)
        if child and self._owner is not None:
            asyncio.get_running_loop().call_later(GRACE, self.fail, self.disconnect)


def as_disconnect(event: Message) -> WebSocketDisconnect:
    """The exception that a ``websocket.disconnect`` event stands for; 1005 is ASGI's default code."""
    return WebSocketDisconnect(event.get("code", 1005), event.get("reason") or "")


async def supervised(work: Coroutine[Any, Any, T], inbox: Inbox) -> T:
    """Await ``work`` in this task; when the client leaves meanwhile, cancel it and raise ``WebSocketDisconnect``.

    The first step runs right here: work that never suspends costs no task, no timer and no future.
    """
    try:
        waits_for = work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    return cast("T", await resumed(work, waits_for, inbox))


@types.coroutine
def resumed(work: Coroutine[Any, Any, T], waits_for: object, inbox: Inbox) -> Generator[Any, Any, T]:
    """Await the rest of ``work``, whose first step has been taken and waits for ``waits_for``."""
    task = cast("asyncio.Task[object]", asyncio.current_task())
    inbox.attach(task)
    try:
        while True:
            try:
                value = yield waits_for
            except BaseException as exc:
                waits_for = work.throw(exc)
            else:
                waits_for = work.send(value)
    except StopIteration as done:
        if inbox.detach() is not None:
            task.uncancel()
        return cast("T", done.value)
    except asyncio.CancelledError:
        if (interrupt := inbox.detach()) is None or task.uncancel() > 0:
            raise
        raise interrupt from None
    except BaseException:
        if inbox.detach() is not None:
            task.uncancel()
        raise


def _size(event: Message) -> int:
    return len(event.get("text") or event.get("bytes") or b"")
