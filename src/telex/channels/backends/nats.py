"""Channels over NATS: core subjects for what is live, one JetStream stream for all channels with history.

The stream captures the live subjects, and republishes what it stored with its sequence number in a header: subscribers
of a channel with history listen there. So a publisher need not know whether anything is kept.

The stream has the largest ``size`` and ``seconds`` that any hub asked for, and its name ends in a chance number, which
is the epoch: a stream that was deleted and made anew has another name. Offsets are the stream's sequence numbers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from telex.channels.backends.base import ChannelsBackend, Listener, OnDemand, Sink, Target, Topic
from telex.channels.history import Event, Keep, Past, Position
from telex.exceptions import BackendUnavailable, ChannelsException, MissingDependencyException

try:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.errors import Error, MaxPayloadError, SlowConsumerError
    from nats.js.errors import APIError
except ImportError as _missing:
    raise MissingDependencyException("nats-py", "nats") from _missing

from telex.channels.backends.jetstream import Store, Subjects

__all__ = ("NatsBackend",)

logger: logging.Logger = logging.getLogger("telex.channels")

SEQUENCE: Final = "Nats-Sequence"
LAST_SEQUENCE: Final = "Nats-Last-Sequence"
STREAM: Final = "Nats-Stream"


class _Link:
    """One connection, which is not reconnected by the client library: the feed does that, and knows what was missed."""

    def __init__(
        self, servers: list[str], timeout: float, on_lost: Callable[[BackendUnavailable], None] | None
    ) -> None:
        self._servers = servers
        self._timeout = timeout
        self._on_lost = on_lost
        self._failure: BackendUnavailable | None = None
        self._waiting: set[asyncio.Timeout] = set()
        self.client = Client()
        self.store: Store | None = None
        self._echo = ""
        self._echoes: deque[asyncio.Future[None]] = deque()

    @property
    def is_closed(self) -> bool:
        return self._failure is not None or self.client.is_closed

    async def open(self) -> None:
        """Connect.

        :raises BackendUnavailable: no server answers.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self.client.connect(
                    self._servers,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=max(1, round(self._timeout)),
                    error_cb=self._on_error,
                    closed_cb=self._on_closed,
                )
                self._echo = self.client.new_inbox()
                await self.client.subscribe(self._echo, cb=self._on_echo)
        except (Error, OSError, TimeoutError) as error:
            await self.close()
            raise BackendUnavailable(f"NATS does not answer: {error!r}") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect."""
        self._on_lost = None
        with suppress(Error, OSError):
            await self.client.close()

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Bound what is asked of the server in the body; the loss of the connection ends it at once.

        :raises BackendUnavailable: no answer came.
        """
        if self._failure is not None:
            raise BackendUnavailable(self._failure.detail)
        scope = asyncio.timeout(self._timeout)
        task = asyncio.current_task()
        cancelling = task.cancelling() if task else 0
        try:
            async with scope:
                self._waiting.add(scope)
                yield
            # The client library waits by asyncio.wait_for, which before Python 3.12 forgets a cancellation that comes
            # together with the answer.
            if task is not None and task.cancelling() > cancelling:
                raise asyncio.CancelledError
        except MaxPayloadError as error:
            raise ChannelsException("the value is larger than the NATS server's max_payload") from error
        except APIError as error:
            raise BackendUnavailable(f"JetStream refused: {error!r}") from error
        except (Error, OSError, TimeoutError) as error:
            detail = self._failure.detail if self._failure else f"NATS did not answer: {error!r}"
            raise BackendUnavailable(detail) from error
        finally:
            self._waiting.discard(scope)

    async def confirm(self) -> None:
        """Wait until the server has done all that was sent before; within :meth:`answering`.

        The client library's ``flush`` does not do this: its PING goes past commands that still wait in its buffer. A
        message to ourselves goes the way of all others.
        """
        echo: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._echoes.append(echo)
        await self.client.publish(self._echo)
        await echo

    async def _on_echo(self, _message: Msg) -> None:
        echo = self._echoes.popleft()
        if not echo.done():
            echo.set_result(None)

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, SlowConsumerError):
            # The library has dropped messages: the connection's subscriptions cannot be trusted any more.
            self._fail(f"this process was too slow: {error!r}")
        elif "permissions violation" in str(error).lower():
            self._fail(str(error))
        else:
            logger.debug("NATS client: %r", error)

    async def _on_closed(self) -> None:
        self._fail(repr(self.client.last_error))

    def _fail(self, reason: str) -> None:
        if self._failure is not None:
            return
        self._failure = BackendUnavailable(f"NATS is lost: {reason}")
        now = asyncio.get_running_loop().time()
        for scope in self._waiting:
            scope.reschedule(now)
        if self._on_lost is not None:
            self._on_lost(self._failure)


