"""Channels over NATS: core subjects for what is live, one JetStream stream for all channels with history.

The stream captures the live subjects, and republishes what it stored with its sequence number in a header: subscribers
of a channel with history listen there. So a publisher need not know whether anything is kept.

The stream has the largest ``size`` (and one event more) and ``seconds`` that any hub asked for; each reader takes what
its own channel keeps. The stream is named after the prefix, so that nodes which start together make the same one. The
subject that it republishes to contains a random number, which is the epoch: a stream that was deleted and made anew has
another one. Offsets are the stream's sequence numbers.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error, MaxPayloadError, SlowConsumerError

from telex.channels.backends.base import ChannelsBackend, Listener, OnDemand, Sink
from telex.channels.backends.nats.jetstream import Store, Subjects
from telex.channels.delivery.yield_budget import YieldBudget
from telex.channels.events import Event, Keep, Past, Position
from telex.channels.names import Target, TopicName
from telex.exceptions import (
    BackendUnavailable,
    ChannelsException,
    ImproperlyConfiguredException,
)

__all__ = ("NatsBackend",)

logger: logging.Logger = logging.getLogger("telex.channels")

SEQUENCE: Final = "Nats-Sequence"
LAST_SEQUENCE: Final = "Nats-Last-Sequence"

BATCH: Final = 100
"""So many subscriptions are sent before they are confirmed: others get their turn, and no buffer of ours fills up."""

CLOSING_SECONDS: Final = 0.5
"""Seconds. The library would wait for ever for a connection whose certificate it has refused."""

T = TypeVar("T")


class _Login(NamedTuple):
    """What the server is told of who connects."""

    user: str | None = None
    password: str | None = None
    token: str | None = None


class _Server(NamedTuple):
    """Where to connect, as whom, and whether TLS is a must; ``timeout`` in seconds is for each answer."""

    urls: list[str]
    login: _Login
    tls: ssl.SSLContext | None
    timeout: float

    @property
    def needs_tls(self) -> bool:
        return self.tls is not None or any(url.startswith("tls://") for url in self.urls)


class _Client(Client):
    """The library's client, where it would go on in the clear and tell the password, and what it forgets at the end."""

    def __init__(self, needs_tls: bool) -> None:
        super().__init__()
        self._needs_tls = needs_tls

    def _connect_command(self) -> bytes:
        if self._needs_tls and not self._server_info.get("tls_required"):
            raise Error("TLS was asked for, and the server does not require it")
        return super()._connect_command()

    def abort(self) -> None:
        """End what is left: the library waits for its buffers first, which a server that stands still never takes."""
        for subscription in self._subs.values():
            subscription._stop_processing()
        self._subs.clear()
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()


class _Question:
    """Gathers an answer, of which ``until`` tells the last message."""

    def __init__(self, until: Callable[[Msg], bool]) -> None:
        self._until = until
        self._messages: list[Msg] = []
        self.answered: asyncio.Future[list[Msg]] = asyncio.get_running_loop().create_future()

    def take(self, message: Msg) -> None:
        self._messages.append(message)
        if not self.answered.done() and self._until(message):
            self.answered.set_result(self._messages)


