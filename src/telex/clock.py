"""The one clock of the code: the time of the running event loop, which a test can replace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

__all__ = ("Clock", "loop_time")

Clock: TypeAlias = Callable[[], float]
"""Returns seconds that never go back."""


def loop_time() -> float:
    """The time of the running event loop, in seconds: that of its timers, and of ``telex.testing.TestClock``."""
    return asyncio.get_running_loop().time()
