"""Channels: publish and subscribe, within a process, across processes and across nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telex.channels.backends import ChannelsBackend, MemoryBackend, backend_from_url
from telex.channels.delivery.queue import Policy, conflate
from telex.channels.delivery.subscriber import Subscriber, Subscription
from telex.channels.events import DataKind, Event, Gap, Item, Keep, Page, Position
from telex.channels.hub import Channels
from telex.channels.presence import Heartbeat, Joined, Left, Member, Presence
from telex.channels.publisher import publisher
from telex.channels.statistics import Statistics
from telex.renamed import litestars_names

__all__ = (
    "Channels",
    "ChannelsBackend",
    "Event",
    "Gap",
    "Heartbeat",
    "Item",
    "Joined",
    "Keep",
    "DataKind",
    "Left",
    "Member",
    "MemoryBackend",
    "Page",
    "Policy",
    "Position",
    "Presence",
    "Statistics",
    "Subscriber",
    "Subscription",
    "backend_from_url",
    "conflate",
    "publisher",
)

if not TYPE_CHECKING:
    # Hidden from type checkers, which would otherwise accept any name of this module.
    __getattr__ = litestars_names(__name__)
