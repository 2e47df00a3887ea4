"""Two nodes: this process publishes, another one reads, and a real broker is between them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median, quantiles

import msgspec

from benchmarks.channels.node import CHANNEL, END, KEEP, Outcome
from telex.channels import Channels
from telex.exceptions import BackendUnavailable
from tests.channels.brokers import Broker

PATIENCE = 60.0
LINE = 2**26
"""Bytes that a node's outcome may have."""


class Load:
    """Publishes numbers and the time, and counts those that the broker has taken."""

    def __init__(self, hub: Channels) -> None:
        self._hub = hub
        self._number = 0
        self.taken: list[int] = []
        self.refused = 0

    async def one(self) -> None:
        """Publish the next number."""
        self._number += 1
        number = self._number
        try:
            await self._hub.publish(CHANNEL, f"{number} {time.monotonic_ns()}")
            self.taken.append(number)
        except BackendUnavailable:
            self.refused += 1
            await asyncio.sleep(0.01)

    async def flat_out(self, seconds: float, publishers: int = 16) -> None:
        """As fast as it goes, so many publishes at a time."""
        until = time.monotonic() + seconds

        async def publish() -> None:
            while time.monotonic() < until:
                await self.one()

        await asyncio.gather(*(publish() for _ in range(publishers)))

    async def paced(self, seconds: float, rate: float) -> None:
        """So many a second, one after another."""
        begin = time.monotonic()
        for number in range(int(seconds * rate)):
            await asyncio.sleep(begin + number / rate - time.monotonic())
            await self.one()

    async def end(self) -> None:
        """Publish the value that ends the readers; try until the broker takes it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self._hub.publish(CHANNEL, END)
                    return
                except BackendUnavailable:
                    await asyncio.sleep(0.05)


@asynccontextmanager
async def reading(url: str, readers: int, kept: bool) -> AsyncIterator[asyncio.Task[Outcome]]:
    """A node that reads, as soon as it is ready; the task is what it prints at its end."""
    command = [sys.executable, "-m", "benchmarks.channels.node", url, str(readers), "kept" if kept else "live"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=LINE)
    assert process.stdout is not None
    output = process.stdout
    try:
        async with asyncio.timeout(PATIENCE):
            if await output.readline() != b"ready\n":
                raise RuntimeError("the reading node did not start")

        async def outcome() -> Outcome:
            async with asyncio.timeout(PATIENCE):
                return msgspec.json.decode(await output.readline(), type=Outcome)

        yield asyncio.create_task(outcome())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def hub_on(url: str, kept: bool) -> AsyncIterator[Channels]:
    """The publishing node."""
    async with Channels(url, channels=[CHANNEL], history=KEEP if kept else None) as hub:
        yield hub


@dataclass(frozen=True)
class Pace:
    """How the deliveries of a broker went. ``missing`` is what was neither delivered nor dropped by a policy."""

    published: int
    delivered: int
    dropped: int
    missing: int
    rate: float
    p50: float
    p99: float


async def run_pace(url: str, seconds: float, readers: int, rate: float) -> Pace:
    """Flat out for the rate and the counts, and paced for the latency in milliseconds."""
    full, published = await _load(url, seconds, readers, None)
    calm, _ = await _load(url, seconds, 1, rate)
    counts = list(zip(full.delivered, full.dropped, strict=True))
    return Pace(
        published,
        sum(full.delivered),
        sum(full.dropped),
        sum(abs(published - delivered - dropped) for delivered, dropped in counts),
        sum(full.delivered[:readers]) / full.seconds,
        median(calm.latencies),
        quantiles(calm.latencies, n=100)[98],
    )


async def _load(url: str, seconds: float, readers: int, rate: float | None) -> tuple[Outcome, int]:
    async with hub_on(url, False) as hub, reading(url, readers, False) as outcome:
        load = Load(hub)
        await (load.flat_out(seconds) if rate is None else load.paced(seconds, rate))
        await load.end()
        return await outcome, len(load.taken)


@dataclass(frozen=True)
class Losses:
    """What became of the events while a broker was killed and started again, so many times."""

    kills: int
    published: int
    delivered: int
    recovered: int
    declared: int
    gaps: int
    silent: int


async def run_losses(broker: Broker, seconds: float, kills: int, kept: bool) -> Losses:
    """Publish without a pause while the broker dies and comes back; ``seconds`` of load around each death."""
    async with hub_on(broker.url, kept) as hub, reading(broker.url, 1, kept) as outcome:
        load = Load(hub)
        for _ in range(kills):
            killing = asyncio.create_task(load.flat_out(seconds + 0.5, publishers=4))
            await asyncio.sleep(seconds / 2)
            broker.kill()
            await broker.restart()
            await killing
        await load.flat_out(seconds, publishers=4)
        # A reader that is not back yet hears no last value where nothing is kept: say it again.
        while not outcome.done():
            await load.end()
            await asyncio.wait([outcome], timeout=1)
        seen = await outcome
    taken, delivered = set(load.taken), {item for item in seen.items if item is not None}
    silent = undeclared(seen.items, taken)
    return Losses(
        kills,
        len(taken),
        len(taken & delivered),
        max(0, len(delivered) + 1 - seen.live),
        len(taken - delivered) - silent,
        seen.items.count(None),
        silent,
    )


def undeclared(items: Sequence[int | None], taken: set[int]) -> int:
    """How many events the broker took that no reader got, where no gap stands near their place.

    Several publishers overlap by a few numbers, so a hole counts from the highest number before it.
    """
    delivered = {item for item in items if item is not None}
    silent, highest, gap = 0, 0, False
    for item in items:
        if item is None:
            gap = True
        elif item > highest:
            if not gap:
                silent += sum(number in taken and number not in delivered for number in range(highest + 1, item))
            highest, gap = item, False
    if not gap:
        silent += sum(number > highest for number in taken - delivered)
    return silent
