"""Channels: publish and subscribe, within a process, across processes and across nodes."""

from __future__ import annotations

from telex.channels.backends import ChannelsBackend, MemoryBackend, backend_from_url
from telex.channels.history import Event, Gap, Item, Keep, Position
from telex.channels.hub import Channels, Statistics, Subscription
from telex.channels.mailbox import Policy, conflate
from telex.channels.subscriber import Subscriber

__all__ = (
    "Channels",
    "ChannelsBackend",
    "Event",
    "Gap",
    "Item",
    "Keep",
    "MemoryBackend",
    "Policy",
    "Position",
    "Statistics",
    "Subscriber",
    "Subscription",
    "backend_from_url",
    "conflate",
)
