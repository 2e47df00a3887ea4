"""How a connection ends: what may end it, what the handler gets, and what happens in which order.

::

    who ends it                            what reaches the handler
    ------------------------------------   ---------------------------------------------------------------------------
    the client closes, resets, is silent   ``websocket.disconnect``: to a task in ``receive`` as an event, to one that
                                           is busy as an interrupt (:class:`telex.event_reader.EventReader`)
    ``close()`` in the handler's task      nothing: the handler goes on to its own end
    ``close()`` in another task            the handler may end by itself for ``GRACE`` seconds; then as from the client
    ``app.connections.drain()``            the same at once
    an exception, a limit                  the exception itself
    the server's shutdown                  what the server sends, or a cancellation of the task that serves it

    then, in this order, in the connection's own task
    1. running work is cancelled. A thread is waited for. What belongs to a message that was answered is finished.
    2. streams that the handler has started are cancelled, and their generators closed
    3. an exception closes the connection, where ``on_disconnect`` is given: the close frame is sent
    4. ``on_disconnect`` is told the code that went over the wire
    5. dependencies of the connection are closed, the innermost first
    6. what is still open is closed; the connection leaves ``app.connections``

An interrupt is a cancellation of the task by the event reader. It becomes ``WebSocketDisconnect`` where the work was
started. A ``CancelledError`` in a task that was not cancelled is an error of the handler: 1011, logged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from telex.connection import Socket
from telex.event_reader import unasked
from telex.exception_handling import ExceptionPolicy
from telex.status_codes import WS_1012_SERVICE_RESTART

__all__ = ("OnEnd", "Run", "told_of_the_end")

Run: TypeAlias = Callable[[Socket, list[Any]], Awaitable[None]]
"""Serves one connection whose dependencies are resolved. It accepts, and may leave the closing to the session."""
OnEnd: TypeAlias = Callable[[Socket, list[Any]], Awaitable[None]]
"""Called once for a connection that was accepted and has ended, while its dependencies are there."""

CLOSE_WITHIN: Final = 1.0
"""Seconds that a connection whose task was cancelled may take to send its close frame."""


def told_of_the_end(run: Run, policy: ExceptionPolicy, on_end: OnEnd) -> Run:
    """``run``, at whose end the connection is closed and ``on_end`` called."""

    async def run_to_the_end(socket: Socket, slots: list[Any]) -> None:
        try:
            await run(socket, slots)
        except Exception as exc:
            await policy.end(socket, exc)
            if not policy.is_disconnect(socket, exc):
                raise
        except asyncio.CancelledError as cancelled:
            try:
                error = unasked(cancelled)
            except asyncio.CancelledError:
                await _close_for_shutdown(socket)
                raise
            await policy.end(socket, error)
            raise error from cancelled
        finally:
            if socket.was_accepted:
                await on_end(socket, slots)

    return run_to_the_end


async def _close_for_shutdown(socket: Socket) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_WITHIN):
            await socket.close(WS_1012_SERVICE_RESTART, "service restart")
