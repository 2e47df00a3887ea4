"""``python -m benchmarks.protocol``: what telex.v1 costs.

A call and its reply against the same message in plain mode: CPU microseconds of the server, by turns, on uvicorn and on
Telex's server; the best part of each counts. Then 1,000 clients that call at once, and that the server asks meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.clients import Client, polling, pump, quiet
from benchmarks.loads import cpu_microseconds, opened
from benchmarks.messages import JSON, REPLY
from benchmarks.processes import Server, cores, raise_descriptor_limit, serving
from benchmarks.wire import Connection, client_frame, frames, server_frame

PEERS = ("telex-sync", "telex-async", "telex-sync-own", "telex-async-own")
OFFER = "Sec-WebSocket-Protocol: telex.v1\r\n"
_CALL = b'{"type":"call","id":%d,"data":%s}'
_REPLY = b'{"type":"reply","id":%d,"data":%s}'


class Caller(Connection):
    """Calls again as soon as it is answered, and answers what it is asked."""

    def __init__(self, port: int, number: int = 0) -> None:
        super().__init__(port, more=OFFER, number=number)
        self._ids = itertools.count(1)
        self._id = 0
        self.asked = 0
        """Calls of the server."""

    def shake_hands(self) -> bytes:
        head = super().shake_hands()
        while not any(True for _ in frames(self.unread)):
            self.unread += self.read()
        _, _, hello, end = next(frames(self.unread))
        if not hello.startswith(b'{"type":"hello"'):
            raise RuntimeError(f"expected hello, got {hello[:100]!r}")
        self.unread = self.unread[end:]
        return head

    def ask(self, count: int = 1) -> None:
        """Calls so many times."""
        for _ in range(count):
            self._id = next(self._ids)
            self.send(client_frame(_CALL % (self._id, JSON)))

    def answers(self) -> int:
        """Reads what is there; returns how many calls were answered, all of them right."""
        self.unread += self.read()
        count = start = 0
        for _, _, payload, end in frames(self.unread):
            start = end
            if payload == _REPLY % (self._id, REPLY):
                count += 1
            elif payload == _CALL % (self.asked + 1, JSON):
                self.asked += 1
                self.send(client_frame(_REPLY % (self.asked, JSON)))
            elif payload != b'{"type":"ping"}':
                raise RuntimeError(f"got {payload[:200]!r}")
        self.unread = self.unread[start:]
        return count


@dataclass(frozen=True)
class Crowd:
    """What many clients got, which called one after another."""

    calls: int
    seconds: float
    p99: float
    """Seconds."""


def ratio(peer: str, rounds: int, seconds: float, core: int | None, connections: int = 8) -> tuple[float, float]:
    """CPU microseconds of a message in plain mode, and of a call."""
    asked, answered = client_frame(JSON), server_frame(REPLY)
    with (
        serving(peer, "json", core) as server,
        opened(connections, lambda number: Client(server.port, asked, answered, number=number)) as plain,
        opened(connections, lambda number: Caller(server.port, number)) as callers,
    ):
        best = [float("inf")] * 2
        for number in range(rounds + 1):
            costs = [cpu_microseconds(server, load) for load in (_load(plain, seconds), _load(callers, seconds))]
            if number:  # the first round warms up
                best = [min(pair) for pair in zip(best, costs, strict=True)]
    return best[0], best[1]


def _load(clients: Sequence[Client] | Sequence[Caller], seconds: float) -> Callable[[], int]:
    return lambda: pump(clients, 1, seconds)  # type: ignore[arg-type]  # they are used alike


def crowd(server: Server, count: int, seconds: float) -> Crowd:
    """``count`` clients call at once, each again when it is answered; the server asks each during its call."""
    latencies: list[float] = []
    with opened(count, lambda number: Caller(server.port, number)) as callers, polling(callers) as poll, quiet():
        began = time.perf_counter()
        since = dict.fromkeys(callers, began)
        for caller in callers:
            caller.ask()
        waiting = count
        while waiting:
            for caller in poll():
                if caller.answers():
                    now = time.perf_counter()
                    latencies.append(now - since[caller])
                    waiting -= 1
                    if now - began < seconds:
                        since[caller] = now
                        caller.ask()
                        waiting += 1
        took = time.perf_counter() - began
        if sum(caller.asked for caller in callers) != len(latencies):
            raise RuntimeError("the server has asked more or less often than it was called")
    return Crowd(len(latencies), took, sorted(latencies)[len(latencies) * 99 // 100])


@contextlib.contextmanager
def _asking(peer: str, core: int | None) -> Iterator[Server]:
    with serving(peer, "asks", core) as server:
        yield server


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each part")
    parser.add_argument("--clients", type=int, default=1000)
    wanted = parser.parse_args()
    raise_descriptor_limit()
    core = cores()[0]
    print(f"{'':18} {'plain µs':>9} {'call µs':>9} {'ratio':>6}")
    for peer in PEERS:
        plain, call = ratio(peer, wanted.rounds, wanted.seconds, core)
        print(f"{peer:18} {plain:9.1f} {call:9.1f} {call / plain:6.2f}", flush=True)
    for peer in ("telex-async", "telex-async-own"):
        with _asking(peer, core) as server:
            found = crowd(server, wanted.clients, wanted.rounds * wanted.seconds)
        rate = found.calls / found.seconds
        print(f"{peer:18} {wanted.clients} clients, asked in each call: {rate:,.0f}/s, p99 {found.p99 * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
