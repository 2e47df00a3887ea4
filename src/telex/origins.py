"""The Origin check: which pages' scripts may connect (RFC 6455 section 10.2)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeAlias

from starlette.requests import HTTPConnection

from telex.exceptions import ImproperlyConfiguredException, PermissionDeniedException
from telex.headers import Origin, read_origin

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


def _is_allowed(value: str, connection: HTTPConnection, entries: Sequence[str]) -> bool:
    if value.lower() in _WITHOUT_HOST:
        return value.lower() in entries
    origin = read_origin(value)
    if origin is None:
        return False
    secure = connection.scope.get("scheme") in {"wss", "https"}
    if origin.is_own(connection.headers.getlist("host"), secure=secure):
        return True
    return any(_matches(entry, origin) for entry in entries)


def _matches(entry: str, origin: Origin) -> bool:
    scheme, separator, pattern = entry.rpartition("://")
    if separator and not origin.text.startswith(f"{scheme}://"):
        return False
    if pattern.startswith("*."):
        return origin.host.endswith(pattern[1:])
    return pattern in ({origin.netloc} if separator else {origin.netloc, origin.host})


_WITHOUT_HOST: Final = frozenset({"null", "file://"})
"""The origins of sandboxed pages and of files: only the same entry in ``allowed_origins`` allows them."""
