"""The receiving half of a connection: queues messages for the application, and pauses reading."""

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
    """The reasons to pause reading from the socket, as bits; the server reads while none is set.

    Plain integers: each message tests these bits, and ``enum.Flag`` takes microseconds per test.
    """

    NONE: Final = 0
    QUEUE: Final = 1  # the receive queue is full
    WRITE: Final = 2  # the client does not read its replies
    END: Final = 4  # the last frame was read
    PARSER: Final = 8  # the parser is being replaced
    TURN: Final = 16  # the connection yields to others
    REST: Final = 32  # data that was read earlier must be handled first


class ReceiveQueue(FrameWriter):
    """Delivers messages to a handler, or queues them for :meth:`receive`. See :class:`telex.types.Transport`."""

    __slots__ = ("_deliver", "_dropped", "_end_watch", "_handler", "_hold", "_queue", "_queued_bytes", "_receiver")

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limits, loop)
        self._hold: int = Hold.NONE
        self._end_watch = EndWatch.of(loop)
        self._dropped: int | None = None
        """Messages dropped since the client was found to have left; ``None`` before."""
        self._queue: deque[str | bytes] | None = None  # made when needed: an empty one takes 600 bytes
        self._queued_bytes = 0
        self._receiver: asyncio.Future[str | bytes | None] | None = None
        self._handler: Callable[[str | bytes], None] = self._enqueue
        self._deliver: Callable[[str | bytes], None] | None = None
        """The callback for a plain message; ``None`` while every frame must take the slow path."""

    def set_message_handler(self, handler: Callable[[str | bytes], None] | None) -> None:
        """Deliver each message to ``handler`` inside the frame callback; ``None`` returns to the receive queue.

        Queued messages are delivered first, in order.
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
        """Return to the receive queue, with ``data`` first: for a handler that was called with ``data``."""
        self.set_message_handler(None)
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(data)
        else:
            self._put_back(data)

    @property
    def unread(self) -> int:
        """See :class:`telex.types.Transport`."""
        return len(self._queue or ()) + (self._dropped or 0)

    def _handle_with(self, handler: Callable[[str | bytes], None]) -> None:
        self._handler = handler
        if self._deliver is not None:
            self._deliver = handler

    def _handler_took_over(self) -> None:
        """A handler was set and the queue is empty: do what was delayed until then."""
        raise NotImplementedError

    @property
    def _queues(self) -> bool:
        return self._handler == self._enqueue

    # The queue

    def _enqueue(self, data: str | bytes) -> None:
        receiver = self._receiver
        if receiver is not None and not receiver.done():
            receiver.set_result(data)  # a receiver waits only if the queue is empty
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
        """The next message; ``None`` after the connection ended.

        :raises ConcurrencyError: another task is already waiting.
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
        # Not a separate coroutine: most connections wait here, and each coroutine takes memory.
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
        """Gather the replies to queued messages into one write, until the next iteration of the event loop."""
        if self._cork is None and self._writable:
            self._start_cork()
            self._loop.call_soon(self._pull_cork)

    def _put_back(self, data: str | bytes | None) -> None:
        """Put ``data`` first in the queue, for the next :meth:`receive`."""
        if data is not None:
            if self._queue is None:
                self._queue = deque()
            self._queue.appendleft(data)
            self._queued_bytes += len(data)

    def _ended_for_receiver(self) -> bool:
        """Whether no more messages will come. Called by :meth:`receive` when the queue is empty."""
        raise NotImplementedError

    def _end_receiver(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    # Pausing and resuming reading

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
        """Handle the data that was read earlier: the only remaining reason to pause reading."""
        raise NotImplementedError

    def peer_descriptor(self) -> int:
        """The socket's file descriptor, or -1 if it is closed."""
        return descriptor(self._wire)

    def probe(self) -> None:
        """Send an unsolicited pong (RFC 6455 section 5.5.3): the host of a client that left resets the connection."""
        if self._open and self._writable:
            self._send_pong(b"")

    def on_peer_ended(self) -> None:
        """The client left while reading was paused: read up to its close frame, and drop the messages before it."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        """Pause reading from a client that does not read: more requests would only make more replies."""
        super().pause_writing()
        if not self._queues:
            self._hold_back(Hold.WRITE)

    def resume_writing(self) -> None:
        """Resume reading: the client reads again."""
        super().resume_writing()
        self._release(Hold.WRITE)
