"""Subscribers and subscriptions: the reading side of channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, TypeAlias

from telex.channels.delivery.encoding import data_of
from telex.channels.delivery.queue import DeliveryQueue, Policy, QueueEnded
from telex.channels.delivery.topic import Recipient
from telex.channels.events import Item, Position
from telex.connection import WebSocket
from telex.exceptions import ChannelsException, ConcurrencyError
from telex.streams import Streams

__all__ = ("EventCallback", "Subscriber", "Subscription", "recipient_of", "streams_of")

EventCallback: TypeAlias = Callable[[bytes], Awaitable[object]]
"""A coroutine function called with the data of one event, such as ``socket.send_bytes``."""


class Subscriber:
    """A stream of events for one reader at a time, returned by :meth:`Channels.subscribe`.

    ``async for item in subscriber`` yields :class:`Event` and, where events were lost, :class:`Gap`.
    :meth:`iter_events` and :meth:`run_in_background` use the data only. They cannot show a gap, so a gap ends them
    with ``WebSocketException(1012)``, which closes a socket so that its client reconnects.

    At most ``max_backlog`` events wait; ``backlog_strategy`` is the policy of a full queue. ``recovered`` is ``None``
    without ``since``; otherwise it says whether all missed events are in the stream.
    ``positions`` maps each channel with history to the position where this stream began.
    """

    def __init__(self, max_backlog: int, backlog_strategy: Policy) -> None:
        self._recipient = Recipient(DeliveryQueue(max_backlog, backlog_strategy))
        self._worker: asyncio.Task[None] | None = None
        self._left: int | None = None
        self.recovered: bool | None = None
        self.positions: dict[str, Position] = {}

    def __aiter__(self) -> Subscriber:
        return self

    async def __anext__(self) -> Item:
        return await self._recipient.queue.get()

    async def iter_events(self) -> AsyncIterator[bytes]:
        """Yield the data of each event until the subscription ends.

        :raises WebSocketException: 1012 where events were lost; 1013 when this reader was too slow for its policy.
        """
        async for item in self:
            yield data_of(item)

    @asynccontextmanager
    async def run_in_background(self, on_event: EventCallback, join: bool = True) -> AsyncIterator[None]:
        """Call ``on_event`` with the data of each event, one after another, while the body runs.

        If ``join``, the events that wait at the end of the body are still handled. An exception from ``on_event`` or
        from the stream cancels the body and is raised here. An exception from the body cancels the worker.

        :raises ConcurrencyError: it is already running.
        """
        if self._worker is not None:
            raise ConcurrencyError("this subscriber runs in the background already: subscribe once for each reader")
        try:
            async with asyncio.TaskGroup() as group:
                self._left = None
                self._worker = group.create_task(self._work(on_event))
                yield
                await self.stop(join=join)
        except BaseExceptionGroup as errors:
            # The caller gets a plain exception, not a group. The body's own exception is the last one.
            raise errors.exceptions[-1] from None
        finally:
            self._worker = None

    async def stop(self, join: bool = False) -> None:
        """Stop the worker of :meth:`run_in_background`; if ``join``, after it has handled the waiting events.

        :raises ConcurrencyError: ``on_event`` called this with ``join``, and would wait for itself.
        """
        worker = self._worker
        if worker is None:
            return
        inside = asyncio.current_task() is worker
        if inside and join:
            raise ConcurrencyError("on_event cannot wait for its own end: stop(join=False)")
        if join and not self._recipient.queue.is_awaited:
            self._left = len(self._recipient.queue)
        else:
            worker.cancel()
        if not inside:
            await asyncio.wait([worker])

    async def _work(self, on_event: EventCallback) -> None:
        with suppress(QueueEnded):
            while self._left is None or self._left > 0:
                data = data_of(await self._recipient.queue.get())
                if self._left is not None:
                    self._left -= 1
                await on_event(data)

    @property
    def is_running(self) -> bool:
        """Whether :meth:`run_in_background` is running."""
        return self._worker is not None

    # -- statistics

    @property
    def qsize(self) -> int:
        """How many events wait."""
        return len(self._recipient.queue)

    @property
    def delivered(self) -> int:
        """How many events the reader has received."""
        return self._recipient.delivered

    @property
    def dropped(self) -> int:
        """How many events the policy dropped."""
        return self._recipient.queue.dropped

    @property
    def conflated(self) -> int:
        """How many events were replaced by a newer one of the same key."""
        return self._recipient.queue.conflated


def recipient_of(subscriber: Subscriber) -> Recipient:
    """The hub's side of ``subscriber``."""
    return subscriber._recipient


class Subscription:
    """What :meth:`Channels.subscribe` returns. Use ``async with``, or ``await`` it and call ``unsubscribe`` later."""

    __slots__ = ("_close", "_open", "_socket", "_subscriber", "_used")

    def __init__(
        self,
        open_: Callable[[], Awaitable[Subscriber]],
        close: Callable[[Subscriber], None],
        socket: WebSocket[Any, Any, Any] | None = None,
    ) -> None:
        self._open = open_
        self._close = close
        self._socket = socket
        self._subscriber: Subscriber | None = None
        self._used = False

    def __await__(self) -> Generator[object, None, Subscriber]:
        if self._used:
            raise ChannelsException("this subscription was used before: call subscribe() once for each subscriber")
        self._used = True
        return (self._open() if self._socket is None else self._open_for(self._socket)).__await__()

    async def _open_for(self, socket: WebSocket[Any, Any, Any]) -> Subscriber:
        streams_of(socket)
        subscriber = await self._open()
        try:
            _bind(subscriber, streams_of(socket), self._close)
        except BaseException:
            self._close(subscriber)
            raise
        return subscriber

    async def __aenter__(self) -> Subscriber:
        self._subscriber = await self
        return self._subscriber

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._subscriber is not None:
            self._close(self._subscriber)


def streams_of(socket: WebSocket[Any, Any, Any]) -> Streams:
    """The background tasks of the connection of ``socket``, which are cancelled when it closes.

    :raises WebSocketDisconnect: the client has disconnected.
    :raises ChannelsException: no Telex handler runs on this connection.
    """
    if socket.streams is not None:
        return socket.streams
    if socket.has_left():
        raise socket.lost()
    raise ChannelsException(
        "subscribe(socket=...) needs a running handler that declares `socket`: not a guard, and not after its end"
    )


def _bind(subscriber: Subscriber, streams: Streams, leave: Callable[[Subscriber], None]) -> None:
    """Call ``leave`` when the connection of ``streams`` ends.

    :raises ChannelsException: the connection is already ending.
    """
    wait = _wait_for_cancellation()
    try:
        bond = streams.start(wait)
    except RuntimeError as error:
        wait.close()
        raise ChannelsException("the socket's connection is ending: nothing can be subscribed for it") from error
    # Not a `finally` inside the task: a task that is cancelled before its first step does not run it.
    bond.add_done_callback(lambda _: leave(subscriber))
    recipient_of(subscriber).on_finish = bond.cancel


async def _wait_for_cancellation() -> None:
    await asyncio.get_running_loop().create_future()
