"""The limits of a connection's messages, taken where messages are read: before decoding, for every kind of handler.

An accepted connection with limits gets a :class:`MessageLimiter` in place of the server's ``receive``, and a
:class:`LimitedTransport` in place of the server's fast path. Connections without limits get neither: nothing on their
message path knows of limits.

While a message waits, nothing is read, and TCP slows the client down. The end of the connection must be noticed all the
same. Telex's server and shared sockets report it; on other servers a second event reader reads ahead meanwhile, within
the bounds of all reading ahead (:mod:`telex.event_reader`).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from telex.connection import Socket
from telex.event_reader import EventReader
from telex.limits.rates import Limit, counter
from telex.protocol.errors import error_body
from telex.status_codes import CLOSE_CODE_OF_STATUS
from telex.telemetry.counts import RouteCounts
from telex.types import Activity, ActivityWatcher, DirectSend, Message, Mode, Receive, Transport

__all__ = ("MessageLimits", "retry_after")

Raw = str | bytes

_TOO_MANY: Final = CLOSE_CODE_OF_STATUS + 429


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageLimits:
    """The limits of one handler's messages: by number, and by bytes."""

    where: str
    messages: Limit | None
    size: Limit | None
    mode: Mode
    """The mode in which refusals are sent in plain mode."""
    counts: RouteCounts | None = None

    @property
    def given(self) -> Sequence[tuple[Limit, Callable[[Raw], int] | None]]:
        """Each limit, and what measures messages for it.

        What refuses comes first: a message that is refused takes nothing from the limits that wait.
        """
        found = [(limit, size) for limit, size in ((self.messages, None), (self.size, _size)) if limit is not None]
        return sorted(found, key=lambda each: each[0].on_exceed == "wait")

    def apply(self, socket: Socket) -> None:
        """Limit an accepted connection, before anything of it is read."""
        limiter, transport = MessageLimiter(socket, self), socket.transport
        watched: ActivityWatcher | None = socket.route or (socket.scope.get("extensions") or {}).get("telex.activity")
        if watched is not None:
            watched.set_activity(limiter)
        if transport is not None:
            socket.transport = LimitedTransport(transport, limiter)


def retry_after(delay: float) -> float:
    """``delay`` for clients: rounded up, never 0."""
    return math.ceil(delay * 100 + 0.5) / 100


