"""``WebSocket.incoming`` in plain mode: each message is one that wants no answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from telex import codecs
from telex.exceptions import WebSocketDisconnect, WebSocketException
from telex.protocol.envelope import Incoming
from telex.protocol.errors import checked_code, cut, error_body
from telex.status_codes import WS_1007_INVALID_FRAME_PAYLOAD_DATA
from telex.types import Message, TypeDecoder

__all__ = ("PlainMessages",)


class PlainTarget(Protocol):
    """The part of a connection that receives and sends messages."""

    async def receive(self) -> Message:
        """The next event."""

    async def notify(self, data: object) -> None:
        """Send a value."""

    def lost(self) -> WebSocketDisconnect:
        """How the client has left."""


class PlainMessages:
    """The messages of one connection, read as one type: text and bytes unchanged, other types from JSON."""

    def __init__(self, socket: PlainTarget, kind: Any, decoders: Sequence[TypeDecoder], max_invalid: int) -> None:
        self._socket = socket
        self._readers = {
            "text": codecs.reader(kind, "text", decoders),
            "bytes": codecs.reader(kind, "binary", decoders),
        }
        self._max_invalid = max_invalid
        self._invalid_in_a_row = 0

    async def next(self) -> PlainMessage:
        """The next message of the type; the others are answered with an error.

        :raises WebSocketDisconnect: the client has left.
        :raises WebSocketException: 1007, too many messages in a row were invalid.
        """
        while True:
            event = await self._socket.receive()
            if event["type"] == "websocket.disconnect":
                raise self._socket.lost()
            key = "bytes" if event.get("text") is None else "text"
            try:
                data = self._readers[key](event[key])
            except Exception as exc:
                invalid = codecs.as_validation_error(exc)
                if invalid is None:
                    raise
                self._invalid_in_a_row += 1
                refused = PlainMessage(None, self._socket)
                await refused.error("invalid_message", cut(invalid.detail), path=cut(invalid.path))
                if self._invalid_in_a_row >= self._max_invalid:
                    raise WebSocketException(WS_1007_INVALID_FRAME_PAYLOAD_DATA, invalid.detail) from None
                continue
            self._invalid_in_a_row = 0
            return PlainMessage(data, self._socket)


class PlainMessage(Incoming[Any]):
    """One message; its answers are messages too."""

    __slots__ = ("_socket",)

    def __init__(self, data: Any, socket: PlainTarget) -> None:
        super().__init__(data, wants_answer=False)
        self._socket = socket

    @property
    def is_answered(self) -> bool:
        return False

    async def reply(self, data: object = None) -> None:
        if data is not None:
            await self._socket.notify(data)

    async def error(self, code: str, message: str = "", data: object = None, *, path: str = "") -> None:
        error = error_body(checked_code(code), message, path=path, data=data)
        await self._socket.notify({"type": "error", "error": error})

    async def stream(self, parts: AsyncIterator[object]) -> None:
        try:
            async for part in parts:
                await self._socket.notify(part)
        finally:
            aclose = getattr(parts, "aclose", None)
            if aclose is not None:
                await aclose()
