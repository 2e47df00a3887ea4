"""An established connection: frames in, messages out, and how it ends.

How it ends is a small table. ``OPEN`` is the only stage in which messages travel.

=========  ==============================================================  =============================
stage      entered when                                                    left
=========  ==============================================================  =============================
OPENING    the request is read                                             to OPEN, on accept
OPEN       the handshake is complete                                       to any below
ENDING     the peer closed or broke the protocol, but the application      to CLOSED, when it asks for
           may still be busy with messages that came before                more or after ``GRACE``
CLOSING    the server sent its close frame                                 to CLOSED, on the peer's
CLOSED     the application was told; the socket is closed or about to be
=========  ==============================================================  =============================

ENDING keeps the order of the wire: the reply to a message leaves before the answer to the close frame, or the failure,
that came after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from picows import WSFrame, WSTransport

from telex import status_codes
from telex.defaults import KIB
from telex.server.deflate import Agreement, Deflater, Inflater
from telex.server.frames import (
    BINARY,
    CLOSE,
    PING,
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
from telex.server.messages import Assembler, not_utf8
from telex.server.parser import READ_AT_MOST, Throttle, feed, new_parser
from telex.server.receive_queue import Hold, ReceiveQueue
from telex.types import Activity

__all__ = ("Connection", "Stage")

_logger: Final = logging.getLogger("telex.server")

GRACE: Final = 0.5
"""Seconds that an application gets to reply to a message before the close frame that followed it is acted on."""

LINGER: Final = 2.0
"""Seconds for which the server still reads, and forgets, after a failure: closing at once would reset the connection,
and the close frame that tells why could be lost (RFC 9112 section 9.6 tells the same of HTTP)."""

_SHRINK_ABOVE: Final = 64 * KIB
"""Bytes of parser buffer that a connection may keep while nothing is in it."""


class Stage(IntEnum):
    """Where a connection stands, see the table above."""

    OPENING = 0
    OPEN = 1
    ENDING = 2
    CLOSING = 3
    CLOSED = 4


class Connection(ReceiveQueue):
    """The frames of one client, and the :class:`telex.types.Transport` of the application."""

    __slots__ = (
        "_activity",
        "_assembler",
        "_ending",
        "_inflater",
        "_keepalive",
        "_on_lost",
        "_parser",
        "_throttled",
        "_timer",
        "closed_with",
        "heard",
        "stage",
    )

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], None]) -> None:
        super().__init__(limits, loop)
        self._on_lost = on_lost
        self._activity: Activity | None = None
        self.stage: Stage = Stage.OPENING
        self.closed_with: CloseReason | None = None
        """Why the connection ended, once it has for the application."""
        self.heard: bool = False
        self._keepalive = Keepalive(self, limits, loop)
        self._inflater: Inflater | None = None
        self._assembler: Assembler | None = None
        self._parser: asyncio.BufferedProtocol | None = None
        self._throttled = False
        self._ending: tuple[CloseReason, bool] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def open(self, wire: asyncio.Transport, agreement: Agreement | None, early: bytes) -> None:
        """The handshake is complete: take frames from ``wire``, the first of them from ``early``."""
        if agreement is not None:
            self._inflater = Inflater(agreement)
        self._open_outbox(wire, Deflater(agreement) if agreement is not None else None)
        self.stage = Stage.OPEN
        self._deliver = self._handler
        self._parser = new_parser(self, self._limits.max_message_size, self._on_verdict)
        self._keepalive.start()
        feed(self._parser, early)
        wire.set_protocol(self._parser)

    # Frames

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One whole frame. ``frame`` is a view into the parser's buffer and valid only here."""
        self.heard = True
        deliver = self._deliver
        if deliver is None or not frame.fin or frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._on_unusual_frame(frame)
            return
        kind: int = frame.msg_type  # type: ignore[assignment]  # an IntEnum, unlike what picows' stub says
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
        if self.stage == Stage.OPEN:
            try:
                self._take_frame(frame)
            except ProtocolViolation as violation:
                self._fail(violation)
        elif self.stage == Stage.CLOSING and int(frame.msg_type) == CLOSE:  # type: ignore[call-overload]
            self._disconnect()
        if frame.last_in_buffer:
            self._pull_cork()
        elif frame.tail_size > READ_AT_MOST:
            self._throttle()

    def _take_frame(self, frame: WSFrame) -> None:
        kind = int(frame.msg_type)  # type: ignore[call-overload]
        compressed = bool(frame.rsv1)
        if frame.rsv2 or frame.rsv3 or (compressed and (self._inflater is None or kind >= CLOSE)):
            raise ProtocolViolation(status_codes.WS_1002_PROTOCOL_ERROR, "a reserved bit without its extension")
        payload = frame.get_payload_as_bytes()
        if kind < CLOSE:
            self._assemble(kind, payload, bool(frame.fin), compressed)
        elif kind == PING:
            if not frame.last_in_buffer:
                self._start_cork()
            self._send_pong(payload)
        elif kind == CLOSE:
            self._end(read_close(payload), failed=False)
        else:
            self._keepalive.on_pong()
            if frame.last_in_buffer:
                self._shrink_parser(frame.tail_size)

    def _assemble(self, kind: int, payload: bytes, fin: bool, compressed: bool) -> None:
        if self._assembler is None:
            self._assembler = Assembler(self._limits, self._inflater)
        message = self._assembler.add(kind, payload, fin=fin, compressed=compressed)
        self._deliver = None if self._assembler.busy else self._handler
        if message is not None:
            try:
                self._handler(message)
            except Exception as error:
                self._on_handler_error(error)

    def _on_verdict(self, close: CloseReason) -> None:
        """The parser met a broken frame; the frame before that may still have to be delivered."""
        if self.stage == Stage.OPEN:
            self._hold_back(Hold.END)
            self._loop.call_soon(self._fail, ProtocolViolation(close.code, close.reason))
        elif self.stage == Stage.CLOSING:
            self._disconnect()

    def _shrink_parser(self, unread: int) -> None:
        """picows' buffer doubles for large messages and never shrinks: replace the parser while nothing is in it.

        A pong, the answer to a ping after silence, is the moment when that is known.
        """
        if self._parser is not None and not unread and len(memoryview(self._parser.get_buffer(-1))) > _SHRINK_ABOVE:
            self._hold_back(Hold.PARSER)
            self._loop.call_soon(self._renew_parser)

    def _renew_parser(self) -> None:
        if self._parser is not None:
            self._parser = new_parser(self, self._limits.max_message_size, self._on_verdict)
            self._install_parser()
        self._release(Hold.PARSER)

    def _throttle(self) -> None:
        """The client sends many small frames: from now on it gets a bounded read in each turn of the event loop."""
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
            return  # its reply came too late, which is nobody's mistake
        _logger.error("Exception in a message handler", exc_info=error)
        self.close(CloseReason(status_codes.WS_1011_UNEXPECTED_ERROR))

    # The end

    def close(self, close: CloseReason) -> None:
        """Start the closing handshake, or complete the one that the peer started. Harmless when that is done."""
        if self.stage == Stage.ENDING:
            self._settle()
        elif self.stage == Stage.OPEN:
            self._tell(Stage.CLOSING, close, close_frame(close))
            self._forget_queue()
            self._release(Hold.WRITE)
            self._abort_after(self._limits.close_timeout)

    def expire(self, close: CloseReason) -> None:
        """End the connection without waiting for the peer, who may be gone."""
        if self.stage in (Stage.OPEN, Stage.ENDING, Stage.CLOSING):
            self._tell(Stage.CLOSED, close, close_frame(close))
            self._loop.call_soon(self._linger)

    @property
    def idle(self) -> bool:
        """Whether the application waits for the next message: closing now interrupts nothing."""
        return not self._queues or (self._receiver is not None and not self._receiver.done())

    def set_activity(self, activity: Activity) -> None:
        """Ask ``activity`` whether the application works for this connection. See :class:`telex.types.Transport`."""
        self._activity = activity

    @property
    def busy(self) -> bool:
        """Whether a drain has something to wait for: a message at work, or what the application says."""
        return not self.idle or (self._activity is not None and self._activity.busy)

    @property
    def held_back(self) -> bool:
        """Whether the server does not read from the socket now."""
        return bool(self._hold)

    def send_ping(self, payload: bytes) -> None:
        """Send a ping, unless older data still waits: then silence is explained by that."""
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
            self._tell(Stage.CLOSED, close, close_frame(close))
            self._loop.call_soon(self._linger)
        else:
            self._tell(Stage.CLOSED, close, close_frame(CloseReason(close.code)))
            self._disconnect()

    def _tell(self, stage: Stage, close: CloseReason, last_frame: bytes | None) -> None:
        """Enter a stage in which nothing is sent any more, and let the application know."""
        self.stage = stage
        self._deliver = None
        self._keepalive.stop()
        self._cancel_timer()
        if self.closed_with is None:
            self.closed_with = close
        self._close_outbox(last_frame)
        self._end_receiver()

    def _ended_for_receiver(self) -> bool:
        self._settle()
        return self.closed_with is not None

    def _handler_took_over(self) -> None:
        self._settle()

    def _disconnect(self) -> None:
        """Both close frames are under way: the server closes first (RFC 6455 section 7.1.1)."""
        self.stage = Stage.CLOSED
        self._wire.close()
        self._abort_after(self._limits.close_timeout)

    def _linger(self) -> None:
        if self._wire.is_closing():
            return
        self._abort_after(min(LINGER, self._limits.close_timeout))
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
        """The parser's way to say that the socket is closed."""
        self.lost()

    def refused(self) -> None:
        """The handshake ended without a connection."""
        self._tell(Stage.CLOSED, CloseReason(status_codes.WS_1006_ABNORMAL_CLOSURE), None)

    def lost(self) -> None:
        """The socket is closed."""
        close = self._ending[0] if self._ending else CloseReason(status_codes.WS_1006_ABNORMAL_CLOSURE)
        self._ending = None
        try:
            self._tell(Stage.CLOSED, close, None)
        finally:
            self._parser = None
            self._on_lost()


class _Sink(asyncio.Protocol):
    """Reads and forgets what a peer still sends after its connection failed."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()
