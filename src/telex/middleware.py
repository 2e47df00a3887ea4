"""The Origin check, and the wrapping of ASGI middleware."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import reduce
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection

from telex.exceptions import ImproperlyConfiguredException, PermissionDeniedException
from telex.types import ASGIApp, Middleware, Scope

__all__ = ("DefineMiddleware", "compile_origin_check", "without_fast_path", "wrap_in_middleware")

OriginCheck: TypeAlias = Callable[[HTTPConnection], None]


class DefineMiddleware:
    """An ASGI middleware class or factory with the arguments it takes besides the app."""

    __slots__ = ("args", "kwargs", "middleware")

    def __init__(self, middleware: Callable[..., ASGIApp], *args: Any, **kwargs: Any) -> None:
        self.middleware: Callable[..., ASGIApp] = middleware
        self.args: tuple[Any, ...] = args
        self.kwargs: dict[str, Any] = kwargs

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """Wrap ``app``."""
        return self.middleware(app, *self.args, **self.kwargs)


def wrap_in_middleware(app: ASGIApp, middleware: Sequence[Any], where: str) -> ASGIApp:
    """``app`` inside ``middleware``, the first outermost.

    :raises ImproperlyConfiguredException: one that never sees WebSockets, or is no factory.
    """
    return reduce(lambda inner, factory: factory(inner), reversed([_factory(each, where) for each in middleware]), app)


def _factory(given: Any, where: str) -> Middleware:
    kind = getattr(given, "middleware", None) or getattr(given, "cls", None) or given
    if isinstance(kind, type) and issubclass(kind, BaseHTTPMiddleware):
        raise ImproperlyConfiguredException(
            f"{where}: {kind.__qualname__} is a BaseHTTPMiddleware, which lets every WebSocket pass unseen:"
            " write a plain ASGI middleware, or a guard"
        )
    if isinstance(given, DefineMiddleware):
        return given
    if hasattr(given, "cls") and hasattr(given, "kwargs"):
        return DefineMiddleware(given.cls, *given.args, **given.kwargs)
    if not callable(given):
        raise ImproperlyConfiguredException(
            f"{where}: middleware {given!r} is not callable: pass a function of the app, or DefineMiddleware(cls, ...)"
        )
    return given  # type: ignore[no-any-return]


def without_fast_path(scope: Scope) -> None:
    """Take the server's fast path out of ``scope``: whoever wraps ``receive`` and ``send`` must see every message."""
    extensions = scope.get("extensions") or {}
    if "telex.transport" in extensions:
        scope["extensions"] = {name: value for name, value in extensions.items() if name != "telex.transport"}


def compile_origin_check(allowed: Collection[str] | None, where: str) -> OriginCheck | None:
    """The function that refuses a foreign ``Origin`` (RFC 6455 section 10.2); ``None`` when all are allowed.

    A request without an ``Origin`` does not come from a browser's page and passes. One with an ``Origin`` passes when
    its scheme, host and port are the request's own, or ``allowed`` names it.

    :raises ImproperlyConfiguredException: an entry that no origin can match.
    """
    entries = tuple(_read_entry(entry, where) for entry in allowed or ())
    if "*" in entries:
        return None

    def check_origin(connection: HTTPConnection) -> None:
        origins = connection.headers.getlist("origin")
        if not origins:
            return
        if len(origins) > 1 or not _is_allowed(origins[0], connection, entries):
            raise PermissionDeniedException("this origin may not connect")

    return check_origin


def _read_entry(entry: str, where: str) -> str:
    entry = entry.lower().rstrip("/")
    host = entry.partition("://")[2] or entry
    if "/" in host or "@" in host or not host or ("*" in host.removeprefix("*.") and entry != "*"):
        raise ImproperlyConfiguredException(
            f"{where}: allowed_origins entry {entry!r} matches nothing: write 'https://app.example.com',"
            " 'app.example.com', '*.example.com' or '*'"
        )
    return entry


def _is_allowed(origin: str, connection: HTTPConnection, entries: Sequence[str]) -> bool:
    origin = origin.lower()
    try:
        parts = urlsplit(origin)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if host is None or origin != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
        return False
    if _is_same_host(parts.scheme, host, port, connection):
        return True
    return any(_matches(entry, origin, parts.netloc, host) for entry in entries)


def _is_same_host(scheme: str, host: str, port: int | None, connection: HTTPConnection) -> bool:
    hosts = connection.headers.getlist("host")
    if len(hosts) != 1:
        return False
    secure = connection.scope.get("scheme") in {"wss", "https"}
    try:
        own = urlsplit(f"//{hosts[0].lower()}")
        own_port = own.port
    except ValueError:
        return False
    if own.hostname != host or own.netloc != hosts[0].lower() or "@" in own.netloc or own.path or own.query:
        return False
    if scheme not in _DEFAULT_PORTS:
        return False
    if own_port is None:
        own_port = 443 if secure else _DEFAULT_PORTS[scheme]
    return (_DEFAULT_PORTS[scheme] if port is None else port) == own_port


def _matches(entry: str, origin: str, netloc: str, host: str) -> bool:
    scheme, separator, pattern = entry.rpartition("://")
    if separator and not origin.startswith(f"{scheme}://"):
        return False
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return pattern in ({netloc} if separator else {netloc, host})


_DEFAULT_PORTS = {"http": 80, "https": 443}
