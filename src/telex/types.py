"""The types at Telex's interfaces: ASGI's scope, events and callables, and users' callables.

The events are those of the ASGI WebSocket specification 2.4 (https://asgi.readthedocs.io/en/latest/specs/www.html).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextvars import Context
from typing import Any, Final, Literal, NamedTuple, NotRequired, Protocol, TypeAlias, TypedDict

__all__ = (
    "BINARY_OPCODE",
    "TEXT_OPCODE",
    "ASGIApp",
    "AcceptEvent",
    "Activity",
    "Authentication",
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
    "RouteConnection",
    "Scope",
    "Send",
    "TellAnswer",
    "ServerConnection",
    "Transport",
    "TypeDecoder",
    "TypeEncoder",
    "ActivityWatcher",
)

Scope: TypeAlias = MutableMapping[str, Any]
"""An ASGI connection scope. The values are ``Any`` because servers and middleware define them."""

Message: TypeAlias = MutableMapping[str, Any]
"""An ASGI event, received or sent."""

Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]

Mode: TypeAlias = Literal["text", "binary"]
"""The opcode of a data frame (RFC 6455 section 5.6): text or binary, independent of the content's format."""


TEXT_OPCODE: Final = 0x1
BINARY_OPCODE: Final = 0x2
"""The opcodes of the two modes on the wire (RFC 6455 section 11.8)."""


class AcceptEvent(TypedDict):
    """``websocket.accept``: completes the opening handshake."""

    type: Literal["websocket.accept"]
    subprotocol: str | None
    headers: list[tuple[bytes, bytes]]
    refused_with: NotRequired[int]
    """The HTTP status of a refusal in the socket, which Telex's server logs. ASGI has no such key."""


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
    """The application's side of a connection: whether it is busy, and a callback for the connection's end."""

    @property
    def busy(self) -> bool:
        """Whether a handler or a stream is running that does not wait for the client."""

    @property
    def waits(self) -> bool:
        """Whether the application lets the client's messages wait, so that closing now interrupts no work."""

    def on_end(self, code: int, reason: str) -> None:
        """Called when the connection ends. ``receive`` returns the disconnect only after all earlier messages."""

    def go_away(self, within: float, retry_after: float) -> bool:
        """Tell the client to open another connection, after ``retry_after`` seconds, and to leave this one in time.

        Called when a drain begins. Returns false if the client cannot be told: it does not speak telex.v1.
        """


class ActivityWatcher(Protocol):
    """The server's side of a connection, as ``scope["extensions"]["telex.activity"]``, behind middleware too."""

    def set_activity(self, activity: Activity) -> None:
        """Set the object that says whether the application is busy, and that is called by the server.

        The server cannot detect this itself: an application can wait in ``receive`` only to detect a disconnect while
        it is busy. A drain lets busy connections finish their work.
        """


class ServerConnection(ActivityWatcher, Protocol):
    """What Telex's server puts into ``scope["extensions"]["telex.activity"]``."""

    def compress_alone(self) -> None:
        """Compress each message by itself; called before the connection is accepted.

        A window that is kept between messages tells how similar they are, so messages of different trust need this.
        """


TellAnswer: TypeAlias = Callable[[tuple[str, str] | None], None]
"""Answers a new token: ``None`` says that it was taken, otherwise the code and the text of the error."""


class Authentication(Protocol):
    """Who the client of a connection is, and until when: :class:`telex.auth.connection.ConnectionIdentity`."""

    @property
    def hello(self) -> Mapping[str, object]:
        """What ``hello`` says of it."""

    @property
    def expires_in(self) -> float | None:
        """Seconds until the token expires; ``None`` if it does not."""

    @property
    def is_awaited(self) -> bool:
        """Whether the connection is accepted before a token has come, and takes nothing else."""

    def begin(self) -> None:
        """The connection is open, and its guards have passed."""

    def renew(self, token: str, tell: TellAnswer) -> bool:
        """Check a new token beside the handler, then call ``tell``; false while another is being checked."""

    def aclose(self) -> Awaitable[None]:
        """The connection has ended."""


class FedRoute(Protocol):
    """What takes the messages of a route."""

    def on_message(self, raw: str | bytes) -> None:
        """Take one message of the client."""


