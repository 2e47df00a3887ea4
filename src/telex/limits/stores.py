"""Where limits count: in this process, or in a Redis server for all processes."""

from __future__ import annotations

import math
from typing import Final

from telex.clock import Clock, loop_time
from telex.limits.rates import Limit, spend
from telex.redis_server import RedisServer

__all__ = ("MOST_KEYS", "MemoryStore", "RedisStore")

MOST_KEYS: Final = 100_000
"""Keys that one limit counts in a process. For one more the key that was quiet for the longest time is forgotten."""


class MemoryStore:
    """Counts one limit in this process. A key is forgotten once it has paid off: what is kept is who is active."""

    __slots__ = ("_clock", "_empty_at", "_limit", "_most", "forgotten")

    def __init__(self, limit: Limit, clock: Clock = loop_time, most: int = MOST_KEYS) -> None:
        self._limit = limit
        self._clock = clock
        self._most = most
        self._empty_at: dict[object, float] = {}  # in the order in which the keys were taken last
        self.forgotten: int = 0
        """Active keys that were forgotten because there were too many."""

    def __len__(self) -> int:
        return len(self._empty_at)

    def take(self, key: object) -> float:
        """Count one for ``key``. Returns 0, or the seconds after which there is room; then nothing was counted."""
        known, now = self._empty_at, self._clock()
        before = known.pop(key, -math.inf)
        empty_at, wait = spend(self._limit, before, now, 1.0)
        known[key] = before if wait else empty_at
        for _ in range(2):  # two for each that is added: what has paid off does not accumulate
            oldest = next(iter(known), None)
            if oldest is None or known[oldest] > now:
                break
            del known[oldest]
        if len(known) > self._most:
            del known[next(iter(known))]
            self.forgotten += 1
        return wait

    def clear(self) -> None:
        """Forget all keys."""
        self._empty_at.clear()


class RedisStore:
    """Counts one limit in a Redis server, on that server's clock."""

    def __init__(self, limit: Limit, where: str) -> None:
        self._server = RedisServer(str(limit.store), "a limit", where)
        self._prefix = f"telex:limit:{limit.name or limit.counts}:{limit.rate:g}/{limit.per:g}/{limit.most:g}:"
        self._arguments = (repr(limit.interval), repr((limit.most - 1) * limit.interval))

    async def take(self, key: object) -> float:
        """As :meth:`MemoryStore.take`.

        :raises StoreUnavailable: Redis does not answer.
        """
        return float(await self._server.run(TAKE, (f"{self._prefix}{key}",), self._arguments))

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._server.aclose()


TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local interval, span = tonumber(ARGV[1]), tonumber(ARGV[2])
local start = tonumber(redis.call('GET', KEYS[1]) or '0')
start = math.max(now, math.min(start, now + span + interval))
local wait = start - now - span
if wait > 0.000001 then
  return string.format('%.6f', wait)
end
local empty_at = start + interval
redis.call('SET', KEYS[1], string.format('%.6f', empty_at), 'PX', math.ceil((empty_at - now) * 1000))
return '0'
"""
"""GCRA. A state further in the future than any that it writes comes from before the clock was set back."""
