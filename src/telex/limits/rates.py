"""``Limit``: how often something may happen; and GCRA, the algorithm that decides it.

The generic cell rate algorithm (ITU-T I.371) is a bucket that leaks: ``burst`` may happen at once, and ``rate`` in
``per`` seconds go on happening. Its whole state is one number, the time at which the bucket is empty again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args

from telex.clock import Clock
from telex.exceptions import ImproperlyConfiguredException
from telex.redis_server import REDIS_URLS

__all__ = ("Limit", "OnExceed", "OnStoreFailure", "counter", "spend")

OnExceed: TypeAlias = Literal["wait", "reply", "close"]
OnStoreFailure: TypeAlias = Literal["open", "closed"]

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
    """For handshakes: who is counted, as a function of the socket: ``client_ip``, ``user``, or your own. Whoever it
    returns ``None`` for is not counted."""
    store: str | None = None
    """For handshakes: the URL of a Redis server where all processes count, ``redis://…``. By default each process
    counts by itself."""
    on_store_failure: OnStoreFailure | None = None
    """Required with ``store``: while it does not answer, ``open`` admits all handshakes, ``closed`` refuses them with
    503."""
    name: str = ""
    """Equal limits count together. A name keeps them apart."""
    most: float = field(init=False, repr=False, compare=False)
    """How much may come at once."""
    interval: float = field(init=False, repr=False, compare=False)
    """Seconds that one takes."""

    def __post_init__(self) -> None:
        for name in ("rate", "per") if self.burst is None else ("rate", "per", "burst"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ImproperlyConfiguredException(f"Limit: {name} is a number, not {value!r}")
            if value <= 0:
                raise ImproperlyConfiguredException(
                    f"Limit: {name}={value!r} lets nothing through: give a number above 0, or leave the limit out"
                )
        object.__setattr__(self, "most", self.rate if self.burst is None else self.burst)
        object.__setattr__(self, "interval", self.per / self.rate)
        if self.most < 1:
            raise ImproperlyConfiguredException(
                f"Limit: burst={self.most!r} lets nothing through: give burst=1 or more"
                f" (by default it is the rate, {self.rate!r})"
            )
        self._check_store()
        if self.on_exceed not in get_args(OnExceed):
            raise ImproperlyConfiguredException(
                f"Limit: on_exceed is 'wait', 'reply' or 'close', not {self.on_exceed!r}"
            )

    def _check_store(self) -> None:
        if self.store is not None and not (isinstance(self.store, str) and self.store.startswith(REDIS_URLS)):
            raise ImproperlyConfiguredException(
                f"Limit: store is the URL of a Redis server (redis://…, rediss://…, unix://…), not {self.store!r}"
            )
        if self.store is not None and self.on_store_failure not in get_args(OnStoreFailure):
            raise ImproperlyConfiguredException(
                "Limit: say what happens while the store does not answer: on_store_failure='open' admits all,"
                " 'closed' refuses them"
            )
        if self.store is not None and not self.name and "<lambda>" in self.counts:
            raise ImproperlyConfiguredException(
                "Limit: in a store, limits are told apart by the name of their key function, and a lambda has none:"
                " write name='…', or def key(socket)"
            )
        if self.store is None and self.on_store_failure is not None:
            raise ImproperlyConfiguredException("Limit: on_store_failure= has no effect without store=: remove it")

    @property
    def counts(self) -> str:
        """The name of what ``key`` counts."""
        named: Any = self.key if hasattr(self.key, "__qualname__") else type(self.key)
        return f"{named.__module__}.{named.__qualname__}"

    def __str__(self) -> str:
        text = f"{self.rate:g} in {self.per:g} s"
        return text if self.burst is None else f"{text} (at once {self.burst:g})"


def spend(limit: Limit, empty_at: float, now: float, cost: float) -> tuple[float, float]:
    """Put ``cost`` into the bucket of ``limit``, which is empty at ``empty_at``.

    Returns when it is empty then, and the seconds until there is room for the cost: 0 if there is now. Who does not
    wait keeps the old state. A cost above ``most`` goes in as soon as the bucket is empty, and delays what comes later.
    """
    start = max(empty_at, now)
    wait = start - now
    if cost < limit.most:
        wait -= (limit.most - cost) * limit.interval
    return start + cost * limit.interval, wait if wait > _ROUNDING else 0.0


def counter(
    limit: Limit, clock: Clock, *, size: Callable[[Any], int] | None = None, reserves: bool = False
) -> Callable[[Any], float]:
    """:func:`spend` as a function with a state of its own, for the message path: one call for each message.

    It takes what ``size`` measures, or anything where each counts as one, and returns the seconds to wait. With
    ``reserves`` what has to wait is counted: the caller waits, and does not ask again.
    """
    interval, most, empty_at = limit.interval, limit.most, -math.inf
    spare = (most - 1) * interval

    def take(what: Any) -> float:
        nonlocal empty_at
        now = clock()
        start = empty_at if empty_at > now else now  # noqa: FURB136 - a call less
        if size is None:
            wait, spent = start - now - spare, interval
        else:
            cost = size(what)
            wait, spent = start - now - (most - cost) * interval if cost < most else start - now, cost * interval
        if wait <= _ROUNDING:
            wait = 0.0
        elif not reserves:
            return wait
        empty_at = start + spent
        return wait

    return take
