"""A bounded queue between one fast producer and one reader that may be slow.

``put`` is synchronous and never waits: when the queue is full, its policy says what happens, and every item that is
not handed out is counted. Nothing here knows what an item is; marks (see :meth:`DeliveryQueue.put_mark`) are items
that no policy may drop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Final, Generic, Literal, TypeAlias, TypeVar

from telex.exceptions import ConcurrencyError, ImproperlyConfiguredException, WebSocketException
from telex.status_codes import WS_1011_UNEXPECTED_ERROR, WS_1013_TRY_AGAIN_LATER

__all__ = ("Conflate", "DeliveryQueue", "Policy", "conflate")

T = TypeVar("T")

logger: Final = logging.getLogger("telex.channels")

_POLICIES: Final = {
    "drop_oldest": "drop_oldest",
    "drop_newest": "drop_newest",
    "close": "close",
    # The names that Litestar gives to two of them.
    "dropleft": "drop_oldest",
    "backoff": "drop_newest",
}


class Conflate:
    """Keep only the newest item of each key: for values where only the last one matters, such as prices or cursors."""

    __slots__ = ("key",)

    def __init__(self, key: Callable[[object], Hashable]) -> None:
        self.key: Callable[[object], Hashable] = key


def conflate(key: Callable[..., Hashable]) -> Conflate:
    """The policy that replaces a waiting item by a newer one of the same ``key(item)``."""
    return Conflate(key)


Policy: TypeAlias = Literal["drop_oldest", "drop_newest", "close", "backoff", "dropleft"] | Conflate
"""What a full queue does.

``drop_oldest`` (also ``dropleft``) and ``drop_newest`` (also ``backoff``) drop one item and count it; ``close`` ends
the reader with 1013, so that its client comes back and recovers; :func:`conflate` replaces items of the same key at
any time, and drops the oldest key when even that is too much.
"""


class _Mark(Generic[T]):
    """Wraps an item that no policy may drop."""

    __slots__ = ("item",)

    def __init__(self, item: T) -> None:
        self.item = item


class DeliveryQueue(Generic[T]):
    """A queue of at most ``limit`` items for one reader.

    ``delivered`` items were handed out, ``dropped`` ones fell to the policy or to a close, ``conflated`` ones were
    replaced by a newer one of their key.
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
                f"max_backlog is a whole number from 1 on, not {limit!r}: every queue is bounded"
            )
        self._limit = limit
        self._key = policy.key if isinstance(policy, Conflate) else None
        # With too many keys the oldest is dropped.
        self._policy = "drop_oldest" if isinstance(policy, Conflate) else _policy_named(policy)
        self._pending: deque[T | _Mark[T]] = deque()
        self._replay: deque[T] = deque()
        self._keys: dict[Hashable, T] = {}
        self._marks = 0
        self._waiter: asyncio.Future[None] | None = None
        self._closing = False
        self._error: WebSocketException | None = None
        self.delivered: int = 0
        self.dropped: int = 0
        self.conflated: int = 0

    def __len__(self) -> int:
        return len(self._pending) + len(self._replay) + len(self._keys)

    # -- the producer's side

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is taken."""
        return self._closing

    def put(self, item: T) -> bool:
        """Take one item; false when it, or another one in its place, was dropped."""
        if self._closing:
            return False
        if self._key is not None:
            try:
                key = self._key(item)
                hash(key)
            except Exception:
                # The user's function fails its own subscriber, not the publisher and everybody else.
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
            if not waiter.done():
                waiter.set_result(None)
        return True

    def _put_conflated(self, item: T, key: Hashable) -> bool:
        kept = True
        if key in self._keys:
            # It goes to the end: what is delivered is in the order of positions, so that a reader can come back to any.
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
        """Take an item that no policy may drop, in its place between the others.

        A reader that lets even marks pile up to the limit is closed as by ``close``.
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
        """Put ``items`` before all that wait: a replay, given whole, which does not count against the limit."""
        if not self._closing:
            self._replay.extend(items)
            self._wake()

    def close(self) -> None:
        """Take nothing more; the reader gets what waits, and then its end."""
        self._closing = True
        self._wake()

    def fail(self, error: WebSocketException) -> None:
        """Drop what waits, count it, and raise ``error`` at the reader."""
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
        """Conflated items leave before a mark that comes after them."""
        for item in self._keys.values():
            if len(self._pending) - self._marks >= self._limit:
                self._overflow(item)
            else:
                self._pending.append(item)
        self._keys.clear()

    def _wake(self) -> None:
        """Let :meth:`get` look again."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- the reader's side

    @property
    def is_awaited(self) -> bool:
        """Whether the reader waits for an item."""
        return self._waiter is not None and not self._waiter.done()

    async def get(self) -> T:
        """The next item.

        :raises StopAsyncIteration: the queue was closed and is empty.
        :raises WebSocketException: the queue was closed with an error.
        :raises ConcurrencyError: somebody else waits already.
        """
        while (filled := self.wait_filled()) is not None:
            await filled
        return self.get_nowait()

    def wait_filled(self) -> asyncio.Future[None] | None:
        """What to await before looking again; ``None`` when there is an item. It raises as :meth:`get` does."""
        if self._pending or self._replay or self._keys:
            return None
        if self._error is not None:
            raise self._error
        if self._closing:
            raise StopAsyncIteration
        if self._waiter is not None and not self._waiter.done():
            raise ConcurrencyError("two tasks read one subscriber: subscribe once for each reader")
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def get_nowait(self) -> T:
        """The next item, at once.

        :raises IndexError: there is none.
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
