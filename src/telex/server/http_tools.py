"""The guarded HTTP protocol over httptools; a separate module because httptools is optional."""

from __future__ import annotations

import sys
from http import HTTPStatus
from typing import Final

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from telex.defaults import KIB
from telex.server.handshake import MAX_HEADERS
from telex.server.http import GuardedHTTP

__all__ = ("GuardedHttpToolsProtocol",)

_MAX_UNREAD: Final = 64 * KIB
"""Bytes of a head or trailer, and bytes between two parts of a body."""


class GuardedHttpToolsProtocol(GuardedHTTP, HttpToolsProtocol):  # type: ignore[misc]
    """The protocol over httptools (C). httptools has no limits, so this class counts headers and bytes."""

    _now = b""
    _rest = b""
    _unread_size = 0

    def data_received(self, data: bytes) -> None:
        """Parse, keep the bytes that follow an upgrade, and count the bytes since the last progress."""
        self._unread_size += len(data)
        while data and not self.transport.is_closing():
            self._now, self._rest = data, b""
            super().data_received(data)
            data = self._rest
        self._now = self._rest = b""
        if self._unread_size > _MAX_UNREAD and not self._upgraded:
            self._give_up(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _after_upgrade(self) -> bytes:
        """The bytes after the request; called while uvicorn handles the exception with the offset of its end."""
        ended = sys.exception()
        return self._now[ended.args[0] :] if isinstance(ended, HttpParserUpgrade) else b""

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore an upgrade to another protocol (RFC 9110 section 7.8), and parse the rest as the next request."""
        self.parser: HttpRequestParser = HttpRequestParser(self)
        self._rest = self._after_upgrade()

    def on_message_begin(self) -> None:
        """Reset the count: a request begins."""
        super().on_message_begin()
        self._unread_size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count one header of a request or of its trailer."""
        if len(self.headers) >= MAX_HEADERS:
            raise ValueError("too many headers")  # httptools stops, and send_400_response is called
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Reset the count: a part of a body arrived."""
        self._unread_size = 0
        super().on_body(body)

    def handle_websocket_upgrade(self) -> None:  # type: ignore[override]  # h11's gets an event
        """Upgrade after a complete request."""
        self._upgrade(self.url, self._after_upgrade())

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that cannot be parsed or has too many headers."""
        if self.headers is not None and len(self.headers) >= MAX_HEADERS:
            self._give_up(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._response_pending:
            self._give_up(HTTPStatus.BAD_REQUEST)
        else:
            super().send_400_response(msg)
