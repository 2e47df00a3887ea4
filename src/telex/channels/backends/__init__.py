"""The backends of channels, chosen by URL or created directly."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, Protocol, cast
from urllib.parse import urlsplit

from telex.channels.backends.base import ChannelsBackend
from telex.channels.backends.memory import MemoryBackend
from telex.exceptions import ImproperlyConfiguredException
from telex.renamed import litestars_names

__all__ = ("ChannelsBackend", "MemoryBackend", "backend_from_url")

if not TYPE_CHECKING:
    # Hidden from type checkers, which would otherwise accept any name of this module.
    __getattr__ = litestars_names(__name__)

_SCHEMES: Final = {
    "redis": ("redis", "RedisBackend"),
    "rediss": ("redis", "RedisBackend"),
    "redis+cluster": ("redis", "RedisClusterBackend"),
    "rediss+cluster": ("redis", "RedisClusterBackend"),
    "nats": ("nats", "NatsBackend"),
    "tls": ("nats", "NatsBackend"),
    "postgresql": ("postgres", "PostgresBackend"),
    "postgres": ("postgres", "PostgresBackend"),
}


class _Factory(Protocol):
    def __call__(self, url: str) -> ChannelsBackend: ...


def backend_from_url(url: str) -> ChannelsBackend:
    """The backend for ``memory://``, ``redis://``, ``nats://`` or ``postgresql://``.

    TLS: ``rediss://`` and ``tls://``. A Redis cluster: ``redis+cluster://``, or ``rediss+cluster://`` with TLS.

    :raises ImproperlyConfiguredException: the scheme is not one of these.
    :raises MissingDependencyException: the client library of the broker is not installed.
    """
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return MemoryBackend()
    if scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in ("memory", *_SCHEMES))
        raise ImproperlyConfiguredException(f"no backend of channels for {scheme or url!r}: write one of {known}")
    module, name = _SCHEMES[scheme]
    # Imported by name, so that a client library is loaded only if it is used.
    factory = cast("_Factory", getattr(importlib.import_module(f"{__name__}.{module}"), name))
    return factory(url)
