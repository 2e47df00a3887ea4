"""The live connections of an app; closes them in batches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Final

from telex.connection import Socket
from telex.status_codes import WS_1012_SERVICE_RESTART
from telex.users.index import UserIndex

__all__ = ("Registry",)


CLOSE_WITHIN: Final = 5.0
"""Seconds allowed for sending the close frame of a drained connection."""


class Registry:
    """The accepted connections of one app that have passed the Origin check, the guards and the dependencies.

    A connection is added after both its accept and its dependencies, and removed after its cleanup. Of a shared socket
    the connections of its routes are here, and not the socket itself, which has no messages.
    """

    def __init__(self) -> None:
        self._sockets: set[Socket] = set()
        self._shared: set[Socket] = set()
        self._drains = 0
        self.users: UserIndex = UserIndex()
        """The connections and shared sockets of each user."""

    def __len__(self) -> int:
        return len(self._sockets)

    def __iter__(self) -> Iterator[Socket]:
        return iter(tuple(self._sockets))

    def __contains__(self, socket: object) -> bool:
        return socket in self._sockets

    @property
    def is_draining(self) -> bool:
        """Whether :meth:`drain` runs."""
        return self._drains > 0

    def add(self, socket: Socket) -> None:
        """Add an open connection.

        :raises WebSocketException: its user was closed during its handshake.
        """
        self.users.add(socket)
        self._sockets.add(socket)

    def add_shared(self, socket: Socket) -> None:
        """Add an open shared socket; see :meth:`add`."""
        self.users.add(socket)
        self._shared.add(socket)

    def discard(self, socket: Socket) -> None:
        """Remove a connection or shared socket, if it is here."""
        self._sockets.discard(socket)
        self._shared.discard(socket)
        self.users.discard(socket)

    async def drain(
        self,
        *,
        batch: int = 100,
        interval: float = 0.1,
        within: float = 10.0,
        code: int = WS_1012_SERVICE_RESTART,
        reason: str = "service restart",
    ) -> int:
        """Close all connections, ``batch`` of them every ``interval`` seconds; returns the number of connections.

        Batches prevent all clients from reconnecting at the same time. Handlers end as if the client had left.
        Connections that open during the drain are not closed. A route on a shared socket ends with its socket, which
        counts as one connection.

        A client of telex.v1 is told first, by a ``goaway`` frame: it has ``within`` seconds to open another connection
        and to leave this one; with 0 it is closed as all others are.
        """
        self._drains += 1
        try:
            return await self._drain(batch, interval, within, code, reason)
        finally:
            self._drains -= 1

    async def _drain(self, batch: int, interval: float, within: float, code: int, reason: str) -> int:
        loop = asyncio.get_running_loop()
        sockets = left = [*(socket for socket in self._sockets if not socket.is_route), *self._shared]
        longest_wait = min(within / 4, len(sockets) / batch * interval)
        leave_by: dict[Socket, float] = {}
        while left:
            now = loop.time()
            turn = [socket for socket in left if leave_by.get(socket, now) <= now][:batch]
            told = [socket for socket in turn if socket not in leave_by and _tell(socket, within, longest_wait)]
            leave_by |= dict.fromkeys(turn, now + within)
            closing = [socket for socket in turn if socket not in told]
            await asyncio.gather(*(self.close(socket, code, reason) for socket in closing))
            left = [socket for socket in left if socket.is_open and socket not in closing]
            if left:
                await asyncio.sleep(interval)
        return len(sockets)

    @staticmethod
    async def close(socket: Socket, code: int, reason: str) -> None:
        """Close one connection and end its handler; a client that does not read must not delay the others."""
        try:
            async with asyncio.timeout(CLOSE_WITHIN):
                await socket.close(code, reason)
        except TimeoutError:
            socket.logger.warning("the close frame of a connection could not be sent within %s s", CLOSE_WITHIN)
        socket.event_reader.stop(socket.lost(code, reason))


def _tell(socket: Socket, within: float, longest_wait: float) -> bool:
    """Tell the client that it must leave, if it can be told."""
    if not within or socket.envelope is None:
        return False
    return socket.envelope.go_away(within, random.uniform(0.0, longest_wait))  # noqa: S311 - a spread, not a secret
