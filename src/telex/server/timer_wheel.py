"""Timers for many connections, with low precision and a tenth of the memory of the event loop's timers.

A timer of uvloop takes half a KiB, and every idle connection needs one. Here timers that are due at about the same time
share one timer of the event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

__all__ = ("TimerWheel", "Timer")

_GRAINS: Final = 16
"""Grains per delay: a timer may be late by one grain, a sixteenth of its delay."""


class Timer:
    """A scheduled call, made once unless it is cancelled."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Prevent the call and free the callback; does nothing after the call."""
        self._callback = None

    def ring(self) -> None:
        """Make the call, unless it was made or cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class TimerWheel:
    """The timers of one event loop, grouped by due time."""

    _wheels: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, TimerWheel]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._due: dict[tuple[float, int], list[Timer]] = {}

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> TimerWheel:
        """The wheel of ``loop``; made by the first call."""
        wheel = cls._wheels.get(loop)
        if wheel is None:
            # The value must not refer to its weak key, the loop: neither would ever be freed.
            wheel = cls._wheels[loop] = cls()
        return wheel

    @property
    def shared(self) -> int:
        """The number of the event loop's timers in use."""
        return len(self._due)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` after ``delay`` seconds, or up to a sixteenth later. Use it only inside the event loop."""
        loop = asyncio.get_running_loop()
        # A power of two, so that slightly different delays share a timer.
        grain = math.ldexp(0.5, math.frexp(max(delay, 0.01) / _GRAINS)[1])
        moment = int((loop.time() + delay) / grain) + 1
        timer = Timer(callback)
        timers = self._due.get((grain, moment))
        if timers is None:
            timers = self._due[grain, moment] = []
            loop.call_at(moment * grain, self._ring, (grain, moment))
        timers.append(timer)
        return timer

    def _ring(self, key: tuple[float, int]) -> None:
        for timer in self._due.pop(key):
            timer.ring()