class MessageLimiter:
    """The messages of one connection, not faster than its limits allow."""

    __slots__ = (
        "_activity",
        "_ahead",
        "_counters",
        "_counts",
        "_delay",
        "_due",
        "_end",
        "_exceeded",
        "_held",
        "_is_charged",
        "_last",
        "_loop",
        "_messages",
        "_mode",
        "_receive",
        "_socket",
        "_waiter",
        "_was_logged",
        "_where",
        "charge",
    )

    def __init__(self, socket: Socket, limits: MessageLimits) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._socket = socket
        self._where = limits.where
        self._counts = limits.counts
        self._mode: Mode = limits.mode
        self._messages = limits.messages
        self._exceeded: Limit = limits.given[0][0]
        """The limit that :meth:`charge` has found exceeded."""
        self._counters = tuple(
            (limit, counter(limit, loop.time, size=size, reserves=limit.on_exceed == "wait"))
            for limit, size in limits.given
        )
        self.charge: Callable[[Raw], float] = self._counters[0][1] if len(self._counters) == 1 else self._charge_all
        """Takes a message from the limits. Returns 0, or the seconds after which it would have been in time."""
        self._delay = 0.0
        self._is_charged = False
        """Whether the next message was charged already: the frame callback has handed it over."""
        self._held: Message | None = None
        self._due = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._end: Message | None = None
        self._last: Message | None = None
        """The disconnect event, once it was returned."""
        self._was_logged = False
        reader = socket.event_reader
        self._activity: Activity = reader
        self._receive: Receive = reader.receive
        self._ahead: _ReadAhead | None = None
        if not reader.server_reports_end:
            self._ahead = _ReadAhead(reader.receive, reader.max_messages, reader.max_bytes, self._wake)
        reader.limiter, reader.receive = self, self.receive

    # -- what the event reader, the server and the transport use

    async def receive(self) -> Message:
        """The next event, as soon as the limits allow it."""
        while self._last is None:
            event = self._held
            if event is None:
                event = await (self._receive() if self._ahead is None else self._ahead.next(self._receive))
                raw = _payload_of(event)
                if raw is None:
                    self._last = event
                    break
                delay = self._charge_once(raw)
                if not delay:
                    return event
                if self.on_exceed == "reply":
                    if await self._answered(raw, delay):
                        continue
                    return event
                if self.on_exceed == "close":
                    return await self._close(delay)
                self._held, self._due = event, self._loop.time() + delay
            await self._until_due()
            if self._last is None:
                self._held = None
                return event
        return self._last

    @property
    def waits(self) -> bool:
        """Whether a message waits for its time: the connection is idle, although messages are left."""
        return self._waiter is not None

    @property
    def busy(self) -> bool:
        """See :class:`telex.types.Activity`."""
        return self._activity.busy

    def on_end(self, code: int, reason: str) -> None:
        """Called by Telex's server when the connection has ended."""
        if self._ahead is not None:
            return  # behind middleware, through which the disconnect comes
        self._end = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._wake()
        self._activity.on_end(code, reason)

    def go_away(self, within: float, retry_after: float) -> bool:
        """See :class:`telex.types.Activity`."""
        return self._activity.go_away(within, retry_after)

    def set_activity(self, activity: Activity) -> None:
        """Set the object that is asked and called behind this one."""
        self._activity = activity

    @property
    def unread(self) -> int:
        """Messages that were received and that nobody has got."""
        return (self._held is not None) + (0 if self._ahead is None else self._ahead.unread)

    async def stop_reading(self) -> None:
        """Stop reading ahead, before a close."""
        if self._ahead is not None:
            await self._ahead.stop_reading()

    async def aclose(self) -> None:
        """The connection has ended."""
        if self._ahead is not None:
            await self._ahead.aclose()

    # -- charging

    @property
    def on_exceed(self) -> str:
        """What to do with the message that :meth:`charge` has just refused."""
        return self._exceeded.on_exceed

    def _charge_all(self, raw: Raw) -> float:
        delay = 0.0
        for limit, take in self._counters:
            wait = take(raw)
            if wait:
                self._exceeded = limit
                if limit.on_exceed != "wait":
                    return wait
                delay = max(delay, wait)
        return delay

    def _charge_once(self, raw: Raw) -> float:
        if self._is_charged:
            self._is_charged = False
            delay = self._delay
        else:
            delay = self.charge(raw)
        if delay:
            self._count()
        if delay and not self._was_logged:
            self._was_logged = True
            self._socket.logger.info("%s: a client exceeds the limit of %s", self._where, self._exceeded)
        return delay

    def hand_over(self, delay: float) -> None:
        """The frame callback hands over a message that it has charged."""
        self._is_charged, self._delay = True, delay

    def answer_in_callback(self, transport: Transport, delay: float) -> None:
        """Answer a refused message, in plain mode. For code that cannot wait."""
        self._count()
        with contextlib.suppress(OSError):  # the end is noticed by the task that reads
            transport.send(self._error(delay))

    def _count(self) -> None:
        if self._counts is not None:
            kind = "messages" if self._exceeded is self._messages else "bytes"
            self._counts.limited[kind, self.on_exceed] += 1

    async def _answered(self, raw: Raw, delay: float) -> bool:
        envelope = self._socket.envelope
        if envelope is not None:
            return envelope.refuse(raw, self._text, retry_after(delay))
        await self._socket.send_data(self._error(delay), self._mode)
        return True

    @property
    def _text(self) -> str:
        return f"at most {self._exceeded}"

    def _error(self, delay: float) -> Raw:
        error = error_body("rate_limited", self._text, retry_after=retry_after(delay))
        frame = msgspec.json.encode({"type": "error", "error": error})
        return frame.decode() if self._mode == "text" else frame

    async def _close(self, delay: float) -> Message:
        """Close the connection: a handler could ignore an exception."""
        await self.stop_reading()
        reason = f"retry-after={retry_after(delay)}"
        await self._socket.close_while_reading(_TOO_MANY, reason)
        self._last = {"type": "websocket.disconnect", "code": _TOO_MANY, "reason": reason}
        return self._last

    # -- waiting

    async def _until_due(self) -> None:
        """Wait until the held message is due; if the connection ends meanwhile, set its last event."""
        delay, ahead = self._due - self._loop.time(), self._ahead
        if delay > 0 and not self._ended():
            self._waiter = self._loop.create_future()
            timer = self._loop.call_later(delay, self._wake)
            if ahead is not None:
                ahead.begin_work()  # the busy monitor lets it read ahead
            try:
                await self._waiter
            finally:
                self._waiter = None
                timer.cancel()
                if ahead is not None:
                    ahead.mark_idle()
        if delay > 0 and self._ended():
            self._last = self._end
        elif ahead is not None and ahead.failure is not None:
            raise ahead.failure

    def _ended(self) -> bool:
        if self._ahead is not None and self._ahead.disconnect is not None:
            end = self._ahead.disconnect
            self._end = {"type": "websocket.disconnect", "code": end.code, "reason": end.reason}
        return self._end is not None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _ReadAhead(EventReader):
    """Reads from a server that reports no end, while a message waits."""

    __slots__ = ("_wake", "failure")

    def __init__(self, receive: Receive, max_messages: int, max_bytes: int, wake: Callable[[], None]) -> None:
        super().__init__(receive, max_messages, max_bytes)
        self._wake = wake
        self.failure: Exception | None = None

    def fail(self, interrupt: Exception) -> None:
        """The client has left, or reading failed."""
        if self.disconnect is None:
            self.failure = interrupt
        self._wake()


