"""The only reader of a connection.

A handler that awaits something other than the client cannot detect a disconnect, and two readers on one connection
would lose frames. So one ``EventReader`` reads for all tasks: ``get`` returns events in order. While a handler is busy
for longer than a few hundredths of a second (:mod:`telex.busy_monitor`), the reader reads ahead into a bounded queue,
so that a disconnect interrupts the handler. When the queue is full, it stops reading and TCP flow control slows the
client down.

A full queue must not hide a disconnect that follows it. Telex's server reports the end through
:meth:`EventReader.on_end`. On other servers the reader continues slowly, one message every ``PROBE`` seconds, until the
queued messages, with ``_OVERHEAD`` bytes added for each, take ``max_bytes`` and at least ``_LEAST_PROBED``. So the
disconnect of a client that sends only heartbeats is detected, and a client that floods is still slowed down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from telex.busy_monitor import DONE, FRESH, running_monitor
from telex.defaults import KIB, MAX_MESSAGE_SIZE, MAX_QUEUED_MESSAGES
from telex.exceptions import ConcurrencyError, UnexpectedCancellation, WebSocketDisconnect
from telex.types import ActivityWatcher, Message, Receive, RouteConnection

__all__ = ("READING", "EventReader", "Supervision", "as_disconnect", "as_unexpected", "supervised", "unexpected")

T = TypeVar("T")

_Supervision: TypeAlias = tuple["asyncio.Task[object] | None", int, bool]
"""The task to interrupt when the client leaves, its ``work`` state, and whether its message loop may be interrupted."""

_IDLE: Final = 0
READING: Final = 1
"""A task waits directly in ``receive``."""
_AHEAD: Final = 2
"""The reader is reading ahead, or events that it has read ahead are in its queue."""

GRACE: Final = 0.5
"""Seconds in which a handler can return before it is interrupted, after another task has received the disconnect or
closed the connection. That task may be a child task of the handler that still has work to finish."""

PROBE: Final = 0.05
_LEAST_PROBED: Final = 256 * KIB
_OVERHEAD: Final = 512


class Limiter(ActivityWatcher, Protocol):
    """Reads for an event reader, not faster than limits allow."""

    @property
    def unread(self) -> int:
        """Messages that were received and that nobody has got."""

    async def stop_reading(self) -> None:
        """Stop reading ahead, before a close."""

    async def aclose(self) -> None:
        """The connection has ended."""


class Fed(Protocol):
    """A session of telex.v1, which takes all events of a connection."""

    def take_event(self, event: Message) -> Awaitable[None] | None:
        """Take a message, or the end."""


class EventReader:
    """Events of one connection, in order; at most ``max_messages`` and ``max_bytes`` are read ahead."""

    __slots__ = (
        "_bytes",
        "_fail_timer",
        "_fed",
        "_held",
        "_interrupt",
        "_is_put_off",
        "_nothing_held",
        "_probe_timer",
        "_pump",
        "_queue",
        "_reading_task",
        "_stop_timer",
        "_supervises",
        "_waiter",
        "calls",
        "closing",
        "disconnect",
        "limiter",
        "listed",
        "max_bytes",
        "max_messages",
        "on_unread",
        "owner",
        "receive",
        "resting",
        "server_reports_end",
        "state",
        "work",
    )

    def __init__(
        self, receive: Receive, max_messages: int = MAX_QUEUED_MESSAGES, max_bytes: int = MAX_MESSAGE_SIZE
    ) -> None:
        self.receive: Receive = receive
        self.max_messages: int = max_messages
        self.max_bytes: int = max_bytes
        self._queue: list[Message] = []  # a list, because an empty deque takes ten times the memory
        self._bytes = 0
        self._pump: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[Message] | None = None
        self.owner: asyncio.Task[object] | None = None
        self._interrupt: Exception | None = None
        self._held = 0
        self._is_put_off = False  # the interrupt is delayed until nothing is held
        self._nothing_held: asyncio.Future[None] | None = None
        self._reading_task: asyncio.Task[object] | None = None
        self._fail_timer: asyncio.TimerHandle | None = None
        self._stop_timer: asyncio.TimerHandle | None = None
        self._probe_timer: asyncio.TimerHandle | None = None
        self._supervises = False
        self._fed: Fed | None = None
        self.limiter: Limiter | None = None
        """What reads for this reader, where messages are limited."""
        self.calls: int = 0
        """Calls and notifies of telex.v1 that are in work or wait, while a session reads."""
        self.closing: bool = False
        """Whether this side is closing the connection."""
        self.server_reports_end: bool = False
        """Whether :meth:`on_end` tells of the end: behind middleware the disconnect comes through it alone."""
        self.work: int = DONE
        """The state of the work to interrupt when the client leaves; see :mod:`telex.busy_monitor`."""
        self.listed: bool = False
        self.resting: RouteConnection | None = None
        """The route whose handler needs no task until there is a message, or the end; its session sets it."""
        self.state: int = _IDLE
        """Who reads: nobody, a task directly (``READING``), or this reader, ahead. Set by this class alone."""
        self.disconnect: WebSocketDisconnect | None = None
        """How the client left; ``None`` while it is connected."""
        self.on_unread: Callable[[bool], Exception | bool] | None = None
        """Called for data that no task waits for, with whether the queue is full. ``True`` keeps the data, ``False``
        drops it, an exception ends the handler. Without this function, reading stops while the queue is full."""

    async def get(self) -> Message:
        """The next event.

        :raises ConcurrencyError: another task is already waiting for an event.
        """
        if self._fed is not None:
            raise ConcurrencyError(
                "receive() on a connection that speaks telex.v1: its handler gets calls and notifies instead"
            )
        if self.state == READING or self._waiter is not None:
            raise ConcurrencyError(
                "receive() called while another task waits in receive(): receive in one task and pass messages on"
            )
        if self.state == _IDLE:
            return await self._get_directly()
        return self._take() if self._queue else await self._get_from_pump()

    # -- for message loops: plain calls, so that a loop awaits ``receive`` without a coroutine in between

    def next(self, receive: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        """The awaitable of a loop's next message: ``receive()``, or the next event that was read ahead.

        Marks the loop's work as done. The loop counts as reading until it calls :meth:`begin_work`; one that never
        does may await ``receive`` itself while ``state`` is ``READING``.
        """
        self.work = DONE
        if self.state == _AHEAD:
            return self.get()
        self.state = READING
        return receive()

    def begin_work(self) -> None:
        """A loop begins to handle its message: interrupt this work when the client leaves."""
        if self.state == READING:
            self.state = _IDLE
        self.work = FRESH
        if not self.listed:
            running_monitor().enlist(self)

    async def _get_from_pump(self) -> Message:
        waiter: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        try:
            event = await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._requeue(waiter.result())
            raise
        finally:
            self._waiter = None
        self._watch_again()
        return event

    def _requeue(self, event: Message) -> None:
        """Put back the event that a cancelled ``get`` had already taken, so that it is not lost."""
        self._queue.insert(0, event)
        self._bytes += _size(event)
        self.state = _AHEAD

    async def _get_directly(self) -> Message:
        self.state = READING
        self._reading_task = task = asyncio.current_task()
        try:
            event = await self.receive()
        except asyncio.CancelledError:
            if self._reading_task is task or task is None or task.uncancel():
                raise
            event = self._end_event()  # ``stop`` has cancelled the wait
        finally:
            self.state = _IDLE
            self._reading_task = None
        if event["type"] == "websocket.disconnect":
            self._note_end(event, child=asyncio.current_task() is not self.owner)
        self._watch_again()
        return event

    def _take(self) -> Message:
        event = self._queue.pop(0)
        self._bytes -= _size(event)
        if self._pump is None:
            self.state = _AHEAD if self._queue else _IDLE
            self._watch_again()
        return event

    # -- reading for a session of telex.v1

    async def feed(self, fed: Fed) -> None:
        """Pass every message, and the end, to ``fed`` from now on, and await its result; nobody else can read.

        When the client leaves, the handler is interrupted, also while it waits. Who calls this begins to read with
        :meth:`start_pump`, or by :meth:`next_directly`, or lets the server call ``fed`` and :meth:`on_end`.
        """
        self._fed, self.state = fed, _AHEAD
        read_before, self._queue, self._bytes = self._queue, [], 0
        for event in read_before:
            await self._pass_on(event)

    def start_pump(self) -> None:
        """Read in a task, beside the handler."""
        if self._pump is None and self.disconnect is None and not self.closing:
            self._pump = asyncio.get_running_loop().create_task(self._pump_events())

    def next_directly(self) -> Awaitable[Message]:
        """The next event, for the owner, while no task reads; :meth:`pass_on` takes it."""
        self.state = READING
        return self.receive()

    def pass_on(self, event: Message) -> Awaitable[None] | None:
        """Pass on an event that the owner has read; it awaits the result.

        :raises WebSocketDisconnect: the client has left.
        """
        self.state = _AHEAD
        if event["type"] == "websocket.disconnect":
            self._note_end(event)
        if self.disconnect is not None:
            raise self.disconnect
        return None if self._fed is None else self._fed.take_event(event)

    def end_with(self, failure: Exception) -> None:
        """What was read ends the connection: interrupt the handler, or the work that it begins next."""
        if self._supervises:
            self._interrupt_owner(failure)
        else:
            self._interrupt = failure

    async def _pass_on(self, event: Message) -> None:
        if event["type"] == "websocket.disconnect":
            self._note_end(event)
        elif self._fed is not None:
            taken = self._fed.take_event(event)
            if taken is not None:
                await taken

    # -- watching

    def own(self, task: asyncio.Task[object] | None) -> None:
        """``task`` serves the connection, from the beginning or after a rest."""
        self.owner, self.resting, self._supervises = task, None, False

    def rest(self) -> None:
        """The owner ends, and the connection goes on: what interrupts it wakes the route."""
        self.owner, self._supervises = None, True

    def begin(self, owner: asyncio.Task[object]) -> _Supervision:
        """``owner`` begins work: interrupt it when the client leaves. Returns what :meth:`go_back` takes."""
        before = self.owner, self.work, self._supervises
        self.owner, self._supervises = owner, True
        self.mark_busy()
        if self._fed is not None:
            missed, self._interrupt = self._interrupt or self.disconnect, None
            if missed is not None:
                self._interrupt_owner(missed)
        return before

    def go_back(self, before: _Supervision) -> None:
        """Restore the supervision of the enclosing work, perhaps another task's, after the inner work has ended."""
        inner = self.owner
        self.owner, self.work, self._supervises = before
        if self.disconnect is not None and self.owner is not inner and self.work != DONE:
            self.stop_after_grace(self.disconnect)

    def mark_busy(self) -> None:
        """The owner begins work that does not wait for the client."""
        self.work = FRESH
        if not self.listed:
            running_monitor().enlist(self)

    def mark_idle(self) -> None:
        """The work after :meth:`mark_busy` has ended."""
        self.work = DONE

    def end(self) -> Exception | None:
        """The work has ended; returns the exception that interrupted it, if any."""
        self.work = DONE
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None and self.owner is not None and not self._held:
            self.owner.uncancel()
        return interrupt

    @property
    def reads_ahead(self) -> bool:
        """Whether the reader is reading ahead to detect a disconnect."""
        return self._pump is not None

    @property
    def busy(self) -> bool:
        """Whether work is running that does not wait for the client."""
        return bool(self.calls) or (self.work != DONE and self.state != READING and self._waiter is None)

    @property
    def has_read_ahead(self) -> bool:
        """Whether the next event comes from the queue or the task that reads ahead."""
        return self.state == _AHEAD

    def _watch_again(self) -> None:
        """A task has stopped waiting in ``receive``: if a handler is running, monitor how long it is busy."""
        if self.work != DONE:
            self.mark_busy()

    def read_ahead(self) -> None:
        """Start to read ahead now, without waiting for the busy monitor."""
        may_read = self._fed is None and (self.on_unread is not None or self._has_room())
        if self._pump is None and self.state != READING and self.disconnect is None and may_read:
            self.state = _AHEAD
            self._pump = asyncio.get_running_loop().create_task(self._pump_events())

    @property
    def unread(self) -> int:
        """The number of messages that were read ahead and that no task has received."""
        unread: int = sum(event["type"] == "websocket.receive" for event in tuple(self._queue))
        return unread if self.limiter is None else unread + self.limiter.unread

    @property
    def waits(self) -> bool:
        """See :class:`telex.types.Activity`."""
        return False

    async def stop_reading(self) -> None:
        """Stop reading ahead, unless a task waits for the next event.

        Called before a close, because granian does not send the close while its ``receive`` is awaited.
        """
        if self._waiter is None:
            await self._cancel_pump()
            if self.limiter is not None:
                await self.limiter.stop_reading()

    async def _cancel_pump(self) -> None:
        pump = self._pump
        if pump is not None:
            pump.cancel()
            await asyncio.wait((pump,))

    async def aclose(self) -> None:
        """Stop reading and drop the queued events."""
        self.work = DONE
        self.owner = None
        for timer in (self._fail_timer, self._stop_timer, self._probe_timer):
            if timer is not None:
                timer.cancel()
        self._queue.clear()
        if self.disconnect is not None:
            self.disconnect.__traceback__ = None  # its frames reference the connection: a reference cycle
        await self._cancel_pump()
        if self.limiter is not None:
            await self.limiter.aclose()
            self.limiter = None  # it references this reader: a reference cycle

    def fail(self, interrupt: Exception) -> None:
        """Interrupt the running work with ``interrupt`` as soon as nothing is held."""
        if self.work != DONE or (self._fed is not None and self._supervises):
            self._interrupt_owner(interrupt)

    def take_interrupt(self) -> Exception | None:
        """The owner waited for the client, and was cancelled: undo the interrupt, if it was one, and return it."""
        owner, interrupt = asyncio.current_task(), self._interrupt
        if interrupt is None or owner is None or owner is not self.owner or owner.cancelling() > 1 or self._is_put_off:
            return None
        owner.uncancel()
        self._interrupt = None
        return interrupt

    @property
    def interrupts(self) -> bool:
        """Whether the running work is being interrupted; false for a cancellation by someone else."""
        return self._interrupt is not None

    def interrupt(self, failure: Exception) -> bool:
        """Like :meth:`fail`, also where a message loop waits for the client; false if there is no loop or handler."""
        if self._supervises:
            self._interrupt_owner(failure)
        return self._supervises

    def _interrupt_owner(self, interrupt: Exception) -> None:
        if self._interrupt is not None:
            return
        if self.resting is not None:
            self._interrupt = interrupt
            self.resting.wake()
        elif self.owner is not None:
            self._stop_fail_timer()
            self._interrupt = interrupt
            self._is_put_off = self._held > 0
            if not self._held:
                self.owner.cancel()

    def stop_after_grace(self, end: WebSocketDisconnect) -> None:
        """A task other than the owner has closed the connection: interrupt the handler after ``GRACE`` seconds."""
        if self._stop_timer is None:
            self._stop_timer = asyncio.get_running_loop().call_later(GRACE, self.stop, end)

    def stop(self, end: WebSocketDisconnect) -> None:
        """This side has closed the connection: give a task in ``receive`` a disconnect, and interrupt other work."""
        self._stop_fail_timer()
        if self.disconnect is None:
            self.disconnect = end
            self._tell_end()
        reading = self._reading_task
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._end_event())
        elif reading is not None:
            self._reading_task = None
            reading.cancel()
        elif self.state == READING and self._supervises:
            self._interrupt_owner(end)  # the owner waits in a message loop
        else:
            self.fail(end)

    def on_end(self, code: int, reason: str) -> None:
        """Called by the server when the connection has ended. See :class:`telex.types.Activity`."""
        if not self.server_reports_end or self.closing or self._pump is not None or self.state == READING:
            return
        is_known = self.disconnect is not None and self._fail_timer is None
        self.disconnect = self.disconnect or WebSocketDisconnect(code, reason)
        self._tell_end()
        if not is_known:
            self.fail(self.disconnect)

    def note_lost(self, end: WebSocketDisconnect) -> WebSocketDisconnect:
        """A task is told, mostly by a send, that the connection is lost; the server may tell of it later.

        The owner needs no interrupt then. If it is another task, the owner is interrupted by :meth:`on_end`, or after
        ``GRACE`` seconds. Returns how the client left.
        """
        is_owner = asyncio.current_task() is self.owner
        if self.disconnect is not None:
            if is_owner:
                self._stop_fail_timer()
            return self.disconnect
        self.disconnect = end
        if not is_owner and self.owner is not None and not self.closing:
            self._fail_timer = asyncio.get_running_loop().call_later(GRACE, self.fail, end)
        return end

    def go_away(self, within: float, retry_after: float) -> bool:
        """Plain mode has no message for it. See :class:`telex.types.Activity`."""
        return False

    def _tell_end(self) -> None:
        """The session of telex.v1 wakes those who wait for answers: the handler may wait for them."""
        if self._fed is not None:
            self._fed.take_event(self._end_event())

    def _end_event(self) -> Message:
        end = self.disconnect or WebSocketDisconnect(1006)
        return {"type": "websocket.disconnect", "code": end.code, "reason": end.reason}

    def hold(self) -> None:
        """Delay interrupts until :meth:`let_go`: the work that follows belongs to an answered message."""
        self._held += 1

    def let_go(self) -> None:
        """Undo one :meth:`hold`; after the last one, a delayed interrupt takes effect."""
        self._held -= 1
        if self._held:
            return
        if self._nothing_held is not None and not self._nothing_held.done():
            self._nothing_held.set_result(None)
        if self._is_put_off and self._interrupt is not None and self.owner is not None:
            self._is_put_off = False
            self.owner.cancel()

    async def until_let_go(self) -> None:
        """Wait until nothing is held. The caller then raises, which cancels the tasks that finish answered messages."""
        while self._held:
            if self._nothing_held is None or self._nothing_held.done():
                self._nothing_held = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._nothing_held,))  # a cancelled waiter does not cancel the future

    def _has_room(self) -> bool:
        return len(self._queue) < self.max_messages and self._bytes < self.max_bytes

    def _probe(self) -> None:
        """The queue is full: read one more message, to detect a disconnect that follows it."""
        self._probe_timer = None
        if self.work != DONE and self._pump is None and self.state == _AHEAD:
            self._pump = asyncio.get_running_loop().create_task(self._pump_events(at_least=1))

    def _probe_later(self) -> None:
        kept = self._bytes + len(self._queue) * _OVERHEAD
        has_room = kept < max(self.max_bytes, _LEAST_PROBED)
        if self.work != DONE and self.disconnect is None and not self.server_reports_end and has_room:
            self._probe_timer = asyncio.get_running_loop().call_later(PROBE, self._probe)

    async def _pump_events(self, at_least: int = 0) -> None:
        try:
            while self._fed is not None or self.on_unread is not None or self._has_room() or at_least:
                at_least = 0
                event = await self.receive()
                waiter = self._waiter
                if waiter is not None and not waiter.done():
                    if event["type"] == "websocket.disconnect":
                        self._note_end(event)
                    waiter.set_result(event)
                    return
                if self._fed is None:
                    self._keep(event)
                else:
                    await self._pass_on(event)
                if self.disconnect is not None:
                    self.fail(self.disconnect)
                    return
            self._probe_later()
        except Exception as exc:
            self._pump_failed(exc)
        finally:
            self._pump = None
            self.state = _AHEAD if self._queue or self._fed is not None else _IDLE

    def _pump_failed(self, exc: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc)
        else:
            self.fail(exc)

    def _keep(self, event: Message) -> None:
        if event["type"] == "websocket.disconnect":
            self._note_end(event)
        elif self.on_unread is not None:
            verdict = self.on_unread(not self._has_room())
            if isinstance(verdict, Exception):
                self.on_unread = _drop  # later data is dropped without another log entry
                self.fail(verdict)
            if verdict is not True:
                return
        self._queue.append(event)
        self._bytes += _size(event)

    def _note_end(self, event: Message, *, child: bool = False) -> None:
        """The client has left. If a child task received the event, interrupt the handler after ``GRACE`` seconds."""
        self.disconnect = as_disconnect(event)
        self._tell_end()
        self._stop_fail_timer()
        if child and self.work != DONE:
            self._fail_timer = asyncio.get_running_loop().call_later(GRACE, self.fail, self.disconnect)

    def _stop_fail_timer(self) -> None:
        if self._fail_timer is not None:
            self._fail_timer.cancel()
            self._fail_timer = None


