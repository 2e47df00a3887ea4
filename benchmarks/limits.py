"""``python -m benchmarks.limits``: what limits cost a message and a handshake, and the memory of 100,000 addresses.

Messages and handshakes are made up, without sockets, so that what is left is the framework. Figures are CPU time of
this thread, the smallest of all rounds. With ``--redis URL`` handshakes also count in Redis, one after another and 100
at once.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from benchmarks.micro import SCOPE, Exchange
from telex import Telex, WebSocket, websocket_listener
from telex.limits import Limit, client_ip
from telex.limits.messages import MessageLimits
from telex.limits.rates import counter
from telex.limits.stores import MOST_KEYS, MemoryStore
from telex.types import Message, Transport

AMPLE = 1e9
"""A rate that no message exceeds."""
OFF: Mapping[str, Any] = {"connect_limit": None, "max_connections_per": None}
MESSAGES: Mapping[str, Mapping[str, Any]] = {
    "no limit": OFF,
    "message_limit": {**OFF, "message_limit": Limit(AMPLE)},
    "message_limit and byte_limit": {**OFF, "message_limit": Limit(AMPLE), "byte_limit": Limit(AMPLE)},
}
HANDSHAKES: Mapping[str, Mapping[str, Any]] = {
    "no limit": OFF,
    "defaults, an address of the internet": {},
    "connect_limit, client_ip": {**OFF, "connect_limit": Limit(AMPLE, key=client_ip)},
    "connect_limit and max_connections_per": {
        "connect_limit": Limit(AMPLE, key=client_ip),
        "max_connections_per": (client_ip, 1_000),
    },
}
ADDRESS = ("8.8.8.8", 50_000)


def echo(data: str) -> str:
    return data


def app_with(options: Mapping[str, Any]) -> Telex:
    return Telex([websocket_listener("/")(echo)], **options)


def per_take(count: int) -> dict[str, float]:
    """Nanoseconds of one take, by where it is counted."""
    take, store = counter(Limit(AMPLE), time.monotonic), MemoryStore(Limit(1e6, per=60, key=client_ip))
    keys = [f"8.{number >> 8}.{number & 255}.1" for number in range(10_000)]
    return {
        "a take of a connection's own": _timed_each(take, [None] * count),
        "a take by key, of 10,000 addresses": _timed_each(store.take, (keys * (count // len(keys) + 1))[:count]),
    }


def _timed_each(call: Callable[[object], object], values: Sequence[object]) -> float:
    began = time.thread_time_ns()
    for value in values:
        call(value)
    return (time.thread_time_ns() - began) / len(values)


async def per_message(options: Mapping[str, Any], count: int) -> float:
    """Nanoseconds of one echo through ASGI."""
    exchange = Exchange("hello", "hello", count)
    app = app_with(options)
    began = time.thread_time_ns()
    await app(dict(SCOPE), exchange.receive, exchange.send)
    return (time.thread_time_ns() - began) / count


class Callbacks:
    """The transport of a server that delivers messages in its frame callback; what is sent is thrown away."""

    unread = 0
    handler: Callable[[str | bytes], None]

    def set_message_handler(self, handler: Callable[[str | bytes], None]) -> None:
        self.handler = handler

    def send(self, data: str | bytes) -> bool:
        return True

    def nothing(self, *_: object) -> None:
        """For all that is not measured."""

    hand_over = drain = open_direct = close_direct = set_activity = receive = nothing


async def per_callback(options: Mapping[str, Any], count: int) -> float:
    """Nanoseconds that a limit adds in the frame callback of Telex's server, with a handler that does nothing."""
    transport = Callbacks()
    socket: WebSocket[Any, Any, Any] = WebSocket(dict(SCOPE))
    socket.transport = cast("Transport", transport)
    if "message_limit" in options:
        limits = MessageLimits(
            where="here", messages=options.get("message_limit"), size=options.get("byte_limit"), mode="text"
        )
        limits.apply(socket)
    socket.transport.set_message_handler(lambda _: None)
    return _timed_each(cast("Callable[[object], object]", transport.handler), ["hello"] * count)


async def per_handshake(app: Telex, count: int, *, at_once: int = 1) -> float:
    """Microseconds of one handshake whose client leaves at once."""

    async def shake() -> None:
        events: list[Message] = [{"type": "websocket.disconnect", "code": 1000}, {"type": "websocket.connect"}]

        async def receive() -> Message:
            return events.pop()

        await app({**SCOPE, "client": ADDRESS}, receive, _drop)

    began = time.thread_time_ns()
    for _ in range(count // at_once):
        if at_once == 1:
            await shake()
        else:
            await asyncio.gather(*(shake() for _ in range(at_once)))
    return (time.thread_time_ns() - began) / count / 1_000


async def _drop(event: Message) -> None: ...


def memory_of_addresses(count: int = MOST_KEYS) -> float:
    """Bytes of one address, of so many, with the text of the address itself."""
    gc.collect()
    tracemalloc.start()
    store = MemoryStore(Limit(1, per=3600, key=client_ip))
    for number in range(count):
        store.take(f"{number >> 16}.{number >> 8 & 255}.{number & 255}.1")
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / count


async def measure(rounds: int, count: int, redis: str | None) -> dict[str, float]:
    """All figures by their names, in the order of the report."""
    smallest: dict[str, float] = {}

    def note(name: str, figure: float) -> None:
        smallest[name] = min(figure, smallest.get(name, figure))

    for _ in range(rounds):
        for name, figure in per_take(count).items():
            note(f"{name}, ns", figure)
        for name, options in MESSAGES.items():
            note(f"an echo through ASGI, {name}, ns", await per_message(options, count))
        for name, options in MESSAGES.items():
            note(f"a frame callback, {name}, ns", await per_callback(options, count))
        for name, options in HANDSHAKES.items():
            note(f"a handshake, {name}, µs", await per_handshake(app_with(options), count // 50))
        if redis is not None:
            await _with_redis(redis, count // 100, note)
    note(f"an address, of {MOST_KEYS:,}, bytes", memory_of_addresses())
    return smallest


async def _with_redis(url: str, count: int, note: Callable[[str, float], None]) -> None:
    limit = Limit(AMPLE, key=client_ip, store=url, on_store_failure="closed")
    app = app_with({**OFF, "connect_limit": limit})
    async with app.lifespan():
        for at_once in (1, 100):
            figure = await per_handshake(app, max(count, at_once), at_once=at_once)
            note(f"a handshake counted in Redis, {at_once} at once, µs", figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=100_000, help="takes and messages of a round")
    parser.add_argument("--redis", metavar="URL", help="measure the store too")
    given = parser.parse_args(arguments)
    run: Awaitable[dict[str, float]] = measure(given.rounds, given.count, given.redis)
    for name, figure in asyncio.run(cast("Any", run)).items():
        print(f"{name:<70}{figure:>10,.2f}")


if __name__ == "__main__":
    main()
