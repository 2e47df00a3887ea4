"""Runs scripts in a Redis server that may be away: it is asked for a limited time, and then not for a pause."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from telex.exceptions import MissingDependencyException

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

__all__ = ("REDIS_URLS", "RedisServer", "StoreUnavailable")

logger: Final = logging.getLogger("telex")

REDIS_URLS: Final = ("redis://", "rediss://", "unix://")
"""How the URL of a Redis server begins."""

ANSWER_WITHIN: Final = 0.5
"""Seconds that Redis may take to answer."""
PAUSE: Final = 1.0
"""Seconds for which Redis is not asked after it did not answer, so that clients do not wait for it one by one."""
MOST_CONNECTIONS: Final = 16
"""Connections to one Redis server; more requests at once wait for one."""


class StoreUnavailable(Exception):
    """Redis does not answer."""


class RedisServer:
    """The connections of one user of a Redis server: ``what`` is what it stores, ``where`` whose it is, for the log."""

    def __init__(self, url: str, what: str, where: str) -> None:
        try:
            import redis.asyncio
        except ImportError:  # pragma: no cover - the library is there in tests
            raise MissingDependencyException("redis") from None
        self._redis = redis.asyncio
        self._url = url
        self._what = what
        self._where = where
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Redis] = WeakKeyDictionary()
        self._scripts: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, AsyncScript]] = WeakKeyDictionary()
        self._asks_again_at = -math.inf

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes]) -> Any:
        """The result of a Lua script.

        :raises StoreUnavailable: Redis does not answer. The script may have run all the same.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._asks_again_at:
            raise StoreUnavailable
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await self._script(loop, script)(keys=keys, args=arguments)
        except (self._redis.RedisError, OSError, ValueError) as exc:  # TimeoutError is an OSError
            self._asks_again_at = loop.time() + PAUSE
            logger.warning(
                "%s: the store of %s does not answer: %s: %s", self._where, self._what, type(exc).__name__, exc
            )
            raise StoreUnavailable from exc

    def _script(self, loop: asyncio.AbstractEventLoop, source: str) -> AsyncScript:
        """The script, made once for the connections of ``loop``. It loads itself again where Redis was flushed."""
        scripts = self._scripts.setdefault(loop, {})
        script = scripts.get(source)
        if script is None:
            script = scripts[source] = self._client(loop).register_script(source)
        return script

    def _client(self, loop: asyncio.AbstractEventLoop) -> Redis:
        client = self._clients.get(loop)
        if client is None:
            pool = self._redis.BlockingConnectionPool.from_url(
                self._url, max_connections=MOST_CONNECTIONS, timeout=ANSWER_WITHIN, socket_connect_timeout=ANSWER_WITHIN
            )
            client = self._clients[loop] = self._redis.Redis.from_pool(pool)
        return client

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        loop = asyncio.get_running_loop()
        self._asks_again_at = -math.inf  # the next loop may have another time
        self._scripts.pop(loop, None)
        client = self._clients.pop(loop, None)
        if client is not None:
            await client.aclose()
