"""Ready handlers: a socket that follows a channel, and may publish to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Unpack

from telex import codecs
from telex.channels.frames import ENVELOPE, as_bytes, as_envelope, as_text, write_change
from telex.channels.history import Position
from telex.channels.presence import Watch
from telex.channels.subscriber import Subscription, streams_of
from telex.codecs import Reader
from telex.connection import WebSocket
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
from telex.status_codes import WS_1007_INVALID_FRAME_PAYLOAD_DATA
from telex.types import Mode

if TYPE_CHECKING:
    from telex.channels.hub import Channels

__all__ = ("channel_listener", "generated_handlers")

Socket: TypeAlias = WebSocket[Any, Any, Any]
Identify: TypeAlias = Callable[[Socket], str]

GONE: Final = 410
MAX_INVALID: Final = 10
"""So many invalid messages in a row end the connection, as they do with a listener."""


def channel_listener(
    path: str,
    *,
    channel: str,
    history: int = 0,
    publish: Any = None,
    presence: Identify | None = None,
    send_mode: Mode = "text",
    name: str | None = None,
    **options: Unpack[LayerOptions],
) -> WebsocketHandler:
    """A handler that follows a channel: ``channel_listener("/rooms/{room:str}", channel="room:{room}")``.

    Who may join is what the ``guards`` of the layers say. Events go as they were published. A client that offers the
    subprotocol ``telex.channels.v1`` gets them in an envelope with their position, and gaps and presence beside them.
    ``?since=`` with such a position sends all that was missed first, or is refused with 410 where that is not to be had
    and the client has no envelope in which a gap could show.

    :param channel: the channel's name, with the path's parameters in braces.
    :param history: send the last so many events first; all that are kept if negative.
    :param publish: what clients may publish: an annotation by which their messages are validated. Without it their
        messages are read and ignored.
    :param presence: says who a connection is: it is tracked in the channel, and changes go to envelopes.
    :param send_mode: the kind of message that events are sent as; envelopes are text.
    :param options: any layered option.
    """
    read = None if publish is None else codecs.reader(publish)
    plain = as_text if send_mode == "text" else as_bytes
    fill = _filler(channel, path)

    async def follow(socket: WebSocket[Any, Any, Any], channels: Any) -> None:
        topic = fill(socket.path_params)
        frame = as_envelope if ENVELOPE in socket.scope.get("subprotocols", ()) else plain
        async with AsyncExitStack() as stack:
            subscriber = await stack.enter_async_context(_joined(channels, topic, history, _since(socket)))
            if subscriber.recovered is False and frame is not as_envelope:
                raise HTTPException("the events since then are not kept any more", status_code=GONE)
            await socket.accept(subprotocols=ENVELOPE if frame is as_envelope else None)
            if presence is not None:
                watch = await stack.enter_async_context(channels.presence.watch(topic))
                await stack.enter_async_context(channels.presence.track(topic, presence(socket)))
                if frame is as_envelope:
                    _beside(socket, _show_presence(socket, watch))
            _beside(socket, subscriber.forward(socket, frame))
            await _receive(socket, channels, topic, read)

    return websocket(path, name=name, **options)(follow)


def generated_handlers(
    hub: Channels, names: frozenset[str] | None, base_path: str, history: int, mode: Mode, options: LayerOptions
) -> list[WebsocketHandler]:
    """A handler for each of ``names``, or one that takes the name from the path."""
    base = base_path.rstrip("/") + "/"
    frame = as_text if mode == "text" else as_bytes

    def handler(path: str, channel: str | None) -> WebsocketHandler:
        async def follow(socket: WebSocket[Any, Any, Any]) -> None:
            topic = socket.path_params["channel_name"] if channel is None else channel
            async with _joined(hub, topic, history, None) as subscriber:
                await socket.accept()
                _beside(socket, subscriber.forward(socket, frame))
                await _receive(socket, hub, topic, None)

        return websocket(path, **options)(follow)

    if names is None:
        return [handler(base + "{channel_name:str}", None)]
    return [handler(base + name, name) for name in sorted(names)]


def _joined(channels: Channels, topic: str, history: int, since: Position | None) -> Subscription:
    try:
        return channels.subscribe(topic, history or None, since=since)
    except ChannelsException as error:
        raise NotFoundException(error.detail) from error


def _since(socket: Socket) -> Position | None:
    text = socket.query_params.get("since")
    if not text:
        return None
    try:
        return Position.parse(text)
    except ChannelsException as error:
        raise ClientException(error.detail) from error


def _filler(channel: str, path: str) -> Callable[[Mapping[str, Any]], str]:
    """The function that puts the path's parameters into the channel's name.

    :raises ImproperlyConfiguredException: the name has a parameter that the path has not.
    """
    wanted = set(re.findall(r"\{(\w+)\}", channel))
    missing = wanted - set(re.findall(r"\{(\w+)[:}]", path))
    if missing:
        raise ImproperlyConfiguredException(f"channel={channel!r} needs {', '.join(sorted(missing))}: not in {path!r}")

    def fill(parameters: Mapping[str, Any]) -> str:
        def value(found: re.Match[str]) -> str:
            text = str(parameters[found[1]])
            if ":" in text:
                # It separates the parts of names: "room:{room}" must not reach "room:1:staff".
                raise NotFoundException(f"{text!r:.80} names no channel")
            return text

        return re.sub(r"\{(\w+)\}", value, channel)

    return fill


def _beside(socket: Socket, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` beside the handler; the connection owns it, and ends with it if it fails."""
    streams_of(socket).start(work)


async def _show_presence(socket: Socket, watch: Watch) -> None:
    await socket.send_json({"type": "present", "members": watch.members})
    async for change in watch:
        await socket.send_text(write_change(change))


async def _receive(socket: Socket, channels: Channels, topic: str, read: Reader | None) -> None:
    """Publish what the client sends, or ignore it, until it leaves."""
    invalid_in_a_row = 0
    while (event := await socket.receive())["type"] != "websocket.disconnect":
        if read is None:
            continue
        raw = event.get("text")
        try:
            value = read(event["bytes"] if raw is None else raw)
        except Exception as error:
            invalid = codecs.as_validation_error(error)
            if invalid is None:
                raise
            invalid_in_a_row += 1
            await socket.send_json(
                {"error": {"code": "invalid_message", "message": invalid.detail, "path": invalid.path}}
            )
            if invalid_in_a_row == MAX_INVALID:
                raise WebSocketException(WS_1007_INVALID_FRAME_PAYLOAD_DATA, invalid.detail) from error
            continue
        invalid_in_a_row = 0
        await channels.publish(topic, value)
