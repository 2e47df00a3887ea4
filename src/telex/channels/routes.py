"""Ready handlers: a socket that follows a channel, and may publish to it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, Unpack

from telex import codecs
from telex.channels.delivery.encoding import ENVELOPE, as_bytes, as_envelope, as_text
from telex.channels.delivery.forward import forward
from telex.channels.delivery.queue import Policy
from telex.channels.delivery.subscriber import Subscription, streams_of
from telex.channels.events import OnGap, Position
from telex.channels.presence import Watch, write_change
from telex.codecs import Reader
from telex.connection import Socket
from telex.di import Provide
from telex.exceptions import (
    ChannelsException,
    ClientException,
    HTTPException,
    ImproperlyConfiguredException,
    NotFoundException,
    WebSocketException,
)
from telex.handlers import WebsocketHandler, websocket
from telex.layers import LayerOptions
from telex.params import In
from telex.signatures import with_parameters
from telex.status_codes import WS_1007_INVALID_FRAME_PAYLOAD_DATA
from telex.types import Mode

if TYPE_CHECKING:
    from telex.channels.hub import Channels

__all__ = ("channel_listener", "generated_handlers")

Identity: TypeAlias = str | tuple[str, object]
"""Who a connection is: the key of its presence, and what is told about it."""
Identify: TypeAlias = Callable[[Socket], Identity | Awaitable[Identity]]
OnPublish: TypeAlias = Callable[[Socket, Any], object]
"""Takes the socket and a message, and gives the value to publish, or an awaitable of it; ``None`` publishes nothing."""

_PARAMETER: Final = re.compile(r"\{(\w+)\}")

GONE: Final = 410
MAX_INVALID: Final = 10
"""So many invalid messages in a row end the connection, as they do with a listener."""


def channel_listener(
    path: str,
    *,
    channel: str,
    history: int = 0,
    publish: Any = None,
    on_publish: OnPublish | None = None,
    presence: Identify | None = None,
    max_backlog: int | None = None,
    backlog_strategy: Policy | None = None,
    on_gap: OnGap | None = None,
    send_mode: Mode = "text",
    name: str | None = None,
    **options: Unpack[LayerOptions],
) -> WebsocketHandler:
    """A handler that follows a channel: ``channel_listener("/rooms/{room:str}", channel="room:{room}")``.

    Who may join is what the ``guards`` of the layers say. Events go as they were published. A client that offers the
    subprotocol ``telex.channels.v1`` gets them in an envelope with their position, and gaps and presence beside them.
    ``?since=`` with such a position sends all that was missed first, or is refused with 410 where that is not to be had
    and the client has no envelope in which a gap could show.

    :param channel: the channel's name, with the path's parameters in braces, those of routers included.
    :param history: send the last so many events first; all that are kept if negative.
    :param publish: what clients may publish: an annotation by which their messages are validated. Without it their
        messages are read and ignored.
    :param on_publish: takes the socket and each such message, and gives what is published for it: the message with its
        author, say, or ``None`` for nothing. An exception ends the connection as a listener's does.
    :param presence: says who a connection is, as text, or as a pair of that and what its node tells about it: it is
        tracked in the channel, and changes go to envelopes. Sync or async.
    :param max_backlog: events that may wait for a slow client; the hub's own by default.
    :param backlog_strategy: what happens to more; the hub's own by default.
    :param on_gap: whether clients with an envelope see a gap in it (``event``), or are closed with 1012 (``close``) as
        those without one always are; the hub's own by default.
    :param send_mode: the kind of message that events are sent as; envelopes are text.
    :param options: any layered option.
    :raises ImproperlyConfiguredException: ``channel`` has braces that are no parameter, or ``on_publish`` is given
        without ``publish``. A parameter that the path has not is an error when the app is built.
    """
    if publish is None and on_publish is not None:
        raise ImproperlyConfiguredException("on_publish= without publish=: say which messages clients may publish")
    read = None if publish is None else codecs.reader(publish)
    plain = as_text if send_mode == "text" else as_bytes

    async def follow(socket: Socket, channels: Any, channel_topic: str) -> None:
        frame = as_envelope if ENVELOPE in socket.scope.get("subprotocols", ()) else plain
        since = _since(socket, channels, channel_topic)
        async with AsyncExitStack() as stack:
            subscription = _joined(channels, channel_topic, history, since, max_backlog, backlog_strategy, on_gap)
            subscriber = await stack.enter_async_context(subscription)
            if subscriber.recovered is False and frame is not as_envelope:
                raise HTTPException("the events since then are not kept any more", status_code=GONE)
            watch = None
            if presence is not None:
                watch = await stack.enter_async_context(channels.presence.watch(channel_topic))
                who = await _identified(presence, socket)
                await stack.enter_async_context(channels.presence.track(channel_topic, *who))
            await socket.accept(subprotocols=ENVELOPE if frame is as_envelope else None)
            if watch is not None and frame is as_envelope:
                _beside(socket, _show_presence(socket, watch))
            _beside(socket, forward(subscriber, socket, frame))
            await _receive(socket, channels, channel_topic, read, on_publish)

    options["dependencies"] = {**options.get("dependencies", {}), "channel_topic": Provide(_filler(channel, path))}
    return websocket(path, name=name, **options)(follow)


def generated_handlers(
    hub: Channels, names: frozenset[str] | None, base_path: str, history: int, mode: Mode, options: LayerOptions
) -> list[WebsocketHandler]:
    """A handler for each of ``names``, or one that takes the name from the path."""
    base = base_path.rstrip("/") + "/"
    frame = as_text if mode == "text" else as_bytes

    def handler(path: str, channel: str | None) -> WebsocketHandler:
        async def follow(socket: Socket) -> None:
            topic = socket.path_params["channel_name"] if channel is None else channel
            async with _joined(hub, topic, history, None) as subscriber:
                await socket.accept()
                _beside(socket, forward(subscriber, socket, frame))
                await _receive(socket, hub, topic, None, None)

        return websocket(path, **options)(follow)

    if names is None:
        return [handler(base + "{channel_name:str}", None)]
    return [handler(base + name, name) for name in sorted(names)]


def _joined(
    channels: Channels,
    topic: str,
    history: int,
    since: Position | None,
    max_backlog: int | None = None,
    backlog_strategy: Policy | None = None,
    on_gap: OnGap | None = None,
) -> Subscription:
    if not channels.has(topic):
        raise NotFoundException(f"there is no channel {topic!r:.80}")
    return channels.subscribe(
        topic,
        history or None,
        since=since,
        max_backlog=max_backlog,
        backlog_strategy=backlog_strategy,
        on_gap=on_gap,
    )


def _since(socket: Socket, channels: Channels, topic: str) -> Position | None:
    text = socket.query_params.get("since")
    if not text:
        return None
    if channels.has(topic) and channels.keep_for(topic) is None:
        raise ClientException(f"nothing is kept of {topic!r:.80}: leave ?since= out")
    try:
        return Position.parse(text)
    except ChannelsException as error:
        raise ClientException(error.detail) from error


def _filler(channel: str, path: str) -> Callable[..., str]:
    """The provider of the channel's name, with the path's parameters in it.

    It asks for them as dependencies do: so one that the whole path, routers included, has not is found when the app is
    built.
    """
    wanted = _PARAMETER.findall(channel)
    if set(_PARAMETER.sub("", channel)) & set("{}"):
        raise ImproperlyConfiguredException(
            f"channel={channel!r}: braces hold the name of a parameter alone, as in channel='room:{{room}}'"
        )

    def fill(**values: object) -> str:
        def value(found: re.Match[str]) -> str:
            text = str(values[found[1]])
            if ":" in text:
                # It separates the parts of names: "room:{room}" must not reach "room:1:staff".
                raise NotFoundException(f"{text!r:.80} names no channel")
            return text

        return _PARAMETER.sub(value, channel)

    name = f"channel_listener({path!r}, channel={channel!r})"
    return with_parameters(fill, dict.fromkeys(wanted, Annotated[Any, In("path")]), name)


async def _identified(presence: Identify, socket: Socket) -> tuple[str, object]:
    found = presence(socket)
    who = await found if isinstance(found, Awaitable) else found
    return who if isinstance(who, tuple) else (who, None)


def _beside(socket: Socket, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` beside the handler; the connection owns it, and ends with it if it fails."""
    streams_of(socket).start(work)


