"""Encodes items as messages. Each item is encoded once for all sockets.

In telex.v1 the same frame goes to all subscribers: a ``str``, or the ``bytes`` of a binary message. It begins with its
``type``, and nothing in it belongs to one connection, so code that adds to it can add the same way for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from telex.channels.events import Event, Gap, Item, Page, Position
from telex.exceptions import WebSocketException
from telex.protocol import frames
from telex.protocol.frames import Encoded
from telex.status_codes import WS_1003_UNSUPPORTED_DATA, WS_1012_SERVICE_RESTART

__all__ = (
    "Encoding",
    "as_bytes",
    "as_frames",
    "as_notifies",
    "as_text",
    "data_of",
    "lost",
    "with_position",
    "write_page",
)

MAX_PAGE_BYTES: Final = 1 << 20
"""Bytes of the events in one page of history; a page has one event at least."""


class Encoding:
    """Encodes items. It caches the last message, because the same item is encoded for one socket after another."""

    __slots__ = ("_item", "_message", "_write")

    def __init__(self, write: Callable[[Item], str | bytes]) -> None:
        self._write = write
        self._item: Item | None = None
        self._message: str | bytes = b""

    def __call__(self, item: Item) -> str | bytes:
        """The message for ``item``: text if it is a ``str``, otherwise binary."""
        if item is not self._item:
            self._message = self._write(item)
            self._item = item
        return self._message


def data_of(item: Item) -> bytes:
    """The data of an event.

    :raises WebSocketException: 1012: the item is a gap, which has no data.
    """
    if isinstance(item, Event):
        return item.data
    raise lost(item)


def lost(gap: Gap) -> WebSocketException:
    """The error that ends a stream which cannot show a gap, so that its client reconnects and starts again."""
    return WebSocketException(WS_1012_SERVICE_RESTART, f"events of {gap.channel!r} were lost: {gap.reason}")


def _text_of(item: Item) -> str:
    try:
        return data_of(item).decode()
    except UnicodeDecodeError:
        reason = f"binary data in {item.channel!r}: it needs send_mode='binary'"
        raise WebSocketException(WS_1003_UNSUPPORTED_DATA, reason) from None


def _frame_of(item: Item) -> Encoded:
    if isinstance(item, Gap):
        return with_position(f'{{"type":"gap","reason":{_json(item.reason)}', item.position) + "}"
    return frames.frame(with_position('{"type":"event"', item.position), _data_in_frame(item))


def _notify_of(item: Item) -> Encoded:
    if isinstance(item, Gap):
        raise lost(item)
    return frames.frame('{"type":"notify"', _data_in_frame(item))


def _data_in_frame(event: Event) -> Encoded:
    """The data as its kind says. What is not valid JSON, as a program without Telex may publish, is text or bytes."""
    data, kind = event.data, event.kind
    if kind == "bytes":
        return data
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    if kind == "json":
        try:
            msgspec.json.decode(data, type=msgspec.Raw)
        except (msgspec.DecodeError, RecursionError):
            return _json(text)
        return text
    return _json(text)


def with_position(head: str, position: Position | None) -> str:
    """The beginning of a JSON object, with the position if there is one."""
    return head if position is None else f'{head},"position":{_json(str(position))}'


def write_page(page: Page) -> str:
    """A page of history as JSON; bytes are in base64. Its oldest events are left for the next page if it is long."""
    written: list[str] = []
    size = 0
    for event in reversed(page.events):
        data = _data_in_frame(event)
        text = f'{{"data":{data}' if isinstance(data, str) else f'{{"base64":{_json(data)}'
        size += len(text)
        if written and size > MAX_PAGE_BYTES:
            break
        written.append(with_position(text, event.position) + "}")
    more = page.more or len(written) < len(page.events)
    return f'{{"events":[{",".join(reversed(written))}],"more":{"true" if more else "false"}}}'


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


as_text: Final = Encoding(_text_of)
as_bytes: Final = Encoding(data_of)
as_frames: Final = Encoding(_frame_of)
"""The frames of telex.v1."""
as_notifies: Final = Encoding(_notify_of)
"""Notifies of telex.v1: their data wants no answer."""
