"""An established connection: receives frames, sends messages, and runs the closing handshake.

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
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple

from picows import WSFrame, WSTransport

from telex import status_codes
from telex.defaults import KIB
from telex.server.deflate import Agreement, Deflater, Inflater
from telex.server.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    CloseReason,
    ConnectionClosed,
    ProtocolViolation,
    close_frame,
    frame_header,
    read_close,
)
from telex.server.keepalive import Keepalive
from telex.server.limits import Limits
from telex.server.liveness import unsent_bytes
from telex.server.messages import Assembler, not_utf8
from telex.server.parser import READ_AT_MOST, Throttle, feed, new_parser
from telex.server.receive_queue import Hold, ReceiveQueue
from telex.types import Activity

__all__ = ("Connection", "Stage")

_logger: Final = logging.getLogger("telex.server")

GRACE: Final = 0.5
"""Seconds that an application has to reply to a message before the server handles the close frame that followed."""

LINGER: Final = 2.0
"""Seconds for which the server reads and discards data after a failure. Closing at once would reset the connection,
and the client could lose the close frame (RFC 9112 section 9.6 describes the same for HTTP)."""

_INFLATED_PER_TURN: Final = 256 * KIB
"""Bytes of inflated messages after which the connection yields to others: their size on the wire may be 1/1000."""

_WAITING: Final = Hold.QUEUE | Hold.WRITE | Hold.PARSER | Hold.TURN | Hold.REST

_SHRINK_ABOVE: Final = 64 * KIB
"""Bytes of parser buffer that a connection may keep while the buffer is empty."""


class Stage(IntEnum):
    """The stage of a connection, see the table above."""

    OPENING = 0
    OPEN = 1
    ENDING = 2
    CLOSING = 3
    CLOSED = 4


_COMPRESSED: Final = 4


class _Frame(NamedTuple):
    """A frame that the fast path does not handle."""

    kind: int
    payload: bytes
    fin: bool
    reserved: int


class Connection(ReceiveQueue):
    """Handles the frames of one client, and is the :class:`telex.types.Transport` of the application."""

    __slots__ = (
        "_activity",
        "_assembler",
        "_early",
        "_ending",
        "_frame_received",
        "_inflated",
        "_inflater",
        "_keepalive",
        "_on_lost",
        "_parser",
        "_rest_of_read",
        "_room",
        "_throttled",
        "_timer",
        "_unsent",
        "closed_with",
        "stage",
    )

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], None]) -> None:
        super().__init__(limits, loop)
        self._on_lost = on_lost
        self._activity: Activity | None = None
        self.stage: Stage = Stage.OPENING
        self.closed_with: CloseReason | None = None
        """Why the connection ended; ``None`` until the application was notified."""
        self._frame_received: bool = False
        self._keepalive = Keepalive(self, limits, loop)
        self._inflater: Inflater | None = None
        self._assembler: Assembler | None = None
        self._parser: asyncio.BufferedProtocol | None = None
        self._throttled = False
        self._early = b""
        self._rest_of_read: deque[_Frame | ProtocolViolation] | None = None
        self._inflated = 0
        self._room = 0
        self._unsent = 0
        self._ending: tuple[CloseReason, bool] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def open(self, wire: asyncio.Transport, agreement: Agreement | None, early: bytes) -> None:
        """The handshake is complete: parse the bytes in ``early``, then read frames from ``wire``."""
        if agreement is not None:
            self._inflater = Inflater(agreement)
        self._open_writer(wire, Deflater(agreement) if agreement is not None else None)
        self.stage = Stage.OPEN
        self._deliver = self._handler
        self._parser = self._new_parser()
        self._keepalive.start()
        wire.set_protocol(self._parser)
        if early:
            self._early = early
            self._hold_back(Hold.REST)
            self._handle_rest()

    def _new_parser(self) -> asyncio.BufferedProtocol:
        return new_parser(self, self._limits.max_message_size, self._on_verdict, self._on_end_of_stream)

    # Frames

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle one whole frame. ``frame`` is a view into the parser's buffer, valid only during this call."""
        self._frame_received = True
        deliver = self._deliver
        if deliver is None or not frame.fin or frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._on_unusual_frame(frame)
            return
        kind: int = frame.msg_type  # type: ignore[assignment]  # an IntEnum; picows' stub is wrong
        if kind == TEXT:
            try:
                data: str | bytes = frame.get_payload_as_utf8_text()
            except UnicodeDecodeError:
                self._fail(not_utf8())
                return
        elif kind == BINARY:
            data = frame.get_payload_as_bytes()
        else:
            self._on_unusual_frame(frame)
            return
        last = frame.last_in_buffer
        if not last and self._cork is None:
            self._start_cork()
            if frame.tail_size > READ_AT_MOST:
                self._throttle()
        try:
            deliver(data)
        except Exception as error:
            self._on_handler_error(error)
        if last and self._cork is not None:
            self._pull_cork()

    def _on_unusual_frame(self, frame: WSFrame) -> None:
        kind = int(frame.msg_type)  # type: ignore[call-overload]
        if self.stage == Stage.OPEN or (self.stage == Stage.CLOSING and kind == CLOSE):
            reserved = bool(frame.rsv1) << 2 | bool(frame.rsv2) << 1 | bool(frame.rsv3)
            got = _Frame(kind, frame.get_payload_as_bytes(), bool(frame.fin), reserved)
            if self._rest_of_read or (self._hold & _WAITING and kind < CLOSE and self._inflater is not None):
                self._postpone(got)
            else:
                self._handle_frame(got)
        if frame.last_in_buffer:
            self._pull_cork()
            if kind == PONG:
                self._shrink_parser(frame.tail_size)
        elif frame.tail_size > READ_AT_MOST:
            self._throttle()

    def _postpone(self, what: _Frame | ProtocolViolation) -> None:
        """Handle it later: a read is limited in size before inflation, but not after."""
        if not self._rest_of_read:
            self._rest_of_read = deque()
            self._deliver = None
            self._hold_back(Hold.REST)
        self._rest_of_read.append(what)

    def _handle_rest(self) -> None:
        while self._hold & ~Hold.END == Hold.REST and (self._rest_of_read or self._early):
            if self._rest_of_read:
                what = self._rest_of_read.popleft()
                if isinstance(what, ProtocolViolation):
                    self._fail(what)
                else:
                    self._handle_frame(what)
            elif self._parser is not None:
                early, self._early = self._early, b""
                rest = feed(self._parser, early)
                if not self._hold & Hold.END:
                    self._early = rest
        if not self._rest_of_read and not self._early:
            self._rest_of_read = None
            self._deliver_plain_frames()
            self._release(Hold.REST)

    def _handle_frame(self, frame: _Frame) -> None:
        if self.stage == Stage.OPEN:
            try:
                self._take_frame(frame)
            except ProtocolViolation as violation:
                self._fail(violation)
        elif self.stage == Stage.CLOSING and frame.kind == CLOSE:
            self._disconnect()

    def _take_frame(self, frame: _Frame) -> None:
        kind, payload, fin, reserved = frame
        if reserved and (reserved != _COMPRESSED or self._inflater is None or kind >= CLOSE):
            raise ProtocolViolation(status_codes.WS_1002_PROTOCOL_ERROR, "a reserved bit without its extension")
        if kind < CLOSE:
            if self._dropped is not None:
                self._dropped += fin
            else:
                self._assemble(kind, payload, fin, bool(reserved))
        elif kind == PING:
            self._send_pong(payload)
        elif kind == CLOSE:
            self._end(read_close(payload), failed=False)
        else:
            self._keepalive.on_pong()

    def _assemble(self, kind: int, payload: bytes, fin: bool, compressed: bool) -> None:
        if self._assembler is None:
            self._assembler = Assembler(self._limits, self._inflater)
        message = self._assembler.add(kind, payload, fin=fin, compressed=compressed)
        self._deliver_plain_frames()
        if message is None:
            return
        try:
            self._handler(message)
        except Exception as error:
            self._on_handler_error(error)
        if self._inflater is not None:
            self._inflated += len(message)
            if self._inflated >= _INFLATED_PER_TURN:
                self._inflated = 0
                self._pass_turn()

    def _deliver_plain_frames(self) -> None:
        """Use the fast path for whole, uncompressed messages, unless a fragmented or postponed message is pending."""
        busy = self._rest_of_read or (self._assembler is not None and self._assembler.busy)
        usual = self.stage == Stage.OPEN and not busy and self._dropped is None
        self._deliver = self._handler if usual else None

    def _on_verdict(self, close: CloseReason) -> None:
        """The parser found a broken frame; it may deliver the frame before it after this call."""
        if self.stage == Stage.OPEN:
            self._hold_back(Hold.END)
            self._loop.call_soon(self._on_broken_frame, ProtocolViolation(close.code, close.reason))
        elif self.stage == Stage.CLOSING:
            self._disconnect()

    def _on_broken_frame(self, violation: ProtocolViolation) -> None:
        if self._rest_of_read:
            self._postpone(violation)
        else:
            self._fail(violation)

    def _on_end_of_stream(self) -> None:
        """The client ended its stream without a closing handshake. The transport closes after its buffer is written."""
        if self.stage != Stage.CLOSED:
            close = self._ending[0] if self._ending else CloseReason(status_codes.WS_1006_ABNORMAL_CLOSURE)
            self._enter_stage(Stage.CLOSED, close, None)
            self._abort_after(self._limits.close_timeout)

    def on_peer_ended(self) -> None:
        """The client left while reading was paused: read up to its close frame, and drop the messages before it."""
        if self.stage == Stage.OPEN:
            self._dropped = len(self._queue or ())
            self._forget_queue()
            self._deliver = None
            self._release(_WAITING & ~Hold.REST)

    def _shrink_parser(self, unread: int) -> None:
        """Replace the parser if its buffer is large and empty: picows doubles the buffer and never shrinks it.

        Called on a pong: it answers a ping that is sent after a quiet interval, so the buffer is often empty then.
        """
        if self._parser is not None and not unread and len(memoryview(self._parser.get_buffer(-1))) > _SHRINK_ABOVE:
            self._hold_back(Hold.PARSER)
            self._loop.call_soon(self._renew_parser)

    def _renew_parser(self) -> None:
        try:
            if self._parser is not None:
                self._parser = self._new_parser()
                self._install_parser()
        finally:
            self._release(Hold.PARSER)

    def _throttle(self) -> None:
        """The client sends many small frames: from now on limit the size of each read."""
        if not self._throttled:
            self._throttled = True
            self._loop.call_soon(self._install_parser)

    def _install_parser(self) -> None:
        if self.stage in (Stage.OPEN, Stage.CLOSING) and self._parser is not None and not self._wire.is_closing():
            throttled = self._throttled
            self._wire.set_protocol(Throttle(self._parser, self._pass_turn) if throttled else self._parser)

    def _pass_turn(self) -> None:
        self._hold_back(Hold.TURN)
        self._loop.call_soon(self._release, Hold.TURN)

    def _on_handler_error(self, error: Exception) -> None:
        if isinstance(error, ConnectionClosed):
            return  # the handler replied after the connection closed, which is not an error
        _logger.error("Exception in a message handler", exc_info=error)
        self.close(CloseReason(status_codes.WS_1011_UNEXPECTED_ERROR))

    # Closing

    def close(self, close: CloseReason) -> None:
        """Start the closing handshake, or complete the one that the peer started. Does nothing after that."""
        if self.stage == Stage.ENDING:
            self._settle()
        elif self.stage == Stage.OPEN:
            self._enter_stage(Stage.CLOSING, close, close_frame(close))
            self._forget_queue()
            self._release(Hold.WRITE)
            self._abort_after(self._limits.close_timeout)

    def expire(self, close: CloseReason) -> None:
        """End the connection without waiting for the peer, which may be gone."""
        if self.stage in (Stage.OPEN, Stage.ENDING, Stage.CLOSING):
            self._enter_stage(Stage.CLOSED, close, close_frame(close))
            self._loop.call_soon(self._linger)

    @property
    def idle(self) -> bool:
        """Whether the application is waiting for the next message, so that closing now interrupts no work."""
        return not self._queues or (self._receiver is not None and not self._receiver.done())

    def set_activity(self, activity: Activity) -> None:
        """Set the object that reports whether the application is busy. See :class:`telex.types.Transport`."""
        self._activity = activity

    @property
    def busy(self) -> bool:
        """Whether a drain must wait: a message is being handled, or the application reports that it is busy."""
        return not self.idle or (self._activity is not None and self._activity.busy)

    def shows_life(self) -> bool:
        """Whether the client sent or acknowledged any bytes since the last call."""
        received, self._frame_received = self._frame_received, False
        room, self._room = self._room, len(memoryview(self._parser.get_buffer(-1))) if self._parser else 0
        if not self._hold and self._writable:
            return received or room != self._room
        unsent, self._unsent = self._unsent, unsent_bytes(self._wire)
        return received or self._unsent < unsent

    def is_only_held_back(self) -> bool:
        """Whether reading from the client is paused, and the client has acknowledged all sent bytes."""
        return bool(self._hold) and not unsent_bytes(self._wire)

    def send_ping(self, payload: bytes) -> None:
        """Send a ping, unless the write buffer is full: the client is then expected to be silent."""
        if self._open and self._writable:
            self._rest()
            self._write_frame(frame_header(PING, len(payload)), payload)

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
        self._keepalive.stop()
        self._cancel_timer()
        if stage == Stage.CLOSED:
            self._early, self._rest_of_read = b"", None
        self._close_writer(last_frame)
        self._end_receiver()
        if self.closed_with is None:
            self.closed_with = close
            if self._activity is not None:
                self._activity.on_end(close.code, close.reason)
            if self._dropped:
                _logger.info("dropped %d messages of a client that left", self._dropped)

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

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The parser calls this when the socket is closed."""
        self.lost()

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
            self._parser = None
            self._on_lost()


class _Sink(asyncio.Protocol):
    """Reads and discards the data that a peer sends after its connection failed."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()
