"""``Limit``: how often something may happen; and GCRA, the algorithm that decides it.

The generic cell rate algorithm (ITU-T I.371) is a bucket that leaks: ``burst`` may happen at once, and ``rate`` in
``per`` seconds go on happening. Its whole state is one number, the time at which the bucket is empty again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from telex.exceptions import ImproperlyConfiguredException

__all__ = ("Bucket", "Clock", "Limit", "OnExceed")

OnExceed: TypeAlias = Literal["wait", "reply", "close"]
Clock: TypeAlias = Callable[[], float]
"""Returns seconds that never go back."""

_ROUNDING: Final = 1e-6
"""Seconds below which a wait is an error of floating-point numbers."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``rate`` in ``per`` seconds, and ``burst`` at once after a pause: ``Limit(50, per=1, burst=100)``."""

    rate: float
    _: KW_ONLY
    per: float = 1.0
    """Seconds."""
    burst: float | None = None
    """How much may come at once; by default as much as in ``per`` seconds."""
    on_exceed: OnExceed = "wait"
    """For messages: ``wait`` stops reading, so that TCP slows the client down; ``reply`` answers with the error
    ``rate_limited`` and drops the message; ``close`` closes with 4429."""
    key: Callable[..., Any] | None = None
    """For handshakes: who is counted. Takes the socket, and dependencies by name; ``None`` as its result does not
    count."""
    store: str | None = None
    """For handshakes: the URL of a Redis server where all processes count, ``redis://…``. By default each process
    counts by itself."""

    def __post_init__(self) -> None:
        for name in ("rate", "per", "burst"):
            value = getattr(self, name)
            if value is None and name == "burst":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ImproperlyConfiguredException(f"Limit: {name} is a number, not {value!r}")
            if value <= 0:
                raise ImproperlyConfiguredException(
                    f"Limit: {name}={value!r} lets nothing through: give a number above 0, or leave the limit out"
                )
        if self.most < 1:
            raise ImproperlyConfiguredException(
                f"Limit: burst={self.most!r} lets nothing through: give burst=1 or more"
                f" (by default it is the rate, {self.rate!r})"
            )
        if self.on_exceed not in get_args(OnExceed):
            raise ImproperlyConfiguredException(
                f"Limit: on_exceed is 'wait', 'reply' or 'close', not {self.on_exceed!r}"
            )

    @property
    def most(self) -> float:
        """How much may come at once."""
        return self.rate if self.burst is None else self.burst

    @property
    def interval(self) -> float:
        """Seconds that one takes."""
        return self.per / self.rate

    def __str__(self) -> str:
        text = f"{self.rate:g} in {self.per:g} s"
        return text if self.burst is None else f"{text} (at once {self.burst:g})"


class Bucket:
    """What one limit has counted, by GCRA."""

    __slots__ = ("_clock", "_interval", "_most", "_reserves", "empty_at", "limit")

    def __init__(self, limit: Limit, clock: Clock, *, reserves: bool = False) -> None:
        self.limit = limit
        self._clock = clock
        self._interval = limit.interval
        self._most = limit.most
        self._reserves = reserves
        """Whether what has to wait is counted: the caller waits, and does not ask again."""
        self.empty_at = -math.inf

    def take(self, cost: float = 1.0) -> float:
        """Count ``cost``. Returns 0, or the seconds after which there is room for it; then nothing was counted.

        A cost above ``burst`` is admitted when nothing else is left: it delays what comes later instead.
        """
        now = self._clock()
        start = self.empty_at
        if start < now:
            start = now
        wait = start - now
        if cost < self._most:
            wait -= (self._most - cost) * self._interval
        if wait <= _ROUNDING:
            wait = 0.0
        elif not self._reserves:
            return wait
        self.empty_at = start + cost * self._interval
        return wait
