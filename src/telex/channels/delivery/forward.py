"""The task that sends the queue of a recipient to its socket.

On Telex's server the task makes the recipient *direct* whenever its queue is empty: events are then written within the
publish, and the task waits until the write buffer is full and events are queued again. On other servers every event
is queued, and the task sends it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from telex.channels.delivery.encoding import Encoding
from telex.channels.delivery.subscriber import Subscriber, recipient_of
from telex.channels.delivery.topic import Recipient
from telex.connection import Socket, WebSocket
from telex.exceptions import ConcurrencyError, ConnectionStateError
from telex.types import Transport

__all__ = ("forward",)

SENDS_BEFORE_YIELD: Final = 64
"""A send that completes at once does not suspend: without a yield, a loop of sends would block all other tasks."""


async def forward(subscriber: Subscriber, socket: Socket, encoding: Encoding) -> None:
    """Send each item in ``encoding`` until the subscription ends or the server closes the connection.

    :raises WebSocketDisconnect: the client disconnected.
    :raises ConcurrencyError: the subscriber is forwarded already.
    """
    recipient = recipient_of(subscriber)
    if recipient.is_forwarded:
        raise ConcurrencyError("this subscriber is forwarded already: subscribe once for each socket")
    recipient.is_forwarded = True
    try:
        with suppress(StopAsyncIteration):
            if type(socket).send_data is not WebSocket.send_data:
                # The socket class overrides send_data, so every event must go through it.
                await _forward_by(socket, recipient, encoding)
            elif socket.transport is not None:
                await _forward_directly(socket, recipient, encoding, socket.transport)
            else:
                await _forward_events(socket, recipient, encoding)
    except ConnectionStateError:
        if socket.connection_state != "disconnect":
            raise
    finally:
        recipient.queue_up()
        recipient.is_forwarded = False


async def _forward_by(socket: Socket, recipient: Recipient, encoding: Encoding) -> None:
    while True:
        await socket.send_data(encoding(await recipient.queue.get()), encoding.mode)


async def _forward_directly(socket: Socket, recipient: Recipient, encoding: Encoding, transport: Transport) -> None:
    queue = recipient.queue
    while True:
        if not len(queue):
            recipient.go_direct(transport, encoding)
        await socket.send_data(encoding(await queue.get()), encoding.mode)


async def _forward_events(socket: Socket, recipient: Recipient, encoding: Encoding) -> None:
    """As :func:`_forward_by`, but calls the ASGI ``send`` directly, to save coroutines."""
    queue, send, reader = recipient.queue, socket.asgi_send, socket.event_reader
    key = "text" if encoding.mode == "text" else "bytes"
    sent = 0
    while True:
        while (filled := queue.wait_filled()) is not None:
            await filled
            sent = 0
        message = encoding(queue.get_nowait())
        if not socket.is_open or reader.disconnect is not None:
            # Raises the error of the closed connection.
            await socket.send_data(message, encoding.mode)
        try:
            await send({"type": "websocket.send", key: message})
        except OSError as error:
            raise socket.lost() from error
        sent += 1
        if not sent % SENDS_BEFORE_YIELD:
            await asyncio.sleep(0)
