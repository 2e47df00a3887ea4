"""``Once``: where keys and answers are kept, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from telex.exceptions import ImproperlyConfiguredException
from telex.redis_server import REDIS_URLS

__all__ = ("IfInterrupted", "Once", "read_once")

IfInterrupted: TypeAlias = Literal["refuse", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """How a listener with ``idempotent=Once(...)`` remembers its calls; ``idempotent=True`` is ``Once()``."""

    store: str | None = None
    """The URL of a Redis server that all processes ask, ``redis://…``. By default each process remembers its own calls,
    until it ends."""
    within: float = 300.0
    """Seconds for which an answer is kept. Without ``call_timeout`` it is also the longest that such a call may run."""
    results: int = 256
    """Answers that are kept for one user on one route; for one more the oldest is forgotten."""
    if_interrupted: IfInterrupted = "refuse"
    """What a call gets whose key belongs to a run that was interrupted (cancelled, over its time, ended with its
    process): it may have had its effect. ``refuse`` answers ``conflict``; ``run`` runs it again."""
    lease: float = 5.0
    """With ``store``: seconds after which a process that does not renew its claim counts as ended."""
    name: str = ""
    """With ``store``: keeps apps apart that share a Redis server."""

    def __post_init__(self) -> None:
        for name in ("within", "lease"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ImproperlyConfiguredException(f"Once: {name} is seconds above 0, not {value!r}")
        if isinstance(self.results, bool) or not isinstance(self.results, int) or self.results < 1:
            raise ImproperlyConfiguredException(f"Once: results is a whole number from 1, not {self.results!r}")
        if self.store is not None and not (isinstance(self.store, str) and self.store.startswith(REDIS_URLS)):
            raise ImproperlyConfiguredException(
                f"Once: store is the URL of a Redis server (redis://…, rediss://…, unix://…), not {self.store!r}"
            )
        if self.if_interrupted not in get_args(IfInterrupted):
            raise ImproperlyConfiguredException(
                f"Once: if_interrupted is 'refuse' or 'run', not {self.if_interrupted!r}"
            )
        if self.store is None and (self.name or self.lease != self.__dataclass_fields__["lease"].default):
            raise ImproperlyConfiguredException(
                "Once: lease= and name= have no effect without store=, where each process has its own answers"
            )


def read_once(value: Any, where: str) -> Once | None:
    """The option ``idempotent``.

    :raises ImproperlyConfiguredException: it is neither a bool nor a :class:`Once`; the text begins with ``where``.
    """
    if value is True:
        return Once()
    if value is False or isinstance(value, Once):
        return value or None
    raise ImproperlyConfiguredException(f"{where}: idempotent is True or Once(store='redis://…'), not {value!r}")
