"""Timers for many connections: coarse, and a tenth of the size of the event loop's.

uvloop's timer holds half a KiB, and every quiet connection waits for one. Here those that are due at about the same
time share it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

__all__ = ("TimerWheel", "Timer")

_GRAINS: Final = 16
"""A timer may be late by one grain: a sixteenth of its delay."""


class Timer:
    """A call that is due. ``cancel`` it, or keep it and let it be called once."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call; harmless afterwards. The callback is freed at once."""
        self._callback = None

    def ring(self) -> None:
        """Call, unless that was done or cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class TimerWheel:
    """The timers of one event loop, by the moment at which they are due."""

    _wheels: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, TimerWheel]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._due: dict[tuple[float, int], list[Timer]] = {}

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> TimerWheel:
        """The wheel of that event loop."""
        wheel = cls._wheels.get(loop)
        if wheel is None:
            wheel = cls._wheels[loop] = cls()  # which must not refer to the loop, or neither is ever freed
        return wheel

    @property
    def shared(self) -> int:
        """How many of the event loop's timers are in use."""
        return len(self._due)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` after ``delay`` seconds, or up to a sixteenth later. Only inside the event loop."""
        loop = asyncio.get_running_loop()
        # A power of two, so that delays that differ a little still share.
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
