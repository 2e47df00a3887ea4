"""The client's side of a WebSocket, prepared beforehand: the load generator sends and compares ready-made bytes."""

from __future__ import annotations

import contextlib
import socket
import struct

_MASK = b"\x11\x22\x33\x44"
_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_CLOSE_1000 = struct.pack("!H", 1000)


def client_frame(payload: bytes, opcode: int = 1) -> bytes:
    """A whole masked frame (RFC 6455, section 5.2)."""
    key = (_MASK * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")
    return _head(opcode, len(payload), masked_bit=0x80) + _MASK + masked


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


def connect(port: int, path: str = "/", timeout: float = 15) -> socket.socket:
    """A socket with the opening handshake done."""
    connection = socket.create_connection(("127.0.0.1", port), timeout)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(_HANDSHAKE.format(path=path).encode())
        head = bytearray()
        # Reads no more than the head: none of the servers speaks first.
        while not head.endswith(b"\r\n\r\n"):
            head += read_some(connection)
        if not head.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(f"{path} was refused: {bytes(head[:200])!r}")
    except BaseException:
        connection.close()
        raise
    return connection


def exchange(connection: socket.socket, request: bytes, reply: bytes) -> None:
    """Sends one frame and reads its reply, which must be just that."""
    connection.sendall(request)
    got = b""
    while len(got) < len(reply):
        got += read_some(connection)
    if got != reply:
        raise RuntimeError(f"expected {reply!r}, got {got!r}")


def close(connection: socket.socket) -> None:
    """The closing handshake; our end is reset afterwards, so that no port stays in TIME_WAIT."""
    connection.sendall(client_frame(_CLOSE_1000, opcode=8))
    with contextlib.suppress(ConnectionError):
        while connection.recv(4096):
            pass
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_some(connection: socket.socket) -> bytes:
    """Whatever is there; an error at the stream's end."""
    data = connection.recv(1 << 16)
    if not data:
        raise ConnectionError("the server ended the connection")
    return data
