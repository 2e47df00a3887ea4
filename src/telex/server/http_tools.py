"""The guarded HTTP protocol over httptools; apart from :mod:`telex.server.http` because httptools may be missing."""

from __future__ import annotations

from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from telex.server.handshake import MAX_HEADERS
from telex.server.http import GuardedHTTP

__all__ = ("GuardedHttpToolsProtocol",)


class GuardedHttpToolsProtocol(GuardedHTTP, HttpToolsProtocol):  # type: ignore[misc]
    """The fast one. httptools itself bounds nothing, so headers are counted while they arrive."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of a request."""
        if len(self.headers) >= MAX_HEADERS:
            raise ValueError("too many headers")  # httptools stops, and send_400_response is called
        super().on_header(name, value)

    def send_400_response(self, msg: str) -> None:
        """The request cannot be read, or has too many headers to be read."""
        if self.headers is not None and len(self.headers) >= MAX_HEADERS:
            self._give_up(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            super().send_400_response(msg)
