"""An established connection: handles the frames of one client."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from picows import WSFrame, WSTransport

from telex import status_codes
from telex.defaults import KIB
from telex.server.closing import ClosingHandshake, Stage
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
    frame_header,
    read_close,
)
from telex.server.keepalive import Keepalive
from telex.server.limits import Limits
from telex.server.liveness import unsent_bytes
from telex.server.messages import Assembler, not_utf8
from telex.server.parser import READ_AT_MOST, Throttle, feed, new_parser
from telex.server.receive_queue import Hold

__all__ = ("Connection",)

_logger: Final = logging.getLogger("telex.server")

_INFLATED_PER_TURN: Final = 256 * KIB
"""Bytes of inflated messages after which the connection yields to others: their size on the wire may be 1/1000."""

_WAITING: Final = Hold.QUEUE | Hold.WRITE | Hold.PARSER | Hold.TURN | Hold.REST

_SHRINK_ABOVE: Final = 64 * KIB
"""Bytes of parser buffer that a connection may keep while the buffer is empty."""


_COMPRESSED: Final = 4


class _Frame(NamedTuple):
    """A frame that the fast path does not handle."""

    kind: int
    payload: bytes
    fin: bool
    reserved: int


class Connection(ClosingHandshake):
    """Handles the frames of one client, and is the :class:`telex.types.Transport` of the application."""

    __slots__ = (
        "_assembler",
        "_early",
        "_frame_received",
        "_inflated",
        "_inflater",
        "_keepalive",
        "_parser",
        "_rest_of_read",
        "_room",
        "_throttled",
        "_unsent",
    )

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], None]) -> None:
        super().__init__(limits, loop, on_lost)
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

    # The end

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

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The parser calls this when the socket is closed."""
        self.lost()

    def lost(self) -> None:
        """The socket is closed."""
        self._parser = None
        super().lost()

    def _stop_frames(self, stage: Stage) -> None:
        self._keepalive.stop()
        if stage == Stage.CLOSED:
            self._early, self._rest_of_read = b"", None
