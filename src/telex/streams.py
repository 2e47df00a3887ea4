"""Sends the values of a generator, as a handler or in a task beside a handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeAlias

from telex.codecs import Raw, Writer
from telex.event_reader import as_unexpected
from telex.types import Mode

__all__ = ("SendHandler", "Streams", "send_stream")

SendHandler: TypeAlias = Callable[[Any, Any], Awaitable[None]]
"""Takes the socket and a value, and sends the value."""


class StreamTarget(Protocol):
    """The part of a connection that a stream uses."""

    @property
    def connection_state(self) -> str:
        """``disconnect`` after the connection has ended."""

    async def send_data(self, data: Raw, mode: Mode) -> None:
        """Send one message."""


class Streams(asyncio.TaskGroup):
    """The streams of one connection, which can be cancelled together: a plain task group waits for its tasks.

    A plain task group would also cancel the handler as soon as a stream fails, even while it finishes an answered
    message. ``interrupt`` delays that; it returns false if no handler can be interrupted.
    """

    def __init__(self, interrupt: Callable[[Exception], bool]) -> None:
        super().__init__()
        self._interrupt = interrupt
        self._failures: list[Exception] = []
        self._running: set[asyncio.Task[None]] = set()

    def start(self, stream: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``stream`` in a task beside the handler; returns the task.

        :raises RuntimeError: the connection is ending.
        """
        running = self._run(stream)
        try:
            task = self.create_task(running)
        except RuntimeError:
            running.close()
            raise
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        # A task that is cancelled before it starts never awaits the stream.
        task.add_done_callback(lambda _: stream.close())
        return task

    async def _run(self, stream: Coroutine[Any, Any, None]) -> None:
        try:
            await stream
        except Exception as exc:
            if not self._interrupt(exc):
                raise
            self._failures.append(exc)

    def take_failures(self) -> list[Exception]:
        """The exceptions that have interrupted the handler, or that came after another interrupt."""
        failures, self._failures = self._failures, []
        return failures

    def cancel(self) -> None:
        """Cancel the running streams."""
        for task in tuple(self._running):
            task.cancel()


async def send_stream(
    socket: StreamTarget,
    stream: AsyncIterator[object],
    write: Writer,
    mode: Mode,
    send_handler: SendHandler | None,
) -> None:
    """Send the values of ``stream`` until it is exhausted or the connection ends, then close it."""
    try:
        async for value in stream:
            if socket.connection_state == "disconnect":
                return
            if send_handler is not None:
                await send_handler(socket, value)
            else:
                await socket.send_data(write(value), mode)
    except asyncio.CancelledError as exc:
        raise as_unexpected(exc) from exc  # a task group would ignore it
    finally:
        aclose = getattr(stream, "aclose", None)
        if aclose is not None:
            await aclose()
