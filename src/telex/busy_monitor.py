"""Finds handlers that have been busy for a while, at almost no cost for the others.

One monitor per event loop looks at what is enlisted every ``PERIOD`` seconds; nothing is armed, cancelled or created
for a single message. An enlisted event reader whose work has already been seen by one look, and still runs, begins to
read ahead.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol
from weakref import WeakKeyDictionary

__all__ = ("DONE", "FRESH", "PERIOD", "SEEN", "BusyMonitor", "Monitored")

PERIOD: Final = 0.02
"""Seconds between two looks: work is noticed when it has run for one to two of them."""

DONE: Final = 0
FRESH: Final = 1
"""Work has begun since the last look."""
SEEN: Final = 2
"""The last look has seen this work."""


class Monitored(Protocol):
    """What a monitor looks at."""

    work: int
    listed: bool

    def read_ahead(self) -> None:
        """The work takes long."""


class BusyMonitor:
    """The monitor of one event loop. It has no timer while nothing is enlisted."""

    __slots__ = ("__weakref__", "_listed", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._listed: list[Monitored] = []
        self._timer: asyncio.TimerHandle | None = None

    def enlist(self, each: Monitored) -> None:
        """Look at ``each`` from the next look on, until its work is done or has begun to read ahead."""
        each.listed = True
        self._listed.append(each)
        if self._timer is None:
            self._timer = self._loop.call_later(PERIOD, self._look)

    def _look(self) -> None:
        self._timer = None
        before, self._listed = self._listed, []
        for each in before:
            each.listed = False
            if each.work == FRESH:
                each.work = SEEN
                self.enlist(each)
            elif each.work == SEEN:
                each.read_ahead()


_monitors: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, BusyMonitor]] = WeakKeyDictionary()


def running_monitor() -> BusyMonitor:
    """The monitor of the running event loop."""
    loop = asyncio.get_running_loop()
    monitor = _monitors.get(loop)
    if monitor is None:
        monitor = _monitors[loop] = BusyMonitor(loop)
    return monitor
