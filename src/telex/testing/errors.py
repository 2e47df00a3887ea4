"""The exceptions of the test clients. Those of applications are in :mod:`telex.exceptions`."""

from __future__ import annotations

import msgspec

from telex.exceptions import SerializationException, WebSocketDisconnect
from telex.status_codes import WS_1006_ABNORMAL_CLOSURE
from telex.types import RawHeaders

__all__ = ("ClientGone", "ProtocolMisuse", "WebSocketDenied")


class ProtocolMisuse(AssertionError):
    """The app broke the ASGI WebSocket protocol; raised in the app and in the test."""


class ClientGone(OSError):
    """The app sent to a client that has closed (ASGI 2.4: ``send`` raises a subclass of ``OSError``).

    An app need not catch it: as on a server, it is not a failure of the app.
    """


class WebSocketDenied(WebSocketDisconnect):
    """The app answered the opening handshake with an HTTP response (ASGI's denial response).

    ``code`` is 1006, as in a browser after a failed handshake.
    """

    def __init__(self, status_code: int, headers: RawHeaders = (), content: bytes = b"") -> None:
        super().__init__(WS_1006_ABNORMAL_CLOSURE, f"the handshake was denied with HTTP {status_code}")
        self.status_code = status_code
        self.headers: dict[str, str] = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        self.content = content

    @property
    def text(self) -> str:
        """The body as UTF-8 text."""
        return self.content.decode()

    def json(self) -> object:
        """The body, decoded from JSON.

        :raises SerializationException: it is not JSON.
        """
        try:
            return msgspec.json.decode(self.content)
        except msgspec.DecodeError as error:
            raise SerializationException(f"the denial's body is not JSON: {error}") from error

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.status_code}, {self.content!r})"
