"""``WebSocket``: one connection, on starlette's ``HTTPConnection``.

Its life is a walk through five states, and one table says which call each of them allows::

    init ──connect received──> connect ──accept──> open ──the client leaves──> disconnect
                                  └─────deny, close────┴──close──> closed
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, NoReturn, Protocol, TypeAlias, cast

import msgspec
from starlette.datastructures import URL, URLPath
from starlette.requests import HTTPConnection

from telex import codecs, events
from telex.datastructures import State
from telex.defaults import MAX_MESSAGE_SIZE, MAX_QUEUED_MESSAGES
from telex.event_reader import EventReader
from telex.exceptions import (
    ConnectionStateError,
    ImproperlyConfiguredException,
    WebSocketDisconnect,
    WebSocketException,
)
from telex.sessions import ReadOnlySession
from telex.status_codes import CLOSE_CODE_OF_STATUS
from telex.streams import SendHandler, Streams, send_stream
from telex.types import Message, Mode, Receive, Scope, Send, Transport, TypeEncoder

if sys.version_info >= (3, 13):
    from typing import TypeVar
else:
    from typing_extensions import TypeVar

__all__ = ("TelexApp", "ConnectionOptions", "ConnectionState", "Socket", "WebSocket")

MessageData: TypeAlias = str | bytes | bytearray | memoryview
"""What is a message as it is."""

UserT = TypeVar("UserT", default=Any)
AuthT = TypeVar("AuthT", default=Any)
StateT = TypeVar("StateT", bound=State, default=State)

ConnectionState: TypeAlias = Literal["init", "connect", "receive", "disconnect"]
"""What users see; ``receive`` is an open connection, ``disconnect`` one that has ended from either side."""

_Step: TypeAlias = Literal["init", "connect", "open", "closed", "disconnect"]
_Call: TypeAlias = Literal["accept", "deny", "receive", "send"]

_ALLOWED: Final[Mapping[_Call, frozenset[_Step]]] = {
    "accept": frozenset({"init", "connect"}),
    "deny": frozenset({"init", "connect"}),
    "receive": frozenset({"init", "connect", "open"}),
    "send": frozenset({"init", "connect", "open"}),
}

_WHY_NOT: Final[Mapping[_Step, str]] = {
    "init": "it has not been accepted yet",
    "connect": "it has not been accepted yet",
    "open": "it has been accepted already",
    "closed": "it was closed by this side before",
    "disconnect": "the client has left",
}

_PUBLIC: Final[Mapping[_Step, ConnectionState]] = {
    "init": "init",
    "connect": "connect",
    "open": "receive",
    "closed": "disconnect",
    "disconnect": "disconnect",
}

_SENDS_BEFORE_YIELD: Final = 32

_family: Final[ContextVar[object | None]] = ContextVar("telex_family", default=None)
"""Marks the context of one handler, and so the tasks that it starts. No socket: contexts outlive connections."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What the layers say about a connection: its limits, and how values are written."""

    max_message_size: int = MAX_MESSAGE_SIZE
    """Bytes of one message; a larger one closes with 1009."""
    max_queued_messages: int = MAX_QUEUED_MESSAGES
    """Messages that are read ahead while a handler is busy; then reading stops and TCP pushes back."""
    type_encoders: Mapping[type, TypeEncoder] = field(default_factory=dict)
    encode_json: Callable[[object], bytes] = field(init=False)

    def __post_init__(self) -> None:
        encode = msgspec.json.Encoder(enc_hook=codecs.encoder_hook(self.type_encoders)).encode
        object.__setattr__(self, "encode_json", encode)

    def value_writer(self, mode: Mode) -> codecs.Writer:
        """The function that writes any value: text and bytes as they are, the rest as JSON."""
        return codecs.value_writer(Any, mode, self.type_encoders)


_DEFAULT_OPTIONS: Final = ConnectionOptions()


