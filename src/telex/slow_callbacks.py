"""Logs sync callables that block the event loop; only with ``debug=True``."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

__all__ = ("report_blocking",)

P = ParamSpec("P")
T = TypeVar("T")

BLOCKING_AFTER: Final = 0.05
"""Seconds after which an inline callable is reported."""

logger: Final = logging.getLogger("telex")


def report_blocking(fn: Callable[P, T], where: str) -> Callable[P, T]:
    """Wrap ``fn``: log a warning that names ``where`` when a call takes longer than 50 ms."""

    @functools.wraps(fn)
    def timed(*args: P.args, **kwargs: P.kwargs) -> T:
        start = time.perf_counter()
        try:
            return fn(*args, **kwargs)
        finally:
            took = time.perf_counter() - start
            if took > BLOCKING_AFTER:
                logger.warning(
                    "%s blocked the event loop for %.0f ms: make it async, or set sync_to_thread=True",
                    where,
                    took * 1000,
                )

    return timed
