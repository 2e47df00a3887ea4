"""uvicorn's HTTP protocols, with limits on incomplete requests and a lossless upgrade to WebSocket.

uvicorn drops the bytes that follow an upgrade's headers, and upgrades while the response to an earlier request is still
being written. These classes read the end of the request from the HTTP parser, keep the bytes after it, and delay an
upgrade until the earlier response is complete.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal

from uvicorn.protocols.http.h11_impl import H11Protocol

from telex.server.handshake import denial
from telex.server.limits import Limits
from telex.server.protocol import MAX_EARLY, WebSocketProtocol

if TYPE_CHECKING:
    import h11
    from uvicorn.config import Config

    _Base = H11Protocol
else:
    _Base = object

__all__ = ("GuardedH11Protocol", "GuardedHTTP", "http_protocol")

_logger: Final = logging.getLogger("uvicorn.error")


class GuardedHTTP(_Base):
    """A mixin for uvicorn's protocols that disconnects a client that does not complete its request in time.

    The timer starts with the connection, or with the first byte of a later request, and stops when the application
    receives the request. Between requests uvicorn's keep-alive timer runs.
    """

    def __init__(self, config: Config, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._limits = Limits.of(config)
        self._head_timer: asyncio.TimerHandle | None = None
        self._upgraded = False
        self._waiting: bytes | None = None
        self._refusal: HTTPStatus | None = None
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the request timer."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the request timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and run the timer while a request is incomplete."""
        if self.transport.is_closing() or self._refusal is not None:
            return
        if self._waiting is not None:
            self._early += data
            if len(self._early) > MAX_EARLY:
                self.transport.abort()
            return
        super().data_received(data)
        if self._response_pending or self._upgraded or self.transport.is_closing():
            self._stop_timer()
        else:
            self._start_timer()

    def _get_upgrade(self) -> bytes | None:
        """The protocol that the request upgrades to; ``Connection`` may be several headers (RFC 9110 section 5.3)."""
        connection = b",".join(value for name, value in self.headers if name == b"connection").lower()
        upgrades = [value.lower() for name, value in self.headers if name == b"upgrade"]
        return upgrades[-1] if upgrades and b"upgrade" in map(bytes.strip, connection.split(b",")) else None

    @property
    def _response_pending(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _upgrade(self, target: bytes, early: bytes) -> None:
        """Hand the connection over, at once or after the pending response to the previous request."""
        self._stop_timer()
        self._upgraded = True
        head = b"".join(b"%b: %b\r\n" % header for header in self.headers)
        opening = b"%b %b HTTP/1.1\r\n%b\r\n" % (self.scope["method"].encode(), target, head)
        self._early = early
        if self._response_pending:
            self._waiting = opening
            self.flow.pause_reading()
        else:
            self._hand_over(opening)

    def on_response_complete(self) -> None:
        """Hand over or refuse the request that waited for this response."""
        super().on_response_complete()
        if self._refusal is not None and not self._response_pending:
            self._give_up(self._refusal)
        elif self._waiting is not None and not self._response_pending and not self.transport.is_closing():
            self._hand_over(self._waiting)

    def _hand_over(self, opening: bytes) -> None:
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.connections.discard(self)
        protocol = WebSocketProtocol(self.config, self.server_state, self.app_state, self.loop)
        try:
            protocol.connection_made(self.transport)
            self.transport.set_protocol(protocol)
            protocol.data_received(opening)
            if self._early:
                protocol.data_received(self._early)
        except Exception:
            _logger.exception("Exception during the upgrade of a connection to WebSocket")
            self.transport.abort()

    def _start_timer(self) -> None:
        if self._head_timer is None:
            timeout = self._limits.handshake_timeout
            self._head_timer = self.loop.call_later(timeout, self._give_up, HTTPStatus.REQUEST_TIMEOUT)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self, status: HTTPStatus) -> None:
        self._stop_timer()
        if self._response_pending and self.cycle.more_body:
            self.transport.abort()  # the rest of the body cannot be read, and the response may have begun
        elif self._response_pending:
            self._refusal = status
        elif not self.transport.is_closing():
            self.transport.write(denial(status, [*self.server_state.default_headers, (b"content-length", b"0")]))
            self.transport.close()


class GuardedH11Protocol(GuardedHTTP, H11Protocol):
    """The protocol over h11 (pure Python). h11 limits a request's head and trailer to 64 KiB."""

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """The request is complete; h11 itself delays it until the previous response is complete."""
        self._upgrade(event.target, self.conn.trailing_data[0])


def http_protocol(name: Literal["auto", "httptools", "h11"]) -> str:
    """The import path of the protocol class, for uvicorn's ``http`` setting."""
    if name == "h11" or (name == "auto" and importlib.util.find_spec("httptools") is None):
        return "telex.server.http:GuardedH11Protocol"
    return "telex.server.http_tools:GuardedHttpToolsProtocol"
