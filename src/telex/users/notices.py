"""Sends notices to connections; one that does not read delays no other.

On Telex's server a notice is written at once, until the write buffer is full. Elsewhere, and from then on, notices wait
in a queue of the connection, which a task sends and then ends: an idle connection has neither.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from telex.channels.delivery.encoding import as_bytes, as_notifies, as_text
from telex.channels.delivery.queue import DeliveryQueue
from telex.channels.events import Event
from telex.connection import Socket, WebSocket
from telex.exceptions import ConnectionStateError, WebSocketDisconnect

__all__ = ("BACKLOG", "Notices")

BACKLOG: Final = 100
"""Notices that may wait for one connection. One more closes it with 1013."""

logger: Final = logging.getLogger("telex.users")


class Notices:
    """The notices of one process. ``sent`` counts those given to a connection, ``dropped`` those that were not."""

    def __init__(
        self, start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]], on_full: Callable[[Socket], None]
    ) -> None:
        self._start = start
        self._on_full = on_full
        self._queues: dict[Socket, DeliveryQueue[Event]] = {}
        self._tasks: dict[Socket, asyncio.Task[None]] = {}
        self.sent: int = 0
        self.dropped: int = 0

    def send(self, socket: Socket, notice: Event) -> None:
        """Send ``notice`` to ``socket``, or let it wait; it is dropped if too many wait."""
        if not socket.is_open:
            return
        queue = self._queues.get(socket)
        if queue is None:
            if self._is_sent_at_once(socket, notice):
                return
            queue = self._begin(socket)
        was_open, before = not queue.is_closed, queue.dropped
        if not queue.put(notice) and was_open:
            self.dropped += queue.dropped - before
            self._on_full(socket)
        elif not was_open:
            self.dropped += 1

    def forget(self, socket: Socket) -> None:
        """The connection has ended."""
        task = self._tasks.get(socket)
        if task is not None:
            task.cancel()

    def _is_sent_at_once(self, socket: Socket, notice: Event) -> bool:
        transport = socket.transport
        if transport is None or _overrides_sending(socket):
            return False
        try:
            has_room = transport.send(_message(socket, notice))
        except OSError:  # the end is noticed by who reads
            return True
        self.sent += 1
        if not has_room:
            self._begin(socket)
        return True

    def _begin(self, socket: Socket) -> DeliveryQueue[Event]:
        queue = self._queues[socket] = DeliveryQueue(BACKLOG, "close")
        task = self._tasks[socket] = self._start(self._forward(socket, queue))
        # A task that is cancelled before its first step does not run its `finally`.
        task.add_done_callback(lambda _: self._end(socket, queue))
        return queue

    def _end(self, socket: Socket, queue: DeliveryQueue[Event]) -> None:
        if self._queues.get(socket) is queue:
            del self._tasks[socket], self._queues[socket]
            self.dropped += len(queue)

    async def _forward(self, socket: Socket, queue: DeliveryQueue[Event]) -> None:
        try:
            if socket.transport is not None:
                await socket.transport.drain()
            while len(queue):
                await _write(socket, queue.get_nowait())
                self.sent += 1
        except (OSError, WebSocketDisconnect, ConnectionStateError):
            logger.debug("a connection ended before its notices were sent")
        except Exception:
            logger.exception("a notice could not be sent to %s", socket.url.path)
        finally:  # at once: a notice that came before the task has ended would wait in a queue that nobody reads
            self._end(socket, queue)


def _overrides_sending(socket: Socket) -> bool:
    """Whether the socket's class has a ``send_data`` of its own, which messages of plain mode must go through."""
    return socket.envelope is None and type(socket).send_data is not WebSocket.send_data


def _message(socket: Socket, notice: Event) -> str | bytes:
    if socket.envelope is not None:
        return as_notifies(notice)
    return as_bytes(notice) if notice.kind == "bytes" else as_text(notice)


async def _write(socket: Socket, notice: Event) -> None:
    message = _message(socket, notice)
    if _overrides_sending(socket):
        await socket.send_data(message, "text" if isinstance(message, str) else "binary")
    else:
        await socket.send_unchanged(message)
