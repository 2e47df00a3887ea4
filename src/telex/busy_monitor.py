"""Detects handlers that are busy for long, at almost no cost for other handlers.

One monitor per event loop checks the enlisted event readers every ``PERIOD`` seconds, so no timer is created for a
single message. An event reader whose work is still running at the second check begins to read ahead.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol
from weakref import WeakKeyDictionary

__all__ = ("DONE", "FRESH", "PERIOD", "SEEN", "BusyMonitor", "Monitored")

PERIOD: Final = 0.02
"""Seconds between two checks: work is detected after one to two periods."""

DONE: Final = 0
FRESH: Final = 1
"""Work has begun since the last check."""
SEEN: Final = 2
"""The work was already running at the last check."""


class Monitored(Protocol):
    """An object that a monitor checks."""

    work: int
    listed: bool

    def read_ahead(self) -> None:
        """Called when the work has run for longer than one period."""


class BusyMonitor:
    """The monitor of one event loop. It has no timer while no object is enlisted."""

    __slots__ = ("__weakref__", "_listed", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._listed: list[Monitored] = []
        self._timer: asyncio.TimerHandle | None = None

    def enlist(self, each: Monitored) -> None:
        """Check ``each`` from the next check on, until its work is done or it has begun to read ahead."""
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
