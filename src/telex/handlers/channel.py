"""``channel_listener``: a handler that sends a channel's events to a client and can publish the client's messages."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias, Unpack, cast

from telex.calls import Slots
from telex.channels.delivery.encoding import Encoding, as_bytes, as_frames, as_text
from telex.channels.delivery.forward import forward
from telex.channels.delivery.queue import Policy
from telex.channels.delivery.subscriber import Subscriber, streams_of
from telex.channels.events import OnGap, Position
from telex.channels.hub import Channels, ChannelsProvider, GeneratedRoutes
from telex.connection import Socket
from telex.defaults import MAX_INVALID_MESSAGES
from telex.di import Provide
from telex.event_reader import supervised
from telex.exceptions import (
    ChannelsException,
    ClientException,
    HTTPException,
    ImproperlyConfiguredException,
    NotFoundException,
)
from telex.handlers.base import Handler, Paths, check_count, check_mode, discard, own_options, read_paths
from telex.handlers.channel_frames import compile_channel_frames, introduce
from telex.handlers.channel_publishing import Publishing, compile_publishing, only_text
from telex.handlers.message_loop import MessageLoop, Serve, overrides_messages
from telex.layers import Layer, LayerOptions
from telex.plans import Build, ChannelShape, MessageShape, Operation, Run
from telex.protocol.calls import CallSession
from telex.protocol.envelope import SUBPROTOCOL
from telex.signatures import AnyCallable, call_site, describe
from telex.status_codes import WS_1012_SERVICE_RESTART
from telex.types import Mode

__all__ = ("ChannelHandler", "ChannelOptions", "channel_listener", "generated_handlers")

Name: TypeAlias = Callable[[Socket, Slots], Awaitable[str]]
"""Returns the name of the channel to which a connection subscribes."""

GONE: Final = 410
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_ABOUT_MESSAGES: Final = ("dto", "return_dto", "type_encoders", "type_decoders", "on_invalid_message")
"""Layered options that have no effect without ``publish``."""


class ChannelOptions(LayerOptions, total=False):
    """The options of ``channel_listener`` in addition to ``path``, ``channel`` and ``name``."""

    history: int
    """The number of past events to send first; a negative number sends all events of the history."""
    publish: Any
    """The type of the messages that clients publish, like the annotation of a listener's ``data``. Without it,
    messages of clients are ignored."""
    on_publish: AnyCallable | None
    """Called with each such message as ``data``. Its result is published, for example the message with its author;
    ``None`` publishes nothing. Dependencies and parameters are injected as in a listener."""
    presence: AnyCallable | None
    """Returns the member that a connection belongs to: a text key, or a tuple of the key and metadata for other
    clients. The connection is then tracked in the channel, and clients that speak telex.v1 get presence changes.
    Dependencies and parameters are injected."""
    max_backlog: int | None
    """The limit of events that wait for a slow client; by default that of ``Channels``."""
    backlog_strategy: Policy | None
    """What happens when the backlog is full; by default the strategy of ``Channels``."""
    on_gap: OnGap | None
    """What happens after a gap for clients that speak telex.v1: ``event`` sends them a ``gap`` frame, ``close`` closes
    with 1012. Other clients are always closed. By default the setting of ``Channels``."""
    receive_mode: Mode
    """The mode of the messages that clients publish. Messages of the other mode are ignored, logged once and
    counted."""
    send_mode: Mode
    """The mode in which events are sent. In telex.v1 the data has its own kind, and the mode is not used."""
    max_invalid_messages: int
    """The number of consecutive invalid messages that closes the connection with 1007 (default 10)."""
    sync_to_thread: bool
    """Run sync callables in a thread. By default they run inline, which is faster; they must then not block."""


@dataclass(frozen=True, kw_only=True)
class ChannelHandler(Handler):
    """The description of a channel handler. Without ``hub`` it uses the app's ``channels``."""

    kind: ClassVar[str] = "channel"

    channel: str | AnyCallable
    site: str
    hub: Channels | None = None
    history: int = 0
    publish: Any = None
    on_publish: AnyCallable | None = None
    presence: AnyCallable | None = None
    max_backlog: int | None = None
    backlog_strategy: Policy | None = None
    on_gap: OnGap | None = None
    receive_mode: Mode = "text"
    max_invalid_messages: int = MAX_INVALID_MESSAGES
    sync_to_thread: bool = False

    @property
    def where(self) -> str:
        """The ``channel_listener`` call with its channel, file and line."""
        channel = repr(self.channel) if isinstance(self.channel, str) else describe(self.channel).partition(" (")[0]
        return f"channel_listener(channel={channel}) ({self.site})"

    def bound_to(self, owner: object) -> ChannelHandler:
        """This handler unchanged: its callables are not methods."""
        return self

    def compile_run(self, build: Build) -> Run:
        """Subscribe, accept, forward events and publish the client's messages until the client leaves."""
        hub = self.hub or _find_hub(build)
        # Published messages use the hub's type encoders; those of the layers override them.
        build.layer = build.layer.over(Layer(type_encoders=hub.type_encoders))
        self._check(build, hub)
        name, identify = self._compile_name(build), self._compile_presence(build)
        publishing = None if self.publish is None else self._compile_publishing(build, hub)
        serve = None if publishing is None else self._compile_loop(build, publishing)
        if not overrides_messages(build.websocket_class):
            self._compile_frames(build, hub, publishing)
        unused = self.layer.dependencies.keys() - build.graph.provided - {"channels"}
        if unused:
            raise build.wrong(
                f"no function has a parameter {min(unused)!r} for this dependency: add the parameter to a guard,"
                " on_publish= or presence=, or remove the dependency"
            )
        build.pushes = build.pushes or (MessageShape(Any, self.send_mode),)
        prefix, is_exact = self._prefix()
        build.channel = ChannelShape(
            name=self.channel if isinstance(self.channel, str) else "",
            keeps=hub.may_keep(prefix, exactly=is_exact),
            has_presence=self.presence is not None,
        )
        build.uses_streams = True
        encoding = as_text if self.send_mode == "text" else as_bytes

        async def run(socket: Socket, slots: Slots) -> None:
            topic = await name(socket, slots)
            in_frames = build.open_envelope is not None and SUBPROTOCOL in socket.scope.get("subprotocols", ())
            async with AsyncExitStack() as stack:
                subscriber = await self._subscribed(stack, hub, socket, topic)
                if subscriber.recovered is False and not in_frames:
                    raise HTTPException("the events since then are not kept any more", status_code=GONE)
                watch = None
                if identify is not None:
                    watch = await stack.enter_async_context(hub.presence.watch(topic))
                    await stack.enter_async_context(hub.presence.track(topic, *await identify(slots)))
                await socket.accept()
                session = socket.envelope
                if isinstance(session, CallSession):
                    await introduce(socket, topic, subscriber, watch)
                    streams_of(socket).start(_forward(subscriber, socket, as_frames))
                    await session.serve([*slots, topic])
                elif serve is None:
                    socket.event_reader.on_unread = discard
                    await supervised(_forward(subscriber, socket, encoding), socket.event_reader)
                else:
                    streams_of(socket).start(_forward(subscriber, socket, encoding))
                    await serve(socket, [*slots, topic])

        return run

    async def _subscribed(self, stack: AsyncExitStack, hub: Channels, socket: Socket, topic: str) -> Subscriber:
        if not hub.has(topic):
            raise NotFoundException(f"there is no channel {topic!r:.80}")
        subscription = hub.subscribe(
            topic,
            self.history or None,
            since=_since(socket, hub, topic),
            max_backlog=self.max_backlog,
            backlog_strategy=self.backlog_strategy,
            on_gap=self.on_gap,
        )
        return await stack.enter_async_context(subscription)

    # -- compilation

    def _prefix(self) -> tuple[str, bool]:
        """What is known of the channel's name: how it begins, and whether that is all of it."""
        template = self.channel if isinstance(self.channel, str) else "{}"
        prefix = template.partition("{")[0]
        return prefix, prefix == template

    def _check(self, build: Build, hub: Channels) -> None:
        prefix, is_exact = self._prefix()
        if is_exact and not hub.has(prefix):
            raise build.wrong("there is no such channel: declare it in Channels(channels=[...])")
        if self.history and not hub.may_keep(prefix, exactly=is_exact):
            raise build.wrong(
                f"history={self.history} needs a history of the channel, but this channel keeps none:"
                " write Channels(..., history=Keep(...))"
            )
        try:
            hub.make_subscriber(self.max_backlog, self.backlog_strategy, self.on_gap)
        except ImproperlyConfiguredException as error:
            raise build.wrong(error.detail) from None
        if self.presence is not None and not hub.has_presence:
            raise build.wrong("presence= needs Channels(..., presence=Heartbeat())")
        if self.publish is None:
            self.refuse_idle(build, _ABOUT_MESSAGES, "without publish=, clients publish nothing")

    def _compile_name(self, build: Build) -> Name:
        if not isinstance(self.channel, str):
            call = build.graph.call(self.channel, in_thread=self.sync_to_thread)
            where = describe(self.channel)

            async def provide(_: Socket, slots: Slots) -> str:
                name = await call(slots)
                if not isinstance(name, str):
                    raise ChannelsException(f"channel= {where} returned {name!r:.80}, which is no channel's name")
                return name

            return provide
        channel = self.channel
        for name in _PARAMETER.findall(channel):
            if name not in build.path_names:
                raise build.wrong(f"the path {build.path!r} has no {{{name}}}: add it, or give channel= a function")

        async def fill(socket: Socket, _: Slots) -> str:
            return _PARAMETER.sub(lambda found: _part(socket.path_params[found[1]]), channel)

        return fill

    def _compile_presence(self, build: Build) -> Callable[[Slots], Awaitable[tuple[str, object]]] | None:
        if self.presence is None:
            return None
        call = build.graph.call(self.presence, in_thread=self.sync_to_thread)
        where = describe(self.presence)

        async def identify(slots: Slots) -> tuple[str, object]:
            match await call(slots):
                case str(key):
                    return key, None
                case (str(key), meta):
                    return key, meta
                case other:
                    raise ChannelsException(
                        f"presence= {where} returned {other!r:.80}: return a text, or a tuple of a text and"
                        " metadata for other clients"
                    )

        return identify

    def _compile_publishing(self, build: Build, hub: Channels) -> Publishing:
        return compile_publishing(
            build,
            hub,
            self.publish,
            self.on_publish,
            in_thread=self.sync_to_thread,
            text_alone=self.send_mode == "text",
        )

    def _compile_loop(self, build: Build, publishing: Publishing) -> Serve:
        """The message loop that publishes, in plain mode."""
        build.operations = (Operation(build.received(self.publish, self.receive_mode)),)
        build.pushes = (build.sent(publishing.sends, self.send_mode),)
        decode = build.reader(self.publish, self.receive_mode)
        if self.receive_mode == "binary" and self.send_mode == "text":
            decode = only_text(decode)
        return MessageLoop.compile(
            build,
            receive_mode=self.receive_mode,
            send_mode=self.send_mode,
            decode=decode,
            bind=publishing.bind,
            max_invalid_messages=self.max_invalid_messages,
        )

    def _compile_frames(self, build: Build, hub: Channels, publishing: Publishing | None) -> None:
        prefix, is_exact = self._prefix()
        compile_channel_frames(
            build,
            hub,
            self.publish,
            publishing,
            keeps=hub.may_keep(prefix, exactly=is_exact),
            text_alone=self.send_mode == "text",
            max_invalid_messages=self.max_invalid_messages,
        )


