"""A bounded queue between one fast producer and one reader that may be slow.

``put`` is synchronous and never waits. A full queue applies its policy, and every item that is not returned to the
reader is counted. Items may have any type. Marks (see :meth:`DeliveryQueue.put_mark`) are items that no policy drops.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar

from telex.exceptions import ConcurrencyError, ImproperlyConfiguredException, WebSocketException
from telex.status_codes import WS_1011_UNEXPECTED_ERROR, WS_1013_TRY_AGAIN_LATER

__all__ = ("Conflate", "DeliveryQueue", "Policy", "QueueEnded", "conflate")

T = TypeVar("T")

logger: Final = logging.getLogger("telex.channels")

_POLICIES: Final = {
    "drop_oldest": "drop_oldest",
    "drop_newest": "drop_newest",
    "close": "close",
    # Litestar's names of two policies.
    "dropleft": "drop_oldest",
    "backoff": "drop_newest",
}

# Shared and always empty: a queue without a replay or keys takes and touches less memory.
_NO_REPLAY: Final[deque[Any]] = deque(maxlen=0)
_NO_KEYS: Final[dict[Hashable, Any]] = {}


class Conflate:
    """Keep only the newest item of each key, for values such as prices or cursors."""

    __slots__ = ("key",)

    def __init__(self, key: Callable[[object], Hashable]) -> None:
        self.key: Callable[[object], Hashable] = key


def conflate(key: Callable[..., Hashable]) -> Conflate:
    """The policy that replaces a waiting item by a newer one with the same ``key(item)``."""
    return Conflate(key)


Policy: TypeAlias = Literal["drop_oldest", "drop_newest", "close", "backoff", "dropleft"] | Conflate
"""What a full queue does.