def _drop(_: bool) -> bool:
    return False


def as_disconnect(event: Message) -> WebSocketDisconnect:
    """A ``websocket.disconnect`` event as an exception; 1005 is ASGI's default code."""
    return WebSocketDisconnect(event.get("code", 1005), event.get("reason") or "")


async def supervised(work: Coroutine[Any, Any, T], reader: EventReader) -> T:
    """Await ``work`` in this task; if the client leaves before it ends, cancel it and raise ``WebSocketDisconnect``."""
    async with Supervision(reader):
        return await work


class Supervision:
    """The same for a block: ``async with`` adds no coroutine that each wake-up of the task would pass through."""

    __slots__ = ("_before", "_owner", "_reader")

    def __init__(self, reader: EventReader) -> None:
        self._reader = reader

    async def __aenter__(self) -> None:
        owner = asyncio.current_task()
        if owner is None:  # pragma: no cover - there is always one under asyncio
            raise RuntimeError("Supervision needs an asyncio task")
        self._owner: asyncio.Task[object] = owner
        self._before = self._reader.begin(owner)

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: object) -> None:
        interrupt = self._reader.end()
        try:
            if isinstance(exc, asyncio.CancelledError):
                if interrupt is not None and not self._owner.cancelling():
                    raise interrupt from exc
            elif interrupt is not None:
                await _absorb_cancellation(self._owner)
        finally:
            interrupt = None  # the exception references this frame
            self._reader.go_back(self._before)


async def _absorb_cancellation(task: asyncio.Task[object]) -> None:
    """Absorb an interrupt that came after the work had ended; otherwise the next ``await`` would raise it.

    Before Python 3.13, ``uncancel`` does not remove a pending cancellation.
    """
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        if task.cancelling():
            raise


def as_unexpected(cancelled: asyncio.CancelledError) -> UnexpectedCancellation:
    """The error for a ``CancelledError`` in this task, if the task itself was not cancelled.

    :raises asyncio.CancelledError: ``cancelled``, because this task was cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise cancelled
    return unexpected(cancelled)


def unexpected(cancelled: asyncio.CancelledError) -> UnexpectedCancellation:
    """The error for ``cancelled``, raised in a task that was not cancelled."""
    error = UnexpectedCancellation("awaited a task or future that was cancelled, without being cancelled itself")
    error.__cause__ = cancelled
    return error


def _size(event: Message) -> int:
    return len(event.get("text") or event.get("bytes") or b"")
