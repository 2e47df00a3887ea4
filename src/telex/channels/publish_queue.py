"""The queue of ``publish_nowait``: ordered, bounded and thread-safe."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from telex.channels.events import DataKind
from telex.channels.names import Target
from telex.exceptions import BackendUnavailable, ChannelsException

__all__ = ("PublishQueue",)

logger: logging.Logger = logging.getLogger("telex.channels")

LIMIT: Final = 10_000
"""The most values that may wait."""

DRAIN_SECONDS: Final = 5.0
"""How long the end of a hub waits until the queue is published."""


class PublishQueue:
    """A queue and its worker. Each publish that fails is counted; the first of a series is logged."""

    def __init__(self, publish: Callable[[Sequence[Target], bytes, DataKind], Awaitable[object]]) -> None:
        self._publish = publish
        self._waiting: deque[tuple[list[Target], bytes, DataKind]] = deque()
        # Created by open(), because a hub may run on one event loop after another.
        self._filled: asyncio.Event
        self._empty: asyncio.Event
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._gate = threading.Lock()
        self.published: int = 0
        self.failed: int = 0

    def open(self) -> None:
        """Empty the queue and bind it to the running event loop."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._filled, self._empty = asyncio.Event(), asyncio.Event()
        self._waiting.clear()

    def put(self, targets: list[Target], data: bytes, kind: DataKind) -> None:
        """Add ``data``.

        :raises BackendUnavailable: the queue is full.
        :raises ChannelsException: the hub is ending.
        """
        with self._gate:
            if self._loop is None:
                raise ChannelsException("the channels are ending: nothing more is published")
            if len(self._waiting) >= LIMIT:
                raise BackendUnavailable(f"{LIMIT} values wait to be published")
            self._waiting.append((targets, data, kind))
            if threading.get_ident() == self._thread:
                self._filled.set()
            else:
                self._loop.call_soon_threadsafe(self._filled.set)

    async def run(self) -> None:
        """Publish the queue until cancelled."""
        failing = False
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                targets, data, kind = self._waiting[0]
                try:
                    await self._publish(targets, data, kind)
                    self.published += len(targets)
                    failing = False
                except Exception:
                    self.failed += len(targets)
                    if not failing:
                        logger.exception("publish_nowait failed; counted in statistics().failed until it works again")
                    failing = True
                self._waiting.popleft()
            self._empty.set()

    async def drain(self) -> None:
        """Refuse new values, and wait up to :data:`DRAIN_SECONDS` until all are published; the rest count as failed."""
        with self._gate:
            self._loop = None
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while self._waiting:
                    self._empty.clear()
                    self._filled.set()
                    await self._empty.wait()
        except TimeoutError:
            self.failed += sum(len(targets) for targets, _, _ in self._waiting)
            logger.error("channels ended with %d values unpublished", len(self._waiting))
