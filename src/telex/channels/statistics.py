"""The counts of a hub."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from telex.channels.delivery.subscriber import Subscriber

__all__ = ("Audience", "Statistics")


class Statistics(msgspec.Struct, frozen=True):
    """The state of a hub. ``connected`` is true while it receives events and can publish.

    Counts are events since the hub was created: ``received`` from the broker; ``delivered`` to readers, ``dropped`` and
    ``conflated`` by their policies (added up over all subscribers); ``failed`` in :meth:`Channels.publish_nowait`.
    ``gaps`` counts how often events of a channel could not be recovered after a loss; ``recovered``, how often all
    could.
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
    recovered: int


class Audience:
    """The subscribers of a hub, and the counts of those that have left. Other threads may read the counts."""

    __slots__ = ("_conflated", "_delivered", "_dropped", "_live")

    def __init__(self) -> None:
        self._live: set[Subscriber] = set()
        self._delivered = self._dropped = self._conflated = 0

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Subscriber]:
        return iter(tuple(self._live))

    def __contains__(self, subscriber: object) -> bool:
        return subscriber in self._live

    def add(self, subscriber: Subscriber) -> None:
        """Include the counts of ``subscriber``."""
        self._live.add(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        """Remove ``subscriber``, but keep its counts."""
        self._live.remove(subscriber)
        self._delivered += subscriber.delivered
        self._dropped += subscriber.dropped
        self._conflated += subscriber.conflated

    @property
    def delivered(self) -> int:
        """Events that readers have received."""
        return self._delivered + sum(subscriber.delivered for subscriber in self)

    @property
    def dropped(self) -> int:
        """Events that policies dropped."""
        return self._dropped + sum(subscriber.dropped for subscriber in self)

    @property
    def conflated(self) -> int:
        """Events that were replaced by newer ones of their key."""
        return self._conflated + sum(subscriber.conflated for subscriber in self)

    @property
    def backlog(self) -> int:
        """Events that wait for their readers."""
        return sum(subscriber.qsize for subscriber in self)