class _NatsListener(Listener):
    def __init__(self, link: _Link, names: Subjects, sink: Sink) -> None:
        self._link = link
        self._names = names
        self._sink = sink
        self._subscriptions: dict[Topic, Subscription] = {}

    async def subscribe(self, topics: Collection[Topic]) -> None:
        async with self._link.answering():
            for topic in topics:
                self._subscriptions[topic] = await self._subscribe(topic)
            await self._link.confirm()

    async def unsubscribe(self, topics: Collection[Topic]) -> None:
        async with self._link.answering():
            for topic in topics:
                subscription = self._subscriptions.pop(topic, None)
                if subscription is not None:
                    await subscription.unsubscribe()
            await self._link.confirm()

    async def ping(self) -> None:
        async with self._link.answering():
            await self._link.confirm()

    async def _subscribe(self, topic: Topic) -> Subscription:
        deliver, channel = self._sink.deliver, topic.name
        if topic.is_pattern:
            prefix = topic.name[:-1]

            async def hear_pattern(message: Msg) -> None:
                name = self._names.channel(message.subject)
                if name.startswith(prefix):
                    deliver(Event(name, message.data), topic.name)

            return await self._link.client.subscribe(self._names.beneath(prefix), cb=hear_pattern)

        if self._sink.keep_for(channel) is None:

            async def hear(message: Msg) -> None:
                deliver(Event(channel, message.data))

            return await self._link.client.subscribe(self._names.live(channel), cb=hear)

        async def hear_stored(message: Msg) -> None:
            headers = message.headers or {}
            position = Position(headers[STREAM], int(headers[SEQUENCE]))
            deliver(Event(channel, message.data, position, int(headers[LAST_SEQUENCE])))

        return await self._link.client.subscribe(self._names.stored(channel), cb=hear_stored)


class NatsBackend(ChannelsBackend):
    """Channels over NATS 2.10 or newer, with JetStream where history is kept.

    ``url`` is one server or several, with commas between them. ``prefix`` begins the name of every subject; the stream
    is named after it. ``replicas`` is the stream's, at its creation. ``timeout`` (seconds) bounds each answer.
    """

    supports_patterns = True

    def __init__(self, url: str, *, prefix: str = "telex", replicas: int = 1, timeout: float = 5.0) -> None:
        self._servers = url.split(",")
        self._names = Subjects(prefix)
        self._replicas = replicas
        self._timeout = timeout
        self._publishing = OnDemand(lambda: self._connect(None))

    async def open(self) -> None:
        await self._publishing.get()

    async def close(self) -> None:
        await self._publishing.close()

    async def publish(self, targets: Sequence[Target], data: bytes) -> None:
        link = await self._publishing.get()
        async with link.answering():
            for channel, keep in targets:
                if keep is None:
                    await link.client.publish(self._names.live(channel), data)
                else:
                    await self._store(link).publish(channel, keep, data)
            if any(keep is None for _, keep in targets):
                await link.confirm()

    @asynccontextmanager
    async def listen(self, sink: Sink) -> AsyncIterator[Listener]:
        link = await self._connect(sink.lost)
        try:
            yield _NatsListener(link, self._names, sink)
        finally:
            await link.close()

    async def positions(self, targets: Collection[tuple[str, Keep]]) -> Mapping[str, Position]:
        link = await self._publishing.get()
        async with link.answering():
            return {channel: await self._store(link).position(channel, keep) for channel, keep in targets}

    async def history(
        self, channel: str, keep: Keep, *, since: Position | None = None, limit: int | None = None
    ) -> Past:
        link = await self._publishing.get()
        async with link.answering():
            if since is None:
                return await self._store(link).last(channel, keep, limit)
            return await self._store(link).after(channel, keep, since)

    def _store(self, link: _Link) -> Store:
        if link.store is None:
            link.store = Store(link.client, self._names, self._replicas, self._timeout)
        return link.store

    async def _connect(self, on_lost: Callable[[BackendUnavailable], None] | None) -> _Link:
        link = _Link(self._servers, self._timeout, on_lost)
        await link.open()
        return link
