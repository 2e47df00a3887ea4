"""A lane: those of a room who get the same bytes, and whose connections are ready to send them at once.

Reaching many is the one thing that channels do most. So for these an event is written once, and sending it is a loop in
which nothing else stands. There is one kind of lane for each way to the client: the server's own function
(:class:`telex.types.DirectSend`), or its ASGI ``send``.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from telex.channels.delivery.begun import Begun
from telex.channels.delivery.encoding import Frame
from telex.channels.events import Event
from telex.exceptions import WebSocketException
from telex.status_codes import WS_1011_UNEXPECTED_ERROR
from telex.types import DirectSend, Message, Send

__all__ = ("EventSend", "Lane", "Listed", "Rider", "Way", "give", "lane_for")

logger: Final = logging.getLogger("telex.channels")

K = TypeVar("K")
V = TypeVar("V")
W = TypeVar("W")
M = TypeVar("M")


class Rider(Protocol):
    """What a lane needs of a subscriber."""

    @property
    def put_nowait(self) -> Callable[[Event], bool]:
        """Takes an event that is not for the lane."""
        ...

    def note_sent(self, count: int) -> None:
        """So many events went to it by a lane that it leaves now."""

    def fail(self, error: WebSocketException) -> None:
        """Take nothing more, and raise ``error`` at whoever reads."""


def give(rider: Rider, event: Event) -> None:
    """Let ``rider`` take ``event``. If that fails it is the end of its stream alone: nobody else may miss the event."""
    try:
        rider.put_nowait(event)
    except Exception:
        logger.exception("a subscriber of %r could not take an event; its stream ends", event.channel)
        rider.fail(WebSocketException(WS_1011_UNEXPECTED_ERROR, "an event could not be delivered"))


class EventSend(NamedTuple):
    """The way by a server's ASGI ``send``, which is known to mind neither the task nor the context it runs in."""

    send: Send
    take_over: Callable[[Begun], None]
    """Gets a send that has to wait, and gets off the lane until that is done."""
    limit: None = None


Way: TypeAlias = DirectSend | EventSend


class Listed(Generic[K, V]):
    """A dictionary that is walked over far more often than it changes, and may change while somebody does."""

    __slots__ = ("_items", "_values")

    def __init__(self) -> None:
        self._items: dict[K, V] = {}
        self._values: tuple[V, ...] | None = ()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: K) -> bool:
        return key in self._items

    def __setitem__(self, key: K, value: V) -> None:
        self._items[key] = value
        self._values = None

    def pop(self, key: K) -> V | None:
        """Take one out."""
        self._values = None
        return self._items.pop(key, None)

    def get(self, key: K) -> V | None:
        """The value of ``key``, if there is one."""
        return self._items.get(key)

    @property
    def values(self) -> tuple[V, ...]:
        """All values, as they are now."""
        values = self._values
        if values is None:
            values = self._values = tuple(self._items.values())
        return values


class Lane(ABC, Generic[W, M]):
    """Riders that get each event as ``frame`` writes it, if it has at most ``limit`` bytes."""

    __slots__ = ("_boarded_at", "_count", "_frame", "_limit", "_riders")

    def __init__(self, frame: Frame, limit: int | None) -> None:
        self._frame = frame
        self._limit = limit
        self._riders: Listed[Rider, W] = Listed()
        self._boarded_at: dict[Rider, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._riders)

    @property
    def key(self) -> tuple[Frame, int | None]:
        """What its riders have in common."""
        return self._frame, self._limit

    def board(self, rider: Rider, way: W) -> None:
        """Send to ``rider`` from now on."""
        self._riders[rider] = way
        self._boarded_at[rider] = self._count

    def alight(self, rider: Rider) -> None:
        """Send to ``rider`` no more."""
        self._riders.pop(rider)
        rider.note_sent(self._count - self._boarded_at.pop(rider))

    def sent_to(self, rider: Rider) -> int:
        """How many events ``rider`` got by this lane, since it boarded."""
        return self._count - self._boarded_at[rider]

    def deliver(self, event: Event) -> None:
        """Send ``event`` to all."""
        message = self._message(event)
        if message is None:
            for rider in tuple(self._boarded_at):
                give(rider, event)
            return
        # First, for those who get off meanwhile.
        self._count += 1
        failed = self._send(message)
        if failed:
            self._send_again(event, failed)

    @abstractmethod
    def _message(self, event: Event) -> M | None:
        """``None`` when it is not for the lane: each rider's own way then tells what is wrong with it."""

    def _written(self, event: Event) -> str | bytes | None:
        try:
            return self._frame(event)
        except Exception:
            return None

    @abstractmethod
    def _send(self, message: M) -> Collection[W]:
        """Send to all; returns those that failed. One whose connection fails must not cost the others the event."""

    def _send_again(self, event: Event, failed: Collection[W]) -> None:
        """By the way that can wait, and that ends the connection if that is what is wrong."""
        for rider in tuple(self._boarded_at):
            way = self._riders.get(rider)
            if way is not None and way in failed:
                self._boarded_at[rider] += 1
                give(rider, event)


class _DirectLane(Lane[DirectSend, bytes]):
    """Calls function after function of the server."""

    __slots__ = ()

    def _message(self, event: Event) -> bytes | None:
        message = self._written(event)
        payload = message.encode() if isinstance(message, str) else message
        return None if payload is None or len(payload) > (self._limit or 0) else payload

    def _send(self, message: bytes) -> Collection[DirectSend]:
        opcode, failed = self._frame.opcode, []
        for way in self._riders.values:
            try:
                way[0](opcode, message)
            except Exception:
                failed.append(way)
        return failed


class _Walk:
    """Where a walk over the riders stands. It is made by one coroutine after another: who has to wait keeps his."""

    __slots__ = ("at", "failed", "ways")

    def __init__(self, ways: Iterator[EventSend]) -> None:
        self.ways = ways
        self.at: EventSend | None = None
        self.failed: list[EventSend] = []

    async def go_on(self, event: Message) -> None:
        """Send to all that are left, or to the one that has to wait: then somebody else has gone on meanwhile."""
        for way in self.ways:
            self.at = way
            try:
                await way[0](event)
            except Exception:
                if self.at is not way:
                    raise
                self.failed.append(way)
            if self.at is not way:
                return


class _EventLane(Lane[EventSend, str | bytes]):
    """Awaits send after send, all within one step."""

    __slots__ = ()

    def _message(self, event: Event) -> str | bytes | None:
        return self._written(event)

    def _send(self, message: str | bytes) -> Collection[EventSend]:
        event: Message = {"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message}
        walk = _Walk(iter(self._riders.values))
        while True:
            steps = walk.go_on(event)
            try:
                waits_for = steps.send(None)
            except StopIteration:
                return walk.failed
            waiting, walk.at = walk.at, None
            if waiting is not None:
                waiting.take_over(Begun(steps, waits_for))


def lane_for(frame: Frame, way: Way) -> Lane[Any, Any]:
    """A new lane of the kind that ``way`` needs."""
    if isinstance(way, DirectSend):
        return _DirectLane(frame, way.limit)
    return _EventLane(frame, way.limit)
