"""A bounded queue that can be ended, for one event loop."""

from __future__ import annotations

import asyncio
from collections import deque

from telex.types import Message

__all__ = ("Pipe",)


class Pipe:
    """Carries events one way between the app and the client.

    After :meth:`end` the queued events can still be read, but none can be added.
    """

    def __init__(self, limit: int) -> None:
        """``limit``: the number of queued events at which :meth:`put` blocks."""
        self._limit = limit
        self._events: deque[Message] = deque()
        self._ended = False
        self._changed = asyncio.Event()

    async def put(self, event: Message) -> bool:
        """Add ``event``; block while the pipe is full. False if the pipe has ended and the event is dropped."""
        while len(self._events) >= self._limit and not self._ended:
            await self._changed.wait()
        if self._ended:
            return False
        self._events.append(event)
        self._notify()
        return True

    def add(self, event: Message) -> None:
        """Add ``event`` even above the limit, for a sender with a limit of its own; dropped after the end."""
        if not self._ended:
            self._events.append(event)
            self._notify()

    async def get(self) -> Message | None:
        """Wait for the next event and take it; ``None`` if the pipe has ended and is empty."""
        event = await self.peek(0)
        if event is not None:
            self._events.popleft()
            self._notify()
        return event

    async def peek(self, index: int) -> Message | None:
        """Wait for the event at ``index`` and return it without taking it; ``None`` if the pipe ends first."""
        while len(self._events) <= index and not self._ended:
            await self._changed.wait()
        return self._events[index] if len(self._events) > index else None

    def end(self, last: Message | None = None) -> None:
        """Add ``last``, even above the limit, and accept no more events."""
        if last is not None and not self._ended:
            self._events.append(last)
        self._ended = True
        self._notify()

    def _notify(self) -> None:
        # Wake all current waiters, which check again; later waiters use the new event.
        self._changed.set()
        self._changed = asyncio.Event()
