"""The receiving half of a connection: messages that wait for the application, and when to stop reading."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from telex.exceptions import ConcurrencyError
from telex.server.frame_writer import FrameWriter
from telex.server.limits import Limits
from telex.server.liveness import EndWatch, descriptor

__all__ = ("Hold", "ReceiveQueue")


class Hold:
    """Why the server does not read from the socket, as bits: it does when no reason is left.

    Plain integers: ``enum.Flag`` takes microseconds for what is asked with each message.
    """

    NONE: Final = 0
    QUEUE: Final = 1  # the application has messages enough
    WRITE: Final = 2  # the client does not read its replies
    END: Final = 4  # the last frame was read
    PARSER: Final = 8  # the parser is being replaced
    TURN: Final = 16  # other connections get their turn
    REST: Final = 32  # what was read before is handled first


class ReceiveQueue(FrameWriter):
    """Hands messages to a handler at once, or to whoever awaits :meth:`receive`. See :class:`telex.types.Transport`."""

    __slots__ = ("_deliver", "_dropped", "_end_watch", "_handler", "_hold", "_queue", "_queued_bytes", "_receiver")

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limits, loop)
        self._hold: int = Hold.NONE
        self._end_watch = EndWatch.of(loop)
        self._dropped: int | None = None
        """Messages dropped since the client was found to have left; ``None`` before."""
        self._queue: deque[str | bytes] | None = None  # made when needed: an empty one has 600 bytes
        self._queued_bytes = 0
        self._receiver: asyncio.Future[str | bytes | None] | None = None
        self._handler: Callable[[str | bytes], None] = self._enqueue
        self._deliver: Callable[[str | bytes], None] | None = None
        """Where a plain message goes; ``None`` while frames need a closer look."""

    def set_message_handler(self, handler: Callable[[str | bytes], None] | None) -> None:
        """Deliver each message to ``handler`` inside the frame callback; ``None`` goes back to the receive queue.

        Messages that already wait are delivered first, in order.
        """
        if handler is None:
            self._release(Hold.WRITE)
            self._handle_with(self._enqueue)
            return
        self._handle_with(handler)
        while self._queue and self._handler is handler:
            handler(self._take(self._queue))
        if self._handler is not handler:
            return
        if not self._writable:
            self._hold_back(Hold.WRITE)
        self._handler_took_over()

    def hand_over(self, data: str | bytes) -> None:
        """Leave ``data``, and the messages after it, to :meth:`receive`: for a handler that is called with ``data``."""
        self.set_message_handler(None)
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(data)
        else:
            self._put_back(data)

    def _handle_with(self, handler: Callable[[str | bytes], None]) -> None:
        self._handler = handler
        if self._deliver is not None:
            self._deliver = handler

    def _handler_took_over(self) -> None:
        """The queue is empty for good: what waited for that may happen."""
        raise NotImplementedError

    @property
    def _queues(self) -> bool:
        return self._handler == self._enqueue

    # The queue

    def _enqueue(self, data: str | bytes) -> None:
        receiver = self._receiver
        if receiver is not None and not receiver.done():
            receiver.set_result(data)  # whoever waits has found the queue empty
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append(data)
        self._queued_bytes += len(data)
        if len(self._queue) >= self._limits.max_queue or self._queued_bytes >= self._limits.max_queued_bytes:
            self._hold_back(Hold.QUEUE)

    def _take(self, queue: deque[str | bytes]) -> str | bytes:
        data = queue.popleft()
        self._queued_bytes -= len(data)
        if self._hold and len(queue) <= self._limits.max_queue // 2:
            self._release(Hold.QUEUE)
        return data

    def _forget_queue(self) -> None:
        self._queue = None
        self._queued_bytes = 0
        self._release(Hold.QUEUE)

    async def receive(self) -> str | bytes | None:
        """The next message, or ``None`` once the connection ends: ASGI's ``receive`` then has the disconnect event.

        :raises ConcurrencyError: another task waits already.
        """
        queue = self._queue
        if queue:
            data = self._take(queue)
            if queue and self._open:
                self._gather_replies()
            return data
        self._pull_cork()
        if self._ended_for_receiver():
            return None
        if self._receiver is not None:
            raise ConcurrencyError("Another task already waits for this connection's messages: let one task receive.")
        # Not in a coroutine of its own: this is where most connections are most of their time.
        receiver: asyncio.Future[str | bytes | None] = self._loop.create_future()
        self._receiver = receiver
        try:
            return await receiver
        except asyncio.CancelledError:
            if receiver.done() and not receiver.cancelled():
                self._put_back(receiver.result())
            raise
        finally:
            self._receiver = None

    def _gather_replies(self) -> None:
        """More messages wait, so their replies may leave together: at the latest when the event loop goes on."""
        if self._cork is None and self._writable:
            self._start_cork()
            self._loop.call_soon(self._pull_cork)

    def _put_back(self, data: str | bytes | None) -> None:
        """The task that was about to get ``data`` was cancelled: the next one gets it."""
        if data is not None:
            if self._queue is None:
                self._queue = deque()
            self._queue.appendleft(data)
            self._queued_bytes += len(data)

    def _ended_for_receiver(self) -> bool:
        """Whether there will be no message any more. Called when the queue is empty and somebody asks."""
        raise NotImplementedError

    def _end_receiver(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    # Reading or not

    def _hold_back(self, reason: int) -> None:
        if self._dropped is not None and reason & (Hold.QUEUE | Hold.WRITE):
            return
        if not self._hold and not self._wire.is_closing():
            self._wire.pause_reading()
            self._end_watch.add(self)
        self._hold |= reason

    def _release(self, reason: int) -> None:
        if self._hold & reason:
            self._hold &= ~reason
            if not self._hold:
                self._end_watch.discard(self)
                if not self._wire.is_closing():
                    self._wire.resume_reading()
            elif self._hold & ~Hold.END == Hold.REST:
                self._loop.call_soon(self._handle_rest)

    def _handle_rest(self) -> None:
        """Nothing but what was read before keeps the server from reading on."""
        raise NotImplementedError

    def peer_descriptor(self) -> int:
        """The socket's file descriptor, or -1 where it is closed."""
        return descriptor(self._wire)

    def probe(self) -> None:
        """Send a pong that nobody asked for (RFC 6455 section 5.5.3): a client that has left resets the connection."""
        if self._open and self._writable:
            self._send_pong(b"")

    def on_peer_ended(self) -> None:
        """The client left while it is not read from: read the rest and drop its messages, as far as its close frame."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        """A client that does not read is not read from: its requests would only make more replies."""
        super().pause_writing()
        if not self._queues:
            self._hold_back(Hold.WRITE)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._release(Hold.WRITE)
