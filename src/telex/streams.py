"""Sends the values of a generator, beside a handler or as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeAlias

from telex.codecs import Raw, Writer
from telex.event_reader import unasked
from telex.types import Mode

__all__ = ("SendHandler", "Streams", "send_stream")

SendHandler: TypeAlias = Callable[[Any, Any], Awaitable[None]]
"""Takes the socket and a value, and sends it in its own way."""


class StreamTarget(Protocol):
    """What a stream needs of the connection that it sends over."""

    @property
    def connection_state(self) -> str:
        """``disconnect`` once the connection has ended."""

    async def send_data(self, data: Raw, mode: Mode) -> None:
        """Send one message."""


class Streams(asyncio.TaskGroup):
    """The streams of one connection. They end with it, where a plain task group would wait for them."""

    def __init__(self) -> None:
        super().__init__()
        self._running: set[asyncio.Task[None]] = set()

    def start(self, stream: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``stream`` beside the handler."""
        task = self.create_task(stream)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def cancel(self) -> None:
        """End those that still run."""
        for task in tuple(self._running):
            task.cancel()


async def send_stream(
    socket: StreamTarget,
    stream: AsyncIterator[object],
    write: Writer,
    mode: Mode,
    send_handler: SendHandler | None,
) -> None:
    """Send what ``stream`` yields until it is exhausted or the connection ends; it is closed in any case."""
    try:
        async for value in stream:
            if socket.connection_state == "disconnect":
                return
            if send_handler is not None:
                await send_handler(socket, value)
            else:
                await socket.send_data(write(value), mode)
    except asyncio.CancelledError as exc:
        raise unasked(exc) from exc  # a task group would ignore it
    finally:
        aclose = getattr(stream, "aclose", None)
        if aclose is not None:
            await aclose()