class TelexApp(Protocol):
    """The ``Telex`` app as its connections see it."""

    @property
    def state(self) -> State:
        """The app's state."""

    @property
    def debug(self) -> bool:
        """Whether clients are told what failed."""

    @property
    def connections(self) -> Collection[Socket]:
        """Every live connection of the app."""

    def route_reverse(self, target: object, **path_parameters: Any) -> str:
        """The path of a handler, given by its name or itself, with these path parameters."""


class WebSocket(HTTPConnection[StateT], Generic[UserT, AuthT, StateT]):
    """One WebSocket connection.

    ``socket.state`` is this connection's own :class:`State`; annotate ``WebSocket[User, Auth, MyState]`` to have
    ``user``, ``auth`` and ``state`` typed. Calls that the state of the connection does not allow raise
    ``ConnectionStateError``; calls after the client has left raise ``WebSocketDisconnect``.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive | None = None,
        send: Send | None = None,
    ) -> None:
        super().__init__(scope)
        self.options: ConnectionOptions = _DEFAULT_OPTIONS
        self.event_reader: EventReader = EventReader(receive or _no_channel)
        self.streams: Streams | None = None
        self.transport: Transport | None = None
        """The server's fast path, once the connection is accepted; ``None`` on servers that have none."""
        self.asgi_send: Send = send or _no_channel
        self.close_code: int | None = None
        """The code that the connection ended with, once it has."""
        self.close_reason: str = ""
        self.ignored_messages: int = 0
        """Messages that came in the mode that the listener does not receive in."""
        self._sent_in_a_row = 0
        self.is_open: bool = False
        """Accepted, and ended by neither side."""
        self._step: _Step = "init"
        self._was_accepted = False
        self._accepting: asyncio.Future[None] | None = None
        self._owner: asyncio.Task[object] | None = None
        self._announce: Callable[[WebSocket[Any, Any, Any]], None] | None = None
        self._family: object | None = None
        self._closer = 0
        self._ended_by = 0  # the exception's id: a reference would be a cycle

    def configure(self, options: ConnectionOptions) -> None:
        """Set the limits and encoders; a session does, so that subclasses need not pass them through ``__init__``."""
        self.options = options
        self.event_reader.max_messages = options.max_queued_messages
        self.event_reader.max_bytes = options.max_message_size

    def own(self, task: asyncio.Task[object] | None) -> None:
        """Let ``task`` alone accept by sending: it serves this connection."""
        self._owner = task
        self.event_reader.owner = task

    def own_tasks(self) -> None:
        """Let the tasks that this context starts from here on accept by sending, too: they are the handler's."""
        self._family = object()
        _family.set(self._family)

    def admit(self, announce: Callable[[WebSocket[Any, Any, Any]], None]) -> None:
        """Guards and dependencies have agreed: call ``announce`` as soon as the connection is open."""
        self._announce = announce
        if self.is_open:
            announce(self)

    # -- what the handshake says

    @property
    def app(self) -> TelexApp:
        """The Telex app that serves this connection."""
        return cast("TelexApp", self.scope["app"])

    @property
    def route_handler(self) -> object:
        """The description of the handler that serves this connection."""
        return self.scope["route_handler"]

    @property
    def state(self) -> StateT:
        """This connection's own state, a view of ``scope["state"]``."""
        if not hasattr(self, "_state"):
            self._state = State(self.scope.setdefault("state", {}))
        return cast("StateT", self._state)

    @property
    def user(self) -> UserT:
        """What an authentication middleware put into the scope."""
        return cast("UserT", self._from_middleware("user", "an authentication middleware"))

    @property
    def auth(self) -> AuthT:
        """What an authentication middleware put into the scope beside ``user``."""
        return cast("AuthT", self._from_middleware("auth", "an authentication middleware"))

    @property
    def session(self) -> Any:
        """The session that a session middleware put into the scope.

        A cookie session (a plain dictionary) is read-only here: a cookie cannot be set once the handshake is answered,
        so a write raises. Sessions that save themselves on the server are given as they are.
        """
        session = self._from_middleware("session", "a session middleware")
        return ReadOnlySession(session) if isinstance(session, dict) else session

    @property
    def logger(self) -> logging.Logger:
        """The logger ``telex``."""
        return logging.getLogger("telex")

    def url_for(self, name: str, /, **path_params: Any) -> URL:
        """The absolute URL of the handler called ``name``.

        :raises NoRouteMatchFoundException: there is none, or it takes other parameters.
        """
        path = URLPath(self.app.route_reverse(name, **path_params), protocol="websocket")
        # Of a mounted app, starlette's base_url is that of the outermost one: our own is where we are mounted.
        return path.make_absolute_url(base_url=self.base_url.replace(path=self.scope.get("root_path", "") or "/"))

    def _from_middleware(self, key: str, middleware: str) -> object:
        if key not in self.scope:
            raise ImproperlyConfiguredException(f"socket.{key} is not there: it needs {middleware} on this route")
        return self.scope[key]

    # -- the opening handshake

    @property
    def connection_state(self) -> ConnectionState:
        """``init``, ``connect`` (the handshake waits for an answer), ``receive`` (open) or ``disconnect``."""
        return _PUBLIC[self._step]

    def has_left(self) -> bool:
        """Whether the client is known to have left; from here on the state says so too.

        The event reader may know it first: it interrupts a busy handler while the state is that of what was read.
        """
        if self.event_reader.disconnect is not None:
            self.lost()
        return self._step == "disconnect"

    @property
    def was_accepted(self) -> bool:
        """Whether this side has completed the handshake; stays true after the connection closes."""
        return self._was_accepted

    async def accept(
        self, subprotocols: str | Sequence[str] | None = None, headers: events.HeaderValues | None = None
    ) -> None:
        """Complete the handshake. Of a list of ``subprotocols`` the first that the client offered is taken.

        :raises ConnectionStateError: the connection was accepted, closed or lost before.
        :raises ValueError: a single subprotocol that was not offered, or a header that is not safe to send.
        """
        if self._accepting is not None or self._step not in _ALLOWED["accept"]:
            self._refuse("accept")
        event = events.accept_event(self.scope, subprotocols, headers)
        accepting = self._accepting = asyncio.get_running_loop().create_future()
        try:
            await self._await_connect()
            await self._wire(cast("Message", event))
            self._step = "open"
            self.is_open = self._was_accepted = True
            self.transport = (self.scope.get("extensions") or {}).get("telex.transport")
            if self.transport is not None:
                self.transport.set_activity(self.event_reader)
                self.event_reader.is_told = True
            if self._announce is not None:
                self._announce(self)
        finally:
            accepting.set_result(None)
            self._accepting = None

    async def deny(
        self,
        status: int = 403,
        body: object = None,
        headers: events.HeaderValues | None = None,
        *,
        code: int | None = None,
    ) -> None:
        """Answer the handshake with an HTTP status instead, where the server can.

        A server without denial responses answers 403 to a close before accept; ``code`` (4000 + status without one) is
        in that event for the code that reads it.

        :raises ConnectionStateError: the handshake was answered before.
        :raises ValueError: a header that is not safe to send.
        """
        if self._accepting is not None or self._step not in _ALLOWED["deny"]:
            self._refuse("deny")
        # Made before anything changes: a denial that cannot be sent leaves the handshake to be answered otherwise.
        answer: tuple[object, ...] = (
            events.denial_events(status, body, headers)
            if events.offers_denial(self.scope)
            else (events.close_event(code or CLOSE_CODE_OF_STATUS + status, ""),)
        )
        await self._await_connect()
        self._step = "closed"
        for event in answer:
            await self._wire(cast("Message", event))

    async def _await_connect(self) -> None:
        if self._step != "init":
            return
        event = await self.event_reader.get()
        if event["type"] != "websocket.connect":
            raise self.lost()
        self._step = "connect"

    async def ensure_accepted(self, call: _Call = "send") -> None:
        """Accept unless that is done. While another task accepts, wait for its end.

        :raises WebSocketDisconnect: the client has left.
        :raises ConnectionStateError: the handshake was refused, or the connection closed; ``call`` is the call
            that it prevents. Or a task that the handler did not start would accept by sending.
        """
        if self._step in {"closed", "disconnect"}:
            self._refuse(call)
        if self._step == "open":
            return
        if self._accepting is None:
            if call == "send" and not self._accepts_by_sending():
                raise ConnectionStateError(
                    "send() by a task that the handler did not start, on a connection that has not been accepted:"
                    " call 'await socket.accept()' in the handler before its socket is given to others"
                )
            await self.accept()
        else:
            await asyncio.shield(self._accepting)
            if not self.is_open:
                self._refuse(call)

    def _accepts_by_sending(self) -> bool:
        task = asyncio.current_task()
        return self._owner in {None, task} or (self._family is not None and _family.get() is self._family)

    # -- the closing handshake

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close the connection; before accept that refuses the handshake. Does nothing once the connection has ended.

        ``reason`` is cut to 123 bytes at a character boundary.

        :raises ValueError: a code that may not be sent (RFC 6455 section 7.4).
        """
        event = events.close_event(code, reason)
        if self._step in {"closed", "disconnect"}:
            return
        await self._await_connect()
        await self.event_reader.stop_reading()
        if self._step in {"closed", "disconnect"}:
            return
        self._step = "closed"
        self.is_open = False
        self.close_code, self.close_reason = event["code"], event["reason"]
        closer = asyncio.current_task()
        self._closer = id(closer)
        self.event_reader.closing = True
        if closer is not self._owner:
            self.event_reader.stop_after_grace(WebSocketDisconnect(event["code"], event["reason"]))
        try:
            await self.asgi_send(cast("Message", event))
        except OSError:
            self.lost()

    def ended_by(self, exc: Exception) -> bool:
        """Whether ``exc`` has ended this connection before; from here on it has."""
        before, self._ended_by = self._ended_by, id(exc)
        return before == id(exc)

    # -- raw events

    async def receive(self) -> Message:
        """The next ASGI event. A disconnect is returned once; then this raises.

        :raises WebSocketDisconnect: the client had left before.
        :raises ConcurrencyError: another task is waiting already.
        """
        if self._step not in _ALLOWED["receive"]:
            self._refuse("receive")
        event = await self.event_reader.get()
        if event["type"] == "websocket.connect":
            self._step = "connect"
        elif event["type"] == "websocket.disconnect":
            self.lost()
        elif is_too_long(event, self.options.max_message_size):
            raise WebSocketException(1009, f"message over {self.options.max_message_size} bytes")
        return event

    async def send(self, event: Message) -> None:
        """Send one ASGI event as it is, if the connection's state allows it."""
        kind = event["type"]
        if kind == "websocket.send":
            if self._step != "open":
                self._refuse("send")
            await self._wire(event)
        elif kind == "websocket.accept":
            await self.accept(event.get("subprotocol"), event.get("headers"))
        elif kind == "websocket.close":
            await self.close(event.get("code", 1000), event.get("reason"))
        else:
            await self._send_denial(event)

    async def _send_denial(self, event: Message) -> None:
        if event["type"] == "websocket.http.response.start":
            if self._step not in _ALLOWED["deny"]:
                self._refuse("deny")
            await self._await_connect()
            self._step = "closed"
        await self._wire(event)

    async def _wire(self, event: Message) -> None:
        if self.event_reader.disconnect is not None:
            raise self.lost()  # some servers accept data that cannot be delivered
        try:
            await self.asgi_send(event)
        except OSError as exc:
            raise self.lost() from exc
        # A send that the transport takes at once does not suspend: a loop of sends would block other tasks.
        self._sent_in_a_row = (self._sent_in_a_row + 1) % _SENDS_BEFORE_YIELD
        if not self._sent_in_a_row:
            await asyncio.sleep(0)

    def lost(self, code: int = 1006, reason: str = "the connection was lost") -> WebSocketDisconnect:
        """Record that nothing can be sent any more; returns how the client left."""
        self._step = "disconnect"
        self.is_open = False
        if self.event_reader.disconnect is None:
            self.event_reader.disconnect = WebSocketDisconnect(code, reason)
        if self.close_code is None:
            self.close_code, self.close_reason = self.event_reader.disconnect.code, self.event_reader.disconnect.reason
        return self.event_reader.disconnect

    def _refuse(self, call: _Call) -> NoReturn:
        if self._step == "disconnect":
            raise self.lost()
        if self._step == "closed" and self.close_code is not None and self._closer != id(asyncio.current_task()):
            raise WebSocketDisconnect(self.close_code, self.close_reason)
        raise ConnectionStateError(
            f"{call}() on a connection in state {self.connection_state!r}: {_WHY_NOT[self._step]}"
        )

    # -- messages in

    async def receive_data(self, mode: Mode) -> str | bytes:
        """The payload of the next message, accepting the connection first if that is not done.

        :raises WebSocketDisconnect: the client left.
        :raises WebSocketException: 1003, the message came in the other mode; 1009, it is too long.
        """
        if self._step != "open":
            await self.ensure_accepted("receive")
        event = await self.receive()
        if event["type"] == "websocket.disconnect":
            raise self.lost()
        data = event.get("text" if mode == "text" else "bytes")
        if data is None:
            raise WrongModeException(mode)
        return cast("str | bytes", data)

    async def receive_text(self) -> str:
        """The next message, which must be text."""
        return cast("str", await self.receive_data("text"))

    async def receive_bytes(self) -> bytes:
        """The next message, which must be binary."""
        return cast("bytes", await self.receive_data("binary"))

    async def receive_json(self, mode: Mode = "text") -> Any:
        """The next message, decoded from JSON.

        :raises ValidationException: it is no valid JSON.
        """
        return _decoded(_decode_json, await self.receive_data(mode))

    async def receive_msgpack(self) -> Any:
        """The next message, binary, decoded from MessagePack.

        :raises ValidationException: it is no valid MessagePack.
        """
        return _decoded(_decode_msgpack, await self.receive_data("binary"))

    async def iter_data(self, mode: Mode = "text") -> AsyncGenerator[str | bytes, None]:
        """Every message until the client leaves."""
        try:
            while True:
                yield await self.receive_data(mode)
        except WebSocketDisconnect:
            return

    async def iter_text(self) -> AsyncGenerator[str, None]:
        """Every text message until the client leaves."""
        async for data in self.iter_data("text"):
            yield cast("str", data)

    async def iter_bytes(self) -> AsyncGenerator[bytes, None]:
        """Every binary message until the client leaves."""
        async for data in self.iter_data("binary"):
            yield cast("bytes", data)

    async def iter_json(self, mode: Mode = "text") -> AsyncGenerator[Any, None]:
        """Every message, decoded from JSON, until the client leaves."""
        async for data in self.iter_data(mode):
            yield _decoded(_decode_json, data)

    async def iter_msgpack(self) -> AsyncGenerator[Any, None]:
        """Every binary message, decoded from MessagePack, until the client leaves."""
        async for data in self.iter_data("binary"):
            yield _decoded(_decode_msgpack, data)

    # -- messages out

    async def send_data(self, data: str | bytes, mode: Mode = "text", encoding: str = "utf-8") -> None:
        """Send one message in ``mode``, accepting the connection first if that is not done.

        Waits while the transport asks for it.

        :raises WebSocketDisconnect: the client has left.
        """
        if self._step != "open":
            await self.ensure_accepted("send")
        if mode == "text":
            payload: str | bytes = data if data.__class__ is str else codecs.as_text(data, encoding)
        else:
            payload = data if data.__class__ is bytes else codecs.as_bytes(data, encoding)
        if self.transport is not None:
            await self._send_fast(self.transport, payload)
        else:
            await self._wire({"type": "websocket.send", "text" if mode == "text" else "bytes": payload})

    async def _send_fast(self, transport: Transport, payload: str | bytes) -> None:
        try:
            if not transport.send(payload):
                await transport.drain()
        except OSError as exc:
            raise self.lost() from exc

    async def send_text(self, data: MessageData, encoding: str = "utf-8") -> None:
        """Send a text message."""
        await self.send_data(data if isinstance(data, (str, bytes)) else bytes(data), "text", encoding)

    async def send_bytes(self, data: MessageData, encoding: str = "utf-8") -> None:
        """Send a binary message."""
        await self.send_data(data if isinstance(data, (str, bytes)) else bytes(data), "binary", encoding)

    async def send_json(
        self, data: object, mode: Mode = "text", serializer: Callable[[Any], object] | None = None
    ) -> None:
        """Send ``data`` as JSON, with the layers' ``type_encoders``, or ``serializer`` for what JSON does not have."""
        raw = msgspec.json.encode(data, enc_hook=serializer) if serializer else self.options.encode_json(data)
        await self.send_data(raw, mode)

    async def send_msgpack(self, data: object, serializer: Callable[[Any], object] | None = None) -> None:
        """Send ``data`` as MessagePack in a binary message, with the layers' ``type_encoders`` or ``serializer``."""
        enc_hook = serializer or codecs.encoder_hook(self.options.type_encoders)
        await self.send_data(msgspec.msgpack.encode(data, enc_hook=enc_hook), "binary")

    # -- streams beside the handler

    def start_stream(
        self,
        stream: AsyncIterator[object],
        *,
        mode: Mode = "text",
        send_handler: SendHandler | None = None,
    ) -> asyncio.Task[None]:
        """Send what ``stream`` yields while this handler continues to receive; returns the task that sends.

        The connection owns it: it is cancelled, and the generator closed, when the handler or the connection ends. What
        it raises ends the connection as if the handler had raised it. ``task.cancel()`` stops it earlier.

        :raises ConnectionStateError: no handler of Telex runs on this connection.
        """
        if self.streams is None:
            raise ConnectionStateError("start_stream() outside of a handler: use send_websocket_stream(socket, stream)")
        if not self._was_accepted and not self._accepts_by_sending():
            raise ConnectionStateError(
                "start_stream() by a task that the handler did not start, on a connection that has not been accepted:"
                " call 'await socket.accept()' in the handler first"
            )
        return self.streams.start(send_stream(self, stream, self.options.value_writer(mode), mode, send_handler))


class WrongModeException(WebSocketException):
    """A message came in the mode that was not asked for; closes with 1003 unless it is caught."""

    def __init__(self, mode: Mode) -> None:
        super().__init__(1003, f"expected a {mode} message")


def _decoded(decode: Callable[[str | bytes], Any], data: str | bytes) -> Any:
    try:
        return decode(data)
    except Exception as exc:
        invalid = codecs.as_validation_error(exc)
        if invalid is None:
            raise
        raise invalid from exc


def _decode_msgpack(data: str | bytes) -> Any:
    return msgspec.msgpack.decode(cast("bytes", data))


_decode_json: Final = msgspec.json.Decoder().decode


def is_too_long(event: Message, limit: int) -> bool:
    """Whether the message has more than ``limit`` bytes on the wire."""
    data = event.get("text")
    if data is None:
        return len(event.get("bytes") or b"") > limit
    return len(data) * 4 > limit and len(data.encode("utf-8", "surrogatepass")) > limit


async def _no_channel(*_: object) -> NoReturn:
    raise ConnectionStateError("this WebSocket was made without an ASGI receive and send")


Socket: TypeAlias = WebSocket[Any, Any, Any]
"""A connection whatever its user, auth and state are."""
