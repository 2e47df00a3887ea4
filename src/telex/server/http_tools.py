"""The guarded HTTP protocol over httptools; apart from :mod:`telex.server.http` because httptools may be missing."""

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
"""Bytes of a head, of a trailer or between two pieces of a body."""


class GuardedHttpToolsProtocol(GuardedHTTP, HttpToolsProtocol):  # type: ignore[misc]
    """The fast one. httptools itself bounds nothing, so headers and bytes are counted while they arrive."""

    _now = b""
    _rest = b""
    _unread_size = 0

    def data_received(self, data: bytes) -> None:
        """Keep the bytes while they are parsed: some may follow an upgrade. Count those that make no progress."""
        self._unread_size += len(data)
        while data and not self.transport.is_closing():
            self._now, self._rest = data, b""
            super().data_received(data)
            data = self._rest
        self._now = self._rest = b""
        if self._unread_size > _MAX_UNREAD and not self._upgraded:
            self._give_up(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _after_upgrade(self) -> bytes:
        """What follows the request: uvicorn handles the exception in which the parser says where it ended."""
        ended = sys.exception()
        return self._now[ended.args[0] :] if isinstance(ended, HttpParserUpgrade) else b""

    def _unsupported_upgrade_warning(self) -> None:
        """Another protocol's upgrade may be ignored (RFC 9110 section 7.8): the next request follows, if any."""
        self.parser = HttpRequestParser(self)
        self._rest = self._after_upgrade()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._unread_size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of a request, or of its trailer."""
        if len(self.headers) >= MAX_HEADERS:
            raise ValueError("too many headers")  # httptools stops, and send_400_response is called
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Some of a body."""
        self._unread_size = 0
        super().on_body(body)

    def handle_websocket_upgrade(self) -> None:  # type: ignore[override]  # h11's gets an event
        """The request is complete."""
        self._upgrade(self.url, self._after_upgrade())

    def send_400_response(self, msg: str) -> None:
        """The request cannot be read, or has too many headers to be read."""
        if self.headers is not None and len(self.headers) >= MAX_HEADERS:
            self._give_up(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._response_pending:
            self._give_up(HTTPStatus.BAD_REQUEST)
        else:
            super().send_400_response(msg)
