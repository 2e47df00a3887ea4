"""The Origin check: which pages' scripts may connect (RFC 6455 section 10.2)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from telex.exceptions import ImproperlyConfiguredException, PermissionDeniedException

__all__ = ("OriginCheck", "compile_origin_check")

_logger: Final = logging.getLogger("telex")

OriginCheck: TypeAlias = Callable[[HTTPConnection], None]
"""Raises ``PermissionDeniedException`` if the connection's ``Origin`` is not allowed."""


def compile_origin_check(allowed: Collection[str] | None, where: str) -> OriginCheck | None:
    """The function that refuses a foreign ``Origin`` (RFC 6455 section 10.2); ``None`` if all are allowed.

    A request without an ``Origin`` is not from a browser's page and passes. Others pass if the scheme, host and port of
    the ``Origin`` are those of the request, or if ``allowed`` has a matching entry.

    :raises ImproperlyConfiguredException: no origin can match an entry.
    """
    entries = tuple(_read_entry(entry, where) for entry in allowed or ())
    if "*" in entries:
        return None

    def check_origin(connection: HTTPConnection) -> None:
        origins = [value for name, value in connection.scope["headers"] if name == b"origin"]
        if not origins:
            return
        if len(origins) > 1 or not _is_allowed(origins[0].decode("latin-1"), connection, entries):
            _logger.warning(
                "refused: Origin %.200r is not the request's own (scheme %r, Host %.200r) nor in allowed_origins of %s",
                b", ".join(origins).decode("latin-1"),
                connection.scope.get("scheme"),
                ", ".join(connection.headers.getlist("host")),
                where,
            )
            raise PermissionDeniedException("this origin may not connect")

    return check_origin


def _read_entry(entry: str, where: str) -> str:
    entry = entry.lower()
    if entry in _WITHOUT_HOST:
        return entry
    entry = entry.removesuffix("/")
    host = entry.partition("://")[2] or entry
    if "/" in host or "@" in host or not host or ("*" in host.removeprefix("*.") and entry != "*"):
        raise ImproperlyConfiguredException(
            f"{where}: allowed_origins entry {entry!r} matches no origin: write 'https://app.example.com',"
            " 'app.example.com', '*.example.com' or '*'"
        )
    return entry


def _is_allowed(origin: str, connection: HTTPConnection, entries: Sequence[str]) -> bool:
    origin = origin.lower()
    if origin in _WITHOUT_HOST:
        return origin in entries
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
    elif secure is not (scheme == "https"):
        return False
    return (_DEFAULT_PORTS[scheme] if port is None else port) == own_port


def _matches(entry: str, origin: str, netloc: str, host: str) -> bool:
    scheme, separator, pattern = entry.rpartition("://")
    if separator and not origin.startswith(f"{scheme}://"):
        return False
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return pattern in ({netloc} if separator else {netloc, host})


_WITHOUT_HOST: Final = frozenset({"null", "file://"})
"""The origins of sandboxed pages and of files: only the same entry in ``allowed_origins`` allows them."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
