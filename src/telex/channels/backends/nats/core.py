"""The backend for NATS: core subjects for live events, one JetStream stream for all channels with history.

The stream captures the live subjects, and republishes each stored event with its sequence number in a header.
Subscribers of a channel with history subscribe to the republished subject, so publishers use one subject in any case.

The stream keeps the largest ``size`` (plus one event) and ``seconds`` that any hub has requested; each reader returns
only what its channel keeps. The stream is named after the prefix, so that nodes which start together create only one.
The subject that it republishes to contains a random number, which is the epoch: a stream that was deleted and created
again has another epoch. Offsets are the stream's sequence numbers.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import unquote, urlsplit

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from telex.channels.backends.base import BrokerRefusal, ConnectedBackend, Listener, Sink
from telex.channels.backends.nats.connection import Login, NatsConnection, NatsServer, heeding
from telex.channels.backends.nats.jetstream import Store, kind_in, with_kind
from telex.channels.backends.nats.subjects import Subjects
from telex.channels.delivery.yield_budget import YieldBudget
from telex.channels.events import DataKind, Event, Keep, Past, Position
from telex.channels.names import Target, TopicName
from telex.exceptions import ImproperlyConfiguredException

__all__ = ("NatsBackend",)

logger: logging.Logger = logging.getLogger("telex.channels")

SEQUENCE: Final = "Nats-Sequence"
LAST_SEQUENCE: Final = "Nats-Last-Sequence"

BATCH: Final = 100
"""The most subscriptions sent before a confirmation, so that no buffer fills up and other tasks can run."""


class _StoreConnection(NatsConnection):
    """A connection that publishes, or reads history."""

    def __init__(self, server: NatsServer, names: Subjects, replicas: int) -> None:
        super().__init__(server, None)
        self.store = Store(self.ask, names, replicas)


class _NatsListener(Listener):
    def __init__(self, link: NatsConnection, names: Subjects, sink: Sink) -> None:
        self._link = link
        self._names = names
        self._sink = sink
        self._subscriptions: dict[TopicName, Subscription] = {}
        self._budget = YieldBudget()

    async def subscribe(self, topics: Collection[TopicName]) -> None:
        for batch in _batches(topics):
            refusals: dict[str, BrokerRefusal] = {}
            subjects: dict[str, list[TopicName]] = {}
            for topic in batch:
                subjects.setdefault(self._way(topic)[0], []).append(topic)
            async with self._link.confirming(subjects, refusals.__setitem__):
                for topic in batch:
                    self._subscriptions[topic] = await self._subscribe(topic)
            for subject, refusal in refusals.items():
                for topic in subjects[subject]:
                    await heeding(self._subscriptions.pop(topic).unsubscribe())
                    self._sink.refused(topic, refusal)

    async def unsubscribe(self, topics: Collection[TopicName]) -> None:
        for batch in _batches(topics):
            async with self._link.confirming():
                for topic in batch:
                    subscription = self._subscriptions.pop(topic, None)
                    if subscription is not None:
                        await heeding(subscription.unsubscribe())

    async def ping(self) -> None:
        await self._link.ping()

    async def _subscribe(self, topic: TopicName) -> Subscription:
        subject, read = self._way(topic)
        pattern = topic.name if topic.is_pattern else None

        async def hear(message: Msg) -> None:
            try:
                self._deliver(read(message), pattern)
            except Exception as error:
                # The library would continue with the next message, and the loss of this one would not be detected.
                logger.exception("an event of %r could not be delivered", topic.name)
                self._link.fail(f"an event of {topic.name!r} could not be delivered: {error!r}")
            if self._budget.is_spent():
                # The client library handles all buffered messages without suspending.
                await self._budget.renew()

        return await heeding(self._link.client.subscribe(subject, cb=hear))

    def _way(self, topic: TopicName) -> tuple[str, Callable[[Msg], Event | None]]:
        """The subject to subscribe to, and a function that returns a message's event, or ``None`` to ignore it."""
        channel = topic.name
        if topic.is_pattern:
            prefix = topic.name[:-1]

            def read_any(message: Msg) -> Event | None:
                name = self._names.channel(message.subject)
                if name is None or not name.startswith(prefix):
                    return None
                return Event(name, message.data, kind=kind_in(message.headers))

            return self._names.beneath(prefix), read_any

        if self._sink.keep_for(channel) is None:

            def read_live(message: Msg) -> Event | None:
                return Event(channel, message.data, kind=kind_in(message.headers))

            return self._names.live(channel), read_live

        def read_stored(message: Msg) -> Event | None:
            headers = message.headers or {}
            if SEQUENCE not in headers:
                # Published by another program: the stream adds this header to each event.
                return None
            position = Position(self._names.epoch(message.subject), int(headers[SEQUENCE]))
            return Event(channel, message.data, position, int(headers[LAST_SEQUENCE]), kind_in(headers))

        return self._names.stored(channel), read_stored

    def _deliver(self, event: Event | None, pattern: str | None) -> None:
        # Nothing is delivered after a failure: later events would hide the missing ones.
        if event is not None and not self._link.is_closed:
            self._sink.deliver(event, pattern)


