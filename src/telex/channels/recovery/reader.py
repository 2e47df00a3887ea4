"""The reader of a hub: it keeps the broker's subscriptions equal to the topics, and reconnects.

It compares the wanted state (the topics) with the actual state (the listener's names) and keeps no list of commands.
Subscribers may join, leave, be cancelled or lose the broker at any time; the next comparison corrects the state.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from telex.channels.backends.base import BrokerRefusal, ChannelsBackend, Listener
from telex.channels.delivery.subscriber import Subscriber, recipient_of
from telex.channels.delivery.topic import Delivery, Recipient, Topic
from telex.channels.events import Event, Keep, Past, Position
from telex.channels.names import INTERNAL, TopicName
from telex.channels.recovery.replay import Replay, all_of
from telex.clock import loop_time
from telex.exceptions import BackendUnavailable

__all__ = ("BrokerReader",)

logger: logging.Logger = logging.getLogger("telex.channels")

HEARTBEAT_SECONDS: Final = 10.0
"""The interval between two pings of the listener's connection."""

BACKOFF_SECONDS: Final = (0.05, 5.0)
"""The first and the longest pause between two attempts to reconnect."""

STABLE_SECONDS: Final = 5.0
"""After a connection that lasted this long, the pauses start at the shortest again."""

REFUSED_SECONDS: Final = 10.0
"""The pause before a refused topic is requested again, if it still has recipients."""

BATCH: Final = 64
"""How many topics are recovered concurrently."""


