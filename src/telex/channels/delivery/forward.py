"""The task that sends the queue of a recipient to its socket.

On Telex's server the task makes the recipient *direct* whenever its queue is empty: events are then written within the
publish, and the task waits until the write buffer is full and events are queued again. On other servers every event
is queued: a task shared with other recipients sends it, or this one while a send has to wait.
"""

from __future__ import annotations

from contextlib import suppress

from telex.channels.delivery.encoding import Encoding
from telex.channels.delivery.queue import DeliveryQueue, QueueEnded
from telex.channels.delivery.subscriber import Subscriber, recipient_of
from telex.channels.delivery.topic import Recipient
from telex.channels.delivery.yield_budget import PIECES, YieldBudget
from telex.channels.events import Item
from telex.connection import Socket, WebSocket
from telex.exceptions import ConcurrencyError, ConnectionStateError
from telex.types import Transport

__all__ = ("forward",)


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
        with suppress(QueueEnded):
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
        message = encoding(await recipient.queue.get())
        await socket.send_data(message, "text" if isinstance(message, str) else "binary")


async def _forward_directly(socket: Socket, recipient: Recipient, encoding: Encoding, transport: Transport) -> None:
    queue = recipient.queue
    while True:
        if not len(queue):
            recipient.go_direct(transport, encoding)
        await socket.send_unchanged(encoding(await queue.get()))


async def _forward_events(socket: Socket, recipient: Recipient, encoding: Encoding) -> None:
    sender, sends_alone = recipient.sender, PIECES
    try:
        while sender is not None and sender.is_usable:
            await sender.send_queue(socket, recipient.queue, encoding)
            await _send_alone(socket, recipient.queue, encoding, sends_alone)
            # On some servers every send suspends.
            sends_alone *= 2
        await _send_alone(socket, recipient.queue, encoding, None)
    except OSError as error:
        raise socket.lost() from error


async def _send_alone(socket: Socket, queue: DeliveryQueue[Item], encoding: Encoding, at_least: int | None) -> None:
    """As :func:`_forward_by`, by the ASGI ``send``; returns when ``at_least`` items are sent and no other waits."""
    send, reader = socket.asgi_send, socket.event_reader
    sent, budget = 0, YieldBudget()
    while at_least is None or sent < at_least or len(queue):
        while (filled := queue.wait_filled()) is not None:
            await filled
        message = encoding(queue.get_nowait())
        if not socket.is_open or reader.disconnect is not None:
            # Raises the error of the closed connection.
            await socket.send_unchanged(message)
        await send({"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message})
        sent += 1
        if budget.is_spent():
            await budget.renew()
