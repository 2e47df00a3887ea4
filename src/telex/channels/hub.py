"""The hub of a process: publish and subscribe, on any backend."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, get_args

from telex.channels.backends import backend_from_url
from telex.channels.backends.base import ChannelsBackend
from telex.channels.delivery.queue import Policy
from telex.channels.delivery.subscriber import Subscriber, Subscription, recipient_of
from telex.channels.events import Event, Keep, OnGap, Position
from telex.channels.names import INTERNAL, ChannelNames, Since, TopicName, encoder, starting_points
from telex.channels.presence import Heartbeat, Presence
from telex.channels.publish_queue import PublishQueue
from telex.channels.recovery.reader import BrokerReader
from telex.channels.statistics import Audience, Statistics
from telex.connection import WebSocket
from telex.di import Provide
from telex.exceptions import BackendUnavailable, ChannelsException, ImproperlyConfiguredException
from telex.layers import LayerOptions
from telex.renamed import litestars_methods
from telex.signatures import call_site
from telex.types import Mode, TypeEncoders

__all__ = ("Channels", "ChannelsProvider", "GeneratedRoutes")

PRESENCE: Final = f"{INTERNAL}presence"
"""The channel on which the nodes exchange presence."""

PRESENCE_BACKLOG: Final = 10_000

RESTART_SECONDS: Final = 1.0
"""The pause before a failed part of the hub begins again."""

logger: Final = logging.getLogger("telex.channels")


class AppUnderConstruction(Protocol):
    """What the hub needs of the app's configuration, before it freezes."""

    @property
    def dependencies(self) -> dict[str, Any]: ...

    @property
    def lifespan(self) -> list[Any]: ...

    @property
    def route_handlers(self) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class GeneratedRoutes:
    """What ``create_ws_route_handlers`` asks for: a route for each of ``names``, or one for any name."""

    hub: Channels
    names: frozenset[str] | None
    base_path: str
    history: int
    send_mode: Mode
    options: LayerOptions
    site: str


class ChannelsProvider(Provide):
    """The dependency ``channels``: handlers that follow a channel find the hub in it when the app is built."""

    __slots__ = ("hub",)

    def __init__(self, hub: Channels) -> None:
        super().__init__(lambda: hub, use_cache=True)
        self.hub: Channels = hub


