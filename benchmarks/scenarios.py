"""What is measured: each scenario is an app that the peers have, and a drive that puts load on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.loads import Connect, DeflateEcho, Drive, Echo, FanOut, Idle
from benchmarks.messages import JSON, LARGE, REPLY
from benchmarks.peers import PEERS, ROUTE_COUNTS

MESSAGES, FAN_OUT, CONNECTIONS, CROWD, ROUTES = "Messages", "Fan-out", "Connections", "Many connections", "Many routes"
GROUPS: Mapping[str, str] = {
    MESSAGES: "CPU microseconds of the server for a message and its reply.",
    FAN_OUT: "CPU microseconds for each delivery of a message that one connection sends to 500 others:"
    " by a loop over the connections, and through the framework's channels with its memory backend.",
    CONNECTIONS: "What a connection takes: CPU microseconds to open it, echo one message and close it;"
    " KiB of resident memory while it is idle.",
    CROWD: "CPU microseconds for a message and its reply, 10 in flight in all, while the connections take turns.",
    ROUTES: "CPU microseconds to open a connection on the last of so many routes, echo one message and close it.",
}
"""The tables of the report, and what they say."""


@dataclass(frozen=True)
class Scenario:
    """One column of the report.

    :param needs: what a server must have: ``tls``, ``deflate``.
    :param alone: whether the peers come one after another because the load is too large for all at once.
    :param once: whether only the first part on a fresh server is meaningful.
    :param most_rounds: the most rounds that are run.
    :param count: its place on the axis of a plot.
    """

    group: str
    title: str
    unit: str
    app: str
    drive: Drive
    needs: str = ""
    alone: bool = False
    once: bool = False
    most_rounds: int = 100
    count: int = 0

    def able(self, peer: str) -> bool:
        """Whether a peer can do it."""
        return PEERS[peer].can(self.app, self.needs)


def _message(title: str, drive: Drive, app: str = "text", needs: str = "") -> Scenario:
    return Scenario(MESSAGES, title, "µs CPU/message", app, drive, needs)


def _crowd(count: int) -> Scenario:
    title, drive = f"{count:,} connections", Echo(count, 10, in_turn=True)
    rounds, alone = (2, False) if count < 1000 else (1, True)
    return Scenario(CROWD, title, "µs CPU/message", "text", drive, alone=alone, most_rounds=rounds, count=count)


def _routes(count: int) -> Scenario:
    title, drive = f"{count:,} routes" if count > 1 else "1 route", Connect(f"/room{count - 1}/blue")
    return Scenario(ROUTES, title, "µs CPU/connection", f"routes-{count}", drive, most_rounds=2, count=count)


def _idle(count: int) -> Scenario:
    title = f"Idle, one of {count:,}"
    return Scenario(CONNECTIONS, title, "KiB", "text", Idle(count), alone=True, once=True, most_rounds=1)


SCENARIOS: Mapping[str, Scenario] = {
    "text": _message("Text echo", Echo(64)),
    "json": _message("Typed JSON echo", Echo(64, 1, JSON, REPLY), "json"),
    "text-16": _message("Text echo, 16 in flight", Echo(16, 16)),
    "json-16": _message("Typed JSON echo, 16 in flight", Echo(16, 16, JSON, REPLY), "json"),
    "large": _message("16 KiB echo", Echo(16, 1, LARGE, LARGE)),
    "tls": _message("Text echo over TLS", Echo(64), needs="tls"),
    "deflate": _message("2 KiB echo, permessage-deflate", DeflateEcho(64), needs="deflate"),
    "fanout": Scenario(FAN_OUT, "Loop over connections", "µs CPU/delivery", "fanout", FanOut(500)),
    "channels": Scenario(FAN_OUT, "Channels", "µs CPU/delivery", "channels", FanOut(500)),
    "connect": Scenario(CONNECTIONS, "Connect, one echo, close", "µs CPU/connection", "text", Connect()),
    "idle": _idle(1000),
    "idle-10000": _idle(10_000),
    **{f"connections-{count}": _crowd(count) for count in (10, 100, 1000, 10_000)},
    **{f"routes-{count}": _routes(count) for count in ROUTE_COUNTS},
}
QUICK = ("text", "json", "text-16", "json-16", "connect", "routes-10", "routes-1000", "idle")
