"""uvicorn's HTTP protocols with what they lack before a request is complete: a time limit and size limits.

They also keep what a client sends together with its request: uvicorn drops the bytes after an upgrade's headers.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal

from uvicorn.protocols.http.h11_impl import H11Protocol

from telex.defaults import KIB
from telex.server.handshake import denial
from telex.server.limits import Limits

if TYPE_CHECKING:
    import h11
    from uvicorn.config import Config

    _Base = H11Protocol
else:
    _Base = object

__all__ = ("GuardedH11Protocol", "GuardedHTTP", "http_protocol")

_logger: Final = logging.getLogger("uvicorn.error")

_MAX_HEAD: Final = 64 * KIB
"""Bytes of a request before its headers are complete."""


class GuardedHTTP(_Base):
    """Put before one of uvicorn's protocols: a client that does not complete a request is not kept.

    The clock runs from the connection, or from the first byte of a later request, until the application has the request
    in hand. Between requests uvicorn's keep-alive timer runs.
    """

    def __init__(self, config: Config, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._limits = Limits.of(config)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_size = 0
        self._end_of_last = b""
        self._now = b""
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop it."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count, and hand on."""
        if self.transport.is_closing():
            return
        self._now = data
        super().data_received(data)
        self._now = b""
        self._end_of_last = (self._end_of_last + data)[-3:]
        if self._upgraded or (self.cycle is not None and not self.cycle.response_complete):
            self._stop_clock()
            return
        self._start_clock()
        self._head_size += len(data)
        if self._head_size > _MAX_HEAD:
            self._give_up(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def handle_websocket_upgrade(self, *args: Any) -> None:
        """Hand the connection over, with what came after the request."""
        self._stop_clock()
        self._upgraded = True
        if self.scope["http_version"] != "1.1":
            # RFC 6455 section 4.1 demands 1.1, and the request that uvicorn hands over claims that it is.
            self.connections.discard(self)
            self._give_up(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
            return
        held = set(self.connections)
        try:
            super().handle_websocket_upgrade(*args)
            _, _, early = (self._end_of_last + self._now).partition(b"\r\n\r\n")
            protocol = self.transport.get_protocol()
            if early and isinstance(protocol, asyncio.Protocol):
                protocol.data_received(early)
        except Exception:
            # Whichever protocol has the connection now, the other will not hear of its end.
            _logger.exception("Exception while a connection was handed over")
            self.connections.intersection_update(held - {self})
            self.transport.abort()

    def _start_clock(self) -> None:
        if self._head_timer is None:
            timeout = self._limits.handshake_timeout
            self._head_timer = self.loop.call_later(timeout, self._give_up, HTTPStatus.REQUEST_TIMEOUT)

    def _stop_clock(self) -> None:
        self._head_size = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self, status: HTTPStatus) -> None:
        self._stop_clock()
        if not self.transport.is_closing():
            self.transport.write(denial(status, [*self.server_state.default_headers, (b"content-length", b"0")]))
            self.transport.close()


class GuardedH11Protocol(GuardedHTTP, H11Protocol):
    """The one without a C extension. h11 itself bounds a request's head to 16 KiB."""

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over."""
        super().handle_websocket_upgrade(event)


def http_protocol(name: Literal["auto", "httptools", "h11"]) -> str:
    """Where uvicorn finds the protocol class, for its ``http`` setting."""
    if name == "h11" or (name == "auto" and importlib.util.find_spec("httptools") is None):
        return "telex.server.http:GuardedH11Protocol"
    return "telex.server.http_tools:GuardedHttpToolsProtocol"
