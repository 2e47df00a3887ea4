"""Makes loops that rarely suspend yield to the event loop at intervals."""

from __future__ import annotations

import asyncio
import time
from typing import Final

__all__ = ("PIECES", "YieldBudget")

PIECES: Final = 64
"""How many pieces of work a loop may do without yielding, unless it says otherwise."""
SECONDS: Final = 0.005
"""How long a loop may run without yielding. One event to thousands of recipients may take longer."""


class YieldBudget:
    """How much a loop may do before it yields: ``if budget.is_spent(): await budget.renew()`` after each piece of work.

    At most ``pieces`` are done before a yield, because the queues that the loop fills are bounded.
    """

    __slots__ = ("_done", "_pieces", "_renewed_at")

    def __init__(self, pieces: int = PIECES) -> None:
        self._pieces = pieces
        self._done = 0
        self._renewed_at = time.monotonic()

    def is_spent(self) -> bool:
        """Count a piece of work; true when the loop must yield."""
        self._done += 1
        return self._done >= self._pieces or time.monotonic() - self._renewed_at > SECONDS

    async def renew(self) -> None:
        """Yield to the event loop once."""
        await asyncio.sleep(0)
        self._done = 0
        self._renewed_at = time.monotonic()
