"""Reads the frames of one connection, always: so no frame waits behind a busy handler, and every end is noticed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any

from telex.connection import Socket
from telex.event_reader import as_disconnect
from telex.events import is_too_long
from telex.exceptions import WebSocketException
from telex.protocol.frames import MAX_FRAME_OVERHEAD
from telex.protocol.output import FrameOutput
from telex.status_codes import WS_1009_MESSAGE_TOO_BIG
from telex.types import Message, Transport

__all__ = ("FrameReading",)


class FrameReading(ABC):
    """The reading half of a connection that speaks frames. On Telex's server it runs inside the frame callback."""

    __slots__ = ("_failure", "_max_message_size", "_output", "_quick_limit", "_socket", "_transport")

    def __init__(self, socket: Socket, max_message_size: int) -> None:
        self._socket = socket
        self._transport: Transport | None = socket.transport
        self._output = FrameOutput(socket)
        self._max_message_size = max_message_size
        self._quick_limit = max_message_size // 4
        self._failure: Exception | None = None
        """Ends the connection; set by code that runs in the frame callback."""

    @abstractmethod
    def _feed(self, raw: str | bytes) -> None:
        """Handle one message. Does nothing after a failure; an error is kept as ``_failure``."""

    def _read(self) -> Awaitable[None]:
        """Read until the connection ends.

        :raises WebSocketDisconnect: the client has left.
        """
        return self._read_events() if self._transport is None else self._read_transport(self._transport)

    async def _read_events(self) -> None:
        reader, receive = self._socket.event_reader, self._socket.event_reader.receive
        while True:
            self._feed_event(await reader.next(receive))
            if self._output.waiting:
                await self._output.flush()
            if self._failure is not None:
                raise self._failure

    async def _read_transport(self, transport: Transport) -> None:
        """Handle frames inside the frame callback; this task waits for the end, and for what was read ahead before."""
        reader = self._socket.event_reader
        while True:
            if not reader.has_read_ahead:
                transport.set_message_handler(self._on_message)
            raw: Any = await reader.next(transport.receive)
            if self._failure is not None:
                raise self._failure
            if raw is None:
                raw = await reader.next(reader.receive)
            self._feed_event({"type": "websocket.receive", "text": raw} if raw.__class__ is str else raw)
            if self._failure is not None:
                raise self._failure

    def _feed_event(self, event: Message | bytes) -> None:
        if isinstance(event, bytes):
            event = {"type": "websocket.receive", "bytes": event}
        if event["type"] == "websocket.disconnect":
            end = as_disconnect(event)
            raise self._socket.lost(end.code, end.reason)
        text = event.get("text")
        self._output.is_collecting = True
        try:
            self._feed(event["bytes"] if text is None else text)
        finally:
            self._output.is_collecting = False

    def _on_message(self, raw: str | bytes) -> None:
        """The frame callback of Telex's server."""
        self._feed(raw)
        if self._failure is not None and self._transport is not None:
            self._transport.hand_over(raw)

    def _check_size(self, raw: str | bytes) -> None:
        """Raise if a message of more than a quarter of the limit's characters is longer than the limit."""
        limit = self._max_message_size + MAX_FRAME_OVERHEAD
        if is_too_long({"text" if isinstance(raw, str) else "bytes": raw}, limit):
            raise WebSocketException(WS_1009_MESSAGE_TOO_BIG, f"message over {self._max_message_size} bytes")
