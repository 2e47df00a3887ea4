"""Keeps the epochs of followed channels alive while no event arrives."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from telex.channels.backends.base import BrokerRefusal, ChannelsBackend, Sink
from telex.channels.backends.redis.scripts import META_SECONDS
from telex.channels.names import TopicName
from telex.clock import loop_time

__all__ = ("FollowedLogs",)

TOUCH_SECONDS: Final = META_SECONDS / 4
TOUCHED_AT_ONCE: Final = 256


class FollowedLogs:
    """The subscribed channels with history of a listener. Their epochs are refreshed while no event arrives."""

    def __init__(self, backend: ChannelsBackend, sink: Sink) -> None:
        self._backend = backend
        self._sink = sink
        self._channels: set[str] = set()
        self._touched = loop_time()

    def add(self, topic: TopicName) -> None:
        """Add a subscribed topic if it is a channel with history."""
        if not topic.is_pattern and self._sink.keep_for(topic.name) is not None:
            self._channels.add(topic.name)

    def discard(self, topics: Iterable[TopicName]) -> None:
        """Remove ``topics``, which are no longer subscribed to."""
        self._channels.difference_update(topic.name for topic in topics)

    async def touch(self) -> None:
        """Extend the lifetime of the epochs, every :data:`TOUCH_SECONDS`.

        :raises BackendUnavailable: the server does not answer.
        """
        if loop_time() - self._touched < TOUCH_SECONDS:
            return
        self._touched = loop_time()
        targets = [(name, keep) for name in self._channels if (keep := self._sink.keep_for(name)) is not None]
        for start in range(0, len(targets), TOUCHED_AT_ONCE):
            # If the server refuses writes now, the next call tries again; the subscriptions go on.
            with suppress(BrokerRefusal):
                await self._backend.positions(targets[start : start + TOUCHED_AT_ONCE])
