"""The open connections of each user of one process, and the users who were closed lately.

A connection without a user is not stored here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from telex.clock import loop_time
from telex.connection import Socket
from telex.exceptions import WebSocketException
from telex.limits.keys import user_key

__all__ = ("KEPT", "KEPT_SECONDS", "Closed", "UserIndex", "name_of", "remember")

KEPT: Final = 10_000
"""Users who were closed that are remembered, the newest."""
KEPT_SECONDS: Final = 300.0

logger: Final = logging.getLogger("telex.users")


@dataclass(frozen=True, slots=True)
class Closed:
    """The connections of a user whose handshake began before ``at`` are closed; on the clock of the event loop.

    A node may be told of one close several times, and of each copy some time after it was sent: the ``id`` is the same,
    and the earliest ``at`` counts.
    """

    id: str
    at: float
    code: int
    reason: str


class UserIndex:
    """The open connections by user; adding and removing take the same time for any number of them."""

    __slots__ = ("_closed", "_is_reported", "_keys", "_sockets", "loop", "on_add", "on_discard")

    def __init__(self) -> None:
        self._sockets: dict[str, dict[Socket, None]] = {}
        self._keys: dict[Socket, str] = {}
        self._closed: dict[str, Closed] = {}
        self._is_reported = False
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the connections; ``None`` while there are none."""
        self.on_add: Callable[[], None] | None = None
        """Called when a connection has a user."""
        self.on_discard: Callable[[Socket], None] | None = None
        """Called when a connection of a user has ended."""

    def add(self, socket: Socket) -> None:
        """Add an open connection, if it has a user.

        :raises WebSocketException: the user was closed after the handshake of this connection had begun.
        """
        key = self._key_of(socket)
        if key is None:
            return
        closed = self._closed.get(key)
        if closed is not None and socket.began <= closed.at:
            raise WebSocketException(closed.code, closed.reason)
        self.loop = asyncio.get_running_loop()
        self._keys[socket] = key
        self._sockets.setdefault(key, {})[socket] = None
        if self.on_add is not None:
            self.on_add()

    def discard(self, socket: Socket) -> None:
        """Remove a connection, if it is here."""
        key = self._keys.pop(socket, None)
        if key is None:
            return
        sockets = self._sockets[key]
        del sockets[socket]
        if not sockets:
            del self._sockets[key]
            if not self._sockets:
                self.loop = None
        if self.on_discard is not None:
            self.on_discard(socket)

    def of(self, key: str) -> tuple[Socket, ...]:
        """The open connections of a user, the oldest first."""
        return tuple(self._sockets.get(key, ()))

    def close(self, key: str, closed: Closed) -> tuple[Socket, ...]:
        """Let no connection open whose handshake began before ``closed.at``; returns those that are open."""
        at = remember(self._closed, key, closed)
        return tuple(socket for socket in self._sockets.get(key, ()) if socket.began <= at)

    def _key_of(self, socket: Socket) -> str | None:
        if "user" not in socket.scope:
            return None
        try:
            return name_of(socket.scope["user"])
        except Exception:  # the attributes of a user are code of the app
            if not self._is_reported:
                self._is_reported = True
                kind = type(socket.scope["user"]).__name__
                logger.warning(
                    "app.users cannot reach connections whose user is a %s without an id, identity, username or email",
                    kind,
                    exc_info=True,
                )
            return None


def name_of(user: object) -> str | None:
    """The text that names a user; ``None`` if it is not authenticated.

    :raises ImproperlyConfiguredException: it has no name.
    """
    key = user_key(user)
    return None if key is None else str(key)


def remember(kept: dict[str, Closed], key: str, closed: Closed) -> float:
    """Remember the newest of ``key``, and forget what is too old or too much; returns the ``at`` of ``closed``."""
    before = kept.pop(key, None)
    if before is not None and before.id == closed.id:
        closed = min(before, closed, key=_at)
        before = None
    kept[key] = closed if before is None else max(before, closed, key=_at)
    oldest_allowed = loop_time() - KEPT_SECONDS
    while len(kept) > KEPT or (kept and next(iter(kept.values())).at < oldest_allowed):
        del kept[next(iter(kept))]
    return closed.at


def _at(closed: Closed) -> float:
    return closed.at
