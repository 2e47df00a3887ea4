"""Encodes items as messages. Each item is encoded once for all sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from telex.channels.events import Event, Gap, Item
from telex.exceptions import WebSocketException
from telex.status_codes import WS_1003_UNSUPPORTED_DATA, WS_1012_SERVICE_RESTART
from telex.types import BINARY_OPCODE, TEXT_OPCODE, Mode

__all__ = ("ENVELOPE", "Encoding", "as_bytes", "as_envelope", "as_text", "data_of", "lost")

ENVELOPE: Final = "telex.channels.v1"
"""The subprotocol of clients that receive positions, gaps and presence in addition to the data."""


class Encoding:
    """Encodes items. It caches the last message, because the same item is encoded for one socket after another."""

    __slots__ = ("_item", "_message", "_write", "mode", "opcode")

    def __init__(self, write: Callable[[Item], str | bytes], mode: Mode) -> None:
        self._write = write
        self._item: Item | None = None
        self._message: str | bytes = b""
        self.mode: Mode = mode
        self.opcode: int = TEXT_OPCODE if mode == "text" else BINARY_OPCODE

    def __call__(self, item: Item) -> str | bytes:
        """The message for ``item``."""
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


def _enveloped(item: Item) -> str:
    position = None if item.position is None else str(item.position)
    if isinstance(item, Gap):
        return _to_text({"type": "gap", "channel": item.channel, "reason": item.reason, "position": position})
    return _to_text({"type": "event", "channel": item.channel, "position": position, **_payload(item.data)})


def _payload(data: bytes) -> dict[str, object]:
    """JSON unchanged under ``data``, other text under ``text``, anything else under ``base64``."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"base64": data}
    try:
        return {"data": msgspec.json.decode(data, type=msgspec.Raw)}
    except (msgspec.DecodeError, RecursionError):
        return {"text": text}


def _to_text(value: object) -> str:
    return msgspec.json.encode(value).decode()


as_text: Final = Encoding(_text_of, "text")
as_bytes: Final = Encoding(data_of, "binary")
as_envelope: Final = Encoding(_enveloped, "text")
