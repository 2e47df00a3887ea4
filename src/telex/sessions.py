"""The read-only view of an HTTP framework's cookie session."""

from __future__ import annotations

from typing import Any, NoReturn

from telex.exceptions import ImproperlyConfiguredException

__all__ = ("ReadOnlySession",)


class ReadOnlySession(dict[str, Any]):
    """A cookie session on a socket: a dictionary that raises on every write."""

    def __setitem__(self, key: str, value: Any, /) -> NoReturn:
        _refuse()

    def __delitem__(self, key: str, /) -> NoReturn:
        _refuse()

    def __ior__(self, value: Any, /) -> NoReturn:  # type: ignore[misc]
        _refuse()

    def clear(self) -> NoReturn:
        """Raise: the session is read-only."""
        _refuse()

    def pop(self, *_: Any) -> NoReturn:
        """Raise: the session is read-only."""
        _refuse()

    def popitem(self) -> NoReturn:
        """Raise: the session is read-only."""
        _refuse()

    def setdefault(self, *_: Any) -> NoReturn:
        """Raise: the session is read-only."""
        _refuse()

    def update(self, *_: Any, **__: Any) -> NoReturn:
        """Raise: the session is read-only."""
        _refuse()


def _refuse() -> NoReturn:
    raise ImproperlyConfiguredException(
        "a cookie session is read-only on a WebSocket, because no cookie can be set after the handshake:"
        " write it in an HTTP handler, or use a session that is stored on the server"
    )
