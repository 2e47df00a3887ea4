"""A subscriber: what reads the channels that it follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, TypeAlias

from telex.channels.delivery.encoding import data_of
from telex.channels.delivery.queue import DeliveryQueue, Policy
from telex.channels.delivery.topic import Recipient
from telex.channels.events import Item, Position
from telex.connection import WebSocket
from telex.exceptions import ChannelsException, ConcurrencyError
from telex.streams import Streams

__all__ = ("EventCallback", "Subscriber", "Subscription", "recipient_of", "streams_of")

EventCallback: TypeAlias = Callable[[bytes], Awaitable[object]]
"""Takes the data of one event, such as ``socket.send_bytes``."""


class Subscriber:
    """What :meth:`Channels.subscribe` gives: a stream of events, for one reader at a time.

    ``async for item in subscriber`` yields :class:`Event` and, where events were lost, :class:`Gap`.
    :meth:`iter_events` and :meth:`run_in_background` give the data alone; they cannot show a gap and so end at one
    with ``WebSocketException(1012)``, which closes a socket so that its client reconnects.

    ``max_backlog`` events may wait; ``backlog_strategy`` says what happens to more. ``recovered`` is ``None`` if the
    subscription did not ask for ``since``, and else says whether all that was missed is in the stream.
    ``positions`` holds, for each channel with history, where this stream began.
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
        """The data of each event, until the subscription ends.

        :raises WebSocketException: 1012 where events were lost; 1013 when this reader was too slow for its policy.
        """
        async for item in self:
            yield data_of(item)

    @asynccontextmanager
    async def run_in_background(self, on_event: EventCallback, join: bool = True) -> AsyncIterator[None]:
        """Call ``on_event`` with the data of each event, one after another, while the body runs.

        At the end of the body, and if ``join``, what waits then is still handled. An exception of ``on_event``, and the
        end of the stream by an error, cancels the body and is raised here. An exception of the body cancels the worker.

        :raises ConcurrencyError: it runs already.
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
            # One mechanism inside, plain exceptions outside: the body's own comes last in the group.
            raise errors.exceptions[-1] from None
        finally:
            self._worker = None

    async def stop(self, join: bool = False) -> None:
        """Stop what :meth:`run_in_background` started; if ``join``, after what waits now is handled.

        :raises ConcurrencyError: ``on_event`` itself would wait for its own end; it may stop without ``join``.
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
        with suppress(StopAsyncIteration):
            while self._left is None or self._left > 0:
                data = data_of(await self._recipient.queue.get())
                if self._left is not None:
                    self._left -= 1
                await on_event(data)

    @property
    def is_running(self) -> bool:
        """Whether :meth:`run_in_background` is under way."""
        return self._worker is not None

    # -- figures

    @property
    def qsize(self) -> int:
        """How many events wait."""
        return len(self._recipient.queue)

    @property
    def delivered(self) -> int:
        """How many events the reader has got."""
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
    """The hub's end of ``subscriber``."""
    return subscriber._recipient


class Subscription:
    """What :meth:`Channels.subscribe` returns: ``async with`` it, or ``await`` it and unsubscribe yourself."""

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
            raise ChannelsException("this subscription is used up: call subscribe() once for each subscriber")
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
    """The tasks beside the handler of ``socket``, which end with its connection.

    :raises WebSocketDisconnect: the client has left.
    :raises ChannelsException: no handler of Telex runs on this connection, or not any more.
    """
    if socket.streams is not None:
        return socket.streams
    if socket.has_left():
        raise socket.lost()
    raise ChannelsException(
        "subscribe(socket=...) needs a running handler that declares `socket`: not a guard, and not after its end"
    )


def _bind(subscriber: Subscriber, streams: Streams, leave: Callable[[Subscriber], None]) -> None:
    """Call ``leave`` when the connection that ``streams`` belong to ends.

    :raises ChannelsException: it is ending already.
    """
    wait = _wait_for_cancellation()
    try:
        bond = streams.start(wait)
    except RuntimeError as error:
        wait.close()
        raise ChannelsException("the socket's connection is ending: nothing is subscribed for it") from error
    # Not a `finally` of the task's own: a task that is cancelled before its first step never gets there.
    bond.add_done_callback(lambda _: leave(subscriber))
    recipient_of(subscriber).on_finish = bond.cancel


async def _wait_for_cancellation() -> None:
    await asyncio.get_running_loop().create_future()
