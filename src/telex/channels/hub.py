"""The hub of a process: it publishes and subscribes through one backend."""

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
from telex.channels.delivery.shared_sender import SharedSender
from telex.channels.delivery.subscriber import Subscriber, Subscription, recipient_of
from telex.channels.events import DataKind, Event, Keep, OnGap, Page, Position, kind_of
from telex.channels.names import INTERNAL, ChannelNames, Since, TopicName, encoder, starting_points
from telex.channels.presence import Heartbeat, Presence
from telex.channels.publish_queue import PublishQueue
from telex.channels.recovery.reader import BrokerReader
from telex.channels.statistics import Audience, Statistics
from telex.connection import WebSocket
from telex.di import Provide
from telex.exceptions import (
    BackendUnavailable,
    ChannelsException,
    ImproperlyConfiguredException,
    NotFoundException,
)
from telex.layers import LayerOptions
from telex.renamed import litestars_methods
from telex.signatures import call_site
from telex.types import Mode, TypeEncoders

__all__ = ("Channels", "ChannelsProvider", "GeneratedRoutes")

PRESENCE: Final = f"{INTERNAL}presence"
"""The channel on which the nodes exchange presence."""

INTERNAL_BACKLOG: Final = 10_000
"""Messages of an internal channel that may wait to be handled."""

RESTART_SECONDS: Final = 1.0
"""The pause before a failed task of the hub restarts."""

logger: Final = logging.getLogger("telex.channels")


class AppUnderConstruction(Protocol):
    """The part of the app's configuration that the hub changes during ``on_app_init``."""

    @property
    def dependencies(self) -> dict[str, Any]: ...

    @property
    def lifespan(self) -> list[Any]: ...

    @property
    def route_handlers(self) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class GeneratedRoutes:
    """The routes of ``create_ws_route_handlers``: one for each of ``names``, or one for any name if it is ``None``."""

    hub: Channels
    names: frozenset[str] | None
    base_path: str
    history: int
    send_mode: Mode
    options: LayerOptions
    site: str


class ChannelsProvider(Provide):
    """The dependency ``channels``. Handlers that follow a channel read its ``hub`` when the app is built."""

    __slots__ = ("hub",)

    def __init__(self, hub: Channels) -> None:
        super().__init__(lambda: hub, use_cache=True)
        self.hub: Channels = hub


class Channels:
    """Publishes and subscribes. Pass it to an app as a plugin, or use it as an async context manager without an app.

    ``backend`` is a URL or a :class:`ChannelsBackend`. ``channels`` declares the allowed names; with
    ``arbitrary_channels_allowed`` every name is allowed. At most ``subscriber_max_backlog`` events wait for a slow
    reader; ``subscriber_backlog_strategy`` is the policy when more arrive (:data:`telex.channels.Policy`).
    ``subscriber_on_gap`` says how a subscriber is notified of lost events: ``event`` puts a :class:`Gap` into its
    stream, ``close`` ends the stream with 1012.
    ``history`` is the number and age of the kept events: one :class:`Keep` for all channels, or a mapping by name. A
    name that ends in ``*`` matches by prefix; the first match is used. All publishers to a channel must use the same
    ``history``. ``presence`` switches on the exchange of members between the nodes. ``subscribe_timeout`` (seconds)
    limits the wait for the broker.

    ``create_ws_route_handlers`` adds a route for each declared channel under ``ws_handler_base_path`` (one route for
    any channel if all names are allowed). A route sends the last ``ws_handler_send_history`` events first (all if
    negative), as ``ws_send_mode`` messages. ``ws_handler_options`` are the layered options of these routes.

    :raises ImproperlyConfiguredException: neither ``channels`` nor ``arbitrary_channels_allowed`` is given, or no
        backend supports the URL.
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
        if presence is not None and not isinstance(presence, Heartbeat):
            raise ImproperlyConfiguredException(f"presence={presence!r:.80}: write presence=Heartbeat()")
        self.backend: ChannelsBackend = backend_from_url(backend) if isinstance(backend, str) else backend
        if not isinstance(self.backend, ChannelsBackend):
            raise ImproperlyConfiguredException(f"{backend!r:.80} is not a ChannelsBackend: pass one, or a URL")
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
        # Raises for a wrong policy or limit now, not at the first subscription.
        subscriber_class(subscriber_max_backlog, subscriber_backlog_strategy)
        self._subscribe_timeout = subscribe_timeout
        self._heartbeat = presence
        self._presence: Presence | None = None
        self._audience = Audience()
        self._publish_queue = PublishQueue(self.backend.publish)
        self._sender = SharedSender()
        self._reader: BrokerReader | None = None
        self._main: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._followed: set[str] = set()
        self._refused: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: set[asyncio.Timeout] = set()
        self._published = 0

    # -- lifespan

    def on_app_init(self, config: AppUnderConstruction) -> None:
        """Add the dependency ``channels``, the lifespan of this hub and its generated routes to the app."""
        config.dependencies.setdefault("channels", ChannelsProvider(self))
        # Starts first and ends last, so that the user's own lifespans can publish and subscribe.
        config.lifespan.insert(0, self._lifespan)
        if self._routes is not None:
            config.route_handlers.append(self._routes)

    @asynccontextmanager
    async def _lifespan(self, _app: object) -> AsyncIterator[None]:
        async with self:
            yield

    async def __aenter__(self) -> Channels:
        """Connect to the broker and wait for its answer. A connection lost later is opened again.

        :raises BackendUnavailable: the broker does not answer within ``subscribe_timeout``.
        """
        if self._reader is not None:
            raise ChannelsException("this hub runs already: one Channels serves one app")
        await self.backend.open()
        self._loop = asyncio.get_running_loop()
        reader = self._reader = BrokerReader(self.backend, self._names.keep_for, self._subscribe_timeout)
        self._publish_queue.open()
        if self._heartbeat is not None:
            self._presence = Presence(self._tell_presence, self._heartbeat)
        self._sender.open()
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
            self._tasks = group
            group.create_task(_supervised(reader.run), name="telex.channels.reader")
            group.create_task(_supervised(self._publish_queue.run), name="telex.channels.publish_queue")
            if self._presence is not None:
                self.follow_internal(PRESENCE, self._presence.hear, self._presence.resume)
                group.create_task(_supervised(self._presence.run), name="telex.channels.heartbeat")

    async def _end(self) -> None:
        main, self._main = self._main, None
        for opening in self._opening:
            opening.reschedule(asyncio.get_running_loop().time())
        for subscriber in self._audience:
            self._dismiss(subscriber)
        await self._sender.close()
        if main is not None:
            main.cancel()
            await asyncio.wait([main])
        if self._presence is not None:
            await self._presence.end()
        self._reader = self._presence = self._tasks = None
        self._followed.clear()
        self._refused.clear()
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

    async def publish(
        self,
        channels: str | Iterable[str],
        data: object,
        *,
        transaction: object = None,
        kind: DataKind | None = None,
    ) -> Mapping[str, Position]:
        """Publish ``data`` to each of ``channels``; returns when the broker has it.

        Bytes are sent unchanged, text as UTF-8, everything else as JSON. ``data`` is encoded once. ``transaction`` is
        an open connection to the database that the backend uses: the event is published when its transaction commits.
        ``kind`` says what bytes are that were encoded before: ``json`` or ``text``.
        Returns the event's position in each channel with history; nothing of a transaction.

        :raises BackendUnavailable: the connection to the broker failed; the data may or may not have arrived.
        :raises ChannelsException: a channel is not declared.
        """
        reader = self._running_here()
        targets = self._names.targets(channels)
        payload, kind = self.encode_data(data), kind or kind_of(data)
        if transaction is None:
            positions = await self.backend.publish(targets, payload, kind)
        else:
            await self.backend.publish_in(transaction, targets, payload, kind)
            positions = {}
        self._published += len(targets)
        if not reader.connected.is_set():
            reader.hurry()
        return positions

    def publish_nowait(self, channels: str | Iterable[str], data: object) -> None:
        """Queue ``data`` and return at once; a task publishes the queue in order. May be called from any thread.

        A publish that fails is logged and counted as ``failed``.

        :raises BackendUnavailable: the queue is full.
        :raises ChannelsException: a channel is not declared, or the hub does not run.
        """
        self._running()
        self._publish_queue.put(self._names.targets(channels), self.encode_data(data), kind_of(data))

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
        """Subscribe to ``channels``: ``async with channels.subscribe("room:1") as events``, or ``await`` it.

        Entering waits for the broker's confirmation; the stream has every event published after that.
        ``history`` first replays that many events of each channel, all kept ones if it is negative. ``since`` first
        replays all events after that position, or yields a :class:`Gap` if they are not kept; the subscriber's
        ``recovered`` says which.
        With ``pattern`` the names are prefixes that end in ``*``.
        With ``socket`` the subscription ends when that connection closes, in any task or hook: the stream ends, and no
        call of ``unsubscribe`` is needed. It needs a running handler that declares ``socket``.

        To read a snapshot without missing a change: call :meth:`position`, then read the snapshot, then subscribe
        ``since`` that position.

        :raises ChannelsException: a channel is not declared, or has no history for ``history`` or ``since``.
        :raises BackendUnavailable: on entering: the broker does not confirm within ``subscribe_timeout``.
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
        """A subscriber without channels; an option that is ``None`` is taken from the hub.

        :raises ImproperlyConfiguredException: an option is invalid.
        """
        limit = self._max_backlog if max_backlog is None else max_backlog
        subscriber = self._subscriber_class(limit, self._strategy if backlog_strategy is None else backlog_strategy)
        recipient = recipient_of(subscriber)
        recipient.on_gap = self._on_gap if on_gap is None else _checked_on_gap(on_gap)
        recipient.sender = self._sender
        return subscriber

    async def unsubscribe(self, subscriber: Subscriber, channels: str | Iterable[str] | None = None) -> None:
        """Unsubscribe ``subscriber`` from ``channels``, by default from all. Its stream ends after the last channel.

        :raises ChannelsException: it is not subscribed to one of them.
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
        """Put the last ``limit`` kept events of ``channels`` before the waiting events; all kept ones by default.

        :raises ChannelsException: one of them has no history.
        """
        for name in self._names.listed(channels):
            past = await self.backend.history(name, self._names.kept(name), limit=limit)
            recipient_of(subscriber).preload(past.events)

    async def history(self, channel: str, *, before: Position | str | None = None, limit: int = 50) -> Page:
        """The last ``limit`` kept events of ``channel`` before the position ``before``, oldest first.

        To go on, pass the position of the page's first event as ``before``.

        :raises ChannelsException: the channel has no history, ``before`` is not a position, or ``limit`` is below 1.
        :raises NotFoundException: ``before`` is a position of a history that the broker has lost.
        :raises BackendUnavailable: the connection to the broker failed.
        """
        reader = self._running_here()
        keep, end = self._names.kept(channel), _checked_position(before)
        if limit < 1:
            raise ChannelsException(f"a page has 1 event at least, not {limit}")
        offset = None if end is None else end.offset
        past = await reader.replay.page(channel, keep, offset, limit + 1)
        if end is not None and end.epoch != past.head.epoch:
            raise NotFoundException(f"the history of {channel!r} before this position is not kept any more")
        return Page(past.events[-limit:], len(past.events) > limit)

    def has(self, channel: str) -> bool:
        """Whether ``channel`` is declared, or is a valid name where every name is allowed."""
        return self._names.has(channel)

    def may_keep(self, prefix: str, *, exactly: bool = False) -> bool:
        """Whether a channel whose name begins with ``prefix`` can have history; only that channel if ``exactly``."""
        return self.keep_for(prefix) is not None if exactly else self._names.may_keep(prefix)

    @property
    def has_presence(self) -> bool:
        """Whether the nodes exchange their members."""
        return self._heartbeat is not None

    def keep_for(self, channel: str) -> Keep | None:
        """What is kept of ``channel``; ``None`` for nothing."""
        return self._names.keep_for(channel)

    async def position(self, channel: str) -> Position:
        """The position of the newest event of ``channel``.

        :raises ChannelsException: the channel has no history.
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
        """The members of the channels on all nodes.

        :raises ChannelsException: presence is off, or the hub does not run.
        """
        if self._presence is None:
            raise ChannelsException(
                "presence is off, or the hub does not run: write Channels(..., presence=Heartbeat())"
            )
        return self._presence

    async def _tell_presence(self, data: bytes) -> None:
        await self.backend.publish([(PRESENCE, None)], data, "json")

    # -- channels of Telex itself, which no user code and no client can name

    async def publish_internal(self, name: str, data: bytes) -> None:
        """Publish to an internal channel; returns when the broker has it.

        :raises BackendUnavailable: as :meth:`publish`.
        """
        self._running_here()
        await self.backend.publish([(name, None)], data, "bytes")

    def queue_internal(self, name: str, data: bytes) -> None:
        """As :meth:`publish_nowait`, to an internal channel."""
        self._publish_queue.put([(name, None)], data, "bytes")

    def follow_internal(self, name: str, hear: Callable[[bytes], None], resume: Callable[[], None]) -> bool:
        """Call ``hear`` with each message of an internal channel until the hub ends.

        ``resume`` is called when the broker has confirmed, and whenever messages were lost. Returns false, and does
        nothing, if the channel is followed already, or the hub does not run.
        """
        if self._tasks is None or self._reader is None or name in self._followed:
            return False
        self._followed.add(name)
        follow = partial(self._hear_internal, self._reader, name, hear, resume)
        self._tasks.create_task(_supervised(follow), name=f"telex.channels.{name[1:]}")
        return True

    async def _hear_internal(
        self, reader: BrokerReader, name: str, hear: Callable[[bytes], None], resume: Callable[[], None]
    ) -> None:
        subscriber = Subscriber(INTERNAL_BACKLOG, "drop_oldest")
        dropped = 0
        try:
            await reader.join(subscriber, [TopicName(name)], None, {})
        except BackendUnavailable as error:  # tried again, and logged once
            if name not in self._refused:
                self._refused.add(name)
                logger.warning("the nodes cannot hear each other of %s: %s", name[1:], error.detail)
            return
        self._refused.discard(name)
        try:
            resume()
            async for item in subscriber:
                if isinstance(item, Event):
                    hear(item.data)
                if not isinstance(item, Event) or subscriber.dropped > dropped:
                    dropped = subscriber.dropped
                    resume()
        finally:
            reader.leave_all(recipient_of(subscriber))

    # -- statistics

    @property
    def is_ready(self) -> bool:
        """Whether this process receives events and can publish. Use it for the app's readiness check."""
        return self._reader is not None and self._reader.connected.is_set() and self.backend.can_publish

    def statistics(self) -> Statistics:
        """The state of the hub and its counts."""
        reader, audience = self._reader, self._audience
        return Statistics(
            connected=self.is_ready,
            reconnects=reader.reconnects if reader else 0,
            channels=sum(not topic.name.startswith(INTERNAL) for topic in tuple(reader.topics)) if reader else 0,
            subscribers=len(audience),
            published=self._published + self._publish_queue.published,
            failed=self._publish_queue.failed,
            received=reader.received if reader else 0,
            delivered=audience.delivered,
            dropped=audience.dropped,
            conflated=audience.conflated,
            gaps=reader.gaps if reader else 0,
            backlog=audience.backlog,
            recovered=reader.recovered if reader else 0,
        )

    if not TYPE_CHECKING:
        __getattr__ = litestars_methods


def _checked_position(given: Position | str | None) -> Position | None:
    return Position.parse(given) if isinstance(given, str) else given


def _checked_on_gap(given: OnGap) -> OnGap:
    if given not in get_args(OnGap):
        raise ImproperlyConfiguredException(f"on_gap={given!r}: write 'event' or 'close'")
    return given


async def _supervised(work: Callable[[], Awaitable[None]]) -> None:
    """Run ``work`` until cancelled. Restart it if it fails, so that the other tasks of the hub go on."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("a task of the channels failed; it restarts in %g s", RESTART_SECONDS)
        await asyncio.sleep(RESTART_SECONDS)
