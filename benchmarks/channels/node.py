"""A node that reads, as a process: ``python -m benchmarks.channels.node URL READERS HISTORY``.

It says ``ready``, takes what is published on one channel until ``end`` comes, and prints what each reader got.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack

import msgspec

from telex.channels import Channels, Event, Keep, Subscriber

CHANNEL = "load"
END = b"end"
KEEP = Keep(size=1_000_000, seconds=600)
BACKLOG = 1_000_000
SLOW_BACKLOG = 100
SLOW_PAUSE = 0.001
"""Seconds that the slow reader takes for an event."""


class Outcome(msgspec.Struct):
    """What the node saw. Of ``items`` a number is an event and ``None`` a gap; they are the first reader's."""

    delivered: list[int]
    dropped: list[int]
    items: list[int | None]
    latencies: list[float]
    seconds: float
    live: int
    reconnects: int


class Reader:
    """Takes events from a subscriber. The first one notes what and when; one may be slow."""

    def __init__(self, subscriber: Subscriber, pause: float, notes: bool) -> None:
        self.subscriber = subscriber
        self._pause = pause
        self._notes = notes
        self.items: list[int | None] = []
        self.latencies: list[float] = []
        self.count = 0
        self.began = self.ended = 0.0

    async def run(self) -> None:
        async for item in self.subscriber:
            if isinstance(item, Event) and item.data == END:
                break
            if self._notes:
                self._note(item.data if isinstance(item, Event) else None)
            self.count += isinstance(item, Event)
            if self._pause:
                await asyncio.sleep(self._pause)

    def _note(self, data: bytes | None) -> None:
        if data is None:
            self.items.append(None)
            return
        number, _, sent = data.partition(b" ")
        self.ended = time.monotonic()
        self.began = self.began or self.ended
        self.items.append(int(number))
        self.latencies.append((time.monotonic_ns() - int(sent)) / 1e6)


async def follow(url: str, readers: int, kept: bool) -> Outcome:
    """Read until the end; so many readers, and a slow one."""
    hub = Channels(url, channels=[CHANNEL], history=KEEP if kept else None, subscriber_max_backlog=BACKLOG)
    async with hub, AsyncExitStack() as stack:
        fast = [
            Reader(await stack.enter_async_context(hub.subscribe(CHANNEL)), 0, notes=not number)
            for number in range(readers)
        ]
        slowly = hub.subscribe(CHANNEL, max_backlog=SLOW_BACKLOG, backlog_strategy="drop_oldest")
        slow = Reader(await stack.enter_async_context(slowly), SLOW_PAUSE, notes=False)
        print("ready", flush=True)
        async with asyncio.TaskGroup() as group:
            for reader in [*fast, slow]:
                group.create_task(reader.run())
        first, statistics = fast[0], hub.statistics()
        return Outcome(
            [reader.count for reader in [*fast, slow]],
            [reader.subscriber.dropped for reader in [*fast, slow]],
            first.items,
            first.latencies,
            first.ended - first.began,
            statistics.received,
            statistics.reconnects,
        )


if __name__ == "__main__":
    outcome = asyncio.run(follow(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "kept"))
    print(msgspec.json.encode(outcome).decode(), flush=True)
