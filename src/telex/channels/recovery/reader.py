"""The one supervised reader of a hub: keeps the broker's subscriptions as the rooms are, and heals.

What is wanted (the rooms) and what is there (the listener's topics) are compared, never remembered as orders: a
subscriber may come, go, be cancelled or meet a dead broker at any moment, and the next comparison puts it right.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final

from telex.channels.backends.base import ChannelsBackend, Listener
from telex.channels.delivery.subscriber import Subscriber
from telex.channels.delivery.topic import Arrival, Member, Room
from telex.channels.events import Event, Keep, Past, Position
from telex.channels.names import INTERNAL, TopicName
from telex.exceptions import BackendUnavailable, ChannelsException

__all__ = ("Feed",)

logger: logging.Logger = logging.getLogger("telex.channels")

HEARTBEAT_SECONDS: Final = 10.0
"""A reader that heard nothing is asked for a sign of life this often."""

BACKOFF_SECONDS: Final = (0.05, 5.0)
"""The first and the longest pause between two attempts to reconnect."""

STABLE_SECONDS: Final = 5.0
"""A connection that lasted as long starts the pauses anew."""

BATCH: Final = 64
"""So many channels are caught up at the same time."""


class Feed:
    """Holds the rooms of a hub and the connection that fills them."""

    def __init__(self, backend: ChannelsBackend, keep_for: Callable[[str], Keep | None]) -> None:
        self._backend = backend
        self.keep_for = keep_for
        self.rooms: dict[TopicName, Room] = {}
        self._active: set[TopicName] = set()
        self._dirty: set[TopicName] = set()
        self._deaf: set[TopicName] = set()
        self._wake = asyncio.Event()
        self._hurried = asyncio.Event()
        self._loss: BackendUnavailable | None = None
        self._generation = 0
        self._failures = 0
        self._down_since: float | None = None
        self.connected: asyncio.Event = asyncio.Event()
        self.trouble: str = ""
        """What went wrong last."""
        self.received: int = 0
        self.gaps: int = 0
        self.reconnects: int = 0

    # -- the listener's side

    def deliver(self, event: Event, pattern: str | None = None) -> None:
        """Fan one event out to whoever is in its room."""
        if pattern is not None and event.channel.startswith(INTERNAL):
            return
        self.received += 1
        room = self.rooms.get(TopicName(event.channel) if pattern is None else TopicName(pattern, True))
        if room is not None and not room.deliver(event):
            self._touch(room.topic)

    def lost(self, error: BackendUnavailable) -> None:
        """The listener's connection is gone; the supervisor takes over."""
        self._loss = error
        self._wake.set()

    def dropped(self, topics: Iterable[TopicName]) -> None:
        """Some of the listener's topics are gone: they alone are subscribed to again, and catch up."""
        # Whoever arrives just now cannot know whether its past and its present meet.
        self._generation += 1
        gone = self._active.intersection(topics)
        self._active -= gone
        for topic in gone:
            room = self.rooms.get(topic)
            if room is not None:
                room.suspend()
                self._note_deaf(topic, "some channels are not heard")

    def hurry(self) -> None:
        """A publisher has reached the broker: do not wait any longer to read from it."""
        self._hurried.set()

    # -- the subscribers' side

    async def join(
        self, subscriber: Subscriber, topics: Iterable[TopicName], history: int | None, starts: Mapping[str, Position]
    ) -> None:
        """Take ``subscriber`` into the rooms of ``topics``; returns when they are confirmed and the past is in.

        Cancelled or failed, it is in none of them.
        """
        try:
            for topic in topics:
                arriving = bool(history) or topic.name in starts
                subscriber.rooms[topic.name] = self._enter(topic, subscriber, arriving=arriving)
            rooms = list(subscriber.rooms.values())
            for start in range(0, len(rooms), BATCH):
                await _all(
                    self._settle(room, subscriber, starts.get(room.topic.name), _limit(history))
                    for room in rooms[start : start + BATCH]
                )
        except BaseException:
            for room in subscriber.rooms.values():
                self.leave(room, subscriber)
            subscriber.rooms.clear()
            raise

    async def _settle(self, room: Room, subscriber: Subscriber, since: Position | None, limit: int | None) -> None:
        await room.confirmed.wait()
        if room.last is not None:
            subscriber.positions[room.topic.name] = room.last
        if subscriber in room.arriving:
            await self._arrive(room, subscriber, since=since, limit=limit)

    async def _arrive(self, room: Room, subscriber: Subscriber, *, since: Position | None, limit: int | None) -> None:
        """Give ``subscriber`` the past and then what came meanwhile, without a hole or a double between the two."""
        keep = self.keep_for(room.topic.name)
        if keep is None:
            raise ChannelsException(f"nothing is kept of {room.topic.name!r}: write Channels(..., history=Keep(...))")
        while True:
            await room.confirmed.wait()
            generation = self._generation
            arrival = room.arriving[subscriber] = Arrival()
            try:
                past = await self._backend.history(room.topic.name, keep, since=since, limit=limit)
            except BackendUnavailable as error:
                self.trouble = error.detail
                # The publisher's side noticed before the reader did: ask again, until the caller's time is over.
                await asyncio.sleep(BACKOFF_SECONDS[0])
                continue
            if generation == self._generation:
                break
        if since is not None:
            subscriber.recovered = past.complete and subscriber.recovered is not False
        subscriber.positions[room.topic.name] = past.head
        room.settle(subscriber, arrival, past, marked=since is not None)

    def leave(self, room: Room, member: Member) -> None:
        """Take ``member`` out; the last one out removes the room."""
        room.dismiss(member)
        if room.is_empty and self.rooms.get(room.topic) is room:
            del self.rooms[room.topic]
            self._touch(room.topic)

    def _enter(self, topic: TopicName, member: Member, *, arriving: bool) -> Room:
        room = self.rooms.get(topic)
        if room is None:
            room = self.rooms[topic] = Room(topic)
            self._touch(topic)
        if arriving:
            room.expect(member)
        else:
            room.seat(member)
        return room

    def _touch(self, topic: TopicName) -> None:
        self._dirty.add(topic)
        self._wake.set()

    # -- the supervisor

    async def run(self) -> None:
        """Hold a listener open until cancelled, through every loss."""
        while True:
            started = time.monotonic()
            try:
                async with self._backend.listen(self) as listener:
                    self._begin()
                    await self._serve(listener)
            except BackendUnavailable as error:
                self._note_loss(error.detail)
            except Exception as error:
                # A reader that died would be silence: whatever went wrong, try again and say so.
                logger.exception("the reader of channels failed")
                self._note_loss(repr(error))
            finally:
                self._end()
            _heed_cancellation()
            if time.monotonic() - started > STABLE_SECONDS:
                self._failures = 0
            await self._rest(self._pause())

    def _begin(self) -> None:
        self._loss = None
        self._hurried.clear()
        self._active.clear()
        self._deaf.clear()
        self._dirty = set(self.rooms)
        self._generation += 1
        self._wake.set()

    def _end(self) -> None:
        self.connected.clear()
        for room in self.rooms.values():
            room.suspend()

    def _note_loss(self, detail: str) -> None:
        self.trouble = detail
        if self._down_since is None:
            self._down_since = time.monotonic()
            logger.warning("channels lost %s: %s; reconnecting", type(self._backend).__name__, detail)

    def _note_deaf(self, topic: TopicName, detail: str) -> None:
        """One topic is not heard while others are: try it again."""
        self._deaf.add(topic)
        self._touch(topic)
        self.connected.clear()
        self._note_loss(detail)

    def _note_return(self) -> None:
        self.connected.set()
        if self._down_since is not None:
            self.reconnects += 1
            logger.warning("channels are back after %.1f s", time.monotonic() - self._down_since)
            self._down_since = None

    def _pause(self) -> float:
        first, longest = BACKOFF_SECONDS
        pause = min(longest, first * 2.0 ** min(self._failures, 16))
        self._failures += 1
        # Half of it by chance: processes that lost the same broker must not come back in step.
        return pause * random.uniform(0.5, 1.0)  # noqa: S311

    async def _rest(self, pause: float) -> None:
        """Wait before the next attempt, the whole ``pause`` or until somebody knows better."""
        first = min(pause, BACKOFF_SECONDS[0])
        await asyncio.sleep(first)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause - first):
                await self._hurried.wait()
        self._hurried.clear()

    async def _serve(self, listener: Listener) -> None:
        beat_at = time.monotonic() + HEARTBEAT_SECONDS
        while True:
            self._wake.clear()
            _heed_cancellation()
            if self._loss is not None:
                raise self._loss
            await self._reconcile(listener)
            if not self.connected.is_set() and not self._deaf:
                self._note_return()
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._wake.wait()
            # By the clock, for who comes and goes wakes us all the time.
            if time.monotonic() >= beat_at:
                await listener.ping()
                beat_at = time.monotonic() + HEARTBEAT_SECONDS

    async def _reconcile(self, listener: Listener) -> None:
        dirty, self._dirty = self._dirty, set()
        self._deaf -= dirty
        gone = [topic for topic in dirty if topic in self._active and topic not in self.rooms]
        new = [topic for topic in dirty if topic not in self._active and topic in self.rooms]
        if gone:
            await listener.unsubscribe(gone)
            self._active.difference_update(gone)
        if new:
            await self._note_positions(new)
            new = [topic for topic in new if topic not in self._deaf]
            # Before it is so: what is dropped from here on is seen as gone.
            self._active.update(new)
            await listener.subscribe(new)
        waiting: list[Room] = []
        for topic in dirty:
            room = self.rooms.get(topic)
            if room is not None and topic in self._active:
                if room.held is None:
                    room.confirmed.set()
                else:
                    waiting.append(room)
        for start in range(0, len(waiting), BATCH):
            await _all(map(self._catch_up, waiting[start : start + BATCH]))

    async def _note_positions(self, topics: Iterable[TopicName]) -> None:
        """Note where new rooms with history stand *before* subscribing, so that a loss before the first event shows.

        Those whose server alone is away are to be tried again.
        """
        targets: list[tuple[str, Keep]] = []
        for topic in topics:
            keep = None if topic.is_pattern else self.keep_for(topic.name)
            room = self.rooms.get(topic)
            if keep is not None and room is not None and room.last is None:
                targets.append((topic.name, keep))
        if self._backend.is_sharded:
            for start in range(0, len(targets), BATCH):
                await _all(map(self._note_position_on_shard, targets[start : start + BATCH]))
        else:
            for start in range(0, len(targets), BATCH):
                self._take_positions(await self._backend.positions(targets[start : start + BATCH]))

    async def _note_position_on_shard(self, target: tuple[str, Keep]) -> None:
        try:
            self._take_positions(await self._backend.positions([target]))
        except BackendUnavailable as error:
            self._note_deaf(TopicName(target[0]), error.detail)
            await asyncio.sleep(BACKOFF_SECONDS[0])

    def _take_positions(self, positions: Mapping[str, Position]) -> None:
        for channel, position in positions.items():
            room = self.rooms.get(TopicName(channel))
            if room is not None and room.last is None:
                room.last = position

    async def _catch_up(self, room: Room) -> None:
        keep = None if room.topic.is_pattern else self.keep_for(room.topic.name)
        past: Past | None = None
        if keep is not None and room.last is not None:
            try:
                past = await self._backend.history(room.topic.name, keep, since=room.last)
            except BackendUnavailable as error:
                if not self._backend.is_sharded:
                    raise
                # Its server alone may be away: the others go on being heard.
                self._note_deaf(room.topic, error.detail)
                await asyncio.sleep(BACKOFF_SECONDS[0])
                return
            if room.topic not in self._active:
                # Dropped meanwhile: what was published since is not heard, and this past does not have it.
                return
        if past is None or not past.complete:
            self.gaps += 1
        if room.resume(past):
            room.confirmed.set()
        else:
            self._touch(room.topic)


async def _all(work: Iterable[Awaitable[None]]) -> None:
    # No task group: before Python 3.13 one whose task fails may leave its parent marked as cancelled.
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if outcome is not None:
            raise outcome


def _heed_cancellation() -> None:
    """Client libraries wait by ``asyncio.wait_for``, which before Python 3.12 may forget a cancellation."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _limit(history: int | None) -> int | None:
    return None if history is None or history < 0 else history