def channel_listener(
    path: Paths, *, channel: str | AnyCallable, name: str | None = None, **options: Unpack[ChannelOptions]
) -> ChannelHandler:
    """Create a handler that sends a channel's events: ``channel_listener("/rooms/{room:str}", channel="room:{room}")``.

    The ``guards`` of the layers decide which clients may subscribe. Events are sent as they were published. A client
    that offers the subprotocol ``telex.v1`` gets a ``subscribed`` frame, then each event in a frame with its position,
    and also ``gap`` and presence frames; it may call with what may be published, and is answered with the position of
    the event, and it may call ``{"type": "history", "before": "…", "limit": 50}`` where the channel has history. With
    ``?since=`` and a position, the missed events are sent first. If they are no longer available, the ``subscribed``
    frame has ``"recovered": false``; a client without telex.v1 is refused with 410.

    :param channel: the channel's name, with path parameters (including those of routers) in braces; or a function that
        returns the name and takes dependencies and parameters: ``lambda socket: f"user:{socket.user.id}"``.
    :param name: the handler's name for ``route_reverse`` and ``url_for``.
    :param options: the options of :class:`ChannelOptions`, which include all layered options.
    :raises ImproperlyConfiguredException: the options contradict each other. Options that the app's channels do not
        support raise when the app is built.
    """
    return _describe(path, channel, name, options, call_site())


