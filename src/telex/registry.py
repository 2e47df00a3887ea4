"""The live connections of an app, and closing them in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from telex.connection import Socket
from telex.status_codes import WS_1012_SERVICE_RESTART

__all__ = ("Registry",)


CLOSE_WITHIN: Final = 5.0
"""Seconds that a connection which is drained may take to accept its close frame."""


class Registry:
    """The connections of one app that Origin check, guards and dependencies agreed to and that were accepted.

    A connection is here from its accept, or from the end of its dependencies where one of them accepts, to the end of
    its cleanup.
    """

    def __init__(self) -> None:
        self._sockets: set[Socket] = set()
        self.add: Callable[[Socket], None] = self._sockets.add
        self.discard: Callable[[Socket], None] = self._sockets.discard

    def __len__(self) -> int:
        return len(self._sockets)

    def __iter__(self) -> Iterator[Socket]:
        return iter(tuple(self._sockets))

    def __contains__(self, socket: object) -> bool:
        return socket in self._sockets

    async def drain(
        self,
        *,
        batch: int = 100,
        interval: float = 0.1,
        code: int = WS_1012_SERVICE_RESTART,
        reason: str = "service restart",
    ) -> int:
        """Close what is open now, ``batch`` connections every ``interval`` seconds; returns how many.

        Batches keep all clients from reconnecting in the same moment. Handlers end as if the client had left.
        """
        sockets = tuple(self._sockets)
        for start in range(0, len(sockets), batch):
            if start:
                await asyncio.sleep(interval)
            closing = (_close(socket, code, reason) for socket in sockets[start : start + batch])
            await asyncio.gather(*closing)
        return len(sockets)


async def _close(socket: Socket, code: int, reason: str) -> None:
    """Close one connection and end its handler; a client that does not read must not delay the others."""
    try:
        async with asyncio.timeout(CLOSE_WITHIN):
            await socket.close(code, reason)
    except TimeoutError:
        socket.logger.warning("a connection did not take its close frame within %s s", CLOSE_WITHIN)
    socket.event_reader.stop(socket.lost(code, reason))
