"""Frames as bytes: writes frame headers, reads and writes close frames (RFC 6455 sections 5.2 and 5.5.1)."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from telex import status_codes

__all__ = (
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "CloseReason",
    "ConnectionClosed",
    "ProtocolViolation",
    "close_frame",
    "frame_header",
    "read_close",
)

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FIN: Final = 0x80
_RSV1: Final = 0x40


class ConnectionClosed(OSError):
    """A send on a connection that is closing or closed; ASGI 2.4 requires an ``OSError`` here."""


class ProtocolViolation(Exception):
    """The peer broke the protocol: the connection fails with ``code`` and ``reason`` (RFC 6455 section 7.1.7)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class CloseReason(NamedTuple):
    """The close code and reason that the application receives."""

    code: int
    reason: str = ""


def frame_header(opcode: int, size: int, *, compressed: bool = False) -> bytes:
    """The header of an unfragmented, unmasked frame with ``size`` bytes of payload."""
    first = _FIN | opcode | (_RSV1 if compressed else 0)
    if size < 126:
        return bytes((first, size))
    if size < 1 << 16:
        return struct.pack("!BBH", first, 126, size)
    return struct.pack("!BBQ", first, 127, size)


def close_frame(close: CloseReason) -> bytes:
    """A close frame; code 1005 makes an empty one (RFC 6455 section 7.1.5)."""
    if close.code == status_codes.WS_1005_NO_STATUS_RECEIVED:
        return frame_header(CLOSE, 0)
    payload = struct.pack("!H", close.code) + status_codes.cut_close_reason(close.reason).encode()
    return frame_header(CLOSE, len(payload)) + payload


def read_close(payload: bytes) -> CloseReason:
    """Parse the payload of a received close frame.

    :raises ProtocolViolation: 1002 for a payload of one byte or a code that a close frame must not carry, 1007 for a
        reason that is not UTF-8.
    """
    if not payload:
        return CloseReason(status_codes.WS_1005_NO_STATUS_RECEIVED)
    if len(payload) == 1:
        raise ProtocolViolation(status_codes.WS_1002_PROTOCOL_ERROR, "a close frame with one byte instead of a code")
    (code,) = struct.unpack_from("!H", payload)
    if not status_codes.is_sendable_close_code(code):
        raise ProtocolViolation(status_codes.WS_1002_PROTOCOL_ERROR, f"a close frame must not carry code {code}")
    try:
        return CloseReason(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise ProtocolViolation(
            status_codes.WS_1007_INVALID_FRAME_PAYLOAD_DATA, "the close reason is not UTF-8"
        ) from None
