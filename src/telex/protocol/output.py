"""Sends the frames of one connection, and ``ping`` where it sends nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine
from contextvars import Context
from typing import Any, cast

from telex.connection import Socket
from telex.protocol.frames import Encoded
from telex.types import RouteConnection, Transport

__all__ = ("FrameOutput",)

PING: str = '{"type":"ping"}'


class FrameOutput:
    """The frames to one client."""

    __slots__ = (
        "_in_line",
        "_is_flushing",
        "_is_full",
        "_order",
        "_running",
        "_sent",
        "_sent_before",
        "_socket",
        "_task",
        "_timer",
        "_transport",
        "is_collecting",
        "route",
        "takes_work",
        "waiting",
    )

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._transport: Transport | None = socket.transport
        self.route: RouteConnection | None = None
        """The route on a shared socket that gives its messages to this connection directly, and takes its answers."""
        self._is_flushing = False
        self._is_full = False
        """Whether :meth:`write_now` has filled the transport: who sends next waits."""
        self._in_line = 0
        """Sends that wait for frames before theirs."""
        self._order: asyncio.Lock | None = None
        """Keeps the order of sends, once one had to wait for frames that :meth:`write` has left."""
        self._task: asyncio.Task[None] | None = None
        self.takes_work: bool = False
        """Whether tasks of the connection may be started: while its handler runs, which awaits :meth:`end_work`."""
        self._running: set[asyncio.Task[None]] | None = None
        """The tasks of the connection, once there was one."""
        self.waiting: list[Encoded] | None = None
        """Frames of :meth:`write` that are not sent yet, on servers without a fast path."""
        self.is_collecting: bool = False
        self._timer: asyncio.TimerHandle | None = None
        self._sent = self._sent_before = 0

    @property
    def works(self) -> bool:
        """Whether a task of the connection runs."""
        return bool(self._running)

    def spawn(self, work: Coroutine[Any, Any, None], context: Context | None = None) -> asyncio.Task[None] | None:
        """Run ``work`` in a task of the connection, unless the connection has ended."""
        if not self.takes_work:
            work.close()
            return None
        task = asyncio.get_running_loop().create_task(work, context=context)
        if self._running is None:
            self._running = set()
        self._running.add(task)
        return task

    def finished(self) -> None:
        """Called last by the work of :meth:`spawn`: a callback of the task would cost a turn of the event loop."""
        if self._running is not None:
            self._running.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def end_work(self, *, cancel: bool) -> None:
        """Start no more tasks, and wait until all have ended; a cancellation of the caller cancels them as well."""
        self.takes_work = False
        cancelled: asyncio.CancelledError | None = None
        if cancel:
            self._cancel_work()
        while running := [task for task in self._running or () if not task.done()]:
            try:
                await asyncio.wait(running)
            except asyncio.CancelledError as exc:
                if not cancel:
                    cancel, cancelled = True, exc
                    self._cancel_work()
        if cancelled is not None:
            raise cancelled

    def _cancel_work(self) -> None:
        for task in self._running or ():
            task.cancel()

    async def send(self, payload: Encoded) -> None:
        """Send one message after those of :meth:`write`, and wait while the transport is full.

        Does nothing after the end.
        """
        if not self._is_ahead():
            await self._send(payload)
            return
        if self._order is None:
            self._order = asyncio.Lock()
        self._in_line += 1
        try:
            async with self._order:
                while self.waiting:
                    # In a task of its own: they belong to others, and a call that sends its frame may be cancelled.
                    await asyncio.wait((self._flushing(),))
                await self._send(payload)
        finally:
            self._in_line -= 1

    def _is_ahead(self) -> bool:
        """Whether frames must be sent before the next. The lock cannot tell: it is free between two that wait."""
        return bool(self.waiting) or self._in_line > 0

    async def _send(self, payload: Encoded) -> None:
        socket, transport = self._socket, self._transport
        if not socket.is_open:
            return
        self._sent += 1
        if transport is None:
            await socket.send({"type": "websocket.send", "text" if isinstance(payload, str) else "bytes": payload})
            return
        try:
            self._is_full = not transport.send(payload)
        except OSError as exc:
            raise socket.lost() from exc
        if self._is_full:
            await self._drained(transport)
            self._is_full = False

    async def _drained(self, transport: Transport) -> None:
        try:
            await transport.drain()
        except OSError as exc:
            raise self._socket.lost() from exc

    def answer(self, payload: Encoded) -> Awaitable[None] | None:
        """Send one message from a task that has waited for the client's; returns what to await, if anything."""
        socket, transport = self._socket, self._transport
        if not socket.is_open:
            return None
        if self._is_ahead():
            return self.send(payload)
        self._sent += 1
        try:
            if transport is not None:
                return None if transport.send(payload) else self._drained(transport)
            if self.route is not None and self.route.write_now(payload):
                return None
        except OSError as exc:
            raise socket.lost() from exc
        return self._send_event(payload)

    def write_now(self, payload: Encoded) -> bool:
        """Send one message, if none waits and the transport is not full.

        :raises OSError: the connection is closing or closed.
        """
        if self._transport is None or self._is_full or self._is_ahead() or not self._socket.is_open:
            return False
        self._sent += 1
        self._is_full = not self._transport.send(payload)
        return True

    async def _send_event(self, payload: Encoded) -> None:
        """Without a turn for other tasks after some messages, which :meth:`send` gives."""
        socket = self._socket
        if socket.event_reader.disconnect is not None:
            raise socket.lost()
        try:
            await socket.asgi_send({"type": "websocket.send", "text" if payload.__class__ is str else "bytes": payload})
        except OSError as exc:
            raise socket.lost() from exc

    def write(self, payload: Encoded) -> None:
        """Send one message from code that cannot wait. The windows bound what is written so.

        With ``is_collecting`` the code that has set it calls :meth:`flush`; otherwise a task does.
        """
        transport, route = self._transport, self.route
        if transport is not None or route is not None:
            self._sent += 1
            if self._socket.is_open:
                try:
                    if transport is not None:
                        transport.send(payload)
                    elif route is not None:
                        route.write(payload)
                except OSError:
                    pass  # the end is noticed by who reads
            return
        if self.waiting is None:
            self.waiting = []
        self.waiting.append(payload)
        if not (self.is_collecting or self._is_flushing):
            self._flushing()

    async def flush(self) -> None:
        """Send what :meth:`write` has collected, in order."""
        if self._is_flushing:
            if self._task is not None and not self._task.done():
                await asyncio.wait((self._task,))
            return
        self._is_flushing = True
        try:
            while self.waiting:
                payload = self.waiting.pop(0)
                if self._socket.is_open:
                    self._sent += 1
                    await self._send_event(payload)
        finally:
            self._is_flushing = False

    def _flushing(self) -> asyncio.Task[None]:
        """The task that sends what waits."""
        if self._task is None or self._task.done():
            self._is_flushing = True
            self._task = asyncio.get_running_loop().create_task(self._flush_alone())
        return self._task

    async def _flush_alone(self) -> None:
        with contextlib.suppress(Exception):  # a lost connection is noticed by who reads
            self._is_flushing = False
            await self.flush()

    # -- keeping alive

    def ping_every(self, seconds: float) -> None:
        """Send ``ping`` where nothing else was sent for ``seconds``: one timer looks twice in that time."""
        self._timer = asyncio.get_running_loop().call_later(seconds / 2, self._look, seconds)

    def _look(self, seconds: float) -> None:
        if self._sent == self._sent_before:
            self.write(PING)
        self._sent_before = self._sent
        self.ping_every(seconds)

    async def aclose(self) -> None:
        """Stop the timer, and drop what was not sent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))