class _Link:
    """One connection, which is not reconnected by the client library: the feed does that, and knows what was missed."""

    def __init__(self, server: _Server, on_lost: Callable[[BackendUnavailable], None] | None) -> None:
        self._server = server
        self._on_lost = on_lost
        self._failure: BackendUnavailable | None = None
        self._waiting: set[asyncio.Timeout] = set()
        self.client = _Client(server.needs_tls)
        self._inbox = self.client.new_inbox()
        self._numbers = itertools.count()
        self._questions: dict[str, _Question] = {}

    @property
    def is_closed(self) -> bool:
        return self._failure is not None or self.client.is_closed

    async def open(self) -> None:
        """Connect.

        :raises BackendUnavailable: no server answers.
        """
        try:
            async with asyncio.timeout(self._server.timeout):
                await _heeding(self._connect())
        except (Error, OSError, TimeoutError) as error:
            await self.close()
            raise BackendUnavailable(f"NATS does not answer: {error!r}") from error
        except BaseException:
            await self.close()
            raise

    async def _connect(self) -> None:
        login = self._server.login
        await self.client.connect(
            self._server.urls,
            user=login.user,
            password=login.password,
            token=login.token,
            tls=self._server.tls,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=max(1, round(self._server.timeout)),
            error_cb=self._on_error,
            closed_cb=self._on_closed,
        )
        await self.client.subscribe(f"{self._inbox}.*", cb=self._on_answer)

    async def close(self) -> None:
        """Disconnect, without waiting long for a server that does not answer."""
        self._on_lost = None
        try:
            with suppress(Error, OSError, TimeoutError):
                async with asyncio.timeout(CLOSING_SECONDS):
                    await self.client.close()
        finally:
            self.client.abort()

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Bound what is asked of the server in the body; the loss of the connection ends it at once.

        :raises BackendUnavailable: no answer came.
        """
        if self._failure is not None:
            raise BackendUnavailable(self._failure.detail)
        scope = asyncio.timeout(self._server.timeout)
        try:
            async with scope:
                self._waiting.add(scope)
                yield
        except (Error, OSError, TimeoutError) as error:
            detail = self._failure.detail if self._failure else f"NATS did not answer: {error!r}"
            raise BackendUnavailable(detail) from error
        finally:
            self._waiting.discard(scope)

    async def ask(
        self, subject: str, payload: bytes = b"", /, until: Callable[[Msg], bool] = lambda _: True
    ) -> list[Msg]:
        """Send ``payload`` to ``subject``; returns the answer when ``until`` says that a message of it is its last.

        :raises BackendUnavailable: the connection is lost, or the answer did not come in time.
        :raises ChannelsException: the payload is too large.
        """
        async with self.answering():
            with self._expecting(until) as (inbox, question):
                await self.publish(subject, payload, reply=inbox)
                return await question.answered

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        """Send ``payload``; within :meth:`answering`.

        :raises ChannelsException: it is too large.
        """
        try:
            await _heeding(self.client.publish(subject, payload, reply))
        except MaxPayloadError as error:
            raise ChannelsException(
                f"a value of {len(payload):,} bytes is larger than the {self.client.max_payload:,} that this NATS "
                "server takes: raise its max_payload, or publish where the value is"
            ) from error

    async def confirm(self) -> None:
        """Wait until the server has done all that was sent before; within :meth:`answering`.

        The client library's ``flush`` does not do this: its PING goes past commands that still wait in its buffer. A
        message to ourselves goes the way of all others.
        """
        with self._expecting(lambda _: True) as (inbox, question):
            await self.publish(inbox, b"")
            await question.answered

    @contextmanager
    def _expecting(self, until: Callable[[Msg], bool]) -> Iterator[tuple[str, _Question]]:
        """The subject for an answer, and who gathers it."""
        inbox = f"{self._inbox}.{next(self._numbers)}"
        question = self._questions[inbox] = _Question(until)
        try:
            yield inbox, question
        finally:
            del self._questions[inbox]

    async def _on_answer(self, message: Msg) -> None:
        question = self._questions.get(message.subject)
        if question is not None:
            question.take(message)

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, SlowConsumerError):
            # The library has dropped messages: the connection's subscriptions cannot be trusted any more.
            self.fail(f"this process was too slow: {error!r}")
        elif "permissions violation" in str(error).lower():
            self.fail(str(error))
        else:
            logger.debug("NATS client: %r", error)

    async def _on_closed(self) -> None:
        self.fail(repr(self.client.last_error))

    def fail(self, reason: str) -> None:
        """Give the connection up: who waits for an answer is told, and so is the listener's sink."""
        if self._failure is not None:
            return
        self._failure = BackendUnavailable(f"NATS is lost: {reason}")
        now = asyncio.get_running_loop().time()
        for scope in self._waiting:
            if not scope.expired():
                scope.reschedule(now)
        if self._on_lost is not None:
            self._on_lost(self._failure)


class _PublishingLink(_Link):
    """The connection that publishes, and asks what is kept."""

    def __init__(self, server: _Server, names: Subjects, replicas: int) -> None:
        super().__init__(server, None)
        self.store = Store(self.ask, names, replicas)


async def _heeding(work: Awaitable[T]) -> T:
    """The library's ``work``, which may forget a cancellation that comes while it waits."""
    task = asyncio.current_task()
    cancelling = task.cancelling() if task else 0
    result = await work
    if task is not None and task.cancelling() > cancelling:
        raise asyncio.CancelledError
    return result