def generated_handlers(routes: GeneratedRoutes) -> Iterator[ChannelHandler]:
    """The handlers of ``Channels(create_ws_route_handlers=True)``."""
    options = cast("ChannelOptions", {**routes.options, "history": routes.history, "send_mode": routes.send_mode})
    base = routes.base_path.rstrip("/") + "/"
    if routes.names is None:
        yield _describe(base + "{channel_name:str}", _name_in_path, None, options, routes.site, routes.hub)
        return
    for each in sorted(routes.names):
        yield _describe(base + each, _constant(each), None, options, routes.site, routes.hub)


def _name_in_path(socket: Socket) -> str:
    return cast("str", socket.path_params["channel_name"])


_name_in_path.__qualname__ = "'{channel_name}'"  # shown in errors and tables


def _constant(name: str) -> Callable[[], str]:
    def give() -> str:
        return name

    give.__qualname__ = repr(name)
    return give


def _describe(
    path: Paths,
    channel: str | AnyCallable,
    name: str | None,
    options: ChannelOptions,
    site: str,
    hub: Channels | None = None,
) -> ChannelHandler:
    own, layer = own_options(options, ChannelOptions, f"channel_listener({path!r}) ({site})")
    handler = ChannelHandler(
        fn=own.get("on_publish") or (channel if callable(channel) else channel_listener),
        paths=read_paths(path),
        name=name,
        layer=layer,
        channel=channel,
        site=site,
        hub=hub,
        **own,
    )
    where = handler.where
    if isinstance(channel, str) and set(_PARAMETER.sub("", channel)) & set("{}"):
        raise ImproperlyConfiguredException(
            f"{where}: braces may contain only the name of a parameter, as in channel='room:{{room}}'"
        )
    for option, fn in (("channel", channel), ("on_publish", handler.on_publish), ("presence", handler.presence)):
        if not (fn is None or callable(fn)) and not (option == "channel" and isinstance(fn, str)):
            raise ImproperlyConfiguredException(f"{where}: {option}= is a function, not {fn!r:.80}")
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise ImproperlyConfiguredException(
                f"{where}: {option}= {describe(fn)} yields: return the value, and clean up in a dependency"
            )
    if not isinstance(handler.history, int):
        raise ImproperlyConfiguredException(f"{where}: history= is a number of events, not {handler.history!r:.80}")
    for mode in ("receive_mode", "send_mode"):
        check_mode(getattr(handler, mode), mode, where)
    check_count(handler.max_invalid_messages, "max_invalid_messages", where)
    if handler.publish is None:
        for option in ("on_publish", "receive_mode", "max_invalid_messages"):
            if option in own and own[option] is not None:
                raise ImproperlyConfiguredException(
                    f"{where}: {option}= without publish=: say which messages clients may publish"
                )
    return handler


