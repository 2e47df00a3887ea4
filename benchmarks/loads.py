"""How load is put on a server. Each drive is opened on a server and gives a function that makes one measured part."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.clients import AnyClient, Client, DeflateClient, polling, pump, pump_in_turn, quiet
from benchmarks.messages import READY, TEXT, TEXTS
from benchmarks.processes import Server
from benchmarks.wire import Connection, client_frame, server_frame

_BATCH = 64
Part = Callable[[float], float]
"""Puts load on the server for so many seconds; returns what a unit of it cost the server."""


class Drive(Protocol):
    """Opens what it needs on a server, for as many parts as are wanted."""

    @property
    def connections(self) -> int:
        """How many connections it opens, besides single ones."""

    def __call__(self, server: Server) -> contextlib.AbstractContextManager[Part]: ...


@dataclass(frozen=True)
class Echo:
    """Messages to and fro: CPU microseconds a message.

    :param in_flight: on each connection; with ``in_turn`` in all, and the connections take turns.
    """

    connections: int
    in_flight: int = 1
    request: bytes = TEXT
    reply: bytes = TEXT
    in_turn: bool = False

    @contextlib.contextmanager
    def __call__(self, server: Server) -> Iterator[Part]:
        run = pump_in_turn if self.in_turn else pump
        with greeted(server, self.connections, self.request, self.reply) as clients:
            yield lambda seconds: cpu_microseconds(server, lambda: run(clients, self.in_flight, seconds))


@dataclass(frozen=True)
class DeflateEcho:
    """Messages of 2 KiB to and fro, compressed both ways; no message is like the one before it."""

    connections: int

    @contextlib.contextmanager
    def __call__(self, server: Server) -> Iterator[Part]:
        with opened(self.connections, lambda number: DeflateClient(server.port, TEXTS, first=number)) as clients:
            yield lambda seconds: cpu_microseconds(server, lambda: pump(clients, 1, seconds))


@dataclass(frozen=True)
class FanOut:
    """One connection's message goes to all others: CPU microseconds a delivery."""

    connections: int

    @contextlib.contextmanager
    def __call__(self, server: Server) -> Iterator[Part]:
        ready, delivery = server_frame(READY.encode()), server_frame(TEXT)
        with opened(self.connections, lambda number: _connect(server, b"", delivery, number=number)) as subscribers:
            for subscriber in subscribers:
                subscriber.expect(ready)
            with opened(1, lambda number: _connect(server, client_frame(TEXT), b"", "/publish")) as (publisher,):
                yield lambda seconds: cpu_microseconds(server, lambda: self._run(publisher, subscribers, seconds))

    def _run(self, publisher: Client, subscribers: Sequence[Client], seconds: float) -> int:
        delivered = 0
        with polling(subscribers) as poll, quiet():
            for _ in _rounds(seconds):
                publisher.ask()
                waiting = len(subscribers)
                while waiting:
                    waiting -= sum(subscriber.answers() for subscriber in poll())
                delivered += len(subscribers)
        return delivered


@dataclass(frozen=True)
class Connect:
    """A connection, one message to and fro, a close: CPU microseconds a connection."""

    path: str = "/"
    connections: int = 0

    @contextlib.contextmanager
    def __call__(self, server: Server) -> Iterator[Part]:
        yield lambda seconds: cpu_microseconds(server, lambda: self._run(server, seconds))

    def _run(self, server: Server, seconds: float) -> int:
        request, reply = client_frame(TEXT), server_frame(TEXT)
        done = 0
        for _ in _rounds(seconds):
            connection = Connection(server.port, self.path)
            connection.shake_hands()
            connection.exchange(request, reply)
            connection.close()
            done += 1
        return done


@dataclass(frozen=True)
class Idle:
    """Connections that said one thing and are silent: KiB of resident memory a connection."""

    connections: int

    @contextlib.contextmanager
    def __call__(self, server: Server) -> Iterator[Part]:
        yield lambda seconds: self._measure(server)

    def _measure(self, server: Server) -> float:
        # What the first connections make the server fetch is not theirs.
        with greeted(server, max(1, self.connections // 10), TEXT, TEXT):
            before = server.resident_bytes()
            with greeted(server, self.connections, TEXT, TEXT):
                return (server.resident_bytes() - before) / self.connections / 1024


def _rounds(seconds: float) -> Iterator[None]:
    """At least one round, and no new one once the time is up."""
    until = time.monotonic() + seconds
    yield
    while time.monotonic() < until:
        yield


def cpu_microseconds(server: Server, run: Callable[[], int]) -> float:
    """What each unit cost the server; ``run`` puts load on it and counts the units done."""
    before = server.cpu_seconds()
    units = run()
    return (server.cpu_seconds() - before) / units * 1e6


@contextlib.contextmanager
def opened(count: int, connect: Callable[[int], AnyClient]) -> Generator[Sequence[AnyClient], None, None]:
    """So many connections, by their number; they end without a word."""
    with contextlib.ExitStack() as stack:
        clients: list[AnyClient] = []
        # In batches, so that neither side waits for the other at every step.
        for start in range(0, count, _BATCH):
            for number in range(start, min(start + _BATCH, count)):
                client = connect(number)
                stack.callback(client.drop)
                clients.append(client)
            for client in clients[start:]:
                client.shake_hands()
        yield clients


@contextlib.contextmanager
def greeted(server: Server, count: int, request: bytes, reply: bytes) -> Generator[Sequence[Client], None, None]:
    """So many connections, each of which has had one right reply."""
    asked, answered = client_frame(request), server_frame(reply)
    with opened(count, lambda number: _connect(server, asked, answered, number=number)) as clients:
        for start in range(0, count, _BATCH):
            for client in clients[start : start + _BATCH]:
                client.ask()
            for client in clients[start : start + _BATCH]:
                client.expect(answered)
        yield clients


def _connect(server: Server, request: bytes, reply: bytes, path: str = "/", number: int = 0) -> Client:
    return Client(server.port, request, reply, path=path, context=server.context, number=number)
