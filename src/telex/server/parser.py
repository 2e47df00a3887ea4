"""picows' frame parser, used for parsing alone.

picows joins parser, handshake and sender in one object that decides everything itself. Telex wants its parser (C, and
the event loop reads straight into its buffer) and decides the rest: so the parser gets a :class:`_Wire` instead of a
transport, is led past its handshake with a request that is always the same, and what it then tries to write can only be
the close frame with its verdict on a broken frame.

``WSProtocol`` and ``WSTransport`` are not in picows' ``__all__``: ``tests/server/test_picows_contract.py`` holds what
is used here.
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
"""Bytes before a payload in which :meth:`Sender.send_reuse_external_bytearray` puts its header."""

SEND_AT_MOST: Final = 8 * KIB
"""Bytes that :meth:`Sender.send` may get. Of larger payloads picows hands the transport a view of a header that the
next frame overwrites: if it has to wait, it arrives broken."""


READ_AT_MOST: Final = 32 * KIB
"""Bytes of small frames that are handled at a stretch."""


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
"""Bytes of read buffer that an idle connection keeps (picows takes no less). It doubles as messages need it."""


class _QuietLogger:
    """Takes picows' log lines. A client's mistakes are no news for the log; mistakes of this package are."""

    name = "telex.server"

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return False

    def debug(self, *args: object) -> None: ...

    info = warning = error = debug

    def exception(self, message: str, *args: object) -> None:
        _logger.exception(message, *args)


class _NoSocket:
    """A socket on which picows may set its options in vain: the server set them already."""

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *args: object) -> None: ...

    def getsockopt(self, *args: object) -> int:
        return 0


class _Wire:
    """Stands where the parser wants a transport."""

    __slots__ = ("on_verdict",)

    def __init__(self) -> None:
        self.on_verdict: Callable[[CloseReason], None] | None = None

    def get_extra_info(self, name: str) -> object:
        return _NO_SOCKET if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        return 1  # never empty: so picows never writes to the socket by itself

    def write(self, data: bytes) -> None:
        if self.on_verdict is not None:
            self.on_verdict(read_close(bytes(data)[2:]))

    def close(self) -> None: ...

    abort = close


class _Parser(WSProtocol):  # type: ignore[misc]
    """Tells of the end of the stream, which picows leaves to the transport."""

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
    """A parser that calls ``listener.on_ws_frame`` for each whole frame, and ``on_verdict`` once if one is broken.

    Frames that precede the broken one in the same read may be delivered after the verdict: picows looks one ahead.
    """
    parser = _Parser(
        None,  # host_port: a client's
        None,  # ws_path: a client's
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
    # picows keeps both for as long as the connection lives.
    parser.transport.request.headers.clear()
    parser.transport.response.headers.clear()
    return cast("BufferedProtocol", parser)


class Throttle(BufferedProtocol):
    """Stands before the parser of a client that sends many small frames: gives it a bounded read at a time.

    picows doubles its buffer whenever a read fills it, up to what the kernel holds; and a read of some MiB of tiny
    frames would keep everybody else waiting until the last of them is handled.
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
        """As much of the parser's buffer as one read may fill."""
        return memoryview(self._parser.get_buffer(sizehint))[:READ_AT_MOST]

    def buffer_updated(self, nbytes: int) -> None:
        """Parse, and let others have their turn if there is more."""
        self._parser.buffer_updated(nbytes)
        if nbytes == READ_AT_MOST:
            self._on_full_read()


def feed(parser: BufferedProtocol, data: bytes) -> bytes:
    """Give the parser what fits into its buffer of bytes that were read before; the result is the rest of them."""
    room = memoryview(parser.get_buffer(-1))
    size = min(len(room), len(data))
    room[:size] = data[:size]
    parser.buffer_updated(size)
    return data[size:]


class _NoLoop:
    """Stands where picows wants a loop for a future of its own, which a sender alone never awaits."""

    def create_future(self) -> None:
        """Nothing, at a hundredth of an idle connection's memory."""


_NO_LOOP: Final = _NoLoop()


def new_sender(transport: Transport) -> Sender:
    """What writes frames to ``transport``, by the system call itself where nothing waits before them."""
    return cast("Sender", WSTransport(False, transport, _LOG, _NO_LOOP))  # type: ignore[call-arg]
