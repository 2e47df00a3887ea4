"""The types at Telex's interfaces: ASGI's scope, events and callables, and users' callables.

Event shapes are those of the ASGI WebSocket specification 2.4 (https://asgi.readthedocs.io/en/latest/specs/www.html).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final, Literal, NamedTuple, NotRequired, Protocol, TypeAlias, TypedDict

__all__ = (
    "BINARY_OPCODE",
    "TEXT_OPCODE",
    "ASGIApp",
    "AcceptEvent",
    "Activity",
    "CloseEvent",
    "DenialBodyEvent",
    "DenialStartEvent",
    "DirectSend",
    "ExceptionHandler",
    "Message",
    "Middleware",
    "Mode",
    "RawHeaders",
    "Receive",
    "Scope",
    "Send",
    "SendEvent",
    "Transport",
    "TypeDecoder",
    "TypeEncoder",
)

Scope: TypeAlias = MutableMapping[str, Any]
"""An ASGI connection scope. Its values are whatever servers and middleware put there, hence ``Any``."""

Message: TypeAlias = MutableMapping[str, Any]
"""An ASGI event, either direction."""

Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]

Mode: TypeAlias = Literal["text", "binary"]
"""The opcode of a data frame (RFC 6455 section 5.6): it says how bytes travel, not what they mean."""


TEXT_OPCODE: Final = 0x1
BINARY_OPCODE: Final = 0x2
"""The opcodes of the two modes on the wire (RFC 6455 section 11.8)."""


class AcceptEvent(TypedDict):
    """``websocket.accept``: completes the opening handshake."""

    type: Literal["websocket.accept"]
    subprotocol: str | None
    headers: list[tuple[bytes, bytes]]


class SendEvent(TypedDict):
    """``websocket.send``: one data message, text or binary."""

    type: Literal["websocket.send"]
    text: NotRequired[str]
    bytes: NotRequired[bytes]


class CloseEvent(TypedDict):
    """``websocket.close``: starts the closing handshake, or refuses the opening one."""

    type: Literal["websocket.close"]
    code: int
    reason: str


class DenialStartEvent(TypedDict):
    """``websocket.http.response.start``: answers the opening handshake with an HTTP status."""

    type: Literal["websocket.http.response.start"]
    status: int
    headers: list[tuple[bytes, bytes]]


class DenialBodyEvent(TypedDict):
    """``websocket.http.response.body``: the body of a denial."""

    type: Literal["websocket.http.response.body"]
    body: bytes
    more_body: NotRequired[bool]


class Activity(Protocol):
    """Whether there is work on a connection."""

    @property
    def busy(self) -> bool:
        """A handler or a stream runs, and does not wait for the client."""

    def on_end(self, code: int, reason: str) -> None:
        """The connection has ended, or the application closes it; ``receive`` says so after the messages before it."""


class DirectSend(NamedTuple):
    """The shortest way to a client, as :meth:`Transport.open_direct` offers it."""

    send: Callable[[int, bytes], object]
    """Writes one message, by its opcode."""
    limit: int
    """Bytes of the longest message that may go this way."""


class Transport(Protocol):
    """The fast path that a server may offer as ``scope["extensions"]["telex.transport"]``.

    It carries messages without event dictionaries once the connection is accepted. Everything here belongs to the
    event loop's thread. A server that offers it still speaks plain ASGI to apps that do not use it.
    """

    def set_message_handler(self, handler: Callable[[str | bytes], None] | None) -> None:
        """Deliver each message to ``handler`` inside the frame callback; ``None`` goes back to the receive queue.

        Messages that already wait in the receive queue are delivered first, in order. A handler may set ``None`` while
        it is being called: messages after that one wait in the queue. While the write buffer is above its high mark
        the server stops reading, so that a client that does not read is not read from either.
        """

    def hand_over(self, data: str | bytes) -> None:
        """Leave ``data``, and the messages after it, to :meth:`receive`: for a handler that is called with ``data``."""

    def send(self, data: str | bytes) -> bool:
        """Write one message, text or binary by its type; false when :meth:`drain` should be awaited before the next.

        :raises OSError: the connection is closing or closed.
        """

    def open_direct(self, on_end: Callable[[], None]) -> DirectSend | None:
        """A function that writes at once, for sending one message to many; ``None`` while that is not possible.

        It is not possible either while little is sent on this connection: most connections never need its memory.

        It may be called until ``on_end`` is, which happens inside whatever makes it invalid: the write buffer passes
        its high mark, replies are being gathered, the connection closes. It never waits: code that sends many
        messages in a row must yield to the event loop itself. :meth:`close_direct` forgets ``on_end``.
        """

    def close_direct(self, on_end: Callable[[], None]) -> None:
        """Call ``on_end`` no more; harmless when it was called already."""

    async def drain(self) -> None:
        """Wait until the write buffer is below its low mark.

        :raises OSError: the connection was lost meanwhile.
        """

    def set_end_handler(self, handler: Callable[[], None]) -> None:
        """Call ``handler`` once when the connection ends, whatever still waits in the receive queue."""

    def set_activity(self, activity: Activity) -> None:
        """Ask ``activity`` whether the application works for this connection, and call it at the connection's end.

        Waiting for messages looks idle to a server; an application that waits only to notice that the client leaves is
        not. A drain leaves connections with work to finish.
        """

    async def receive(self) -> str | bytes | None:
        """The next message, or ``None`` once the connection ends: ASGI's ``receive`` then has the disconnect event."""


ExceptionHandler: TypeAlias = Callable[[Any, Any], object]
"""Takes the socket and the exception, which a handler may annotate with subclasses of its own.

Its result (awaited if awaitable) is the reply; ``None`` sends none.
"""

Middleware: TypeAlias = Callable[[ASGIApp], ASGIApp]
"""A plain ASGI middleware factory."""

TypeEncoder: TypeAlias = Callable[[Any], object]
"""Turns a value into something that JSON has."""

TypeDecoder: TypeAlias = tuple[Callable[[type], bool], Callable[[type, Any], object]]
"""A predicate over the wanted type, and a function ``(type, plain value) -> value``."""

TypeEncoders: TypeAlias = Mapping[type, TypeEncoder]
