"""The backend for one process: for tests, development, and apps that run as one process."""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final

from telex.channels.backends.base import ChannelsBackend, Listener, Sink
from telex.channels.delivery.yield_budget import YieldBudget
from telex.channels.events import DataKind, Event, Keep, Past, Position
from telex.channels.names import Target, TopicName
from telex.clock import Clock, loop_time
from telex.renamed import litestars_names

__all__ = ("MemoryBackend",)

if not TYPE_CHECKING:
    # Hidden from type checkers, which would otherwise accept any name of this module.
    __getattr__ = litestars_names(__name__)

SWEEP_SECONDS: Final = 10.0
"""The interval at which unused histories are removed."""


class _Log:
    """The kept past of one channel."""

    __slots__ = ("epoch", "keep", "kept", "offset", "touched")

    def __init__(self, keep: Keep, now: float) -> None:
        # A new epoch: a channel that was removed and created again must not accept its old positions.
        self.epoch = secrets.token_hex(6)
        self.offset = 0
        self.keep = keep
        self.kept: deque[tuple[float, Event]] = deque()
        self.touched = now

    def append(self, channel: str, data: bytes, kind: DataKind, keep: Keep, now: float) -> Event:
        event = Event(channel, data, Position(self.epoch, self.offset + 1), self.offset, kind)
        self.offset += 1
        self.keep, self.touched = keep, now
        self.kept.append((now, event))
        self.trim(now)
        return event

    def trim(self, now: float) -> None:
        while self.kept and (len(self.kept) > self.keep.size or self.kept[0][0] <= now - self.keep.seconds):
            self.kept.popleft()


class _MemoryListener(Listener):
    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.channels: set[str] = set()
        self.patterns: set[str] = set()

    async def subscribe(self, topics: Collection[TopicName]) -> None:
        for topic in topics:
            (self.patterns if topic.is_pattern else self.channels).add(topic.name)

    async def unsubscribe(self, topics: Collection[TopicName]) -> None:
        for topic in topics:
            (self.patterns if topic.is_pattern else self.channels).discard(topic.name)

    async def ping(self) -> None:
        """Do nothing: there is no connection."""

    def hear(self, event: Event) -> None:
        if event.channel in self.channels:
            self.sink.deliver(event)
        for pattern in self.patterns:
            if event.channel.startswith(pattern[:-1]):
                self.sink.deliver(event, pattern)


class MemoryBackend(ChannelsBackend):
    """Delivers events between the hubs that share this object, all on one event loop.

    ``clock`` returns seconds; by default it is the time of the event loop.
    """

    supports_patterns = True
    is_shared = False

    def __init__(self, *, clock: Clock = loop_time) -> None:
        self._clock = clock
        self._listeners: list[_MemoryListener] = []
        self._logs: dict[str, _Log] = {}
        self._budget = YieldBudget(pieces=16)
        self._swept = -math.inf

    async def open(self) -> None:
        """Do nothing: there is no connection."""

    async def close(self) -> None:
        """Do nothing: the history stays for other hubs on the same object."""

    async def publish(self, targets: Sequence[Target], data: bytes, kind: DataKind = "bytes") -> Mapping[str, Position]:
        positions: dict[str, Position] = {}
        for channel, keep in targets:
            if keep is None:
                event = Event(channel, data, None, None, kind)
            else:
                event = self._log(channel, keep, data, kind)
                if event.position is not None:
                    positions[channel] = event.position
            for listener in self._listeners:
                listener.hear(event)
        if self._budget.is_spent():
            await self._budget.renew()
        return positions

    @asynccontextmanager
    async def listen(self, sink: Sink) -> AsyncIterator[Listener]:
        listener = _MemoryListener(sink)
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)

    async def positions(self, targets: Collection[tuple[str, Keep]]) -> Mapping[str, Position]:
        return {channel: self._head(self._known(channel, keep, self._clock())) for channel, keep in targets}

    async def history(
        self,
        channel: str,
        keep: Keep,
        *,
        since: Position | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> Past:
        log = self._known(channel, keep, now := self._clock())
        log.trim(now)
        head = self._head(log)
        first = log.offset - len(log.kept)
        end = len(log.kept) if before is None else max(0, min(before - 1 - first, len(log.kept)))
        if since is not None:
            if since.epoch != log.epoch or not first <= since.offset <= log.offset:
                return Past((), head, complete=False)
            skip = since.offset - first
        else:
            skip = 0 if limit is None else max(0, end - limit)
        return Past(tuple(event for _, event in islice(log.kept, skip, end)), head, complete=True)

    def _log(self, channel: str, keep: Keep, data: bytes, kind: DataKind) -> Event:
        now = self._clock()
        return self._known(channel, keep, now).append(channel, data, kind, keep, now)

    def _known(self, channel: str, keep: Keep, now: float) -> _Log:
        if now - self._swept > SWEEP_SECONDS:
            self._sweep(now)
        log = self._logs.get(channel)
        if log is None:
            log = self._logs[channel] = _Log(keep, now)
        return log

    def _sweep(self, now: float) -> None:
        self._swept = now
        followed = {channel for listener in self._listeners for channel in listener.channels}
        for channel, log in list(self._logs.items()):
            if channel not in followed and log.touched <= now - log.keep.seconds - SWEEP_SECONDS:
                del self._logs[channel]

    @staticmethod
    def _head(log: _Log) -> Position:
        return Position(log.epoch, log.offset)
