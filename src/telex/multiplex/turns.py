"""Routes that share one socket take turns in sending, one message each."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ("Turns",)


class Turns:
    """At most one route sends at a time. Those that wait are served in rotation, whatever each has to send."""

    __slots__ = ("_is_taken", "_order", "_waiting")

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}
        self._order: list[int] = []  # at most one for each route; an empty deque takes ten times the memory

    @property
    def is_free(self) -> bool:
        """Whether no route sends or waits."""
        return not self._is_taken

    async def take(self, c: int) -> None:
        """Wait until route ``c`` may send one message. The caller must call :meth:`give_back` after it."""
        if not self._is_taken:
            self._is_taken = True
            return
        turn = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(c)
        if waiting is None:
            waiting = self._waiting[c] = deque()
            self._order.append(c)
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        """The message is sent: let the next route send."""
        while self._order:
            c = self._order.pop(0)
            waiting = self._waiting[c]
            turn = waiting.popleft()
            if waiting:
                self._order.append(c)
            else:
                del self._waiting[c]
            if not turn.done():
                turn.set_result(None)
                return
        self._is_taken = False
