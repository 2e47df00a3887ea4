"""Finds the handlers that have been busy for a while, at almost no cost to those that have not.

One watch per event loop looks at what is listed every ``PERIOD`` seconds; nothing is armed, cancelled or created for a
single message. A listed inbox whose work has been seen by one look already and still runs begins to read ahead.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol
from weakref import WeakKeyDictionary

__all__ = ("DONE", "FRESH", "PERIOD", "SEEN", "BusyMonitor", "Watched")

PERIOD: Final = 0.02
"""Seconds between two looks: work is noticed when it has run for one to two of them."""

DONE: Final = 0
FRESH: Final = 1
"""Work has begun since the last look."""
SEEN: Final = 2
"""The last look has seen this work."""


class Watched(Protocol):
    """What a watch looks at."""

    work: int
    listed: bool

    def watch_now(self) -> None:
        """The work takes long."""


class BusyMonitor:
    """The watch of one event loop. It sleeps while nothing is listed."""

    __slots__ = ("__weakref__", "_listed", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._listed: list[Watched] = []
        self._timer: asyncio.TimerHandle | None = None

    def list(self, each: Watched) -> None:
        """Look at ``each`` from the next look on, until its work is done or takes long."""
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
                self.list(each)
            elif each.work == SEEN:
                each.watch_now()


_watches: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, BusyMonitor]] = WeakKeyDictionary()


def running_watch() -> BusyMonitor:
    """The watch of the running event loop."""
    loop = asyncio.get_running_loop()
    watch = _watches.get(loop)
    if watch is None:
        watch = _watches[loop] = BusyMonitor(loop)
    return watch
