"""How a connection ends: the causes, the effect on the handler, and the order of the cleanup.

::

    cause                                  effect on the handler
    ------------------------------------   ---------------------------------------------------------------------------
    client closes, resets or times out     a task in ``receive`` gets a ``websocket.disconnect`` event; a busy task is
                                           interrupted (:class:`telex.event_reader.EventReader`)
    ``close()`` in the handler's task      none: the handler continues until it returns
    ``close()`` in another task            the handler has ``GRACE`` seconds to return; then as if the client had left
    ``app.connections.drain()``            the same without the ``GRACE`` seconds
    an exception, a limit                  the exception is raised
    the server's shutdown                  the server sends an event or cancels the task that serves the connection

    then, in this order, in the connection's task
    1. running work is cancelled; threads and the work of an already answered message are awaited
    2. streams that the handler has started are cancelled, and their generators closed
    3. if there is an ``on_disconnect`` hook, an exception closes the connection now: the close frame is sent
    4. ``on_disconnect`` is called with the code that was sent or received
    5. dependencies of the connection are closed, the innermost first
    6. the connection is closed if it is still open, and removed from ``app.connections``

An interrupt is a cancellation of the task by the event reader; the function that started the work converts it to
``WebSocketDisconnect``. A ``CancelledError`` in a task that was not cancelled is an error of the handler: it is logged
and closes the connection with 1011.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from telex.connection import Socket
from telex.event_reader import as_unexpected
from telex.exception_handling import ExceptionPolicy
from telex.exceptions import UnexpectedCancellation
from telex.status_codes import WS_1012_SERVICE_RESTART

__all__ = ("OnEnd", "Run", "end_cancelled", "with_its_end")

Run: TypeAlias = Callable[[Socket, list[Any]], Awaitable[None]]
"""Accepts and serves one connection whose dependencies are resolved. The session closes the connection if needed."""
OnEnd: TypeAlias = Callable[[Socket, list[Any]], Awaitable[None]]
"""Called once after an accepted connection has ended, before its dependencies are closed."""

CLOSE_WITHIN: Final = 1.0
"""Seconds allowed for sending the close frame after the connection's task was cancelled, and for the ``on_disconnect``
hook after another cancellation."""


def with_its_end(run: Run, policy: ExceptionPolicy, on_end: OnEnd) -> Run:
    """Wrap ``run``: when it ends, close the connection and call ``on_end``."""

    async def run_to_the_end(socket: Socket, slots: list[Any]) -> None:
        try:
            await run(socket, slots)
        except Exception as exc:
            await policy.end(socket, exc)
            if not policy.is_disconnect(socket, exc):
                raise
        except asyncio.CancelledError as cancelled:
            raise await end_cancelled(socket, cancelled, policy) from cancelled
        finally:
            if socket.was_accepted:
                ending = on_end(socket, slots)
                await (_protected(ending) if _is_cancelled() else ending)

    return run_to_the_end


async def end_cancelled(
    socket: Socket, cancelled: asyncio.CancelledError, policy: ExceptionPolicy
) -> UnexpectedCancellation:
    """Close the connection after ``cancelled``; returns the error if this task itself was not cancelled.

    :raises asyncio.CancelledError: the server has cancelled this task, to shut down: the client gets 1012, unless the
        server has closed the connection itself.
    """
    try:
        error = as_unexpected(cancelled)
    except asyncio.CancelledError:
        if socket.was_accepted and not socket.has_left():
            await _close_for_shutdown(socket)
        raise
    await policy.end(socket, error)
    return error


async def _close_for_shutdown(socket: Socket) -> None:
    async def close() -> None:
        async with asyncio.timeout(CLOSE_WITHIN):
            await socket.close(WS_1012_SERVICE_RESTART, "service restart")

    async def close_though_cancelled() -> None:
        with contextlib.suppress(asyncio.CancelledError):  # asyncio.run() cancels every task at its end
            await close()
        await close()  # does nothing if the close was sent

    with contextlib.suppress(Exception):
        await _protected(close_though_cancelled())


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())


async def _protected(work: Awaitable[None]) -> None:
    """Await ``work``; another cancellation of this task cancels it only after ``CLOSE_WITHIN`` seconds.

    A server that stops may cancel a connection twice: the second time must not skip what the first time begins.
    """
    has_begun = False

    async def run() -> None:
        nonlocal has_begun
        has_begun = True
        await work

    task = asyncio.create_task(run())
    limit: float | None = None
    while not task.done():
        try:
            await asyncio.wait((task,), timeout=limit)
            if limit is not None:
                task.cancel()
        except asyncio.CancelledError:
            limit = CLOSE_WITHIN
        if task.done() and not has_begun:  # asyncio.run() cancels every task at its end
            task = asyncio.create_task(run())
    task.result()
