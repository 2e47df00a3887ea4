"""The credit that a client gives a route: how many messages it takes before it gives more."""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ("ClientCredit",)

_MOST: Final = 1 << 20


class ClientCredit:
    """Messages that a route may send. Those without credit wait, in order."""

    __slots__ = ("_has_ended", "_left", "_waiting")

    def __init__(self, left: int) -> None:
        self._left = left
        self._waiting: list[asyncio.Future[None]] | None = None
        self._has_ended = False

    async def take(self) -> None:
        """Wait until the client takes one more message.

        :raises OSError: the route has ended.
        """
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(1)
            raise
        if self._has_ended:
            raise OSError("the route is closed")

    def give(self, n: int) -> None:
        """The client takes ``n`` more messages."""
        self._left = min(self._left + n, _MOST)
        while self._waiting and self._left:
            turn = self._waiting.pop(0)
            if not turn.done():
                self._left -= 1
                turn.set_result(None)

    def end(self) -> None:
        """The route has ended: wake those that wait."""
        self._has_ended = True
        for turn in self._waiting or ():
            if not turn.done():
                turn.set_result(None)
