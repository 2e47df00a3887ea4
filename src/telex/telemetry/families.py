"""The metrics that both plugins show: names, labels, and how each is read from what the app counts.

The labels are path templates, tags of unions, close codes and words of Telex: what clients send makes no label.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, Protocol, TypeAlias

from telex.channels.hub import Channels
from telex.channels.statistics import Statistics
from telex.connection import Socket
from telex.registry import Registry
from telex.telemetry.counts import AppCounts, RouteCounts, process
from telex.types import ASGIApp

__all__ = ("DURATIONS", "FAMILIES", "CountedApp", "CountingConfig", "Family", "Reading", "count")

Sample: TypeAlias = tuple[tuple[str, ...], float]
"""The values of the labels, and the number."""


class CountedApp(Protocol):
    """The part of an app that is read."""

    @property
    def connections(self) -> Registry: ...

    @property
    def counts(self) -> AppCounts | None: ...

    @property
    def hubs(self) -> Mapping[str, Channels]: ...

    @property
    def is_draining(self) -> bool: ...


class CountingConfig(Protocol):
    """The part of an app's configuration that the plugins change."""

    counts: AppCounts | None
    http_routes: dict[str, ASGIApp]
    lifespan: list[Any]


def count(config: CountingConfig) -> AppCounts:
    """Let the app count, and measure the lag of its event loop once a second; returns what it counts."""
    counts = config.counts
    if counts is None:
        counts = config.counts = AppCounts()
        config.lifespan.append(_measuring_lag(counts))
    return counts


def _measuring_lag(counts: AppCounts) -> Any:
    @asynccontextmanager
    async def measuring(_: object) -> AsyncGenerator[None, None]:
        task = asyncio.create_task(measure(), name="telex.telemetry.lag")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def measure() -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + 1.0
            await asyncio.sleep(1.0)
            counts.lags.append(max(0.0, clock() - due))

    return measuring


class Reading:
    """One look at an app, also from another thread. What costs time is read once for all families."""

    def __init__(self, app: CountedApp, counts: AppCounts) -> None:
        self.app: CountedApp = app
        self.counts: AppCounts = counts
        self.at: float = time.monotonic()

    @cached_property
    def waiting(self) -> Mapping[str, tuple[int, int]]:
        """Messages that wait for handlers, and bytes that wait for clients, by route."""
        found = {route.route: (0, 0) for route in self.counts.routes}
        for socket in self.app.connections:
            counts = socket.options.counts
            if counts is not None:
                messages, size = found[counts.route]
                found[counts.route] = messages + _unread(socket), size + _unsent(socket)
        return found

    @cached_property
    def hubs(self) -> Mapping[str, Statistics]:
        """The statistics of each hub."""
        return {name: hub.statistics() for name, hub in self.app.hubs.items()}


def _unread(socket: Socket) -> int:
    return socket.event_reader.unread + (0 if socket.transport is None else socket.transport.unread)


