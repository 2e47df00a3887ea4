"""A subscriber: one reader's end of the channels it follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, TypeAlias

from telex.channels.delivery.encoding import Frame, data_of, lost
from telex.channels.delivery.forward import Forwarder, forwarder
from telex.channels.delivery.queue import DeliveryQueue, Policy
from telex.channels.delivery.topic import Room
from telex.channels.events import Event, Gap, Item, OnGap, Position
from telex.connection import WebSocket
from telex.exceptions import ChannelsException, ConcurrencyError, WebSocketException
from telex.streams import Streams

__all__ = ("EventCallback", "Subscriber", "Subscription", "streams_of")

EventCallback: TypeAlias = Callable[[bytes], Awaitable[object]]
"""Takes the data of one event, such as ``socket.send_bytes``."""


class Subscriber:
    """What :meth:`Channels.subscribe` gives: a stream of events, for one reader at a time.

    ``async for item in subscriber`` yields :class:`Event` and, where events were lost, :class:`Gap`.
    :meth:`iter_events` and :meth:`run_in_background` give the data alone; they cannot show a gap and so end at one
    with ``WebSocketException(1012)``, which closes a socket so that its client comes back.

    ``max_backlog`` events may wait; ``backlog_strategy`` says what happens to more. ``recovered`` is ``None`` when the
    subscription did not ask for ``since``, and else says whether all that was missed is in the stream.
    ``on_gap`` says how a loss shows: as the event :class:`Gap`, or as the end with 1012 for every way of reading.
    ``positions`` holds, for each channel with history, where this stream began.
    """

    def __init__(self, max_backlog: int, backlog_strategy: Policy) -> None:
        self._mailbox: DeliveryQueue[Item] = DeliveryQueue(max_backlog, backlog_strategy)
        self.put_nowait: Callable[[Event], bool] = self._mailbox.put
        """Take one event; false when the policy dropped one for it. The hub's side calls it."""
        self._forwarder: Forwarder | None = None
        self._worker: asyncio.Task[None] | None = None
        self._left: int | None = None
        self._bond: asyncio.Task[None] | None = None
        self.rooms: dict[str, Room] = {}
        self.on_gap: OnGap = "event"
        self.recovered: bool | None = None
        self.positions: dict[str, Position] = {}

    # -- the hub's side

    def put_gap(self, gap: Gap) -> None:
        """Take the mark of a loss, whatever the backlog is."""
        if self.on_gap == "close":
            self.fail(lost(gap))
            return
        self._queue_up()
        self._mailbox.put_mark(gap)

    def preload(self, items: Iterable[Item]) -> None:
        """Take a replay, before all that waits; it does not count against the backlog."""
        self._queue_up()
        self._mailbox.preload(items)

    def finish(self) -> None:
        """Take nothing more: the stream ends after what waits."""
        self._queue_up()
        self._mailbox.close()
        if self._bond is not None:
            self._bond.cancel()

    def note_sent(self, count: int) -> None:
        """So many events were sent without the mailbox."""
        self._mailbox.delivered += count

    def fail(self, error: WebSocketException) -> None:
        """Take nothing more, drop what waits, and raise ``error`` at whoever reads."""
        self._queue_up()
        self._mailbox.fail(error)

    def _queue_up(self) -> None:
        """From here on events take the mailbox."""
        if self._forwarder is not None:
            self._forwarder.stop()

    def bind(self, streams: Streams, leave: Callable[[Subscriber], None]) -> None:
        """Call ``leave`` when the connection that ``streams`` belong to ends.

        :raises ChannelsException: it is ending already.
        """
        stay = _stay()
        try:
            self._bond = streams.start(stay)
        except RuntimeError as error:
            stay.close()
            raise ChannelsException("the socket's connection is ending: nothing is subscribed for it") from error
        # Not a finally of the task's: one that is cancelled before its first step never gets there.
        self._bond.add_done_callback(lambda _: leave(self))

    # -- the reader's side

    def __aiter__(self) -> Subscriber:
        return self

    async def __anext__(self) -> Item:
        return await self._mailbox.get()

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
        if join and not self._mailbox.is_awaited:
            self._left = len(self._mailbox)
        else:
            worker.cancel()
        if not inside:
            await asyncio.wait([worker])

    async def _work(self, on_event: EventCallback) -> None:
        with suppress(StopAsyncIteration):
            while self._left is None or self._left > 0:
                data = data_of(await self._mailbox.get())
                if self._left is not None:
                    self._left -= 1
                await on_event(data)

    async def forward(self, socket: WebSocket[Any, Any, Any], frame: Frame) -> None:
        """Send each item as ``frame`` writes it, until the subscription ends.

        An event goes there within the publish itself while the client is fast enough; else it waits in the backlog.

        :raises WebSocketDisconnect: the client left.
        :raises ConcurrencyError: it forwards already.
        """
        if self._forwarder is not None:
            raise ConcurrencyError("this subscriber forwards already: subscribe once for each socket")
        self._forwarder = forwarder(self, self._mailbox, socket, frame)
        try:
            await self._forwarder.run()
        finally:
            self._forwarder = None

    @property
    def is_running(self) -> bool:
        """Whether :meth:`run_in_background` is under way."""
        return self._worker is not None

    # -- figures

    @property
    def qsize(self) -> int:
        """How many events wait."""
        return len(self._mailbox)

    @property
    def delivered(self) -> int:
        """How many events the reader has got."""
        return self._mailbox.delivered + sum(room.sent_to(self) for room in self.rooms.values())

    @property
    def dropped(self) -> int:
        """How many events fell to the policy."""
        return self._mailbox.dropped

    @property
    def conflated(self) -> int:
        """How many events were replaced by a newer one of the same key."""
        return self._mailbox.conflated


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
            subscriber.bind(streams_of(socket), self._close)
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
    """What runs beside the handler of ``socket`` and ends with its connection.

    :raises WebSocketDisconnect: the client has left.
    :raises ChannelsException: no handler of Telex runs on this connection, or not any more.
    """
    if socket.streams is not None:
        return socket.streams
    if socket.has_left():
        raise socket.lost()
    raise ChannelsException(
        "a socket follows a channel while a handler of Telex that takes it runs: not in a guard, not after its end"
    )


async def _stay() -> None:
    await asyncio.get_running_loop().create_future()
