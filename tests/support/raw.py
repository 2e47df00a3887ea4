"""A WebSocket client that sends any bytes: for what a conforming client cannot send.

It reads from its socket only when asked, so a client that never reads is one whose ``read_*`` is not called.

::

    async with await RawClient.open(port) as client:
        response = await client.handshake("/echo")
        assert response.status == 101
        await client.send(frame(TEXT, b"hello", mask=None))  # unmasked: against RFC 6455, section 5.1
        assert (await client.read_close()).code == 1002
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import socket
import struct
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

_MASK = b"\x37\xfa\x21\x3d"
_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Frame:
    """One frame as it came, unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0


@dataclass(frozen=True)
class Close:
    """How a connection ended. Code 1005: a close frame without a code; 1006: no close frame (RFC 6455, 7.1.5)."""

    code: int
    reason: str = ""


@dataclass(frozen=True)
class Response:
    """The answer to a handshake; header names are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key == name.lower()), None)


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = _MASK,
    claims: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """The bytes of one frame.

    :param rsv: the three reserved bits, RSV1 is 4.
    :param mask: four bytes, or ``None`` for an unmasked frame.
    :param claims: a length to claim instead of the payload's.
    :param length_bytes: 0, 2 or 8 bytes of extended length instead of the fewest.
    """
    length = len(payload) if claims is None else claims
    if length_bytes is None:
        length_bytes = 0 if length < 126 else 2 if length < 1 << 16 else 8
    short = {0: length, 2: 126, 8: 127}[length_bytes]
    head = bytes([fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | short])
    extended = length.to_bytes(length_bytes, "big") if length_bytes else b""
    return head + extended + (mask or b"") + masked(payload, mask)


def close_frame(code: int | None = 1000, reason: bytes = b"", *, mask: bytes | None = _MASK) -> bytes:
    """The bytes of a close frame, any code and any reason; ``None`` leaves the code out."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason, mask=mask)


def masked(payload: bytes, mask: bytes | None) -> bytes:
    """The payload under a mask (RFC 6455, section 5.3); masking twice gives the payload back."""
    if mask is None or not payload:
        return payload
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


class RawClient:
    """A connected socket, the handshake and frames on it. Every wait takes at most ``timeout`` seconds."""

    def __init__(self, connected: socket.socket, timeout: float) -> None:
        self.socket = connected
        self.timeout = timeout
        self._unread = bytearray()

    @classmethod
    async def open(
        cls, port: int, host: str = "127.0.0.1", *, timeout: float = 5, receive_buffer: int | None = None
    ) -> Self:
        """Connects without a handshake. A small ``receive_buffer`` (bytes) soon stalls a server that is not read."""
        connecting = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connecting.setblocking(False)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            connecting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client = cls(connecting, timeout)
        try:
            await client._limited(asyncio.get_running_loop().sock_connect(connecting, (host, port)))
        except BaseException:
            connecting.close()
            raise
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    async def send(self, data: bytes) -> None:
        """Sends the bytes as they are."""
        await self._limited(asyncio.get_running_loop().sock_sendall(self.socket, data))

    async def handshake(
        self,
        path: str = "/",
        headers: Iterable[tuple[str, str]] = (),
        *,
        without: Iterable[str] = (),
        method: str = "GET",
        version: str = "HTTP/1.1",
    ) -> Response:
        """Sends an opening handshake and reads the answer; a 101 has the right ``Sec-WebSocket-Accept`` or this fails.

        :param headers: more headers, or other values for the usual ones (names as in RFC 6455).
        :param without: usual headers to leave out.
        """
        key = base64.b64encode(os.urandom(16)).decode()
        own = {name.lower() for name, _ in headers} | {name.lower() for name in without}
        usual = [
            ("Host", f"{self.socket.getpeername()[0]}:{self.socket.getpeername()[1]}"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", key),
            ("Sec-WebSocket-Version", "13"),
        ]
        lines = [f"{method} {path} {version}"]
        lines += [f"{name}: {value}" for name, value in usual if name.lower() not in own]
        lines += [f"{name}: {value}" for name, value in headers]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        response = await self.read_response()
        if response.status == 101 and "sec-websocket-key" not in own:
            assert response.header("sec-websocket-accept") == accept_for(key)
        return response

    async def read_response(self) -> Response:
        """Reads one HTTP response; its body as far as ``Content-Length`` says, else to the end of the stream."""
        head = await self._limited(self._read_until(b"\r\n\r\n"))
        status, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        headers = tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)
        response = Response(int(status.split(" ")[1]), headers)
        if response.status == 101:
            return response
        length = response.header("content-length")
        body = await (self.read_exactly(int(length)) if length is not None else self.read_to_end())
        return Response(response.status, headers, body)

    async def read_frame(self) -> Frame:
        """Reads one frame; ``EOFError`` where the stream ended instead."""
        return await self._limited(self._read_frame())

    async def read_close(self) -> Close:
        """Reads up to the close frame, skips others, and returns its code and reason; 1006 where none came."""
        try:
            while (got := await self.read_frame()).opcode != CLOSE:
                pass
        except (EOFError, ConnectionError):
            return Close(1006)
        if len(got.payload) < 2:
            return Close(1005)
        return Close(int.from_bytes(got.payload[:2], "big"), got.payload[2:].decode())

    async def read_exactly(self, size: int) -> bytes:
        """Reads so many bytes."""
        return await self._limited(self._read_exactly(size))

    async def read_to_end(self) -> bytes:
        """Reads until the peer closes its side; a reset counts as the end."""
        with contextlib.suppress(ConnectionError):
            while await self._limited(self._read_some()):
                pass
        return self._take(len(self._unread))

    def close_sending(self) -> None:
        """Closes our side only: the peer reads the end of the stream, this client can still read."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanishes: the peer gets a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    async def _read_frame(self) -> Frame:
        first, second = await self._read_exactly(2)
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(await self._read_exactly(2 if length == 126 else 8), "big")
        mask = await self._read_exactly(4) if second & 0x80 else None
        payload = masked(await self._read_exactly(length), mask)
        return Frame(first & 0x0F, payload, bool(first & 0x80), first >> 4 & 0x7)

    async def _read_exactly(self, size: int) -> bytes:
        while len(self._unread) < size:
            await self._read_or_fail(f"{size - len(self._unread)} more bytes")
        return self._take(size)

    async def _read_until(self, mark: bytes) -> bytes:
        while mark not in self._unread:
            await self._read_or_fail(repr(mark))
        head = self._take(self._unread.index(mark))
        self._take(len(mark))
        return head

    async def _read_or_fail(self, expected: str) -> None:
        if not await self._read_some():
            raise EOFError(f"the stream ended where {expected} should have come")

    async def _read_some(self) -> bool:
        chunk = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 16)
        self._unread += chunk
        return bool(chunk)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        return taken

    async def _limited(self, wait: Awaitable[_T]) -> _T:
        async with asyncio.timeout(self.timeout):
            return await wait


def accept_for(key: str) -> str:
    """The ``Sec-WebSocket-Accept`` that answers a key (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _ACCEPT_GUID, usedforsecurity=False).digest()).decode()
