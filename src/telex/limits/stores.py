"""Where limits count: in this process, or in a Redis server for all processes."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from telex.exceptions import MissingDependencyException
from telex.limits.rates import Clock, Limit, spend

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ("MOST_KEYS", "MemoryStore", "RedisStore", "StoreUnavailable")

logger: Final = logging.getLogger("telex")

MOST_KEYS: Final = 100_000
"""Keys that one limit counts in a process. For one more the key that was quiet for the longest time is forgotten."""

ANSWER_WITHIN: Final = 0.5
"""Seconds that Redis may take to answer."""
PAUSE: Final = 1.0
"""Seconds for which Redis is not asked after it did not answer, so that handshakes do not wait for it one by one."""
MOST_CONNECTIONS: Final = 16
"""Connections to one Redis server; more handshakes at once wait for one."""


class MemoryStore:
    """Counts one limit in this process. A key is forgotten once it has paid off: what is kept is who is active."""

    __slots__ = ("_clock", "_empty_at", "_limit", "_most", "forgotten")

    def __init__(self, limit: Limit, clock: Clock = time.monotonic, most: int = MOST_KEYS) -> None:
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


class StoreUnavailable(Exception):
    """Redis does not answer."""


class RedisStore:
    """Counts one limit in a Redis server, on that server's clock."""

    def __init__(self, limit: Limit, where: str) -> None:
        try:
            import redis.asyncio
        except ImportError:  # pragma: no cover - the library is there in tests
            raise MissingDependencyException("redis") from None
        self._redis = redis.asyncio
        self._url = str(limit.store)
        self._where = where
        self._prefix = f"telex:limit:{limit.name or limit.counts}:{limit.rate:g}/{limit.per:g}/{limit.most:g}:"
        self._arguments = (repr(limit.interval), repr((limit.most - 1) * limit.interval))
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Redis] = WeakKeyDictionary()
        self._asks_again_at = -math.inf

    async def take(self, key: object) -> float:
        """As :meth:`MemoryStore.take`.

        :raises StoreUnavailable: Redis does not answer.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._asks_again_at:
            raise StoreUnavailable
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                answer: Any = await self._run(loop, f"{self._prefix}{key}")
            return float(answer)
        except (self._redis.RedisError, OSError, ValueError) as exc:  # TimeoutError is an OSError
            self._asks_again_at = loop.time() + PAUSE
            logger.warning("%s: the store of a limit does not answer: %s: %s", self._where, type(exc).__name__, exc)
            raise StoreUnavailable from exc

    def _run(self, loop: asyncio.AbstractEventLoop, key: str) -> Awaitable[Any]:
        client = self._clients.get(loop)
        if client is None:
            pool = self._redis.BlockingConnectionPool.from_url(
                self._url, max_connections=MOST_CONNECTIONS, timeout=ANSWER_WITHIN, socket_connect_timeout=ANSWER_WITHIN
            )
            client = self._clients[loop] = self._redis.Redis.from_pool(pool)
        # A registered script is loaded again where Redis was flushed or restarted.
        return client.register_script(TAKE)(keys=(key,), args=self._arguments)

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()


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
