"""Opens routes: at a limited rate, a few at a time, and slowly for a client that is refused again and again."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

__all__ = ("Opening", "Pending")

RATE: Final = 20
"""Routes that a client may open each second, on average."""
BURST: Final = 100
"""Routes that a client may open at once."""
MAX_PENDING: Final = 16
"""Routes that run guards and dependencies at once; others wait."""
MAX_DENIALS: Final = 10
"""Denials in a row after which routes open one at a time, ``DENIAL_PAUSE`` seconds after the last denial."""
DENIAL_PAUSE: Final = 1.0
OPEN_WITHIN: Final = 10.0
"""Seconds in which a route must accept or refuse, as in an opening handshake."""


class Pending(Protocol):
    """A route that waits to be opened, or to be answered."""

    def start(self) -> None:
        """Run the route."""

    def give_up(self) -> None:
        """The route has not answered in time."""


class Opening:
    """The routes of one socket that are not answered yet. The limit of open routes bounds those that wait."""

    __slots__ = ("_denials", "_last_denial", "_next", "_pause", "_timers", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[Pending] = []
        self._timers: dict[Pending, asyncio.TimerHandle] = {}
        self._pause: asyncio.TimerHandle | None = None
        self._denials = 0
        self._last_denial = 0.0
        self._next = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether a route is not answered yet."""
        return bool(self._timers or self._waiting)

    def delay(self) -> float:
        """Count one attempt; returns 0, or the seconds after which the rate allows the next."""
        now = asyncio.get_running_loop().time()
        too_early = max(self._next, now) - now - (BURST - 1) / RATE
        if too_early > 0:
            return too_early
        self._next = max(self._next, now) + 1 / RATE
        return 0.0

    def add(self, route: Pending) -> None:
        """Open ``route`` when its turn comes."""
        self._waiting.append(route)
        self._start()

    def discard(self, route: Pending) -> bool:
        """Do not open ``route``; returns false if it has been started."""
        if route not in self._waiting:
            return False
        self._waiting.remove(route)
        return True

    def answered(self, route: Pending, denied: bool | None) -> None:
        """``route`` has accepted or refused; ``None``: it has ended before."""
        timer = self._timers.pop(route, None)
        if timer is None:
            return
        timer.cancel()
        if denied:
            self._denials += 1
            self._last_denial = asyncio.get_running_loop().time()
        elif denied is False:
            self._denials = 0
        self._start()

    def stop(self) -> None:
        """The socket has ended: start nothing more."""
        self._waiting.clear()
        for timer in (*self._timers.values(), self._pause):
            if timer is not None:
                timer.cancel()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._pause is None and len(self._timers) < MAX_PENDING:
            if self._denials >= MAX_DENIALS:
                wait = self._last_denial + DENIAL_PAUSE - loop.time()
                if self._timers:
                    return
                if wait > 0:
                    self._pause = loop.call_later(wait, self._go_on)
                    return
            route = self._waiting.pop(0)
            self._timers[route] = loop.call_later(OPEN_WITHIN, route.give_up)
            route.start()

    def _go_on(self) -> None:
        self._pause = None
        self._start()
