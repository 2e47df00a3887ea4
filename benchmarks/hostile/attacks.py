"""The attackers, each a process of its own: ``python -m benchmarks.hostile.attacks NAME PORT SECONDS CORE``.

They run at the lowest priority: what the client that means well waits for should be the server, not them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks.clients import DEFLATE
from benchmarks.processes import raise_descriptor_limit
from benchmarks.wire import CLOSE, COMPRESSED, PING, Connection, client_frame, frames, handshake

Counts = Mapping[str, int]
"""What an attacker did, and what was done to it."""

KIB, MIB = 1024, 1024 * 1024
BOMB_SIZE = 256 * MIB
_SLOW_STEP = 0.05
_TOO_BIG = (1009).to_bytes(2, "big")


@dataclass
class Stream:
    """A connection that repeats the same frames as fast as the server takes them."""

    connection: Connection
    chunk: bytes
    sent: int = 0

    def push(self) -> None:
        """Goes on where the last write stopped."""
        offset = self.sent % len(self.chunk)
        self.sent += os.write(self.connection.fileno(), self.chunk[offset:])


def stream(port: int, seconds: float, *, connections: int, frame: bytes, what: str, reads: bool) -> Counts:
    """Sends frames on some connections, and reads what comes back or does not."""
    chunk = frame * max(1, 64 * KIB // len(frame))
    closed = 0
    with select.epoll() as poll, contextlib.ExitStack() as stack:
        streams = {}
        for connection in _connected(stack, port, connections):
            streams[connection.fileno()] = Stream(connection, chunk)
            poll.register(connection.fileno(), select.EPOLLOUT | (select.EPOLLIN if reads else 0))
        total = tuple(streams.values())
        for _ in _until(seconds):
            for descriptor, events in poll.poll(0.05):
                try:
                    if events & select.EPOLLIN:
                        os.read(descriptor, MIB)
                    if events & select.EPOLLOUT:
                        streams[descriptor].push()
                except BlockingIOError:
                    continue
                except OSError:
                    poll.unregister(descriptor)
                    closed += 1
    return {what: sum(each.sent // len(frame) for each in total), "connections": connections, "closed": closed}


def slow_handshake(port: int, seconds: float) -> Counts:
    """Opens many connections and sends each request byte by byte; comes back when it is thrown out."""
    request, wanted = handshake("/", "X-Padding: " + "x" * 2000 + "\r\n"), 500
    closed, sockets = 0, dict.fromkeys((_plain(port) for _ in range(wanted)), 0)
    for _ in _until(seconds):
        for sock, sent in list(sockets.items()):
            try:
                sock.send(request[sent : sent + 1])
                sockets[sock] = sent + 1
                # A server that ends a connection says so by sending something, or by the end of the stream.
                sock.recv(KIB)
            except BlockingIOError:
                continue
            except OSError:
                pass
            sock.close()
            del sockets[sock]
            sockets[_plain(port)] = 0
            closed += 1
        time.sleep(_SLOW_STEP)
    for sock in sockets:
        sock.close()
    return {"connections": wanted + closed, "closed": closed}


def deflate_bomb(port: int, seconds: float) -> Counts:
    """Sends small messages that inflate to 256 MiB, one after another, each on a new connection."""
    compressor = zlib.compressobj(9, wbits=-9)
    # Ends on a byte and refers to nothing before it: so it may be repeated.
    zeros = compressor.compress(bytes(MIB)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    payload = (zeros * (BOMB_SIZE // MIB)).removesuffix(b"\x00\x00\xff\xff")
    bomb = client_frame(payload, reserved=COMPRESSED)
    sent = refused = 0
    for _ in _until(seconds):
        connection = Connection(port, more=DEFLATE)
        connection.shake_hands()
        sent += 1
        refused += _is_too_big(connection, bomb)
        connection.drop()
    return {f"bombs of {len(bomb) // KIB} KiB": sent, "closed with 1009": refused}


def _is_too_big(connection: Connection, bomb: bytes) -> bool:
    """Whether the server closes with 1009."""
    data = b""
    # The server may end the connection before it has read all.
    with contextlib.suppress(ConnectionError):
        connection.send(bomb)
    with contextlib.suppress(ConnectionError):
        while not any(opcode == CLOSE for _, opcode, _, _ in frames(data)):
            data += connection.read()
    return any(opcode == CLOSE and payload.startswith(_TOO_BIG) for _, opcode, payload, _ in frames(data))


def _connected(stack: contextlib.ExitStack, port: int, count: int) -> Iterator[Connection]:
    for _ in range(count):
        connection = Connection(port)
        stack.callback(connection.drop)
        connection.shake_hands()
        os.set_blocking(connection.fileno(), False)
        yield connection


def _plain(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), 15)
    made.setblocking(False)
    return made


def _until(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield


ATTACKS: Mapping[str, Callable[[int, float], Counts]] = {
    "flood": partial(stream, connections=8, frame=client_frame(b"x" * 50), what="messages", reads=True),
    "never-reading": partial(stream, connections=50, frame=client_frame(b"x" * 16 * KIB), what="messages", reads=False),
    "ping-flood": partial(stream, connections=8, frame=client_frame(b"x" * 125, PING), what="pings", reads=False),
    "slow-handshake": slow_handshake,
    "deflate-bomb": deflate_bomb,
}


def main(name: str, port: str, seconds: str, core: str) -> None:
    """Attacks, and prints the counts as JSON."""
    if core != "None":
        os.sched_setaffinity(0, {int(core)})
    os.nice(19)
    raise_descriptor_limit()
    print(json.dumps(ATTACKS[name](int(port), float(seconds))))


if __name__ == "__main__":
    main(*sys.argv[1:])
