"""Sends the frames of one connection, and owns the tasks that do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from telex.connection import Socket
from telex.protocol.frames import Encoded
from telex.types import Transport

__all__ = ("FrameOutput",)


class FrameOutput:
    """The frames to one client. ``group`` owns the tasks of the connection while frames are exchanged."""

    __slots__ = ("_socket", "_transport", "group", "is_collecting", "waiting")

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._transport: Transport | None = socket.transport
        self.group: asyncio.TaskGroup | None = None
        self.is_collecting = False
        """Whether the task that reads sends what :meth:`write` collects; otherwise a task does."""
        self.waiting: list[Encoded] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Run ``work`` in a task of the connection, unless the connection has ended."""
        if self.group is None:
            work.close()
            return None
        return self.group.create_task(work)

    async def send(self, payload: Encoded) -> None:
        """Send one message, and wait while the transport is full. Does nothing after the end."""
        socket, transport = self._socket, self._transport
        if not socket.is_open:
            return
        if transport is None:
            await socket.send({"type": "websocket.send", "text" if isinstance(payload, str) else "bytes": payload})
            return
        try:
            if not transport.send(payload):
                await transport.drain()
        except OSError as exc:
            raise socket.lost() from exc

    def write(self, payload: Encoded) -> None:
        """Send one message from code that cannot wait. The windows bound what is written so."""
        if self._transport is not None:
            if self._socket.is_open:
                with contextlib.suppress(OSError):  # the end is noticed by the task that reads
                    self._transport.send(payload)
            return
        self.waiting.append(payload)
        if not self.is_collecting:
            self.spawn(self.flush())

    async def flush(self) -> None:
        """Send what :meth:`write` has collected, in order."""
        while self.waiting:
            await self.send(self.waiting.pop(0))