class Channels:
    """Publish from anywhere, subscribe anywhere: a plugin of the app, and an async context manager without one.

    ``backend`` is a URL or a :class:`ChannelsBackend`. ``channels`` declares the names that may be used, unless
    ``arbitrary_channels_allowed``. ``subscriber_max_backlog`` events may wait for a slow reader, and
    ``subscriber_backlog_strategy`` says what happens to more (see :data:`telex.channels.delivery.queue.Policy`).
    ``subscriber_on_gap`` says how a subscriber learns of lost events: ``event`` puts a :class:`Gap` into its stream,
    ``close`` ends it with 1012.
    ``history`` says how much of the past is kept: for all channels, or by name, where a name that ends in ``*`` stands
    for all that begin so; the first match counts. All publishers to a channel must agree on it. ``presence``
    has the nodes exchange who is in which channel. ``subscribe_timeout`` (seconds) bounds the wait for the broker.

    With ``create_ws_route_handlers`` each declared channel is served under ``ws_handler_base_path`` (any channel, where
    any is allowed), its last ``ws_handler_send_history`` events first (all if negative), as messages of
    ``ws_send_mode``, under the layered ``ws_handler_options``.

    :raises ImproperlyConfiguredException: neither ``channels`` nor ``arbitrary_channels_allowed`` is given, or the URL
        is not one of a known broker.
    """

    def __init__(
        self,
        backend: ChannelsBackend | str,
        *,
        channels: Iterable[str] | None = None,
        arbitrary_channels_allowed: bool = False,
        create_ws_route_handlers: bool = False,
        ws_handler_send_history: int = 0,
        ws_handler_base_path: str = "/",
        ws_send_mode: Mode = "text",
        ws_handler_options: LayerOptions | None = None,
        subscriber_max_backlog: int = 1000,
        subscriber_backlog_strategy: Policy = "close",
        subscriber_on_gap: OnGap = "event",
        subscriber_class: type[Subscriber] = Subscriber,
        type_encoders: TypeEncoders | None = None,
        history: Keep | Mapping[str, Keep] | None = None,
        presence: Heartbeat | None = None,
        subscribe_timeout: float = 10.0,
    ) -> None:
        self._names = ChannelNames(channels, arbitrary_channels_allowed, history)
        self.backend: ChannelsBackend = backend_from_url(backend) if isinstance(backend, str) else backend
        if not isinstance(self.backend, ChannelsBackend):
            raise ImproperlyConfiguredException(f"{backend!r:.80} is no ChannelsBackend: give one, or a URL")
        self.encode_data: Callable[[object], bytes] = encoder(type_encoders)
        self.type_encoders: TypeEncoders = dict(type_encoders or {})
        self._routes: GeneratedRoutes | None = None
        if create_ws_route_handlers:
            names = None if arbitrary_channels_allowed else self._names.declared
            if ws_handler_send_history and history is None:
                raise ImproperlyConfiguredException("ws_handler_send_history needs history=Keep(...): nothing is kept")
            if ws_handler_send_history:
                for channel in names or ():
                    self._names.require_history(channel, "ws_handler_send_history")
            self._routes = GeneratedRoutes(
                self,
                names,
                ws_handler_base_path,
                ws_handler_send_history,
                ws_send_mode,
                ws_handler_options or {},
                call_site(),
            )
        self._max_backlog = subscriber_max_backlog
        self._strategy: Policy = subscriber_backlog_strategy
        self._on_gap = _checked_on_gap(subscriber_on_gap)
        self._subscriber_class = subscriber_class
        # A wrong policy or limit is an error of the app's description: find it now.
        subscriber_class(subscriber_max_backlog, subscriber_backlog_strategy)
        self._subscribe_timeout = subscribe_timeout
        self._heartbeat = presence
        self._presence: Presence | None = None
        self._audience = Audience()
        self._publish_queue = PublishQueue(self.backend.publish)
        self._reader: BrokerReader | None = None
        self._main: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: set[asyncio.Timeout] = set()
        self._published = 0

    # -- life

    def on_app_init(self, config: AppUnderConstruction) -> None:
        """Become the app's dependency ``channels``, and live as long as the app."""
        config.dependencies.setdefault("channels", ChannelsProvider(self))
        # The first to start and the last to end: the user's own lifespans may publish and subscribe.
        config.lifespan.insert(0, self._lifespan)
        if self._routes is not None:
            config.route_handlers.append(self._routes)

    @asynccontextmanager
    async def _lifespan(self, _app: object) -> AsyncIterator[None]:
        async with self:
            yield

    async def __aenter__(self) -> Channels:
        """Connect; ready when the broker answers.

        :raises BackendUnavailable: it does not. Later losses are healed.
        """
        if self._reader is not None:
            raise ChannelsException("this hub runs already: one Channels serves one app")
        await self.backend.open()
        self._loop = asyncio.get_running_loop()
        reader = self._reader = BrokerReader(self.backend, self._names.keep_for, self._subscribe_timeout)
        self._publish_queue.open()
        if self._heartbeat is not None:
            self._presence = Presence(self._tell_presence, self._heartbeat)
        self._main = asyncio.create_task(self._run(reader), name="telex.channels")
        try:
            async with asyncio.timeout(self._subscribe_timeout):
                await reader.connected.wait()
        except TimeoutError:
            await self._end()
            raise BackendUnavailable(reader.replay.explained("accepts no subscription")) from None
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._publish_queue.drain()
        finally:
            await self._end()

    async def _run(self, reader: BrokerReader) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_supervised(reader.run), name="telex.channels.reader")
            group.create_task(_supervised(self._publish_queue.run), name="telex.channels.publish_queue")
            if self._presence is not None:
                hear = partial(self._hear_presence, reader, self._presence)
                group.create_task(_supervised(hear), name="telex.channels.presence")
                group.create_task(_supervised(self._presence.run), name="telex.channels.heartbeat")

    async def _end(self) -> None:
        main, self._main = self._main, None
        for opening in self._opening:
            opening.reschedule(asyncio.get_running_loop().time())
        for subscriber in self._audience:
            self._dismiss(subscriber)
        if main is not None:
            main.cancel()
            await asyncio.wait([main])
        if self._presence is not None:
            await self._presence.end()
        self._reader = self._presence = None
        await self.backend.close()

    def _running(self) -> BrokerReader:
        if self._reader is None or self._main is None:
            raise ChannelsException(
                "the channels do not run: use them inside the app's lifespan or `async with channels`"
            )
        return self._reader

    def _running_here(self) -> BrokerReader:
        reader = self._running()
        if self._loop is not asyncio.get_running_loop():
            raise ChannelsException(
                "the channels run on another event loop: call publish_nowait() from here, "
                "or asyncio.run_coroutine_threadsafe(channels.publish(...), loop)"
            )
        return reader

    # -- publishing

    async def publish(self, channels: str | Iterable[str], data: object, *, transaction: object = None) -> None:
        """Hand ``data`` to the broker for each of ``channels``; returns when the broker has it.

        Bytes go as they are, text as UTF-8, everything else as JSON; encoded once. With ``transaction``, an open
        connection to the database that carries the channels, the event is published if and when that commits.

        :raises BackendUnavailable: the broker is gone; the data may or may not have arrived.
        :raises ChannelsException: a channel is not declared.
        """
        reader = self._running_here()
        targets = self._names.targets(channels)
        payload = self.encode_data(data)
        if transaction is None:
            await self.backend.publish(targets, payload)
        else:
            await self.backend.publish_in(transaction, targets, payload)
        self._published += len(targets)
        if not reader.connected.is_set():
            reader.hurry()

    def publish_nowait(self, channels: str | Iterable[str], data: object) -> None:
        """Publish soon, in order, without waiting; may be called from any thread.

        What the broker does not take is logged and counted as ``failed``.

        :raises BackendUnavailable: too much waits already.
        :raises ChannelsException: a channel is not declared, or the hub does not run.
        """
        self._running()
        self._publish_queue.put(self._names.targets(channels), self.encode_data(data))

    # -- subscribing

    def subscribe(
        self,
        channels: str | Iterable[str],
        history: int | None = None,
        *,
        since: Since | None = None,
        pattern: bool = False,
        max_backlog: int | None = None,
        backlog_strategy: Policy | None = None,
        on_gap: OnGap | None = None,
        socket: WebSocket[Any, Any, Any] | None = None,
    ) -> Subscription:
        """Follow ``channels``: ``async with channels.subscribe("room:1") as events``, or ``await`` it.

        Ready when the broker has confirmed: everything published from then on is in the stream.
        ``history`` puts the last so many events of each channel first, all that are kept if it is negative. ``since``
        puts all that came after that position first, or a :class:`Gap` if that is not kept; ``recovered`` of
        the subscriber says which.
        With ``pattern`` the names are prefixes that end in ``*``.
        With ``socket`` the subscription ends with that connection, whichever task or hook made it: its stream ends, and
        nothing needs to unsubscribe. A handler that declares ``socket`` must be running.

        To read a snapshot without missing a change: take :meth:`position` first, then the snapshot, then subscribe
        ``since`` that position.

        :raises ChannelsException: a channel is not declared, or the history that it asks for is not kept.
        :raises BackendUnavailable: on entering: the broker does not confirm in time.
        :raises WebSocketDisconnect: on entering: the client of ``socket`` has left.
        """
        topics = self._names.topics(channels, pattern=pattern)
        if pattern and not self.backend.supports_patterns:
            raise ChannelsException(f"{type(self.backend).__name__} has no patterns: subscribe to channels by name")
        if pattern and (history or since is not None):
            raise ChannelsException("a pattern has no history: subscribe to channels by name")
        starts = starting_points(topics, since)
        for topic in topics if history or starts else ():
            self._names.kept(topic.name)
        subscriber = self.make_subscriber(max_backlog, backlog_strategy, on_gap)
        return Subscription(lambda: self._open(subscriber, topics, history, starts), self._dismiss, socket)

    def make_subscriber(
        self, max_backlog: int | None, backlog_strategy: Policy | None, on_gap: OnGap | None
    ) -> Subscriber:
        """A subscriber that follows nothing yet, with the hub's own options for ``None``.

        :raises ImproperlyConfiguredException: an option is invalid.
        """
        limit = self._max_backlog if max_backlog is None else max_backlog
        subscriber = self._subscriber_class(limit, self._strategy if backlog_strategy is None else backlog_strategy)
        recipient_of(subscriber).on_gap = self._on_gap if on_gap is None else _checked_on_gap(on_gap)
        return subscriber

    async def unsubscribe(self, subscriber: Subscriber, channels: str | Iterable[str] | None = None) -> None:
        """Unsubscribe ``subscriber`` from ``channels``, all by default. After the last one its stream ends.

        :raises ChannelsException: it does not follow one of them.
        """
        reader, recipient = self._running_here(), recipient_of(subscriber)
        given = list(recipient.topics) if channels is None else [channels] if isinstance(channels, str) else channels
        names = list(dict.fromkeys(given))
        for name in names:
            if name not in recipient.topics:
                raise ChannelsException(f"this subscriber does not follow {name!r}")
        for name in names:
            reader.leave(recipient.topics.pop(name), recipient)
        if not recipient.topics:
            self._dismiss(subscriber)

    async def put_subscriber_history(
        self, subscriber: Subscriber, channels: str | Iterable[str], limit: int | None = None
    ) -> None:
        """Put the last ``limit`` events of ``channels``, all that are kept by default, before what waits.

        :raises ChannelsException: nothing is kept of one of them.
        """
        for name in self._names.listed(channels):
            past = await self.backend.history(name, self._names.kept(name), limit=limit)
            recipient_of(subscriber).preload(past.events)

    def has(self, channel: str) -> bool:
        """Whether ``channel`` may be used: it is declared, or could be any."""
        return self._names.has(channel)

    def may_keep(self, prefix: str, *, exactly: bool = False) -> bool:
        """Whether anything is kept of a channel whose name begins with ``prefix``, or ``exactly`` of that channel."""
        return self.keep_for(prefix) is not None if exactly else self._names.may_keep(prefix)

    @property
    def has_presence(self) -> bool:
        """Whether the nodes exchange their members."""
        return self._heartbeat is not None

    def keep_for(self, channel: str) -> Keep | None:
        """What is kept of ``channel``; ``None`` for nothing."""
        return self._names.keep_for(channel)

    async def position(self, channel: str) -> Position:
        """Where ``channel`` stands now.

        :raises ChannelsException: nothing is kept of it.
        """
        self._running_here()
        return (await self.backend.positions([(channel, self._names.kept(channel))]))[channel]

    async def _open(
        self, subscriber: Subscriber, topics: list[TopicName], history: int | None, starts: dict[str, Position]
    ) -> Subscriber:
        reader = self._running_here()
        try:
            async with asyncio.timeout(None) as opening:
                self._opening.add(opening)
                await reader.join(subscriber, topics, history, starts)
        except TimeoutError:
            raise ChannelsException("the channels ended before the subscription was confirmed") from None
        finally:
            self._opening.discard(opening)
        self._audience.add(subscriber)
        return subscriber

    def _dismiss(self, subscriber: Subscriber) -> None:
        if subscriber not in self._audience:
            return
        if self._reader is not None:
            self._reader.leave_all(recipient_of(subscriber))
        recipient_of(subscriber).finish()
        self._audience.remove(subscriber)

    # -- presence

    @property
    def presence(self) -> Presence:
        """Who is in which channel, on all nodes.

        :raises ChannelsException: it is not switched on.
        """
        if self._presence is None:
            raise ChannelsException(
                "presence is off, or the hub does not run: write Channels(..., presence=Heartbeat())"
            )
        return self._presence

    async def _tell_presence(self, data: bytes) -> None:
        await self.backend.publish([(PRESENCE, None)], data)

    async def _hear_presence(self, reader: BrokerReader, presence: Presence) -> None:
        subscriber = Subscriber(PRESENCE_BACKLOG, "drop_oldest")
        await reader.join(subscriber, [TopicName(PRESENCE)], None, {})
        try:
            presence.resume()
            async for item in subscriber:
                if isinstance(item, Event):
                    presence.hear(item.data)
                else:
                    presence.resume()
        finally:
            reader.leave_all(recipient_of(subscriber))

    # -- figures

    @property
    def is_ready(self) -> bool:
        """Whether what others publish reaches this process, and it can publish: for the app's readiness."""
        return self._reader is not None and self._reader.connected.is_set() and self.backend.can_publish

    def statistics(self) -> Statistics:
        """The state of the hub and its counts."""
        reader, audience = self._reader, self._audience
        return Statistics(
            connected=self.is_ready,
            reconnects=reader.reconnects if reader else 0,
            channels=sum(topic.name != PRESENCE for topic in reader.topics) if reader else 0,
            subscribers=len(audience),
            published=self._published + self._publish_queue.published,
            failed=self._publish_queue.failed,
            received=reader.received if reader else 0,
            delivered=audience.delivered,
            dropped=audience.dropped,
            conflated=audience.conflated,
            gaps=reader.gaps if reader else 0,
            backlog=audience.backlog,
        )

    if not TYPE_CHECKING:
        __getattr__ = litestars_methods


def _checked_on_gap(given: OnGap) -> OnGap:
    if given not in get_args(OnGap):
        raise ImproperlyConfiguredException(f"on_gap={given!r}: write 'event' or 'close'")
    return given


async def _supervised(work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work`` until cancelled. If it fails it begins again: the rest of the hub must not end with it."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("a part of the channels failed; it begins again in %g s", RESTART_SECONDS)
        await asyncio.sleep(RESTART_SECONDS)