class NatsBackend(ConnectedBackend[_StoreConnection]):
    """Channels over NATS 2.10 or newer, with JetStream where history is kept.

    ``url`` is one server, or several separated by commas, with a user and password or a token before the host. All
    subjects start with ``prefix``, and the stream is named after it. ``replicas`` is the number of replicas of a newly
    created stream. ``timeout`` (seconds) limits each answer. ``tls://`` or ``tls`` requires TLS: the server needs a
    certificate that is valid for the system's authorities, or for the context ``tls``.

    :raises ImproperlyConfiguredException: the prefix cannot begin a subject, or the URLs have different users.
    """

    supports_patterns = True

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "telex",
        replicas: int = 1,
        timeout: float = 5.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        urls = url.split(",")
        if any(urlsplit(each).query for each in urls):
            raise ImproperlyConfiguredException(
                "a URL of NATS has no options: write NatsBackend(url, timeout=..., replicas=..., tls=...)"
            )
        self._server = NatsServer(urls, _login(urls), tls, timeout)
        self._names = Subjects(prefix)
        self._replicas = replicas
        super().__init__(self._open_store, self._open_store)

    async def publish(self, targets: Sequence[Target], data: bytes, kind: DataKind = "bytes") -> Mapping[str, Position]:
        link = await self._publishing.get()
        headers = with_kind(kind)
        positions: dict[str, Position] = {}
        for channel, keep in targets:
            if keep is not None:
                positions[channel] = await link.store.publish(channel, keep, data, headers)
        live = [self._names.live(channel) for channel, keep in targets if keep is None]
        if live:
            await link.publish_confirmed(live, data, headers)
        return positions

    @asynccontextmanager
    async def listen(self, sink: Sink) -> AsyncIterator[Listener]:
        link = NatsConnection(self._server, sink.lost)
        await link.open()
        try:
            yield _NatsListener(link, self._names, sink)
        finally:
            await link.close()

    async def positions(self, targets: Collection[tuple[str, Keep]]) -> Mapping[str, Position]:
        if not targets:
            return {}
        link = await self._reading.get()
        keeps = [keep for _, keep in targets]
        widest = Keep(max(keep.size for keep in keeps), max(keep.seconds for keep in keeps))
        return dict.fromkeys((channel for channel, _ in targets), await link.store.end(widest))

    async def history(
        self,
        channel: str,
        keep: Keep,
        *,
        since: Position | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> Past:
        link = await self._reading.get()
        if since is None:
            return await link.store.last(channel, keep, limit, before)
        return await link.store.after(channel, keep, since)

    async def _open_store(self) -> _StoreConnection:
        link = _StoreConnection(self._server, self._names, self._replicas)
        await link.open()
        return link


def _batches(topics: Collection[TopicName]) -> Iterator[Sequence[TopicName]]:
    listed = list(topics)
    for start in range(0, len(listed), BATCH):
        yield listed[start : start + BATCH]


def _login(urls: Sequence[str]) -> Login:
    """The user and password in the URLs, unquoted: the library would use a quoted password unchanged."""
    logins = {_login_in(url) for url in urls} - {Login()}
    if len(logins) > 1:
        raise ImproperlyConfiguredException("the servers of one NATS know the same users: write one user and password")
    return logins.pop() if logins else Login()


def _login_in(url: str) -> Login:
    parts = urlsplit(url)
    if parts.username is None:
        return Login()
    if parts.password is None:
        return Login(token=unquote(parts.username))
    return Login(unquote(parts.username), unquote(parts.password))
