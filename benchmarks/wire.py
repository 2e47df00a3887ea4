"""The client's side of a WebSocket, prepared beforehand: the load generator sends and compares ready-made bytes."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Iterator

_MASK = b"\x11\x22\x33\x44"
_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)
_CLOSE_1000 = struct.pack("!H", 1000)
_READ_SIZE = 1 << 16
_SECONDS = 15
_PORTS_OF_AN_ADDRESS = 20_000
CLOSE, PING, PONG = 8, 9, 10
COMPRESSED = 0x40
"""The bit of the first byte that says so (RFC 7692, section 6)."""


def client_frame(payload: bytes, opcode: int = 1, reserved: int = 0) -> bytes:
    """A whole masked frame (RFC 6455, section 5.2)."""
    key = (_MASK * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")
    return _head(opcode | reserved, len(payload), masked_bit=0x80) + _MASK + masked


def server_frame(payload: bytes, opcode: int = 1) -> bytes:
    """The same as a server sends it: unmasked."""
    return _head(opcode, len(payload), masked_bit=0) + payload


def _head(opcode: int, length: int, masked_bit: int) -> bytes:
    first = 0x80 | opcode
    if length < 126:
        return bytes([first, masked_bit | length])
    if length < 1 << 16:
        return struct.pack("!BBH", first, masked_bit | 126, length)
    return struct.pack("!BBQ", first, masked_bit | 127, length)


def frames(data: bytes) -> Iterator[tuple[int, int, bytes, int]]:
    """The whole frames of a server in ``data``: first byte's flags, opcode, payload, and where the frame ends."""
    start = 0
    while len(data) - start >= 2:
        flags, length, header = data[start] & 0xF0, data[start + 1], 2
        if length > 125:
            header = 4 if length == 126 else 10
            length = int.from_bytes(data[start + 2 : start + header], "big")
        end = start + header + length
        if len(data) < start + header or len(data) < end:
            return
        yield flags, data[start] & 0x0F, data[start + header : end], end
        start = end


def handshake(path: str = "/", more: str = "") -> bytes:
    """The opening request; ``more`` are whole header lines."""
    return _HANDSHAKE.format(path=path, more=more).encode()


class Connection:
    """A connection that has asked for the opening handshake; it blocks, but never for more than 15 seconds.

    :param number: which of many connections this is: they share the ports of several source addresses.
    """

    def __init__(
        self, port: int, path: str = "/", *, context: ssl.SSLContext | None = None, more: str = "", number: int = 0
    ) -> None:
        source = (f"127.0.0.{1 + number // _PORTS_OF_AN_ADDRESS}", 0) if number >= _PORTS_OF_AN_ADDRESS else None
        plain = socket.create_connection(("127.0.0.1", port), _SECONDS, source)
        self._socket = context.wrap_socket(plain, server_hostname="127.0.0.1") if context else plain
        self._secure = isinstance(self._socket, ssl.SSLSocket)
        self._descriptor = self._socket.fileno()
        self.unread = b""
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # The kernel's own limits: Python's would cost one more system call for each read and write.
            for limit in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self._socket.setsockopt(socket.SOL_SOCKET, limit, struct.pack("ll", _SECONDS, 0))
            self._socket.settimeout(None)
            self.send(handshake(path, more))
        except BaseException:
            self._socket.close()
            raise

    def shake_hands(self) -> bytes:
        """Reads the answer to the handshake; returns its head in lower case."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.read()
        head, _, self.unread = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(f"the handshake was refused: {data[:200]!r}")
        return head.lower()

    def fileno(self) -> int:
        return self._descriptor

    def send(self, data: bytes) -> None:
        if self._secure:
            self._socket.sendall(data)
        else:
            os.write(self._descriptor, data)

    def read(self) -> bytes:
        """Whatever is there; an error at the stream's end."""
        if isinstance(self._socket, ssl.SSLSocket):
            data = self._socket.recv(_READ_SIZE)
            # What was decrypted already shows no more in a poll.
            while data and self._socket.pending():
                data += self._socket.recv(_READ_SIZE)
        else:
            data = os.read(self._descriptor, _READ_SIZE)
        if not data:
            raise ConnectionError("the server ended the connection")
        return data

    def expect(self, reply: bytes) -> None:
        """Reads one frame, which must be just that."""
        while len(self.unread) < len(reply):
            self.unread = self.without_control_frames(self.unread + self.read())
        if self.unread != reply:
            raise RuntimeError(f"expected {reply[:500]!r}, got {self.unread[:500]!r}")
        self.unread = b""

    def without_control_frames(self, data: bytes) -> bytes:
        """Answers pings, which a server may send at any time; ``data`` must start with a frame."""
        kept, start = b"", 0
        for _, opcode, payload, end in frames(data):
            if opcode == PING:
                self.send(client_frame(payload, PONG))
            elif opcode == CLOSE:
                raise ConnectionError(f"the server closed: {payload!r}")
            else:
                kept += data[start:end]
            start = end
        return kept + data[start:]

    def exchange(self, request: bytes, reply: bytes) -> None:
        """Sends one frame and reads its reply."""
        self.send(request)
        self.expect(reply)

    def close(self) -> None:
        """The closing handshake, then :meth:`drop`."""
        self.send(client_frame(_CLOSE_1000, opcode=CLOSE))
        with contextlib.suppress(ConnectionError):
            while self.read():
                pass
        self.drop()

    def drop(self) -> None:
        """Our end is reset, so that no port stays in TIME_WAIT."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
