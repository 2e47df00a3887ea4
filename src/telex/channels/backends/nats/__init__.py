"""NATS, with JetStream for history."""

from __future__ import annotations

from telex.exceptions import MissingDependencyException

try:
    import nats  # noqa: F401
except ImportError as _missing:
    raise MissingDependencyException("nats-py", "nats") from _missing

from telex.channels.backends.nats.core import NatsBackend

__all__ = ("NatsBackend",)
