"""The interface of a broker. A backend transports events; the hub distributes them and recovers from losses.

A backend does not reconnect its listener: :meth:`ChannelsBackend.listen` is one connection, which calls
:meth:`Sink.lost` once. The hub's reader opens the next one, subscribes again and reads the missed events.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final, Generic, Protocol, TypeVar

from telex.channels.events import DataKind, Event, Keep, Past, Position
from telex.channels.names import Target, TopicName
from telex.exceptions import BackendUnavailable, ChannelsException

__all__ = ("ChannelsBackend", "ConnectedBackend", "Listener", "OnDemand", "BrokerRefusal", "Sink")

logger: logging.Logger = logging.getLogger("telex.channels")

PROBE_SECONDS: Final = 1.0
"""The interval between two pings of the publishing connection, which is also pinged while it is idle."""


class BrokerRefusal(BackendUnavailable):
    """The broker refused a request, for example because of permissions, limits or an invalid name.

    The connection stays open, and its other requests go on.
    """


class Sink(Protocol):
    """Receives the events of a listener. Its methods are synchronous and are called in the event loop's thread."""

    def deliver(self, event: Event, pattern: str | None = None) -> None:
        """Handle one event; ``pattern`` is the subscribed pattern that matched, ``None`` for a channel by name."""

    def keep_for(self, channel: str, /) -> Keep | None:
        """The history of a channel. Some brokers deliver channels with history on other subjects."""

    def lost(self, error: BackendUnavailable) -> None:
        """The connection is lost: this listener delivers no more events."""

    def dropped(self, topics: Collection[TopicName]) -> None:
        """The subscriptions to ``topics`` were lost or failed, while the listener's other subscriptions go on.

        The sink subscribes to them again.
        """

    def refused(self, topic: TopicName, error: BrokerRefusal) -> None:
        """The broker refused the subscription to ``topic``."""


class Listener(ABC):
    """One connection that receives published events."""

    @abstractmethod
    async def subscribe(self, topics: Collection[TopicName]) -> None:
        """Subscribe to ``topics``; returns when the broker has confirmed. All later events are received.

        :raises BackendUnavailable: the connection is lost, or the broker did not answer in time.
        """

    @abstractmethod
    async def unsubscribe(self, topics: Collection[TopicName]) -> None:
        """Unsubscribe from ``topics``.

        :raises BackendUnavailable: as :meth:`subscribe`.
        """

    @abstractmethod
    async def ping(self) -> None:
        """Ping the broker.

        :raises BackendUnavailable: it did not answer in time.
        """


class ChannelsBackend(ABC):
    """A broker. One object serves one hub or publisher, on one event loop."""

    supports_patterns: ClassVar[bool] = False
    is_shared: ClassVar[bool] = True
    """Whether other processes receive the events."""
    is_sharded: ClassVar[bool] = False
    """Whether channels are spread over several servers, each of which may be unavailable alone."""

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
        """Whether the publishing connection was open at the last ping."""
        return True

    @abstractmethod
    async def publish(self, targets: Sequence[Target], data: bytes, kind: DataKind = "bytes") -> Mapping[str, Position]:
        """Publish ``data`` to each target; returns when the broker has it. The event that arrives has this ``kind``.

        Returns the event's position in each channel with history.

        :raises BackendUnavailable: the connection failed; the broker may or may not have received the data.
        """

    @abstractmethod
    def listen(self, sink: Sink) -> AbstractAsyncContextManager[Listener]:
        """Open a connection that receives.

        :raises BackendUnavailable: on entering: the broker does not answer.
        """

    @abstractmethod
    async def positions(self, targets: Collection[tuple[str, Keep]]) -> Mapping[str, Position]:
        """The position of each channel's newest event.

        :raises BackendUnavailable: the connection to the broker failed.
        """

    @abstractmethod
    async def history(
        self,
        channel: str,
        keep: Keep,
        *,
        since: Position | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> Past:
        """The kept events of ``channel``: those after ``since``, or the last ``limit`` below the offset ``before``.

        :raises BackendUnavailable: the connection to the broker failed.
        """

    async def publish_in(self, transaction: object, targets: Sequence[Target], data: bytes, kind: DataKind) -> None:
        """Publish as part of the user's database transaction.

        :raises ChannelsException: the broker is not a database.
        """
        raise ChannelsException(f"{type(self).__name__} has no transactions: publish without transaction=")


class _Connection(Protocol):
    @property
    def is_closed(self) -> bool: ...

    async def close(self) -> None: ...

    async def ping(self) -> None:
        """Ping the server; close the connection if it does not answer.

        :raises BackendUnavailable: it did not answer.
        """


L = TypeVar("L", bound=_Connection)


class OnDemand(Generic[L]):
    """A connection that is opened at its first use, and opened again after it was lost.

    Callers that wait for the same attempt share its failure, so that each of them waits for one time-out only.
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
        """Whether there is a connection that has not failed."""
        return self._link is not None and not self._link.is_closed

    @property
    def is_idle(self) -> bool:
        """Whether there is no open connection, and no task is opening one."""
        return not self._lock.locked() and not self.is_open

    async def watch(self) -> None:
        """Open the connection, and ping it every :data:`PROBE_SECONDS` until :meth:`close`.

        :raises BackendUnavailable: it cannot be opened.
        """
        await self.get()
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._probe(), name="telex.channels.probe")

    async def _probe(self) -> None:
        # Checked on each turn, because a client library may lose a cancellation.
        while self._watcher is not None:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await (await self.get()).ping()
            except BackendUnavailable as error:
                logger.debug("the publishing connection did not answer: %s", error)
            except Exception:
                logger.exception("the publishing connection could not be pinged")

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


class ConnectedBackend(ChannelsBackend, Generic[L]):
    """A backend with a connection that publishes, and another one that reads.

    So many reads of the past do not delay publishes.
    """

    def __init__(self, to_publish: Callable[[], Awaitable[L]], to_read: Callable[[], Awaitable[L]]) -> None:
        self._publishing = OnDemand(to_publish)
        self._reading = OnDemand(to_read)

    async def open(self) -> None:
        await self._publishing.watch()

    async def close(self) -> None:
        await self._publishing.close()
        await self._reading.close()

    @property
    def can_publish(self) -> bool:
        return self._publishing.is_open