def _unsent(socket: Socket) -> int:
    return 0 if socket.transport is None else socket.transport.unsent


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: a counter, or a gauge that can fall."""

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    help: str
    labels: tuple[str, ...]
    rows: Callable[[Reading], Iterable[Sample]]

    def read(self, reading: Reading) -> dict[tuple[str, ...], float]:
        """The numbers by their labels; rows with equal labels are added up."""
        found: dict[tuple[str, ...], float] = {}
        for labels, value in self.rows(reading):
            found[labels] = found.get(labels, 0) + value
        return found


def _of_routes(value: Callable[[RouteCounts], float]) -> Callable[[Reading], Iterable[Sample]]:
    return lambda reading: (((route.route,), value(route)) for route in reading.counts.routes)


def _messages(reading: Reading) -> Iterable[Sample]:
    for counts in reading.counts.routes:
        route = counts.route
        for label, received, failed in counts.handled:
            yield (route, "in", label, "ok"), received - failed
            yield (route, "in", label, "failed"), failed
        yield (route, "in", "", "invalid"), counts.invalid
        yield (route, "in", "", "ignored"), counts.ignored
        yield (route, "out", "", "ok"), counts.sent


def _limited(reading: Reading) -> Iterable[Sample]:
    for counts in reading.counts.routes:
        yield from tuple(counts.limited.items())
    limits = reading.counts.limits
    if limits is not None:
        for option, refused in limits.refused.items():
            yield (option, "deny"), refused


def _calls(reading: Reading) -> Iterable[Sample]:
    for counts in reading.counts.routes:
        yield ("in", "ok"), counts.calls_ok
        yield from tuple(counts.calls.items())


def _slow_consumers(reading: Reading) -> Iterable[Sample]:
    yield ("abort",), process.aborted
    for statistics in reading.hubs.values():
        yield ("drop",), statistics.dropped
        yield ("conflate",), statistics.conflated


def _hub(field: str) -> Callable[[Reading], Iterable[Sample]]:
    return lambda reading: (((name,), float(getattr(found, field))) for name, found in reading.hubs.items())


def _recoveries(reading: Reading) -> Iterable[Sample]:
    for name, statistics in reading.hubs.items():
        yield (name, "recovered"), statistics.recovered
        yield (name, "gap"), statistics.gaps


ROUTE: Final = ("route",)
HUB: Final = ("hub",)

FAMILIES: Final[tuple[Family, ...]] = (
    Family(
        "telex.server.active_connections",
        "gauge",
        "",
        "Open connections.",
        ROUTE,
        _of_routes(lambda counts: counts.opened - counts.ended),
    ),
    Family(
        "telex.server.handshakes",
        "counter",
        "",
        "Opening handshakes, by what became of them.",
        ("outcome", "status"),
        lambda reading: tuple(reading.counts.handshakes.items()),
    ),
    Family(
        "telex.messages",
        "counter",
        "",
        "Messages of clients, and messages to them.",
        ("route", "direction", "type", "outcome"),
        _messages,
    ),
    Family(
        "telex.invalid_messages",
        "counter",
        "",
        "Messages that are not of the handler's type, or no frames of telex.v1.",
        ROUTE,
        _of_routes(lambda counts: counts.invalid),
    ),
    Family(
        "telex.rate_limited",
        "counter",
        "",
        "Messages and handshakes beyond a limit.",
        ("limit", "action"),
        _limited,
    ),
    Family(
        "telex.limits.forgotten_keys",
        "counter",
        "",
        "Active keys that a limit in memory has forgotten because there were too many.",
        (),
        lambda reading: () if reading.counts.limits is None else (((), reading.counts.limits.forgotten),),
    ),
    Family(
        "telex.calls",
        "counter",
        "",
        "Calls of clients (in) and of the server (out), by outcome.",
        ("direction", "outcome"),
        _calls,
    ),
    Family(
        "telex.calls.late_answers",
        "counter",
        "",
        "Answers of clients to calls that had ended before.",
        ROUTE,
        _of_routes(lambda counts: counts.answers_ignored),
    ),
    Family(
        "telex.multiplex.dropped_frames",
        "counter",
        "",
        "Frames on shared sockets for routes that had ended.",
        ROUTE,
        _of_routes(lambda counts: counts.frames_dropped),
    ),
    Family(
        "telex.inbox.depth",
        "gauge",
        "",
        "Messages that wait for their handlers.",
        ROUTE,
        lambda reading: (((route,), found[0]) for route, found in reading.waiting.items()),
    ),
    Family(
        "telex.send.buffered_bytes",
        "gauge",
        "By",
        "Bytes that wait until clients read, on Telex's server.",
        ROUTE,
        lambda reading: (((route,), found[1]) for route, found in reading.waiting.items()),
    ),
    Family(
        "telex.slow_consumers",
        "counter",
        "",
        "Events that slow subscribers lost (drop, conflate), and connections of clients that did not read (abort).",
        ("action",),
        _slow_consumers,
    ),
    Family(
        "telex.event_loop.lag",
        "gauge",
        "s",
        "The longest delay of a timer in the last 15 seconds.",
        (),
        lambda reading: (((), max(reading.counts.lags, default=0.0)),),
    ),
    Family(
        "telex.drain.remaining",
        "gauge",
        "",
        "Connections that a drain has not closed yet; 0 without a drain.",
        (),
        lambda reading: (((), len(reading.app.connections) if reading.app.is_draining else 0),),
    ),
    Family("telex.channels.connected", "gauge", "", "1 while the hub hears and can publish.", HUB, _hub("connected")),
    Family("telex.channels.reconnects", "counter", "", "Reconnections to the broker.", HUB, _hub("reconnects")),
    Family("telex.channels.active", "gauge", "", "Channels with subscribers here.", HUB, _hub("channels")),
    Family("telex.channels.subscribers", "gauge", "", "Subscribers here.", HUB, _hub("subscribers")),
    Family("telex.channels.published", "counter", "", "Values that the broker took.", HUB, _hub("published")),
    Family("telex.channels.failed", "counter", "", "Values that the broker did not take.", HUB, _hub("failed")),
    Family("telex.channels.received", "counter", "", "Events from the broker.", HUB, _hub("received")),
    Family("telex.channels.delivered", "counter", "", "Events that readers took.", HUB, _hub("delivered")),
    Family("telex.channels.dropped", "counter", "", "Events that policies dropped.", HUB, _hub("dropped")),
    Family("telex.channels.conflated", "counter", "", "Events that newer ones replaced.", HUB, _hub("conflated")),
    Family("telex.channels.backlog", "gauge", "", "Events that wait for readers.", HUB, _hub("backlog")),
    Family(
        "telex.channels.recoveries",
        "counter",
        "",
        "Channels that were caught up after a loss, with all events or with a gap.",
        ("hub", "outcome"),
        _recoveries,
    ),
)

CONNECTION_BUCKETS: Final = (1.0, 10.0, 60.0, 600.0, 3_600.0, 14_400.0, 86_400.0)
MESSAGE_BUCKETS: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
PING_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(frozen=True, slots=True)
class Duration:
    """A measured duration, which is shown as a histogram."""

    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...]


DURATIONS: Final[Mapping[str, Duration]] = {
    "telex.server.connection.duration": Duration(
        "How long connections were open.", ("route", "close_code", "status"), CONNECTION_BUCKETS
    ),
    "telex.message.handle.duration": Duration("How long handlers took for a message.", ROUTE, MESSAGE_BUCKETS),
    "telex.ping.rtt": Duration("Between a ping of Telex's server and its pong.", (), PING_BUCKETS),
}
