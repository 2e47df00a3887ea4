"""The calls of a synchronous session: they call the asynchronous ones."""

from __future__ import annotations

from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, overload

from telex.testing.calling import AsyncItems, AsyncPendingCall

__all__ = ("Items", "PendingCall", "RunLimited")

T = TypeVar("T")


class RunLimited(Protocol):
    """Runs a coroutine on the client's event loop, within about ``timeout`` seconds."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], timeout: float | None) -> T:
        """Run it, and return its result."""


class PendingCall:
    """A call that has been sent, of :meth:`WebSocketTestSession.begin`."""

    def __init__(self, pending: AsyncPendingCall, run: RunLimited) -> None:
        """Made by ``begin``."""
        self.id: int = pending.id
        self._pending = pending
        self._run = run

    @overload
    def result(self, answer: type[T], timeout: float | None = ...) -> T: ...
    @overload
    def result(self, answer: Any = ..., timeout: float | None = ...) -> Any: ...
    def result(self, answer: Any = Any, timeout: float | None = None) -> Any:
        """Wait for the answer."""
        return self._run(self._pending.result(answer, timeout), timeout)

    def cancel(self) -> None:
        """Ask the app to stop."""
        self._run(self._pending.cancel(), None)


class Items(Generic[T]):
    """The parts of an answer, of :meth:`WebSocketTestSession.stream`."""

    def __init__(self, items: AsyncItems[T], run: RunLimited) -> None:
        """Made by ``stream``."""
        self._items = items
        self._run = run

    def __enter__(self) -> Self:
        self._run(self._items.__aenter__(), None)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.cancel()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return self.receive()

    def receive(self, timeout: float | None = None) -> T:
        """The next item.

        :raises StopIteration: the answer is complete.
        """
        try:
            return self._run(self._items.receive(timeout), timeout)
        except StopAsyncIteration:
            raise StopIteration from None

    def more(self, count: int) -> None:
        """Give credit for ``count`` more items."""
        self._run(self._items.more(count), None)

    def cancel(self, timeout: float | None = None) -> None:
        """Stop the answer and wait for its end."""
        self._run(self._items.cancel(timeout), timeout)