class _NatsListener(Listener):
    def __init__(self, link: _Link, names: Subjects, sink: Sink) -> None:
        self._link = link
        self._names = names
        self._sink = sink
        self._subscriptions: dict[TopicName, Subscription] = {}
        self._budget = YieldBudget()

    async def subscribe(self, topics: Collection[TopicName]) -> None:
        for batch in _batches(topics):
            async with self._link.answering():
                for topic in batch:
                    self._subscriptions[topic] = await self._subscribe(topic)
                await self._link.confirm()

    async def unsubscribe(self, topics: Collection[TopicName]) -> None:
        for batch in _batches(topics):
            async with self._link.answering():
                for topic in batch:
                    subscription = self._subscriptions.pop(topic, None)
                    if subscription is not None:
                        await _heeding(subscription.unsubscribe())
                await self._link.confirm()

    async def ping(self) -> None:
        async with self._link.answering():
            await self._link.confirm()

    async def _subscribe(self, topic: TopicName) -> Subscription:
        subject, read = self._way(topic)
        pattern = topic.name if topic.is_pattern else None

        async def hear(message: Msg) -> None:
            try:
                self._deliver(read(message), pattern)
            except Exception as error:
                # The library would only call for the next one, and who has not had this one would never know.
                logger.exception("an event of %r could not be delivered", topic.name)
                self._link.fail(f"an event of {topic.name!r} could not be delivered: {error!r}")
            if self._budget.is_spent():
                # The client library calls us for all that has arrived without waiting in between.
                await self._budget.renew()

        return await _heeding(self._link.client.subscribe(subject, cb=hear))

    def _way(self, topic: TopicName) -> tuple[str, Callable[[Msg], Event | None]]:
        """The subject to hear, and what makes an event of a message there; ``None`` of what is no event of ours."""
        channel = topic.name
        if topic.is_pattern:
            prefix = topic.name[:-1]

            def read_any(message: Msg) -> Event | None:
                name = self._names.channel(message.subject)
                return None if name is None or not name.startswith(prefix) else Event(name, message.data)

            return self._names.beneath(prefix), read_any

        if self._sink.keep_for(channel) is None:
            return self._names.live(channel), lambda message: Event(channel, message.data)

        def read_stored(message: Msg) -> Event | None:
            headers = message.headers or {}
            if SEQUENCE not in headers:
                # Somebody else's: the stream tells where each event stands.
                return None
            position = Position(self._names.epoch(message.subject), int(headers[SEQUENCE]))
            return Event(channel, message.data, position, int(headers[LAST_SEQUENCE]))

        return self._names.stored(channel), read_stored

    def _deliver(self, event: Event | None, pattern: str | None) -> None:
        # After a failure nothing more comes: what follows would hide what is missing.
        if event is not None and not self._link.is_closed:
            self._sink.deliver(event, pattern)


class NatsBackend(ChannelsBackend):
    """Channels over NATS 2.10 or newer, with JetStream where history is kept.

    ``url`` is one server or several, with commas between them; a user and password, or a token, may stand before the
    host. ``prefix`` begins the name of every subject; the stream is named after it. ``replicas`` is the stream's, at
    its creation. ``timeout`` (seconds) bounds each answer. With ``tls://`` the server has to have a certificate that
    the system trusts, or that ``tls`` does; with ``tls`` TLS is a must, too.

    :raises ImproperlyConfiguredException: the prefix begins no subject, or the URLs have several users.
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
        self._server = _Server(urls, _login(urls), tls, timeout)
        self._names = Subjects(prefix)
        self._replicas = replicas
        self._publishing = OnDemand(self._open_publishing)

    async def open(self) -> None:
        await self._publishing.get()

    async def close(self) -> None:
        await self._publishing.close()

    async def publish(self, targets: Sequence[Target], data: bytes) -> None:
        link = await self._publishing.get()
        for channel, keep in targets:
            if keep is not None:
                await link.store.publish(channel, keep, data)
        live = [self._names.live(channel) for channel, keep in targets if keep is None]
        if live:
            async with link.answering():
                for subject in live:
                    await link.publish(subject, data)
                await link.confirm()

    @asynccontextmanager
    async def listen(self, sink: Sink) -> AsyncIterator[Listener]:
        link = _Link(self._server, sink.lost)
        await link.open()
        try:
            yield _NatsListener(link, self._names, sink)
        finally:
            await link.close()

    async def positions(self, targets: Collection[tuple[str, Keep]]) -> Mapping[str, Position]:
        if not targets:
            return {}
        link = await self._publishing.get()
        keeps = [keep for _, keep in targets]
        widest = Keep(max(keep.size for keep in keeps), max(keep.seconds for keep in keeps))
        return dict.fromkeys((channel for channel, _ in targets), await link.store.end(widest))

    async def history(
        self, channel: str, keep: Keep, *, since: Position | None = None, limit: int | None = None
    ) -> Past:
        link = await self._publishing.get()
        if since is None:
            return await link.store.last(channel, keep, limit)
        return await link.store.after(channel, keep, since)

    async def _open_publishing(self) -> _PublishingLink:
        link = _PublishingLink(self._server, self._names, self._replicas)
        await link.open()
        return link


def _batches(topics: Collection[TopicName]) -> Iterator[Sequence[TopicName]]:
    listed = list(topics)
    for start in range(0, len(listed), BATCH):
        yield listed[start : start + BATCH]


def _login(urls: Sequence[str]) -> _Login:
    """Who the URLs say that connects: the library would take a password as it is quoted in the URL."""
    logins = {_login_in(url) for url in urls} - {_Login()}
    if len(logins) > 1:
        raise ImproperlyConfiguredException("the servers of one NATS know the same users: write one user and password")
    return logins.pop() if logins else _Login()


def _login_in(url: str) -> _Login:
    parts = urlsplit(url)
    if parts.username is None:
        return _Login()
    if parts.password is None:
        return _Login(token=unquote(parts.username))
    return _Login(unquote(parts.username), unquote(parts.password))
