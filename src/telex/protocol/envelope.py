"""What a connection needs to know of the frames that it speaks; :class:`telex.protocol.calls.CallSession` does it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final, Generic, Protocol, TypeVar

from telex.types import Activity

__all__ = ("MULTIPLEXED", "SUBPROTOCOL", "Envelope", "Incoming")

SUBPROTOCOL: Final = "telex.v1"

MULTIPLEXED: Final = "telex.multiplexed"
"""The key of a route in its ASGI scope: its denial becomes a ``denied`` frame, not an accepted connection."""

T = TypeVar("T")


class Incoming(ABC, Generic[T]):
    """A call or notify of the client, as :meth:`telex.WebSocket.incoming` gives it; in plain mode a message.

    The first answer counts; an answer after a cancel, a timeout or another answer has no effect. A notify needs none.
    In plain mode answers are messages.
    """

    __slots__ = ("data", "wants_answer")

    def __init__(self, data: T, *, wants_answer: bool) -> None:
        self.data: T = data
        self.wants_answer: bool = wants_answer
        """Whether this is a call."""

    @property
    @abstractmethod
    def is_answered(self) -> bool:
        """Whether a call has its answer, or has been cancelled; in plain mode always false."""

    @abstractmethod
    async def reply(self, data: object = None) -> None:
        """Answer with ``data``; ``None`` says only that the call was handled."""

    @abstractmethod
    async def error(self, code: str, message: str = "", data: object = None) -> None:
        """Answer with an error. ``code`` is one of Telex, as ``not_found``, or your own word of this form.

        :raises ValueError: ``code`` has another form.
        """

    @abstractmethod
    async def stream(self, parts: AsyncIterator[object]) -> None:
        """Answer with the items of ``parts``; returns when the client has all of them, or has cancelled the call."""


class Envelope(Activity, Protocol):
    """The frames of one connection that speaks ``telex.v1``."""

    def begin(self) -> Awaitable[None]:
        """Send the first frame and begin to read; called once, as soon as the connection is accepted."""

    def notify(self, data: object) -> Awaitable[None]:
        """Send a value that wants no answer: text as a JSON string, bytes as a binary frame, other values as JSON."""

    def notify_encoded(self, data: str | bytes) -> Awaitable[None]:
        """The same for data that is JSON already (``str``), or bytes."""

    def refuse(self, raw: str | bytes, message: str, retry_after: float) -> bool:
        """Answer a message that a limit refuses; false if it must be handled all the same."""

    def call(self, data: object, answer: Any, within: float) -> Awaitable[Any]:
        """Ask the client, and return its answer as the type ``answer``."""

    def next(self, kind: Any) -> Awaitable[Incoming[Any]]:
        """The next call or notify, its data as the type ``kind``."""

    def flush(self) -> Awaitable[None]:
        """Send what was written by code that cannot wait."""

    def take_no_more(self, why: str) -> None:
        """Refuse the client's calls and notifies with ``not_authorized``."""

    def take_again(self) -> None:
        """Undo :meth:`take_no_more`."""

    def closed(self) -> None:
        """This side has closed the connection: no answer of the client comes any more."""

    def aclose(self) -> Awaitable[None]:
        """Stop everything that belongs to the connection; called once, after its handler has ended."""
