"""Every exception of Telex.

::

    TelexException
    ├── ImproperlyConfiguredException      the app is built wrong: raised when it is built
    │   └── MissingDependencyException     a library that an option needs is not installed
    ├── SerializationException             a value could not be encoded or decoded
    ├── ConnectionStateError               a call that the connection's state does not allow
    │   └── ConcurrencyError               two tasks wait for the same connection's messages
    ├── UnexpectedCancellation             a handler awaited something that was cancelled, and was not cancelled itself
    ├── NoRouteMatchFoundException         no handler of that name takes these parameters
    ├── ChannelsException                  a channel that is not declared, or a call that the hub does not allow
    ├── HTTPException                      has an HTTP status: a denial before accept, close 4000 + status after
    │   ├── ClientException                400
    │   │   └── ValidationException        400; a value or message that does not fit (SerializationException too)
    │   ├── NotAuthorizedException         401
    │   ├── PermissionDeniedException      403
    │   ├── NotFoundException              404
    │   ├── MethodNotAllowedException      405
    │   ├── TooManyRequestsException       429
    │   ├── InternalServerException        500
    │   └── ServiceUnavailableException    503
    │       └── BackendUnavailable         the broker of the channels does not answer
    └── WebSocketException                 has a close code and a reason
        └── WebSocketDisconnect            the client left
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar

from telex import status_codes

__all__ = (
    "BackendUnavailable",
    "ChannelsException",
    "ClientException",
    "ConcurrencyError",
    "ConnectionStateError",
    "HTTPException",
    "ImproperlyConfiguredException",
    "InternalServerException",
    "MethodNotAllowedException",
    "MissingDependencyException",
    "NoRouteMatchFoundException",
    "NotAuthorizedException",
    "NotFoundException",
    "PermissionDeniedException",
    "SerializationException",
    "ServiceUnavailableException",
    "TelexException",
    "TooManyRequestsException",
    "UnexpectedCancellation",
    "ValidationException",
    "WebSocketDisconnect",
    "WebSocketException",
)


class TelexException(Exception):
    """The root of the tree. ``detail`` is the text that may be shown."""

    detail: str

    def __init__(self, detail: str = "") -> None:
        self.detail = detail
        super().__init__(detail)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.detail!r})"


class ImproperlyConfiguredException(TelexException, ValueError):
    """The app is described wrongly; raised at construction, naming the function and the fix."""


class MissingDependencyException(ImproperlyConfiguredException, ImportError):
    """An option needs a library that is not installed."""

    def __init__(self, package: str, extra: str | None = None) -> None:
        super().__init__(f"{package!r} is not installed: pip install 'telex[{extra or package}]'")


class SerializationException(TelexException):
    """A value could not be encoded for, or decoded from, the wire."""


class UnexpectedCancellation(TelexException, RuntimeError):
    """A ``CancelledError`` came up in a handler that nobody cancelled: it awaited a task or future that was."""


class ConnectionStateError(TelexException, RuntimeError):
    """A call that the connection's state does not allow; the text names both."""


class ConcurrencyError(ConnectionStateError):
    """Two tasks wait for messages of one connection: each message can go to one of them only."""


class NoRouteMatchFoundException(TelexException, LookupError):
    """No handler of that name, or not with these path parameters."""


class ChannelsException(TelexException, LookupError):
    """A channel is not declared, or its name or the call is one that the hub does not allow."""


class HTTPException(TelexException):
    """An error with an HTTP status.

    Before accept it becomes a denial response with that status, ``headers`` and a JSON body; after accept it closes the
    connection with 4000 + status and ``detail`` as the reason.
    """

    status_code: int = status_codes.HTTP_500_INTERNAL_SERVER_ERROR

    def __init__(
        self,
        detail: str = "",
        *,
        status_code: int | None = None,
        headers: Mapping[str, str] | None = None,
        extra: object = None,
    ) -> None:
        if status_code is not None:
            self.status_code = status_code
        super().__init__(detail or _phrase(self.status_code))
        self.headers: dict[str, str] = dict(headers or {})
        self.extra: object = extra

    @property
    def public_detail(self) -> str:
        """The text that clients get."""
        return self.detail

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.status_code}, {self.detail!r})"


class ClientException(HTTPException):
    """The client sent something wrong."""

    status_code = status_codes.HTTP_400_BAD_REQUEST


class ValidationException(ClientException, SerializationException, ValueError):
    """A message or a parameter does not fit its annotation.

    ``path`` says where in the message, as JSONPath (``$.user.name``); empty when it is not about one place.
    """

    def __init__(self, detail: str = "", *, path: str = "", extra: object = None) -> None:
        super().__init__(detail, extra=extra)
        self.path: str = path


class NotAuthorizedException(ClientException):
    """Credentials are missing or wrong."""

    status_code = status_codes.HTTP_401_UNAUTHORIZED


class PermissionDeniedException(ClientException):
    """The client may not do this."""

    status_code = status_codes.HTTP_403_FORBIDDEN


class NotFoundException(ClientException):
    """There is nothing of that name."""

    status_code = status_codes.HTTP_404_NOT_FOUND


class MethodNotAllowedException(ClientException):
    """The path exists, but not for this kind of request."""

    status_code = status_codes.HTTP_405_METHOD_NOT_ALLOWED


class TooManyRequestsException(ClientException):
    """The client sends too many requests."""

    status_code = status_codes.HTTP_429_TOO_MANY_REQUESTS


class InternalServerException(HTTPException):
    """The server failed."""

    status_code = status_codes.HTTP_500_INTERNAL_SERVER_ERROR


class ServiceUnavailableException(HTTPException):
    """The server cannot serve now."""

    status_code = status_codes.HTTP_503_SERVICE_UNAVAILABLE


class BackendUnavailable(ServiceUnavailableException):
    """The broker behind the channels cannot be reached, or did not answer in time.

    Raised at the publisher and the subscriber. A publish that was on its way when the broker went may or may not
    have arrived. ``detail`` may name hosts and users of the broker: clients get the status alone.
    """

    @property
    def public_detail(self) -> str:
        """The text that clients get."""
        return _phrase(self.status_code)


class WebSocketException(TelexException):
    """Closes the connection with ``code`` and ``reason``.

    ``detail`` is the same as ``reason`` under the name that Litestar's users write.
    """

    default_code: ClassVar[int] = 4500

    def __init__(self, code: int | None = None, reason: str = "", *, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.code: int = self.default_code if code is None else code

    @property
    def reason(self) -> str:
        """The text of the close frame."""
        return self.detail

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code}, {self.detail!r})"


class WebSocketDisconnect(WebSocketException):
    """The client left, with the code and reason it gave: 1005 without a code, 1006 without a close frame."""

    default_code = status_codes.WS_1000_NORMAL_CLOSURE


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP {status}"
