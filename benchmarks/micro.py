"""``python -m benchmarks.micro``: the message path alone, in one process, without sockets; nanoseconds a message.

A made-up ``receive`` hands the app one message after another, a made-up ``send`` throws the replies away: what is left
is the framework. Peers take turns; the smallest figure of all rounds counts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.messages import JSON, REPLY, TEXT
from benchmarks.peers import ON_UVICORN, PEERS

WORK = {"text": (TEXT.decode(), TEXT.decode()), "json": (JSON.decode(), REPLY.decode())}
SCOPE = {
    "type": "websocket",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "scheme": "ws",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"127.0.0.1")],
    "client": ("127.0.0.1", 50000),
    "server": ("127.0.0.1", 8000),
    "subprotocols": [],
    "extensions": {"websocket.http.response": {}},
}


class Exchange:
    """One connection's ``receive`` and ``send``: connect, so many messages, disconnect."""

    def __init__(self, message: str, reply: str, count: int) -> None:
        self._event = {"type": "websocket.receive", "text": message}
        self._reply = reply
        self._left = count
        self.replies = 0
        self.started = self.ended = 0
        self._connected = False

    async def receive(self) -> dict[str, Any]:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        if not self.started:
            self.started = time.perf_counter_ns()
        if self._left:
            self._left -= 1
            return self._event
        # An app may read ahead: the time is up when the last reply has gone out, see `send`.
        return {"type": "websocket.disconnect", "code": 1000, "reason": ""}

    async def send(self, event: Any) -> None:
        if event["type"] == "websocket.send":
            if event["text"] != self._reply:
                raise RuntimeError(f"expected {self._reply!r}, got {event!r}")
            self.replies += 1
            self.ended = time.perf_counter_ns()


async def nanoseconds(app: Any, work: str, messages: int) -> float:
    """What one message took, of so many on one connection."""
    message, reply = WORK[work]
    exchange = Exchange(message, reply, messages)
    scope: dict[str, Any] = {**SCOPE, "state": {}}
    gc.collect()
    gc.disable()
    try:
        await app(scope, exchange.receive, exchange.send)
    finally:
        gc.enable()
    if exchange.replies != messages:
        raise RuntimeError(f"{messages} messages had {exchange.replies} replies")
    return (exchange.ended - exchange.started) / messages


async def compare(peers: Sequence[str], work: str, messages: int, rounds: int) -> dict[str, float]:
    """The smallest figure of each peer."""
    apps = {peer: PEERS[peer].apps()[work]() for peer in peers}
    best = dict.fromkeys(peers, float("inf"))
    for _ in range(rounds):
        for peer, app in apps.items():
            best[peer] = min(best[peer], await nanoseconds(app, work, messages))
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table for each kind of work."""
    options = argparse.ArgumentParser("python -m benchmarks.micro", description=__doc__)
    options.add_argument("--peers", nargs="+", choices=PEERS, default=list(ON_UVICORN), metavar="PEER")
    options.add_argument("--messages", type=int, default=20_000, help="in one measurement (20,000)")
    options.add_argument("--rounds", type=int, default=7)
    given = options.parse_args(arguments)
    for work in WORK:
        best = asyncio.run(compare(given.peers, work, given.messages, given.rounds))
        first = best[given.peers[0]]
        print(f"\n| {work}, message path alone | ns/message | |\n|---|---:|---:|")
        for peer, figure in best.items():
            print(f"| {PEERS[peer].title.partition(', uvicorn')[0]} | {figure:.0f} | {figure / first:.2f} × |")


if __name__ == "__main__":
    main()
