"""What a broker must offer. A backend only carries; the hub decides who gets what, and heals.

A backend does not reconnect its listener by itself: :meth:`ChannelsBackend.listen` is one connection, which says once
that it is lost. The hub's feed opens the next one, subscribes again and finds out what was missed.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final, Generic, Protocol, TypeVar

from telex.channels.events import Event, Keep, Past, Position
from telex.channels.names import Target, TopicName
from telex.exceptions import BackendUnavailable, ChannelsException

__all__ = ("ChannelsBackend", "Listener", "OnDemand", "BrokerRefusal", "Sink")

logger: logging.Logger = logging.getLogger("telex.channels")

PROBE_SECONDS: Final = 1.0
"""A connection that publishes is asked for a sign of life this often, whether or not somebody publishes."""


class BrokerRefusal(BackendUnavailable):
    """The broker has answered, and will not do what it was asked: permissions, limits, a name that it cannot store.

    The connection is in order, and whatever else is asked of it goes on.
    """


class Sink(Protocol):
    """Where a listener puts what it hears. The calls are synchronous and belong to the event loop's thread."""

    def deliver(self, event: Event, pattern: str | None = None) -> None:
        """Take one event; ``pattern`` is the pattern that it was subscribed by, ``None`` for the channel itself."""

    def keep_for(self, channel: str, /) -> Keep | None:
        """What is to be kept of a channel: some brokers carry channels with history elsewhere."""

    def lost(self, error: BackendUnavailable) -> None:
        """The connection is gone: nothing more comes from this listener."""

    def dropped(self, topics: Collection[TopicName]) -> None:
        """The listener does not hear ``topics`` any more, or could not subscribe to them, while it hears others.

        They are subscribed to again.
        """

    def refused(self, topic: TopicName, error: BrokerRefusal) -> None:
        """The broker will not have ``topic`` subscribed to."""


class Listener(ABC):
    """One live connection that hears what is published."""

    @abstractmethod
    async def subscribe(self, topics: Collection[TopicName]) -> None:
        """Hear ``topics``; returns when the broker has confirmed: whatever is published from now on is heard.

        :raises BackendUnavailable: the connection is lost, or the answer did not come in time.
        """

    @abstractmethod
    async def unsubscribe(self, topics: Collection[TopicName]) -> None:
        """Hear ``topics`` no more.

        :raises BackendUnavailable: as above.
        """

    @abstractmethod
    async def ping(self) -> None:
        """Ask for a sign of life.

        :raises BackendUnavailable: there was none in time.
        """


class ChannelsBackend(ABC):
    """A broker. One object serves one hub or publisher, on one event loop."""

    supports_patterns: ClassVar[bool] = False
    is_shared: ClassVar[bool] = True
    """Whether other processes receive what is published here."""
    is_sharded: ClassVar[bool] = False
    """Whether channels are on several servers, of which one may be away while the others are not."""

    @abstractmethod
    async def open(self) -> None:
        """Connect for publishing.

        :raises BackendUnavailable: the broker does not answer.
        """

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""

    @property
    def can_publish(self) -> bool:
        """Whether the connection that publishes is in order, as far as the last sign of life tells."""
        return True

    @abstractmethod
    async def publish(self, targets: Sequence[Target], data: bytes) -> None:
        """Hand ``data`` to the broker for each target; returns when the broker has it.

        :raises BackendUnavailable: the broker is gone; it may or may not have got the data.
        """

    @abstractmethod
    def listen(self, sink: Sink) -> AbstractAsyncContextManager[Listener]:
        """Open a connection that receives.

        :raises BackendUnavailable: on entering: the broker does not answer.
        """

    @abstractmethod
    async def positions(self, targets: Collection[tuple[str, Keep]]) -> Mapping[str, Position]:
        """Where each channel stands now.

        :raises BackendUnavailable: the broker is gone.
        """

    @abstractmethod
    async def history(
        self, channel: str, keep: Keep, *, since: Position | None = None, limit: int | None = None
    ) -> Past:
        """What is kept of ``channel``: after ``since``, or the last ``limit`` events.

        :raises BackendUnavailable: the broker is gone.
        """

    async def publish_in(self, transaction: object, targets: Sequence[Target], data: bytes) -> None:
        """Publish as part of the user's own database transaction.

        :raises ChannelsException: the broker is not a database.
        """
        raise ChannelsException(f"{type(self).__name__} has no transactions: publish without transaction=")


class _Connection(Protocol):
    @property
    def is_closed(self) -> bool: ...

    async def close(self) -> None: ...

    async def ping(self) -> None:
        """Ask for a sign of life, and close what gives none.

        :raises BackendUnavailable: there is none.
        """


L = TypeVar("L", bound=_Connection)


class OnDemand(Generic[L]):
    """A connection that is opened when it is needed, and again when it was lost.

    Callers that wait for the same attempt share its failure, so that a dead broker costs each of them one time-out.
    """

    def __init__(self, connect: Callable[[], Awaitable[L]]) -> None:
        self._connect = connect
        self._lock = asyncio.Lock()
        self._link: L | None = None
        self._attempts = 0
        self._failure: BackendUnavailable | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, which is not known to be lost."""
        return self._link is not None and not self._link.is_closed

    @property
    def is_idle(self) -> bool:
        """Whether there is no open connection, and nobody waits for one."""
        return not self._lock.locked() and not self.is_open

    async def watch(self) -> None:
        """Open the connection, and see by the clock that it is in order until :meth:`close`.

        :raises BackendUnavailable: it cannot be opened.
        """
        await self.get()
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._probe(), name="telex.channels.probe")

    async def _probe(self) -> None:
        # Asked each time, as a cancellation may get lost in a client library.
        while self._watcher is not None:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await (await self.get()).ping()
            except BackendUnavailable as error:
                logger.debug("the connection that publishes gave no sign of life: %s", error)
            except Exception:
                logger.exception("the connection that publishes could not be asked for a sign of life")

    async def close(self) -> None:
        """Close the connection, if there is one. The next may be opened on another event loop."""
        watcher, self._watcher = self._watcher, None
        try:
            if watcher is not None:
                watcher.cancel()
                await asyncio.wait([watcher])
        finally:
            self._lock = asyncio.Lock()
            await self._drop()

    async def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def get(self) -> L:
        """The open connection.

        :raises BackendUnavailable: it cannot be opened.
        """
        if self._link is not None and not self._link.is_closed:
            return self._link
        seen = self._attempts
        async with self._lock:
            if self._link is not None and not self._link.is_closed:
                return self._link
            await self._drop()
            if self._failure is not None and self._attempts != seen:
                raise BackendUnavailable(self._failure.detail) from self._failure
            self._failure = None
            try:
                self._link = await self._connect()
            except BackendUnavailable as failure:
                self._failure = failure
                raise
            finally:
                self._attempts += 1
            return self._link
