"""Every exception of Telex.

::

    TelexException
    ├── ImproperlyConfiguredException      the app's configuration is wrong: raised when the app is built
    │   └── MissingDependencyException     a library that an option needs is not installed
    ├── SerializationException             a value could not be encoded or decoded
    ├── ConnectionStateError               a call that the connection's state does not allow
    │   └── ConcurrencyError               two tasks wait for the same connection's messages
    ├── UnexpectedCancellation             a handler awaited a cancelled task or future, but was not cancelled itself
    ├── NoRouteMatchFoundException         no handler of that name takes these parameters
    ├── ChannelsException                  a channel is not declared, or the hub does not allow the call
    ├── HTTPException                      has an HTTP status: a denial before accept, close 4000 + status after
    │   ├── ClientException                400
    │   │   └── ValidationException        400; a value or message is invalid (also a SerializationException)
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
    """The base class of all exceptions of Telex. ``detail`` is the error text."""

    detail: str

    def __init__(self, detail: str = "") -> None:
        self.detail = detail
        super().__init__(detail)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.detail!r})"


class ImproperlyConfiguredException(TelexException, ValueError):
    """The app's configuration is wrong. Raised when the app is built; the text names the function and the fix."""


class MissingDependencyException(ImproperlyConfiguredException, ImportError):
    """An option needs a library that is not installed."""

    def __init__(self, package: str, extra: str | None = None) -> None:
        super().__init__(f"{package!r} is not installed: pip install 'telex[{extra or package}]'")


class SerializationException(TelexException):
    """A value could not be encoded or decoded."""


class UnexpectedCancellation(TelexException, RuntimeError):
    """A handler that was not cancelled raised ``CancelledError``: it awaited a cancelled task or future."""


class ConnectionStateError(TelexException, RuntimeError):
    """The connection's state does not allow the call; the text names the state and the call."""


class ConcurrencyError(ConnectionStateError):
    """Two tasks wait for messages of one connection at the same time."""


class NoRouteMatchFoundException(TelexException, LookupError):
    """No handler has this name, or it takes other path parameters."""


class ChannelsException(TelexException, LookupError):
    """A channel is not declared, or the hub does not allow its name or the call."""


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
    """The client's request is invalid."""

    status_code = status_codes.HTTP_400_BAD_REQUEST


class ValidationException(ClientException, SerializationException, ValueError):
    """A message or a parameter does not match its annotation.

    ``path`` is the location in the message as JSONPath (``$.user.name``), or empty if the error has no location.
    """

    def __init__(self, detail: str = "", *, path: str = "", extra: object = None) -> None:
        super().__init__(detail, extra=extra)
        self.path: str = path


class NotAuthorizedException(ClientException):
    """Credentials are missing or wrong."""

    status_code = status_codes.HTTP_401_UNAUTHORIZED


class PermissionDeniedException(ClientException):
    """The client has no permission."""

    status_code = status_codes.HTTP_403_FORBIDDEN


class NotFoundException(ClientException):
    """The path or resource does not exist."""

    status_code = status_codes.HTTP_404_NOT_FOUND


class MethodNotAllowedException(ClientException):
    """The path exists, but does not support the request's method."""

    status_code = status_codes.HTTP_405_METHOD_NOT_ALLOWED


class TooManyRequestsException(ClientException):
    """The client sends too many requests."""

    status_code = status_codes.HTTP_429_TOO_MANY_REQUESTS


class InternalServerException(HTTPException):
    """The server failed."""

    status_code = status_codes.HTTP_500_INTERNAL_SERVER_ERROR


class ServiceUnavailableException(HTTPException):
    """The server is temporarily unavailable."""

    status_code = status_codes.HTTP_503_SERVICE_UNAVAILABLE


class BackendUnavailable(ServiceUnavailableException):
    """The broker behind the channels cannot be reached, or did not answer in time.

    Raised to publishers and subscribers. A publish that was in progress when the connection to the broker was lost may
    have been delivered. ``detail`` can contain the broker's host and user: clients get only the status phrase.
    """

    @property
    def public_detail(self) -> str:
        """The text that clients get."""
        return _phrase(self.status_code)


class WebSocketException(TelexException):
    """Closes the connection with ``code`` and ``reason``.

    ``detail`` is an alias of ``reason``, for compatibility with Litestar.
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
    """The client left, with its close code and reason: 1005 without a code, 1006 without a close frame."""

    default_code = status_codes.WS_1000_NORMAL_CLOSURE


class CallError(TelexException):
    """The client answered a call of the server with an error: its ``code``, ``message`` and ``data``."""

    def __init__(self, code: str, message: str = "", data: object = None) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code: str = code
        self.message: str = message
        self.data: object = data


class CallTimeout(TelexException, TimeoutError):
    """The client did not answer a call of the server in time."""


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP {status}"
