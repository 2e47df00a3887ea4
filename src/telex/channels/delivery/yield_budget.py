"""Turns for the event loop between pieces of work that never wait by themselves."""

from __future__ import annotations

import asyncio
import time
from typing import Final

__all__ = ("Breath",)

AT_A_STRETCH: Final = 0.005
"""Seconds for which everybody else may be kept waiting: an event that goes to thousands takes longer by itself."""


class Breath:
    """Whoever works in a loop that need not wait asks after each piece: ``if breath.is_due(): await breath.take()``.

    At most ``pieces`` are done at a stretch: those who read what they make have backlogs, and need their turns too.
    """

    __slots__ = ("_done", "_pieces", "_taken_at")

    def __init__(self, pieces: int = 64) -> None:
        self._pieces = pieces
        self._done = 0
        self._taken_at = time.monotonic()

    def is_due(self) -> bool:
        """Count a piece; whether the event loop has had no turn for too long, or may not have had one."""
        self._done += 1
        return self._done >= self._pieces or time.monotonic() - self._taken_at > AT_A_STRETCH

    async def take(self) -> None:
        """Let the event loop go on."""
        await asyncio.sleep(0)
        self._done = 0
        self._taken_at = time.monotonic()
