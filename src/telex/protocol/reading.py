"""Reads the frames of one connection beside its handler: so no frame waits behind it, and every end is noticed."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from functools import partial
from typing import Any, Final

import msgspec

from telex.connection import Socket
from telex.connection_state import no_channel
from telex.events import is_too_long
from telex.exceptions import ConcurrencyError, WebSocketException
from telex.protocol.envelope import Incoming
from telex.protocol.frames import (
    MAX_FRAME_OVERHEAD,
    AuthFrame,
    BadFrame,
    Encoded,
    error_frame,
    frame,
    goaway_frame,
)
from telex.protocol.output import FrameOutput
from telex.status_codes import WS_1009_MESSAGE_TOO_BIG
from telex.types import Authentication, Message, Transport

__all__ = ("FrameReading",)


LOG_IN_FIRST: Final = "send a token first"
"""Why nothing is taken before the first token, with ``in_band``."""


class FrameReading(ABC):
    """The reading half of a connection that speaks frames.

    On Telex's server it runs inside the frame callback, elsewhere in the task of the event reader.
    """

    __slots__ = (
        "_failure",
        "_is_over",
        "_last_id",
        "_max_message_size",
        "_output",
        "_socket",
        "_soon",
        "_transport",
    )

    def __init__(self, socket: Socket, max_message_size: int) -> None:
        self._socket = socket
        self._transport: Transport | None = socket.transport
        self._output = FrameOutput(socket)
        self._max_message_size = max_message_size
        self._failure: Exception | None = None
        """What ended the connection while it was read: it interrupts the handler."""
        self._soon: asyncio.Handle | None = None
        """Begins to read in the next turn of the event loop, unless the handler reads itself until then."""
        self._is_over = False
        self._last_id = 0
        """The highest id of a call or token."""
        """Whether messages are ignored, because the connection ends."""

    # -- the interface of the connection

    async def notify_encoded(self, data: Encoded) -> None:
        """Send data that wants no answer."""
        await self._output.send(frame('{"type":"notify"', data))

    async def next(self, kind: Any) -> Incoming[Any]:
        """The next call or notify."""
        raise ConcurrencyError("this handler gets its messages itself: receive none from 'socket'")

    @abstractmethod
    def take_no_more(self, why: str) -> None:
        """Refuse calls and notifies, with ``not_authorized``."""

    @abstractmethod
    def take_again(self) -> None:
        """Undo :meth:`take_no_more`."""

    def closed(self) -> None:  # noqa: B027  # most sessions need nothing here
        """This side has closed the connection."""

    async def aclose(self) -> None:
        """The handler has ended."""
        self._is_over = True
        await self._output.aclose()

    # -- the interface for the server

    @property
    def busy(self) -> bool:
        """Whether a drain must wait for this connection."""
        return self._socket.event_reader.busy

    @property
    def waits(self) -> bool:
        """See :class:`telex.types.Activity`."""
        return self._socket.event_reader.waits

    def on_end(self, code: int, reason: str) -> None:
        """See :class:`telex.types.Activity`."""
        self._socket.event_reader.on_end(code, reason)

    def go_away(self, within: float, retry_after: float) -> bool:
        """See :class:`telex.types.Activity`."""
        self._output.write(goaway_frame(within, retry_after))
        return True

    # -- reading

    @abstractmethod
    def _feed(self, raw: str | bytes) -> None:
        """Handle one message; an exception ends the connection."""

    def _lost(self) -> None:  # noqa: B027  # most sessions need nothing here
        """The connection has ended; the handler is interrupted next."""

    def _renew(self, found: AuthFrame) -> None:
        """Let a new token be checked, beside the handler and one at a time. Its id is used up."""
        authentication = self._socket.authentication
        if found.id <= self._last_id:
            raise BadFrame("bad_frame", f"the id {found.id} is not higher than the last")
        self._last_id = found.id
        if authentication is None:
            self._output.write(error_frame(found.id, "not_found", "this handler takes no tokens"))
        elif not authentication.renew(found.token, partial(self._tell, authentication, found.id)):
            self._output.write(error_frame(found.id, "too_many_calls", "another token is being checked"))

    def _tell(self, authentication: Authentication, auth_id: int, error: tuple[str, str] | None) -> None:
        if error is None:
            text = msgspec.json.encode(
                {"type": "reply", "id": auth_id, "data": {"expires_in": authentication.expires_in}}
            ).decode()
        else:
            text = error_frame(auth_id, *error)
        self._output.write(text)

    async def flush(self) -> None:
        """Send what was written by code that cannot wait."""
        await self._output.flush()

    async def _start_reading(self) -> None:
        """Pass every message to :meth:`_feed` from now on. An end interrupts the handler."""
        transport, reader, route = self._transport, self._socket.event_reader, self._socket.route
        await reader.feed(self)
        if reader.limiter is not None:  # a frame that a limit lets wait needs a task
            self._soon = asyncio.get_running_loop().call_soon(self._read_beside)
        elif transport is not None:
            transport.set_message_handler(self.on_message)
        elif route is not None and reader.receive == route.receive:
            self._output.route = route
            reader.receive = no_channel  # nobody reads by it any more, and each idle route would keep it
            route.feed(self)
        else:
            self._soon = asyncio.get_running_loop().call_soon(self._read_beside)

    def _read_beside(self) -> None:
        self._soon = None
        self._socket.event_reader.start_pump()

    def _reads_late(self) -> bool:
        """Whether no task reads yet; then none begins to, and the caller reads."""
        if self._soon is None:
            return False
        self._soon.cancel()
        self._soon = None
        return True

    async def _until_end(self) -> None:
        """Wait until the connection ends; the caller is supervised.

        :raises WebSocketDisconnect: the client has left.
        """
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            interrupt = self._socket.event_reader.take_interrupt()
            if interrupt is None:
                raise
            raise interrupt from None

    def take_event(self, event: Message) -> Awaitable[None] | None:
        """Takes the events of servers without a fast path. What it returns is awaited before the next."""
        raw = event.get("text")
        if raw is None:
            raw = event.get("bytes")
            if raw is None:
                self._lost()
                return None
        self._output.is_collecting = True
        try:
            self._feed_message(raw)
        finally:
            self._output.is_collecting = False
        if self._failure is not None:
            return self._settle()
        return self._output.flush() if self._output.waiting else None

    async def _settle(self) -> None:
        await self._output.flush()
        if self._failure is not None:
            self._end_with(self._failure)

    def on_message(self, raw: str | bytes) -> None:
        """The frame callback of Telex's server."""
        self._feed_message(raw)
        if self._failure is not None:
            self._end_with(self._failure)

    def _end_with(self, failure: Exception) -> None:
        if not self._is_over:
            self._is_over = True
            self._socket.event_reader.end_with(failure)

    def _feed_message(self, raw: str | bytes) -> None:
        if self._is_over or self._failure is not None:
            return
        try:
            if 4 * len(raw) > self._max_message_size:  # a character takes up to four bytes
                self._check_size(raw)
            self._feed(raw)
        except Exception as exc:
            self._failure = exc

    def _check_size(self, raw: str | bytes) -> None:
        if self._is_longer(raw, self._max_message_size + MAX_FRAME_OVERHEAD):
            raise self._too_big()

    @staticmethod
    def _is_longer(raw: str | bytes, limit: int) -> bool:
        return is_too_long({"text" if isinstance(raw, str) else "bytes": raw}, limit)

    def _too_big(self) -> WebSocketException:
        return WebSocketException(WS_1009_MESSAGE_TOO_BIG, f"message over {self._max_message_size} bytes")