async def _show_presence(socket: Socket, watch: Watch) -> None:
    await socket.send_json({"type": "present", "members": watch.members})
    async for change in watch:
        await socket.send_text(write_change(change))


async def _receive(
    socket: Socket, channels: Channels, topic: str, read: Reader | None, on_publish: OnPublish | None
) -> None:
    """Publish what the client sends, or ignore it, until it leaves."""
    invalid_in_a_row = 0
    while (event := await socket.receive())["type"] != "websocket.disconnect":
        if read is None:
            continue
        raw = event.get("text")
        try:
            value = read(event["bytes"] if raw is None else raw)
        except Exception as error:
            invalid_in_a_row += 1
            await _refuse(socket, error, last=invalid_in_a_row == MAX_INVALID)
            continue
        invalid_in_a_row = 0
        if on_publish is not None:
            given = on_publish(socket, value)
            value = await given if isinstance(given, Awaitable) else given
        if on_publish is None or value is not None:
            await channels.publish(topic, value)


async def _refuse(socket: Socket, error: Exception, *, last: bool) -> None:
    """Answer a message that does not fit.

    :raises WebSocketException: 1007, it is the last that is answered.
    """
    invalid = codecs.as_validation_error(error)
    if invalid is None:
        raise error
    await socket.send_json(
        {"type": "error", "error": {"code": "invalid_message", "message": invalid.detail, "path": invalid.path}}
    )
    if last:
        raise WebSocketException(WS_1007_INVALID_FRAME_PAYLOAD_DATA, invalid.detail) from error
