"""Clients that ask and check what they are answered, and the loop that keeps many of them busy."""

from __future__ import annotations

import contextlib
import gc
import select
import ssl
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import TypeVar

from benchmarks.wire import COMPRESSED, PING, PONG, Connection, client_frame, frames

_PATIENCE = 10
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
_MOST_EVENTS = 1024

AnyClient = TypeVar("AnyClient", bound=Connection)


class Client(Connection):
    """Asks the same thing over and over and knows the reply."""

    def __init__(
        self,
        port: int,
        request: bytes,
        reply: bytes,
        *,
        path: str = "/",
        context: ssl.SSLContext | None = None,
        number: int = 0,
    ) -> None:
        super().__init__(port, path, context=context, number=number)
        self._request, self._reply = request, reply

    def ask(self, count: int = 1) -> None:
        """Sends so many requests in one write."""
        self.send(self._request * count)

    def answers(self) -> int:
        """Reads what is there; returns how many replies came, all of them right."""
        data = self.unread + self.read() if self.unread else self.read()
        if data == self._reply:
            self.unread = b""
            return 1
        size = len(self._reply)
        count = len(data) // size
        if data[: count * size] != self._reply * count:
            data = self.without_control_frames(data)
            count = len(data) // size
            if data[: count * size] != self._reply * count:
                raise RuntimeError(f"expected {self._reply[:500]!r}, got {data[:500]!r}")
        self.unread = data[count * size :]
        return count


class DeflateClient(Connection):
    """Compresses as browsers offer it (RFC 7692), and inflates what comes back; one request at a time.

    :param texts: what it asks in turn, beginning with the one numbered ``first``.

    Its own messages are compressed beforehand, each for itself and with a small window, which any agreement allows.
    """

    def __init__(self, port: int, texts: Sequence[bytes], *, first: int = 0) -> None:
        super().__init__(port, more=DEFLATE)
        self._inflate = zlib.decompressobj(-15).decompress
        talk = [(client_frame(deflated(text), reserved=COMPRESSED), text) for text in texts]
        self._turns = cycle(talk[first % len(talk) :] + talk[: first % len(talk)])
        self._expected = b""

    def shake_hands(self) -> bytes:
        """The same, and the server must agree."""
        head = super().shake_hands()
        if b"permessage-deflate" not in head:
            raise RuntimeError("the server does not compress")
        return head

    def ask(self, count: int = 1) -> None:
        """Sends the next message."""
        if count != 1:
            raise ValueError(f"this client has one message in flight, not {count}")
        request, self._expected = next(self._turns)
        self.send(request)

    def answers(self) -> int:
        """Reads what is there; whether the reply came, and right."""
        self.unread += self.read()
        count = start = 0
        for flags, opcode, payload, end in frames(self.unread):
            start = end
            if opcode == PING:
                self.send(client_frame(payload, PONG))
                continue
            if not flags & COMPRESSED or self._inflate(payload + b"\x00\x00\xff\xff") != self._expected:
                raise RuntimeError(f"expected {self._expected[:100]!r}, compressed, got {payload[:100]!r}")
            count += 1
        self.unread = self.unread[start:]
        return count


def deflated(text: bytes) -> bytes:
    """A message's payload as RFC 7692, section 7.2.1 makes it, with a window of 512 bytes."""
    compressor = zlib.compressobj(wbits=-9)
    return (compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def pump(clients: Sequence[Client | DeflateClient], in_flight: int, seconds: float) -> int:
    """Keeps so many messages in flight on each connection; returns how many replies came."""
    for client in clients:
        client.ask(in_flight)
    sent, received = len(clients) * in_flight, 0
    deadline = time.monotonic() + seconds
    with polling(clients) as poll, quiet():
        while received < sent:
            ready = poll()
            going_on = time.monotonic() < deadline
            for client in ready:
                count = client.answers()
                received += count
                if going_on and count:
                    client.ask(count)
                    sent += count
    return received


def pump_in_turn(clients: Sequence[Client], in_flight: int, seconds: float) -> int:
    """Keeps so many messages in flight in all: each reply makes the next client ask, so that all have their turn."""
    turns = cycle(clients)
    for _ in range(in_flight):
        next(turns).ask()
    sent, received = in_flight, 0
    deadline = time.monotonic() + seconds
    with polling(clients) as poll, quiet():
        while received < sent:
            ready = poll()
            going_on = time.monotonic() < deadline
            for client in ready:
                count = client.answers()
                received += count
                for _ in range(count if going_on else 0):
                    next(turns).ask()
                    sent += 1
    return received


@contextlib.contextmanager
def polling(clients: Sequence[AnyClient]) -> Iterator[Callable[[], list[AnyClient]]]:
    """A function that waits for and returns the clients that have something to read."""
    by_descriptor = {client.fileno(): client for client in clients}
    with select.epoll() as poll:
        for descriptor in by_descriptor:
            poll.register(descriptor, select.EPOLLIN)

        def ready() -> list[AnyClient]:
            events = poll.poll(_PATIENCE, maxevents=_MOST_EVENTS)
            if not events:
                raise TimeoutError(f"no reply came within {_PATIENCE} s")
            return [by_descriptor[descriptor] for descriptor, _ in events]

        yield ready


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection in the load generator while it drives."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
