"""From a recipient to its socket: the task that sends what waits in the queue.

On Telex's server the task makes the recipient *direct* whenever its queue is empty: events are then written within the
publish, and the task sleeps until the connection cannot take the next one at once. Elsewhere every event takes the
queue, and the task sends it.
"""

from __future__ import annotations

from contextlib import suppress

from telex.channels.delivery.encoding import Encoding
from telex.channels.delivery.subscriber import Subscriber, recipient_of
from telex.connection import Socket, WebSocket
from telex.exceptions import ConcurrencyError, ConnectionStateError

__all__ = ("forward",)


async def forward(subscriber: Subscriber, socket: Socket, encoding: Encoding) -> None:
    """Send each item as ``encoding`` writes it, until the subscription ends or this side closes the connection.

    :raises WebSocketDisconnect: the client left.
    :raises ConcurrencyError: the subscriber is forwarded already.
    """
    recipient = recipient_of(subscriber)
    if recipient.is_forwarded:
        raise ConcurrencyError("this subscriber is forwarded already: subscribe once for each socket")
    recipient.is_forwarded = True
    queue = recipient.queue
    # A class that sends in its own way is left to do so.
    transport = socket.transport if type(socket).send_data is WebSocket.send_data else None
    try:
        with suppress(StopAsyncIteration):
            while True:
                if transport is not None and not len(queue):
                    recipient.go_direct(transport, encoding)
                await socket.send_data(encoding(await queue.get()), encoding.mode)
    except ConnectionStateError:
        if socket.connection_state != "disconnect":
            raise
    finally:
        recipient.queue_up()
        recipient.is_forwarded = False