class RouteConnection(Protocol):
    """The connection of a route on a shared socket, as ``scope["telex.multiplexed"]``."""

    context: Context
    """That of the handler while it rests; set before :meth:`rest`."""

    @property
    def path(self) -> str:
        """The path that the client has opened, percent-encoded."""

    @property
    def query(self) -> str:
        """The query string that the client has opened it with."""

    @property
    def shared(self) -> object:
        """The session of the shared socket, which is its ``envelope``."""

    @property
    def authentication(self) -> Authentication | None:
        """Who the client of the shared socket is, where ``authenticate`` is given on it."""

    async def receive(self) -> Message:
        """ASGI's ``receive``; a connection that has another one is behind middleware."""

    def rest(self, go_on: Callable[[Any], Awaitable[None]], socket: object) -> None:
        """The task of the route ends, which is idle: :meth:`wake` calls ``go_on(socket)`` in another."""

    def wake(self) -> None:
        """Go on after :meth:`rest`: there is a message, or the connection ends."""

    def set_activity(self, activity: Activity) -> None:
        """See :meth:`ActivityWatcher.set_activity`."""

    def feed(self, fed: FedRoute) -> None:
        """Give each message to ``fed`` where it is read, the early ones now; the end is told to the activity alone."""

    def write(self, payload: str | bytes) -> None:
        """Send a frame that takes no credit of the client, from code that cannot wait.

        :raises OSError: the route has ended.
        """

    def write_now(self, payload: str | bytes) -> bool:
        """The same if no message waits to be sent on the socket; false if the payload must be sent.

        :raises OSError: the route or the socket has ended.
        """

    def has_room(self, size: int, times: int = 1) -> bool:
        """Whether the window of the socket has room for ``size`` more bytes; with ``times``, one that is larger."""

    def count_bytes(self, size: int) -> None:
        """Take ``size`` bytes of the window of the socket, or give them back if negative."""


class DirectSend(NamedTuple):
    """A function that writes directly to a client; see :meth:`Transport.open_direct`."""

    send: Callable[[int, bytes], object]
    """Writes one message; takes its opcode and payload."""
    limit: int
    """Bytes of the longest message that ``send`` accepts."""


class Transport(Protocol):
    """The fast path that a server may offer as ``scope["extensions"]["telex.transport"]``.

    It transfers messages without event dictionaries after the connection is accepted. Call its methods only in the
    event loop's thread. A server that offers it still supports plain ASGI for apps that do not use it.
    """

    @property
    def unread(self) -> int:
        """The number of messages that :meth:`receive` has not returned, with those dropped after the client left."""

    @property
    def unsent(self) -> int:
        """Bytes that wait until the client reads."""

    def set_message_handler(self, handler: Callable[[str | bytes], None] | None) -> None:
        """Deliver each message to ``handler`` inside the frame callback; ``None`` restores the receive queue.

        Messages in the receive queue are delivered first, in order. A handler can set ``None`` while it is called:
        later messages are then queued. While the write buffer is above its high-water mark, the server stops reading,
        so that a client that does not read cannot send either.
        """

    def hand_over(self, data: str | bytes) -> None:
        """Queue ``data`` and later messages for :meth:`receive`; called by a handler that was called with ``data``."""

    def send(self, data: str | bytes) -> bool:
        """Write one message, text or binary by its type. Returns false if the caller should await :meth:`drain`.

        :raises OSError: the connection is closing or closed.
        """

    def open_direct(self, on_end: Callable[[], None]) -> DirectSend | None:
        """A function that writes immediately, to send one message to many connections; ``None`` if not available.

        To save memory, it is not available on connections that send little.

        The function is valid until ``on_end`` is called: when the write buffer passes its high-water mark, replies are
        being batched, or the connection closes. It never waits: code that sends many messages in a row must yield to
        the event loop. :meth:`close_direct` unregisters ``on_end``.
        """

    def close_direct(self, on_end: Callable[[], None]) -> None:
        """Unregister ``on_end``. Does nothing if it was already called."""

    async def drain(self) -> None:
        """Wait until the write buffer is below its low-water mark.

        :raises OSError: the connection was lost.
        """

    async def receive(self) -> str | bytes | None:
        """The next message, or ``None`` after the end; ASGI's ``receive`` then returns the disconnect event."""


ExceptionHandler: TypeAlias = Callable[[Any, Any], object]
"""Takes the socket and the exception; the user's function can annotate both with subclasses.

Its result (awaited if awaitable) is the reply; ``None`` sends no reply.
"""

Middleware: TypeAlias = Callable[[ASGIApp], ASGIApp]
"""A plain ASGI middleware factory."""

TypeEncoder: TypeAlias = Callable[[Any], object]
"""Converts a value to a type that JSON supports."""

TypeDecoder: TypeAlias = tuple[Callable[[type], bool], Callable[[type, Any], object]]
"""A predicate that takes the annotated type, and a function ``(type, plain value) -> value``."""

TypeEncoders: TypeAlias = Mapping[type, TypeEncoder]
