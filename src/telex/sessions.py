"""The session of an HTTP framework, as a socket may see it."""

from __future__ import annotations

from typing import Any, NoReturn

from telex.exceptions import ImproperlyConfiguredException

__all__ = ("ReadOnlySession",)


class ReadOnlySession(dict[str, Any]):
    """A cookie session on a socket: reads as the dictionary that it is, refuses every write."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise ImproperlyConfiguredException(
            "a cookie session is read-only on a WebSocket, for no cookie can be set after the handshake:"
            " write it in an HTTP handler, or use a session that is stored on the server"
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse
