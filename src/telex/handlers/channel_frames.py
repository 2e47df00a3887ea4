"""What a ``channel_listener`` does on connections that speak ``telex.v1``.

The client gets ``subscribed``, perhaps ``present`` and ``gap``, the replay, and then live ``event`` frames. It may call
with what may be published, and with ``{"type": "history"}`` where the channel has history.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final

import msgspec

from telex.annotations import split_annotated, union_members
from telex.calls import Slots
from telex.channels.delivery.encoding import with_position, write_page
from telex.channels.delivery.subscriber import Subscriber, streams_of
from telex.channels.events import Page, Position
from telex.channels.hub import Channels
from telex.channels.presence import Watch, write_change
from telex.codecs import Reader
from telex.connection import Socket
from telex.exceptions import ChannelsException, NotFoundException, ValidationException
from telex.handlers.channel_publishing import Publishing, only_text
from telex.handlers.frame_calls import speak_calls
from telex.plans import Build
from telex.protocol.jobs import CallTarget

__all__ = ("compile_channel_frames", "introduce")

LONGEST_PAGE: Final = 100
"""The most events that one call for history returns."""


class HistoryCall(msgspec.Struct, tag_field="type", tag="history", forbid_unknown_fields=True):
    """A call for the events before the position ``before``, or for the last ones."""

    before: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_PAGE)] = 50


class _Tagged(msgspec.Struct):
    type: str = ""


_decode_history: Final = msgspec.json.Decoder(HistoryCall).decode
_decode_tag: Final = msgspec.json.Decoder(_Tagged).decode


def compile_channel_frames(
    build: Build,
    hub: Channels,
    publish: Any,
    publishing: Publishing | None,
    *,
    keeps: bool,
    text_alone: bool,
    max_invalid_messages: int,
) -> None:
    """Serve frames to clients that offer telex.v1. ``keeps`` says whether the channel may have history.

    :raises ImproperlyConfiguredException: ``publish`` has a type that is tagged like a call for history.
    """
    read_json, read_bytes = (_refuse, None) if publishing is None else build.frame_reader(publish)
    if read_bytes is not None and text_alone:
        read_bytes = only_text(read_bytes)
    if keeps:
        if any(_is_tagged_history(each) for each in union_members(publish) or (publish,)):
            raise build.wrong("publish= has a type with the tag 'history', which is a call of telex.v1: rename the tag")
        read_json = _or_history(read_json or _refuse)
    speak_calls(
        build,
        (read_json, read_bytes),
        _bind_targets(hub, publishing),
        max_concurrency=1,
        max_invalid_messages=max_invalid_messages,
    )


def _bind_targets(
    hub: Channels, publishing: Publishing | None
) -> Callable[[Socket, Slots], Callable[[Any], CallTarget]]:
    def bind(socket: Socket, slots: Slots) -> Callable[[Any], CallTarget]:
        history = CallTarget(partial(_read_history, hub, slots[-1]), write_page, awaits=True)
        if publishing is None:
            return lambda _: history
        published = publishing.bind_target(socket, slots)
        return lambda data: history if data.__class__ is HistoryCall else published

    return bind


async def _read_history(hub: Channels, topic: str, call: HistoryCall) -> Page:
    if hub.keep_for(topic) is None:
        raise NotFoundException("nothing is kept of this channel")
    try:
        before = None if call.before is None else Position.parse(call.before)
    except ChannelsException as error:
        raise ValidationException(error.detail, path="$.before") from error
    return await hub.history(topic, before=before, limit=call.limit)


def _refuse(_: str | bytes) -> Any:
    raise ValidationException("clients publish nothing on this channel")


def _or_history(read: Reader) -> Reader:
    """Wrap ``read``: read objects with the type ``history`` as a call for history."""

    def read_either(raw: Any) -> Any:
        if b'"history"' in raw and _has_type_history(raw):
            return _decode_history(raw)
        return read(raw)

    return read_either


def _has_type_history(raw: bytes) -> bool:
    try:
        return _decode_tag(raw).type == "history"
    except msgspec.DecodeError:
        return False


def _is_tagged_history(annotation: Any) -> bool:
    config = getattr(split_annotated(annotation)[0], "__struct_config__", None)
    return config is not None and (config.tag_field, config.tag) == ("type", "history")


async def introduce(socket: Socket, topic: str, subscriber: Subscriber, watch: Watch | None) -> None:
    """Send the position where the stream begins and the present members, then start a stream of presence changes."""
    head = '{"type":"subscribed"'
    if subscriber.recovered is not None:
        head += f',"recovered":{"true" if subscriber.recovered else "false"}'
    await socket.send_unchanged(with_position(head, subscriber.positions.get(topic)) + "}")
    if watch is not None:
        present = {"type": "present", "members": watch.members}
        await socket.send_unchanged(msgspec.json.encode(present).decode())
        streams_of(socket).start(_show_changes(socket, watch))


async def _show_changes(socket: Socket, watch: Watch) -> None:
    async for change in watch:
        await socket.send_unchanged(write_change(change))
