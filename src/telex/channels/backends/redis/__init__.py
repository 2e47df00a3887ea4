"""Redis and Valkey, a single server or a cluster."""

from __future__ import annotations

from telex.exceptions import MissingDependencyException

try:
    import redis  # noqa: F401
except ImportError as _missing:
    raise MissingDependencyException("redis") from _missing

from telex.channels.backends.redis.cluster import RedisClusterBackend
from telex.channels.backends.redis.single import RedisBackend

__all__ = ("RedisBackend", "RedisClusterBackend")
