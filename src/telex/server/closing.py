"""The stages of an established connection, and the closing handshake.

The stages of a connection. Messages are sent and received only in ``OPEN``.

=========  ==============================================================  =============================
stage      entered when                                                    left
=========  ==============================================================  =============================
OPENING    the request is read                                             to OPEN, on accept
OPEN       the handshake is complete                                       to any stage below
ENDING     the peer closed or broke the protocol, but the application      to CLOSED, at the next
           may still handle earlier messages                               receive or after ``GRACE``
CLOSING    the server sent its close frame                                 to CLOSED, on the peer's
CLOSED     the application was notified; the socket is closed or closing
=========  ==============================================================  =============================

ENDING keeps the order on the wire: the reply to a message is sent before the reply to a close frame (or the failure)
that came after that message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from typing import Final

from telex import status_codes
from telex.server.frames import CloseReason, ProtocolViolation, close_frame
from telex.server.limits import Limits
from telex.server.receive_queue import Hold, ReceiveQueue
from telex.types import Activity

__all__ = ("ClosingHandshake", "Stage")

_logger: Final = logging.getLogger("telex.server")

GRACE: Final = 0.5
"""Seconds that an application has to reply to a message before the server handles the close frame that followed."""

LINGER: Final = 2.0
"""Seconds for which the server reads and discards data after a failure. Closing at once would reset the connection,
and the client could lose the close frame (RFC 9112 section 9.6 describes the same for HTTP)."""


class Stage(IntEnum):
    """The stage of a connection, see the table above."""

    OPENING = 0
    OPEN = 1
    ENDING = 2
    CLOSING = 3
    CLOSED = 4


class ClosingHandshake(ReceiveQueue):
    """Ends a connection in stages, and notifies the application."""

    __slots__ = ("_activity", "_ending", "_on_lost", "_timer", "closed_with", "stage")

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], None]) -> None:
        super().__init__(limits, loop)
        self._on_lost = on_lost
        self._activity: Activity | None = None
        self.stage: Stage = Stage.OPENING
        self.closed_with: CloseReason | None = None
        """Why the connection ended; ``None`` until the application was notified."""
        self._ending: tuple[CloseReason, bool] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def close(self, close: CloseReason) -> None:
        """Start the closing handshake, or complete the one that the peer started. Does nothing after that."""
        if self.stage == Stage.ENDING:
            self._settle()
        elif self.stage == Stage.OPEN:
            self._enter_stage(Stage.CLOSING, close, close_frame(close))
            self._forget_queue()
            self._release(Hold.WRITE)
            self._abort_after(self._limits.close_timeout)

    def hasten(self, seconds: float) -> None:
        """Wait at most ``seconds`` for the client at the end."""
        self._limits = replace(self._limits, close_timeout=min(seconds, self._limits.close_timeout))

    def expire(self, close: CloseReason) -> None:
        """End the connection without waiting for the peer, which may be gone."""
        if self.stage in (Stage.OPEN, Stage.ENDING, Stage.CLOSING):
            self._enter_stage(Stage.CLOSED, close, close_frame(close))
            self._loop.call_soon(self._linger)

    def compress_alone(self) -> None:
        """See :class:`telex.types.ServerConnection`."""
        self._limits = replace(self._limits, deflate_context_takeover=False)

    @property
    def limits(self) -> Limits:
        """The limits of this connection."""
        return self._limits

    @property
    def idle(self) -> bool:
        """Whether the application is waiting for the next message, so that closing now interrupts no work."""
        return (
            not self._queues
            or (self._receiver is not None and not self._receiver.done())
            or (self._activity is not None and self._activity.waits)
        )

    def set_activity(self, activity: Activity) -> None:
        """Set the object that reports whether the application is busy. See :class:`telex.types.ActivityWatcher`."""
        self._activity = activity

    @property
    def busy(self) -> bool:
        """Whether a drain must wait: a message is being handled, or the application reports that it is busy."""
        return not self.idle or (self._activity is not None and self._activity.busy)

    def go_away(self, within: float, retry_after: float) -> bool:
        """See :class:`telex.types.Activity`."""
        return self._activity is not None and self._activity.go_away(within, retry_after)

    def _on_end_of_stream(self) -> None:
        """The client ended its stream without a closing handshake. The transport closes after its buffer is written."""
        if self.stage != Stage.CLOSED:
            close = self._ending[0] if self._ending else CloseReason(status_codes.WS_1006_ABNORMAL_CLOSURE)
            self._enter_stage(Stage.CLOSED, close, None)
            self._abort_after(self._limits.close_timeout)

    def _fail(self, violation: ProtocolViolation) -> None:
        if self.stage == Stage.OPEN:
            self._end(CloseReason(violation.code, violation.reason), failed=True)

    def _end(self, close: CloseReason, *, failed: bool) -> None:
        self.stage = Stage.ENDING
        self._deliver = None
        self._ending = (close, failed)
        self._hold_back(Hold.END)
        if self.idle:
            self._settle()
        else:
            self._timer = self._loop.call_later(GRACE, self._settle)

    def _settle(self) -> None:
        if self._ending is None or self.stage != Stage.ENDING:
            return
        (close, failed), self._ending = self._ending, None
        if failed:
            self._enter_stage(Stage.CLOSED, close, close_frame(close))
            self._loop.call_soon(self._linger)
        else:
            self._enter_stage(Stage.CLOSED, close, close_frame(CloseReason(close.code)))
            self._disconnect()

    def _enter_stage(self, stage: Stage, close: CloseReason, last_frame: bytes | None) -> None:
        """Enter a stage in which nothing more is sent, and notify the application."""
        self.stage = stage
        self._deliver = None
        self._cancel_timer()
        self._stop_frames(stage)
        self._close_writer(last_frame)
        self._end_receiver()
        if self.closed_with is None:
            self.closed_with = close
            if self._activity is not None:
                self._activity.on_end(close.code, close.reason)
            elif self._dropped:  # an app that reads the transport logs it by itself, with the name of its handler
                _logger.info("dropped %d messages of a client that left", self._dropped)

    def _stop_frames(self, stage: Stage) -> None:
        """Messages end: stop what serves the frames of an open connection."""
        raise NotImplementedError

    def _ended_for_receiver(self) -> bool:
        self._settle()
        return self.closed_with is not None

    def _handler_took_over(self) -> None:
        self._settle()

    def _disconnect(self) -> None:
        """Close the socket after both close frames: the server closes it first (RFC 6455 section 7.1.1)."""
        self.stage = Stage.CLOSED
        self._wire.close()
        self._abort_after(self._limits.close_timeout)

    def _linger(self) -> None:
        self._abort_after(min(LINGER, self._limits.close_timeout))
        if self._wire.is_closing():
            return
        if not self._wire.can_write_eof():
            self._wire.close()
            return
        self._wire.write_eof()
        self._wire.set_protocol(_Sink(self.lost))
        self._release(self._hold)

    def _abort_after(self, delay: float) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(delay, self._wire.abort)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def refused(self) -> None:
        """The handshake ended without a connection."""
        self._enter_stage(Stage.CLOSED, CloseReason(status_codes.WS_1006_ABNORMAL_CLOSURE), None)

    def lost(self) -> None:
        """The socket is closed."""
        close = self._ending[0] if self._ending else CloseReason(status_codes.WS_1006_ABNORMAL_CLOSURE)
        self._ending = None
        try:
            self._enter_stage(Stage.CLOSED, close, None)
        finally:
            self._cancel_timer()
            self._end_watch.discard(self)
            self._on_lost()


class _Sink(asyncio.Protocol):
    """Reads and discards the data that a peer sends after its connection failed."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()
