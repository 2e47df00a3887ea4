"""Broadcast groups: recipients of a topic that receive the same bytes, written within the publish.

An event is encoded once for a group. The send loop only calls the server's functions
(:class:`telex.types.DirectSend`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from telex.channels.delivery.encoding import Encoding
from telex.channels.events import Event
from telex.types import BINARY_OPCODE, TEXT_OPCODE

__all__ = ("BroadcastGroup", "SnapshotDict")

K = TypeVar("K")
V = TypeVar("V")


class SnapshotDict(Generic[K, V]):
    """A dictionary that caches its values as a tuple, so that it may change during an iteration."""

    __slots__ = ("_items", "_values")

    def __init__(self) -> None:
        self._items: dict[K, V] = {}
        self._values: tuple[V, ...] | None = ()

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, key: K) -> V:
        return self._items[key]

    def __setitem__(self, key: K, value: V) -> None:
        self._items[key] = value
        self._values = None

    def pop(self, key: K) -> V:
        """Remove ``key``."""
        self._values = None
        return self._items.pop(key)

    def get(self, key: K) -> V | None:
        """The value of ``key``, or ``None``."""
        return self._items.get(key)

    @property
    def values(self) -> tuple[V, ...]:
        """A snapshot of all values."""
        values = self._values
        if values is None:
            values = self._values = tuple(self._items.values())
        return values


class Sendable(Protocol):
    """The methods of a recipient that a group calls."""

    def put(self, event: Event) -> object:
        """Queue an event that could not be sent."""

    def send(self, event: Event, message: str | bytes) -> object:
        """Send an event that is too long for the group."""


class BroadcastGroup:
    """Recipients of the same ``encoding``. An event over ``limit`` bytes is sent by each recipient's own ``send``."""

    __slots__ = ("_count", "_encoding", "_joined_at", "_limit", "_sends")

    def __init__(self, encoding: Encoding, limit: int) -> None:
        self._encoding = encoding
        self._limit = limit
        self._sends: SnapshotDict[Sendable, Callable[[int, bytes], object]] = SnapshotDict()
        self._joined_at: dict[Sendable, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._sends)

    @property
    def key(self) -> tuple[Encoding, int]:
        """The encoding and the limit, which are the same for all recipients of the group."""
        return self._encoding, self._limit

    def join(self, recipient: Sendable, send: Callable[[int, bytes], object]) -> None:
        """Send the following events to ``recipient``."""
        self._sends[recipient] = send
        self._joined_at[recipient] = self._count

    def leave(self, recipient: Sendable) -> int:
        """Send no more events to ``recipient``; returns how many the group has sent to it."""
        self._sends.pop(recipient)
        return self._count - self._joined_at.pop(recipient)

    def sent_to(self, recipient: Sendable) -> int:
        """How many events the group has sent to ``recipient``."""
        return self._count - self._joined_at[recipient]

    def deliver(self, event: Event) -> None:
        """Send ``event`` to all. If a connection fails, its recipient queues the event, and the others still get it."""
        try:
            message = self._encoding(event)
        except Exception:
            # Each recipient's own task encodes the event again and raises the error.
            for recipient in tuple(self._joined_at):
                recipient.put(event)
            return
        payload = message.encode() if isinstance(message, str) else message
        if len(payload) > self._limit:
            for recipient in tuple(self._joined_at):
                recipient.send(event, message)
            return
        # Counted first: the loop also sends to a recipient that leaves meanwhile.
        self._count += 1
        opcode, failed = TEXT_OPCODE if isinstance(message, str) else BINARY_OPCODE, []
        sends = iter(self._sends.values)
        while True:
            try:
                for send in sends:
                    send(opcode, payload)
                break
            except Exception:
                failed.append(send)
        if failed:
            self._put_again(event, failed)

    def _put_again(self, event: Event, failed: list[Callable[[int, bytes], object]]) -> None:
        for recipient in tuple(self._joined_at):
            if self._sends.get(recipient) in failed:
                self._joined_at[recipient] += 1
                recipient.put(event)