def _find_hub(build: Build) -> Channels:
    provider: Provide | None = build.layer.dependencies.get("channels")
    if isinstance(provider, ChannelsProvider):
        return provider.hub
    if provider is None:
        raise build.wrong("there are no channels: add plugins=[Channels(...)] to the app")
    raise build.wrong(f"dependencies={{'channels': {provider!r}}} hides the app's plugin: rename this dependency")


def _part(value: object) -> str:
    """A path parameter as a part of a channel's name."""
    # ":" separates the parts of names: "room:{room}" must not reach "room:1:staff".
    if isinstance(value, str) and ":" in value:
        raise NotFoundException(f"{value!r:.80} names no channel")
    return str(value)


def _since(socket: Socket, hub: Channels, topic: str) -> Position | None:
    text = socket.query_params.get("since")
    if not text:
        return None
    if hub.keep_for(topic) is None:
        raise ClientException(f"channel {topic!r:.80} keeps no history: omit ?since=")
    try:
        return Position.parse(text)
    except ChannelsException as error:
        raise ClientException(error.detail) from error


async def _forward(subscriber: Subscriber, socket: Socket, encoding: Encoding) -> None:
    await forward(subscriber, socket, encoding)
    await socket.close(WS_1012_SERVICE_RESTART, "the channel's subscription ended")
