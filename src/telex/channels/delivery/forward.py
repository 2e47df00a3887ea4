"""From a subscription to its socket, without a queue and without a task switch where the client is fast enough.

While nothing waits, an event is sent within the publish itself. As soon as the client is slower than that, or there is
something else than a live event, items take the mailbox, and the task that forwards sends them.
"""

from __future__ import annotations

import asyncio
import contextvars
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import MethodType
from typing import Protocol

from telex.channels.delivery.begun import Begun, begin
from telex.channels.delivery.broadcast import EventSend, Way
from telex.channels.delivery.encoding import Frame
from telex.channels.delivery.queue import DeliveryQueue
from telex.channels.delivery.topic import Member, Room
from telex.channels.events import Event, Item
from telex.connection import Socket, WebSocket
from telex.exceptions import ConnectionStateError, WebSocketException
from telex.types import DirectSend, Send, Transport

__all__ = ("Forwarded", "Forwarder", "forwarder")


class Forwarded(Member, Protocol):
    """What forwarding needs of a subscriber."""

    put_nowait: Callable[[Event], bool]
    rooms: dict[str, Room]


class Forwarder(ABC):
    """Sends the items of a subscriber to a socket."""

    def __init__(self, subscriber: Forwarded, mailbox: DeliveryQueue[Item], socket: Socket, frame: Frame) -> None:
        self._subscriber = subscriber
        self._mailbox = mailbox
        self._socket = socket
        self._frame = frame

    async def run(self) -> None:
        """Send until the subscription ends, or this side closes the connection.

        :raises WebSocketDisconnect: the client left.
        """
        try:
            with suppress(StopAsyncIteration):
                while True:
                    await self._go_on()
        except ConnectionStateError:
            if self._socket.connection_state != "disconnect":
                raise
        finally:
            self.stop()

    @abstractmethod
    async def _go_on(self) -> None:
        """Send the next item that publishers cannot."""

    def stop(self) -> None:
        """From here on items take the mailbox, until it is empty."""
        self._subscriber.put_nowait = self._mailbox.put
        self._alight()

    def _start(self) -> None:
        """From here on events are sent within the publish."""
        self._subscriber.put_nowait = self._put
        self._board(self._subscriber.rooms.values())

    @abstractmethod
    def _put(self, event: Event) -> bool:
        """Send an event that no lane took."""

    @abstractmethod
    def _way(self) -> Way | None:
        """What a lane needs, if one can take what comes next."""

    def _board(self, rooms: Iterable[Room]) -> None:
        way = self._way()
        if way is not None:
            for room in rooms:
                room.board(self._subscriber, self._frame, way)

    def _board_for(self, event: Event) -> None:
        """The next event of this kind may be one for a lane."""
        room = self._subscriber.rooms.get(event.channel)
        if room is not None:
            self._board([room])

    def _alight(self) -> None:
        for room in self._subscriber.rooms.values():
            room.alight(self._subscriber)

    async def _send_next(self) -> None:
        await self._socket.send_data(self._frame(await self._mailbox.get()), self._frame.mode)


def forwarder(subscriber: Forwarded, mailbox: DeliveryQueue[Item], socket: Socket, frame: Frame) -> Forwarder:
    """The shortest way that ``socket`` has. One whose class sends in its own way is left to do so."""
    if type(socket).send_data is not WebSocket.send_data:
        return _InSteps(subscriber, mailbox, socket, frame)
    if socket.transport is not None:
        return _ByTransport(subscriber, mailbox, socket, frame, socket.transport)
    return _InSteps(subscriber, mailbox, socket, frame, is_plain=_is_plain(socket.asgi_send))


def _is_plain(send: Send) -> bool:
    """Whether a server's own ``send`` is known to mind neither the task nor the context that it runs in.

    A middleware in between may measure time, or set a variable of the context, until the send is over.
    """
    return isinstance(send, MethodType) and type(send.__self__).__module__.startswith("uvicorn.")


class _ByTransport(Forwarder):
    """Forwards by the server's fast path, and in a lane of each room as long as the connection is ready for that."""

    def __init__(
        self, subscriber: Forwarded, mailbox: DeliveryQueue[Item], socket: Socket, frame: Frame, transport: Transport
    ) -> None:
        super().__init__(subscriber, mailbox, socket, frame)
        self._transport = transport
        self._direct: DirectSend | None = None

    async def _go_on(self) -> None:
        if not len(self._mailbox):
            self._start()
        await self._send_next()

    def _put(self, event: Event) -> bool:
        try:
            flows = self._transport.send(self._frame(event))
        except (OSError, WebSocketException):
            # The connection is ending, or must. That is for whoever forwards to find out, by sending this one: here it
            # would hit the publisher and the other subscribers.
            self.stop()
            return self._mailbox.put(event)
        self._mailbox.delivered += 1
        if flows:
            self._board_for(event)
        else:
            self.stop()
        return True

    def _way(self) -> DirectSend | None:
        if self._direct is None:
            self._direct = self._transport.open_direct(self._alight)
        return self._direct

    def _alight(self) -> None:
        if self._direct is not None:
            self._direct = None
            self._transport.close_direct(self._alight)
            super()._alight()


class _InSteps(Forwarder):
    """Forwards by coroutines, whose first step is taken within the publish. Most have no second one."""

    def __init__(
        self,
        subscriber: Forwarded,
        mailbox: DeliveryQueue[Item],
        socket: Socket,
        frame: Frame,
        *,
        is_plain: bool = False,
    ) -> None:
        super().__init__(subscriber, mailbox, socket, frame)
        self._plain_way = EventSend(socket.asgi_send, self._take_over) if is_plain else None
        self._begun: Begun | None = None
        self._stepping = False
        self._task = asyncio.current_task()
        self._context = contextvars.copy_context()

    async def run(self) -> None:
        """Send until the subscription ends, or this side closes the connection."""
        try:
            await super().run()
        finally:
            if self._begun is not None:
                self._begun.close()

    async def _go_on(self) -> None:
        while self._begun is None and not len(self._mailbox) and not self._mailbox.is_closed:
            self._start()
            await self._mailbox.wait()
        begun, self._begun = self._begun, None
        if begun is None:
            await self._send_next()
        else:
            await self._finish(begun)

    async def _finish(self, begun: Begun) -> None:
        try:
            await begun
        except OSError as error:
            raise self._socket.lost() from error

    def _put(self, event: Event) -> bool:
        if self._stepping or self._task is None:
            # A send that itself publishes, to where it sends to: one after the other.
            self.stop()
            return self._mailbox.put(event)
        try:
            sending = self._socket.send_data(self._frame(event), self._frame.mode)
        except WebSocketException:
            self.stop()
            return self._mailbox.put(event)
        self._mailbox.delivered += 1
        self._stepping = True
        begun = begin(sending, self._task, self._context)
        self._stepping = False
        if begun is None:
            self._board_for(event)
        else:
            self._take_over(begun)
        return True

    def _take_over(self, begun: Begun) -> None:
        self._begun = begun
        self.stop()
        self._mailbox.wake()

    def _way(self) -> EventSend | None:
        return self._plain_way
