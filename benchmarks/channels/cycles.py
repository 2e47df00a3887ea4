"""What many subscriptions leave behind when they have ended: nothing."""

from __future__ import annotations

import asyncio
import gc
import os
from dataclasses import dataclass

from benchmarks.processes import resident_bytes
from telex.channels import Channels

WARM = 200
"""Cycles before the first look: what is allocated once is not a leak."""


@dataclass(frozen=True)
class Left:
    """What is there after the cycles that was not there before."""

    cycles: int
    channels: int
    subscribers: int
    tasks: int
    objects: int
    kibibytes: int


async def run_cycles(url: str, cycles: int) -> Left:
    """Subscribe to channels of ever new names, and leave them."""
    async with Channels(url, arbitrary_channels_allowed=True) as hub:

        async def cycle(number: int) -> None:
            async with hub.subscribe(f"cycle:{number}"):
                pass

        for number in range(WARM):
            await cycle(number)
        before = _state(), resident_bytes(os.getpid())
        for number in range(cycles):
            await cycle(WARM + number)
        after = _state(), resident_bytes(os.getpid())
        figures = hub.statistics()
        return Left(
            cycles,
            figures.channels,
            figures.subscribers,
            after[0][0] - before[0][0],
            after[0][1] - before[0][1],
            (after[1] - before[1]) // 1024,
        )


def _state() -> tuple[int, int]:
    gc.collect()
    return len(asyncio.all_tasks()), len(gc.get_objects())
