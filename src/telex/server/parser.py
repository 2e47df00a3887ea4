"""Uses picows' frame parser without the rest of picows.

picows' ``WSProtocol`` does the parsing, the handshake and the sending. Telex uses only its parser: it is written in C,
and the event loop reads directly into its buffer. The parser gets a :class:`_Wire` instead of a transport, and a
constant request that completes its handshake. After that the parser writes only one thing: the close frame for a
broken frame.

``WSProtocol`` and ``WSTransport`` are not in picows' ``__all__``: ``tests/server/test_picows_contract.py`` tests the
behaviour that this module depends on.
"""

from __future__ import annotations

import logging
from asyncio import BufferedProtocol, Transport
from collections.abc import Callable
from typing import Final, Protocol, cast

from picows import WSAutoPingStrategy, WSListener
from picows.picows import WSProtocol, WSTransport  # type: ignore[attr-defined]

from telex.defaults import KIB
from telex.server.frames import CloseReason, read_close

__all__ = ("HEADROOM", "READ_AT_MOST", "SEND_AT_MOST", "Sender", "Throttle", "feed", "new_parser", "new_sender")

HEADROOM: Final = 14
"""Free bytes before a payload, for the header that :meth:`Sender.send_reuse_external_bytearray` writes."""

SEND_AT_MOST: Final = 8 * KIB
"""The most bytes for :meth:`Sender.send`. For a larger payload picows passes the transport a view of a header that the
next frame overwrites: if the transport buffers the view, the client receives a broken frame."""


READ_AT_MOST: Final = 32 * KIB
"""Bytes of small frames that one read may handle."""


class Sender(Protocol):
    """The part of picows' ``WSTransport`` that is used for sending."""

    def send(self, msg_type: int, message: str | bytes) -> None:
        """Write one frame."""

    def send_reuse_external_bytearray(
        self, msg_type: int, buffer: bytearray, msg_offset: int, fin: bool, rsv1: bool
    ) -> None:
        """Write one frame whose payload begins at ``msg_offset``, with the header before it."""


_logger: Final = logging.getLogger("telex.server")

_REQUEST: Final = (
    b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)

_INITIAL_BUFFER: Final = 2048
"""Bytes of an idle connection's read buffer (picows' minimum). picows doubles it for larger messages."""


class _QuietLogger:
    """The logger for picows: drops records of client errors, and logs exceptions of this package."""

    name = "telex.server"

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return False

    def debug(self, *args: object) -> None: ...

    info = warning = error = debug

    def exception(self, message: str, *args: object) -> None:
        _logger.exception(message, *args)


class _NoSocket:
    """A socket that ignores the options that picows sets: the server has set them already."""

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *args: object) -> None: ...

    def getsockopt(self, *args: object) -> int:
        return 0


class _Wire:
    """The transport of the parser: calls ``on_verdict`` with the close frame that the parser writes."""

    __slots__ = ("on_verdict",)

    def __init__(self) -> None:
        self.on_verdict: Callable[[CloseReason], None] | None = None

    def get_extra_info(self, name: str) -> object:
        return _NO_SOCKET if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        return 1  # never empty, so picows does not write to the socket directly

    def write(self, data: bytes) -> None:
        if self.on_verdict is not None:
            self.on_verdict(read_close(bytes(data)[2:]))

    def close(self) -> None: ...

    abort = close


class _Parser(WSProtocol):  # type: ignore[misc]
    """Reports the end of the stream, which picows ignores."""

    __slots__ = ("on_end_of_stream",)

    on_end_of_stream: Callable[[], None]

    def eof_received(self) -> bool:
        self.on_end_of_stream()
        return False  # the transport closes


_LOG: Final = _QuietLogger()
_NO_SOCKET: Final = _NoSocket()


def new_parser(
    listener: WSListener,
    max_frame_size: int,
    on_verdict: Callable[[CloseReason], None],
    on_end_of_stream: Callable[[], None],
) -> BufferedProtocol:
    """A parser that calls ``listener.on_ws_frame`` for each whole frame, and ``on_verdict`` once for a broken frame.

    picows parses one frame ahead, so the frame before the broken one may be delivered after ``on_verdict``.
    """
    parser = _Parser(
        None,  # host_port: for clients only
        None,  # ws_path: for clients only
        False,  # is_client_side
        lambda request: listener,
        _LOG,
        True,  # disconnect_on_exception
        None,  # websocket_handshake_timeout
        False,  # enable_auto_ping
        None,  # auto_ping_idle_timeout
        None,  # auto_ping_reply_timeout
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # enable_auto_pong: reserved bits must be checked first
        max_frame_size,
        None,  # extra_headers
        _INITIAL_BUFFER,
    )
    wire = _Wire()
    parser.connection_made(wire)
    feed(parser, _REQUEST)
    wire.on_verdict = on_verdict
    parser.on_end_of_stream = on_end_of_stream
    # picows keeps both for the lifetime of the connection.
    parser.transport.request.headers.clear()
    parser.transport.response.headers.clear()
    return cast("BufferedProtocol", parser)


class Throttle(BufferedProtocol):
    """Wraps the parser of a client that sends many small frames, and limits the size of each read.

    picows doubles its buffer whenever a read fills it, up to the size of the kernel's buffer. A read of several MiB of
    tiny frames would block all other connections until its last frame is handled.
    """

    def __init__(self, parser: BufferedProtocol, on_full_read: Callable[[], None]) -> None:
        self._parser = parser
        self._on_full_read = on_full_read

    def pause_writing(self) -> None:
        """Hand on."""
        self._parser.pause_writing()

    def resume_writing(self) -> None:
        """Hand on."""
        self._parser.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand on."""
        self._parser.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """Hand on."""
        return self._parser.eof_received()

    def get_buffer(self, sizehint: int) -> memoryview:
        """The part of the parser's buffer that one read may fill."""
        return memoryview(self._parser.get_buffer(sizehint))[:READ_AT_MOST]

    def buffer_updated(self, nbytes: int) -> None:
        """Parse, and call ``on_full_read`` if more data may wait."""
        self._parser.buffer_updated(nbytes)
        if nbytes == READ_AT_MOST:
            self._on_full_read()


def feed(parser: BufferedProtocol, data: bytes) -> bytes:
    """Parse as much of ``data`` as fits into the parser's buffer, and return the rest."""
    room = memoryview(parser.get_buffer(-1))
    size = min(len(room), len(data))
    room[:size] = data[:size]
    parser.buffer_updated(size)
    return data[size:]


class _NoLoop:
    """The event loop for picows' sender, whose future is never awaited."""

    def create_future(self) -> None:
        """Return ``None``: a future would take a hundredth of an idle connection's memory."""


_NO_LOOP: Final = _NoLoop()


def new_sender(transport: Transport) -> Sender:
    """A sender that writes frames to ``transport``, directly to the socket if the write buffer is empty."""
    return cast("Sender", WSTransport(False, transport, _LOG, _NO_LOOP))  # type: ignore[call-arg]