class LimitedTransport:
    """The transport of a connection whose messages are limited; sending is the server's own."""

    __slots__ = ("_limiter", "_transport", "close_direct", "drain", "open_direct", "send")

    def __init__(self, transport: Transport, limiter: MessageLimiter) -> None:
        self._transport = transport
        self._limiter = limiter
        self.send: Callable[[Raw], bool] = transport.send
        self.drain: Callable[[], Coroutine[Any, Any, None]] = transport.drain
        self.open_direct: Callable[[Callable[[], None]], DirectSend | None] = transport.open_direct
        self.close_direct: Callable[[Callable[[], None]], None] = transport.close_direct

    @property
    def unread(self) -> int:
        """See :class:`telex.types.Transport`."""
        return self._transport.unread

    @property
    def unsent(self) -> int:
        """See :class:`telex.types.Transport`."""
        return self._transport.unsent

    def set_message_handler(self, handler: Callable[[Raw], None] | None) -> None:
        """See :class:`telex.types.Transport`. A message that must wait is handed over, and waits in :meth:`receive`."""
        transport, limiter, charge = self._transport, self._limiter, self._limiter.charge
        if handler is None:
            transport.set_message_handler(None)
            return

        def handle_within_limits(raw: Raw) -> None:
            delay = charge(raw)
            if not delay:
                handler(raw)
            elif limiter.on_exceed == "reply":
                limiter.answer_in_callback(transport, delay)
            else:
                limiter.hand_over(delay)
                transport.hand_over(raw)

        transport.set_message_handler(handle_within_limits)

    def hand_over(self, data: Raw) -> None:
        """See :class:`telex.types.Transport`."""
        self._limiter.hand_over(0.0)
        self._transport.hand_over(data)

    async def receive(self) -> Raw | None:
        """See :class:`telex.types.Transport`."""
        return _payload_of(await self._limiter.receive())


def _payload_of(event: Message) -> Raw | None:
    """The data of a message; ``None`` for another event."""
    if event["type"] != "websocket.receive":
        return None
    text: str | None = event.get("text")
    if text is not None:
        return text
    data: bytes = event["bytes"]
    return data


def _size(raw: Raw) -> int:
    """Bytes on the wire."""
    return len(raw) if isinstance(raw, bytes) or raw.isascii() else len(raw.encode("utf-8", "surrogatepass"))
