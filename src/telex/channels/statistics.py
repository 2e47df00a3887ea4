"""The figures of a hub."""

from __future__ import annotations

import msgspec

__all__ = ("Statistics",)


class Statistics(msgspec.Struct, frozen=True):
    """The state of a hub. ``connected`` is its health: whether what others publish reaches this process.

    Counts are events since the hub began: ``received`` from the broker; ``delivered`` to readers, ``dropped`` and
    ``conflated`` by their policies (each subscriber counts); ``failed`` of :meth:`Channels.publish_nowait`. ``gaps``
    counts the times that a channel's events were declared lost.
    """

    connected: bool
    reconnects: int
    channels: int
    subscribers: int
    published: int
    failed: int
    received: int
    delivered: int
    dropped: int
    conflated: int
    gaps: int
    backlog: int