``drop_oldest`` (also ``dropleft``) and ``drop_newest`` (also ``backoff``) drop one item and count it. ``close`` ends
the reader with 1013, so that its client reconnects and recovers. :func:`conflate` always replaces items of the same
key, and drops the oldest key if there are too many keys.
"""


class QueueEnded(StopAsyncIteration):
    """The queue is closed and empty. A class of its own: an encoder, too, may raise ``StopAsyncIteration``."""


class _Mark(Generic[T]):
    """Wraps an item that no policy drops."""

    __slots__ = ("item",)

    def __init__(self, item: T) -> None:
        self.item = item


class Waiter(Protocol):
    """The reader of an empty queue."""

    def done(self) -> bool:
        """Whether it does not wait any more."""

    def wake(self) -> object:
        """Called once when the queue has an item, or has ended."""


class _Awaited:
    """A future that waits for an item."""

    __slots__ = ("done", "future")

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done = self.future.done

    def wake(self) -> None:
        if not self.done():
            self.future.set_result(None)


class DeliveryQueue(Generic[T]):
    """A queue of at most ``limit`` items for one reader.

    ``delivered`` counts items returned to the reader, ``dropped`` those dropped by the policy or by a failure,
    ``conflated`` those replaced by a newer one of their key.
    """

    __slots__ = (
        "_closing",
        "_error",
        "_key",
        "_keys",
        "_limit",
        "_marks",
        "_pending",
        "_policy",
        "_replay",
        "_waiter",
        "conflated",
        "delivered",
        "dropped",
    )

    def __init__(self, limit: int, policy: Policy = "close") -> None:
        if not isinstance(limit, int) or limit < 1:
            raise ImproperlyConfiguredException(
                f"max_backlog must be an integer of at least 1, not {limit!r}: every queue is bounded"
            )
        self._limit = limit
        self._key = policy.key if isinstance(policy, Conflate) else None
        # Conflation drops the oldest key if there are too many.
        self._policy = "drop_oldest" if isinstance(policy, Conflate) else _policy_named(policy)
        self._pending: deque[T | _Mark[T]] = deque()
        self._replay: deque[T] = _NO_REPLAY
        self._keys: dict[Hashable, T] = _NO_KEYS if self._key is None else {}
        self._marks = 0
        self._waiter: Waiter | None = None
        self._closing = False
        self._error: WebSocketException | None = None
        self.delivered: int = 0
        self.dropped: int = 0
        self.conflated: int = 0

    def __len__(self) -> int:
        return len(self._pending) + len(self._replay) + len(self._keys)

    # -- called by the producer

    @property
    def is_closed(self) -> bool:
        """Whether the queue accepts no more items."""
        return self._closing

    def put(self, item: T) -> bool:
        """Add one item; false if it or another item was dropped."""
        if self._closing:
            return False
        if self._key is not None:
            try:
                key = self._key(item)
                hash(key)
            except Exception:
                # An error in the user's function ends this subscriber only, not the publisher or other subscribers.
                logger.exception("the key function of conflate(key) failed; its subscriber ends")
                self.fail(WebSocketException(WS_1011_UNEXPECTED_ERROR, "conflate(key) failed"))
                return False
            return self._put_conflated(item, key)
        if len(self._pending) - self._marks >= self._limit:
            return self._overflow(item)
        self._pending.append(item)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.wake()
        return True

    def _put_conflated(self, item: T, key: Hashable) -> bool:
        kept = True
        if key in self._keys:
            # Moved to the end, so that items are delivered in the order of their positions and a reader can resume.
            del self._keys[key]
            self.conflated += 1
            kept = False
        elif len(self._keys) >= self._limit:
            del self._keys[next(iter(self._keys))]
            self.dropped += 1
            kept = False
        self._keys[key] = item
        self._wake()
        return kept

    def put_mark(self, item: T) -> None:
        """Add an item that no policy drops, in order with the others.

        If the marks alone reach the limit, the queue ends as under the policy ``close``.
        """
        if self._closing:
            return
        if self._marks >= self._limit:
            self._close_full()
            return
        self._flush_keys()
        self._pending.append(_Mark(item))
        self._marks += 1
        self._wake()

    def preload(self, items: Iterable[T]) -> None:
        """Put ``items`` before the waiting ones. They do not count towards the limit."""
        if not self._closing:
            if self._replay is _NO_REPLAY:
                self._replay = deque()
            self._replay.extend(items)
            self._wake()

    def close(self) -> None:
        """Accept no more items; the reader's iteration ends after the waiting ones."""
        self._closing = True
        self._wake()

    def fail(self, error: WebSocketException) -> None:
        """Accept no more items, drop and count the waiting ones, and raise ``error`` in the reader."""
        self._error = error
        self.dropped += len(self) - self._marks
        self._pending.clear()
        self._replay.clear()
        self._keys.clear()
        self._marks = 0
        self.close()

    def _overflow(self, item: T) -> bool:
        self.dropped += 1
        if self._policy == "drop_oldest":
            self._drop_oldest()
            self._pending.append(item)
        elif self._policy == "close":
            self._close_full()
        return False

    def _drop_oldest(self) -> None:
        marks: list[_Mark[T]] = []
        while isinstance(entry := self._pending.popleft(), _Mark):
            marks.append(entry)
        self._pending.extendleft(reversed(marks))

    def _close_full(self) -> None:
        self.fail(WebSocketException(WS_1013_TRY_AGAIN_LATER, f"too slow: {self._limit} events wait"))

    def _flush_keys(self) -> None:
        """Move the conflated items into the queue, before a mark that follows them."""
        for item in self._keys.values():
            if len(self._pending) - self._marks >= self._limit:
                self._overflow(item)
            else:
                self._pending.append(item)
        self._keys.clear()

    def _wake(self) -> None:
        """Wake the task that waits in :meth:`get`."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.wake()

    # -- called by the reader

    @property
    def is_awaited(self) -> bool:
        """Whether the reader waits for an item."""
        return self._waiter is not None and not self._waiter.done()

    async def get(self) -> T:
        """Wait for the next item.

        :raises QueueEnded: the queue is closed and empty.
        :raises WebSocketException: the queue was closed with an error.
        :raises ConcurrencyError: another task already waits.
        """
        while (filled := self.wait_filled()) is not None:
            await filled
        return self.get_nowait()

    def wait_filled(self) -> asyncio.Future[None] | None:
        """A future to await before the next call; ``None`` if there is an item. Raises the errors of :meth:`get`."""
        if self._pending or self._replay or self._keys:
            return None
        awaited = _Awaited()
        self.is_awaited_by(awaited)
        return awaited.future

    def is_awaited_by(self, waiter: Waiter) -> bool:
        """Let ``waiter`` wait if the queue is empty; false if there is an item. Raises the errors of :meth:`get`."""
        if self._pending or self._replay or self._keys:
            return False
        if self._error is not None:
            raise self._error
        if self._closing:
            raise QueueEnded
        if self._waiter is not None and not self._waiter.done():
            raise ConcurrencyError("two tasks read one subscriber: subscribe once for each reader")
        self._waiter = waiter
        return True

    def get_nowait(self) -> T:
        """The next item, without waiting.

        :raises IndexError: the queue is empty.
        """
        entry: T | _Mark[T]
        if self._pending and not self._replay:
            entry = self._pending.popleft()
        elif self._replay:
            entry = self._replay.popleft()
        elif self._keys:
            entry = self._keys.pop(next(iter(self._keys)))
        else:
            raise IndexError("the queue is empty")
        if isinstance(entry, _Mark):
            self._marks -= 1
            return entry.item
        self.delivered += 1
        return entry


def _policy_named(name: str) -> str:
    if name not in _POLICIES:
        raise ImproperlyConfiguredException(
            f"unknown policy {name!r} for a full queue: write one of {', '.join(_POLICIES)} or conflate(key)"
        )
    return _POLICIES[name]
