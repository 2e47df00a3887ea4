"""What is measured: each scenario is an app that the peers have, and a drive that puts load on it."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import wire
from benchmarks.messages import JSON, REPLY, TEXT
from benchmarks.processes import Server

Drive = Callable[[Server, float], float]
"""Puts load on a server for so many seconds; returns what a unit of it cost the server."""


@dataclass(frozen=True)
class Scenario:
    """One column of the report.

    :param once: whether only the first drive on a fresh server says anything.
    """

    title: str
    unit: str
    app: str
    drive: Drive
    once: bool = False


@dataclass(frozen=True)
class Echo:
    """Messages to and fro: CPU microseconds a message."""

    connections: int
    in_flight: int
    request: bytes
    reply: bytes

    def __call__(self, server: Server, seconds: float) -> float:
        with opened(server.port, self.connections, self.request, self.reply) as connections:
            return cpu_microseconds(server, lambda: self._run(connections, seconds))

    def _run(self, connections: Sequence[socket.socket], seconds: float) -> int:
        """Keeps so many messages in flight on each connection; returns how many replies came, all of them right."""
        poll = select.epoll()
        unread = {connection.fileno(): b"" for connection in connections}
        for descriptor in unread:
            poll.register(descriptor, select.EPOLLIN)
            os.write(descriptor, self.request * self.in_flight)
        sent, received = len(unread) * self.in_flight, 0
        requests = [self.request * count for count in range(self.in_flight + 1)]
        replies = [self.reply * count for count in range(self.in_flight + 1)]
        deadline = time.monotonic() + seconds
        with poll, quiet():
            while received < sent:
                events = poll.poll(10)
                if not events:
                    raise TimeoutError(f"{sent - received} replies did not come within 10 s")
                going_on = time.monotonic() < deadline
                for descriptor, _ in events:
                    data = unread[descriptor] + os.read(descriptor, 1 << 16)
                    count = len(data) // len(self.reply)
                    end = count * len(self.reply)
                    if not data or data[:end] != replies[count]:
                        raise RuntimeError(f"expected {self.reply!r}, got {data[:500]!r}")
                    unread[descriptor] = data[end:]
                    received += count
                    if going_on:
                        os.write(descriptor, requests[count])
                        sent += count
        return received


@dataclass(frozen=True)
class Connect:
    """A connection, one message to and fro, a close: CPU microseconds a connection."""

    path: str = "/"

    def __call__(self, server: Server, seconds: float) -> float:
        return cpu_microseconds(server, lambda: self._run(server.port, seconds))

    def _run(self, port: int, seconds: float) -> int:
        request, reply = wire.client_frame(TEXT.encode()), wire.server_frame(TEXT.encode())
        deadline = time.monotonic() + seconds
        done = 0
        while not done or time.monotonic() < deadline:
            connection = wire.connect(port, self.path)
            wire.exchange(connection, request, reply)
            wire.close(connection)
            done += 1
        return done


@dataclass(frozen=True)
class Idle:
    """Connections that said one thing and are silent: KiB of resident memory a connection."""

    connections: int

    def __call__(self, server: Server, seconds: float) -> float:
        del seconds  # memory does not depend on how long one waits
        request, reply = wire.client_frame(TEXT.encode()), wire.server_frame(TEXT.encode())
        with opened(server.port, self.connections // 10, request, reply):
            before = server.resident_bytes()
            with opened(server.port, self.connections, request, reply):
                return (server.resident_bytes() - before) / self.connections / 1024


def cpu_microseconds(server: Server, run: Callable[[], int]) -> float:
    """What each unit cost the server; ``run`` puts load on it and counts the units done."""
    before = server.cpu_seconds()
    units = run()
    return (server.cpu_seconds() - before) / units * 1e6


@contextlib.contextmanager
def opened(port: int, count: int, request: bytes, reply: bytes) -> Iterator[Sequence[socket.socket]]:
    """So many connections, each of which has had one right reply."""
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = stack.enter_context(wire.connect(port))
            wire.exchange(connection, request, reply)
            connections.append(connection)
        yield connections


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection in the load generator while it drives."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _echo(connections: int, in_flight: int, request: bytes, reply: bytes) -> Echo:
    return Echo(connections, in_flight, wire.client_frame(request), wire.server_frame(reply))


SCENARIOS: Mapping[str, Scenario] = {
    "text": Scenario("Text echo", "µs CPU/message", "text", _echo(64, 1, TEXT.encode(), TEXT.encode())),
    "json": Scenario("Typed JSON echo", "µs CPU/message", "json", _echo(64, 1, JSON, REPLY)),
    "text-16": Scenario(
        "Text echo, 16 in flight", "µs CPU/message", "text", _echo(16, 16, TEXT.encode(), TEXT.encode())
    ),
    "json-16": Scenario("Typed JSON echo, 16 in flight", "µs CPU/message", "json", _echo(16, 16, JSON, REPLY)),
    "connect": Scenario("Connect, one echo, close", "µs CPU/connection", "text", Connect()),
    "routes-10": Scenario("The same, last of 10 routes", "µs CPU/connection", "routes-10", Connect("/room9/blue")),
    "routes-1000": Scenario(
        "The same, last of 1,000 routes", "µs CPU/connection", "routes-1000", Connect("/room999/blue")
    ),
    "idle": Scenario("Idle connection", "KiB", "text", Idle(1000), once=True),
}