class BrokerReader:
    """The topics of a hub and the connection that receives their events. It is the listener's :class:`Sink`."""

    def __init__(self, backend: ChannelsBackend, keep_for: Callable[[str], Keep | None], timeout: float) -> None:
        self._backend = backend
        self.keep_for = keep_for
        self.replay: Replay = Replay(backend, keep_for, timeout)
        self.topics: dict[TopicName, Topic] = {}
        self._active: set[TopicName] = set()
        self._dirty: set[TopicName] = set()
        self._deaf: set[TopicName] = set()
        self._wake = asyncio.Event()
        self._hurried = asyncio.Event()
        self._loss: BackendUnavailable | None = None
        self._failures = 0
        self._down_since: float | None = None
        self.connected: asyncio.Event = asyncio.Event()
        self.received: int = 0
        self.gaps: int = 0
        self.recovered: int = 0
        self.reconnects: int = 0

    # -- called by the listener

    def deliver(self, event: Event, pattern: str | None = None) -> None:
        """Deliver one event to its topic."""
        if pattern is not None and event.channel.startswith(INTERNAL):
            return
        self.received += 1
        topic = self.topics.get(TopicName(event.channel) if pattern is None else TopicName(pattern, True))
        if topic is not None and not topic.deliver(event):
            self._touch(topic.name)

    def lost(self, error: BackendUnavailable) -> None:
        """The listener's connection is lost; :meth:`run` opens the next one."""
        self._loss = error
        self._wake.set()

    def dropped(self, topics: Iterable[TopicName]) -> None:
        """The broker has ended some subscriptions: subscribe to these ``topics`` again and recover them."""
        self.replay.interrupt()
        gone = self._active.intersection(topics)
        self._active -= gone
        for name in gone:
            topic = self.topics.get(name)
            if topic is not None:
                topic.suspend()
                self._note_deaf(name, "some channels are not received")

    def refused(self, name: TopicName, error: BrokerRefusal) -> None:
        """The broker refuses to subscribe to ``name``: raise ``error`` in the tasks that wait for it."""
        self._active.discard(name)
        topic = self.topics.get(name)
        if topic is not None:
            # Clients may choose names, and the joining task gets the error: a warning would only fill the log.
            level = logging.WARNING if topic.is_recovering else logging.DEBUG
            logger.log(level, "channels cannot follow %r: %s", name.name, error.detail)
            topic.refuse(error)
            asyncio.get_running_loop().call_later(REFUSED_SECONDS, self._ask_again, topic)

    def _is_refused(self, name: TopicName) -> bool:
        topic = self.topics.get(name)
        return topic is None or topic.refusal is not None

    def _ask_again(self, topic: Topic) -> None:
        if self.topics.get(topic.name) is topic and topic.refusal is not None:
            self._touch(topic.name)

    def hurry(self) -> None:
        """Reconnect at once, because a publish has reached the broker."""
        self._hurried.set()

    # -- called by the hub

    async def join(
        self, subscriber: Subscriber, names: Iterable[TopicName], history: int | None, starts: Mapping[str, Position]
    ) -> None:
        """Add ``subscriber`` to the topics; returns when they are confirmed and the past is in its queue.

        If it is cancelled or raises, ``subscriber`` is removed from all of them.
        """
        await self.replay.pace.keep()
        recipient = recipient_of(subscriber)
        try:
            for name in names:
                recipient.topics[name.name] = self._enter(
                    name, recipient, catching_up=bool(history) or name.name in starts
                )
            work = [
                partial(self._settle, topic, subscriber, starts.get(topic.name.name), _limit(history), topic.last)
                for topic in recipient.topics.values()
            ]
            if len(work) == 1:
                await work[0]()
            for start in range(0, len(work) if len(work) > 1 else 0, BATCH):
                await all_of(each() for each in work[start : start + BATCH])
        except BaseException:
            self.leave_all(recipient)
            raise

    async def _settle(
        self, topic: Topic, subscriber: Subscriber, since: Position | None, limit: int | None, stood: Position | None
    ) -> None:
        recipient = recipient_of(subscriber)
        if topic.state_of(recipient) is Delivery.CATCHING_UP:
            position, complete = await self.replay.catch_up(topic, recipient, since, limit)
            subscriber.positions[topic.name.name] = position
            if since is not None:
                subscriber.recovered = complete and subscriber.recovered is not False
            return
        await self.replay.until_live(topic)
        # Not ``topic.last``: events may have been delivered since the recipient was added, and wait in its queue.
        begin = stood or topic.first
        if begin is not None:
            subscriber.positions[topic.name.name] = begin

    def leave(self, topic: Topic, recipient: Recipient) -> None:
        """Remove ``recipient`` from ``topic``, and the topic if it has no other recipients."""
        topic.remove(recipient)
        if topic.is_empty and self.topics.get(topic.name) is topic:
            del self.topics[topic.name]
            self._touch(topic.name)

    def leave_all(self, recipient: Recipient) -> None:
        """Remove ``recipient`` from all of its topics."""
        recipient.queue_up()
        for topic in recipient.topics.values():
            self.leave(topic, recipient)
        recipient.topics.clear()

    def _enter(self, name: TopicName, recipient: Recipient, *, catching_up: bool) -> Topic:
        topic = self.topics.get(name)
        if topic is None:
            topic = self.topics[name] = Topic(name)
            self._touch(name)
        topic.add(recipient, catching_up=catching_up)
        return topic

    def _touch(self, name: TopicName) -> None:
        self._dirty.add(name)
        self._wake.set()

    # -- the supervisor

    async def run(self) -> None:
        """Keep a listener open until cancelled; reopen it after each loss."""
        while True:
            started = loop_time()
            try:
                async with self._backend.listen(self) as listener:
                    self._begin()
                    await self._serve(listener)
            except BackendUnavailable as error:
                self._note_loss(error.detail)
            except Exception as error:
                # If the reader ended, no event would be received any more: log any error and try again.
                logger.exception("the reader of channels failed")
                self._note_loss(repr(error))
            finally:
                self._end()
            _heed_cancellation()
            if loop_time() - started > STABLE_SECONDS:
                self._failures = 0
            await self._rest(self._pause())

    def _begin(self) -> None:
        self._loss = None
        self._hurried.clear()
        self._active.clear()
        self._deaf.clear()
        self._dirty = set(self.topics)
        self.replay.interrupt()
        self._wake.set()

    def _end(self) -> None:
        self.connected.clear()
        for topic in self.topics.values():
            topic.suspend()

    def _note_loss(self, detail: str) -> None:
        self.replay.trouble = detail
        if self._down_since is None:
            self._down_since = loop_time()
            logger.warning("channels lost %s: %s; reconnecting", type(self._backend).__name__, detail)

    def _note_deaf(self, name: TopicName, detail: str) -> None:
        """Try one topic again whose events are not received while those of others are."""
        self._deaf.add(name)
        self._touch(name)
        self.connected.clear()
        self._note_loss(detail)

    def _note_return(self) -> None:
        self.connected.set()
        if self._down_since is not None:
            self.reconnects += 1
            logger.warning("channels are back after %.1f s", loop_time() - self._down_since)
            self._down_since = None

    def _pause(self) -> float:
        first, longest = BACKOFF_SECONDS
        pause = min(longest, first * 2.0 ** min(self._failures, 16))
        self._failures += 1
        # Half of it is random, so that processes that lost the same broker do not reconnect at the same time.
        return pause * random.uniform(0.5, 1.0)  # noqa: S311

    async def _rest(self, pause: float) -> None:
        """Wait before the next attempt: ``pause`` seconds, or until a publish has reached the broker."""
        first = min(pause, BACKOFF_SECONDS[0])
        await asyncio.sleep(first)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause - first):
                await self._hurried.wait()
        self._hurried.clear()

    async def _serve(self, listener: Listener) -> None:
        beat_at = loop_time() + HEARTBEAT_SECONDS
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
            # Checked by the clock, because subscribers that join and leave may set the event all the time.
            if loop_time() >= beat_at:
                await listener.ping()
                beat_at = loop_time() + HEARTBEAT_SECONDS

    async def _reconcile(self, listener: Listener) -> None:
        dirty, self._dirty = self._dirty, set()
        self._deaf -= dirty
        gone = [name for name in dirty if name in self._active and name not in self.topics]
        new = [name for name in dirty if name not in self._active and name in self.topics]
        if gone:
            await listener.unsubscribe(gone)
            self._active.difference_update(gone)
        if new:
            for name in new:
                if (topic := self.topics.get(name)) is not None:
                    topic.ask()
            await self._note_positions(new)
            new = [name for name in new if name not in self._deaf and not self._is_refused(name)]
            # Added before the call, so that dropped() finds a name that is lost during it.
            self._active.update(new)
            await listener.subscribe(new)
        recovering: list[Topic] = []
        for name in dirty:
            topic = self.topics.get(name)
            if topic is not None and name in self._active and topic.refusal is None:
                if topic.is_recovering:
                    recovering.append(topic)
                else:
                    topic.confirm()
        for start in range(0, len(recovering), BATCH):
            await all_of(map(self._recover, recovering[start : start + BATCH]))

    async def _note_positions(self, names: Iterable[TopicName]) -> None:
        """Set the positions of new topics. Topics on an unavailable shard are tried again later."""
        topics = [topic for name in names if (topic := self.topics.get(name)) is not None and topic.last is None]
        for start in range(0, len(topics), BATCH):
            batch = topics[start : start + BATCH]
            if self._backend.is_sharded:
                await all_of(map(self._note_position_on_shard, batch))
                continue
            try:
                await self.replay.note_positions(batch)
            except BrokerRefusal:
                await all_of(map(self._note_position, batch))

    async def _note_position(self, topic: Topic) -> None:
        try:
            await self.replay.note_positions([topic])
        except BrokerRefusal as error:
            self.refused(topic.name, error)

    async def _note_position_on_shard(self, topic: Topic) -> None:
        try:
            await self._note_position(topic)
        except BackendUnavailable as error:
            self._note_deaf(topic.name, error.detail)
            await asyncio.sleep(BACKOFF_SECONDS[0])

    async def _recover(self, topic: Topic) -> None:
        past: Past | None = None
        try:
            past = await self.replay.missed_by(topic)
        except BrokerRefusal as error:
            self.refused(topic.name, error)
            return
        except BackendUnavailable as error:
            if not self._backend.is_sharded:
                raise
            # Only its shard may be unavailable: the other topics go on.
            self._note_deaf(topic.name, error.detail)
            await asyncio.sleep(BACKOFF_SECONDS[0])
            return
        if topic.name not in self._active:
            # Dropped meanwhile: later events are not received, and this past does not contain them.
            return
        if past is None or not past.complete:
            self.gaps += 1
        else:
            self.recovered += 1
        if not topic.resume(past):
            self._touch(topic.name)


def _heed_cancellation() -> None:
    """Raise a pending cancellation: ``asyncio.wait_for`` in client libraries may lose it before Python 3.12."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _limit(history: int | None) -> int | None:
    return None if history is None or history < 0 else history
