"""``WebSocket``: one connection, on starlette's ``HTTPConnection``.

A connection has five states; the table ``_ALLOWED`` lists the calls that each state allows::

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
"""The types that are sent without being serialized."""

UserT = TypeVar("UserT", default=Any)
AuthT = TypeVar("AuthT", default=Any)
StateT = TypeVar("StateT", bound=State, default=State)

ConnectionState: TypeAlias = Literal["init", "connect", "receive", "disconnect"]
"""The public states: ``receive`` is an open connection, ``disconnect`` one that either side has ended."""

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
    "closed": "it was closed by this side",
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
"""Marks the context of one handler; tasks that the handler starts inherit it.

It holds a plain object and not the socket, because a context can outlive its connection."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """The layers' options for a connection: its limits and its type encoders."""

    max_message_size: int = MAX_MESSAGE_SIZE
    """Bytes of one message; a larger one closes with 1009."""
    max_queued_messages: int = MAX_QUEUED_MESSAGES
    """Messages that are read ahead while a handler is busy; then reading stops and TCP slows the client down."""
    type_encoders: Mapping[type, TypeEncoder] = field(default_factory=dict)
    encode_json: Callable[[object], bytes] = field(init=False)

    def __post_init__(self) -> None:
        encode = msgspec.json.Encoder(enc_hook=codecs.encoder_hook(self.type_encoders)).encode
        object.__setattr__(self, "encode_json", encode)

    def value_writer(self, mode: Mode) -> codecs.Writer:
        """The function that writes any value: text and bytes unchanged, other values as JSON."""
        return codecs.value_writer(Any, mode, self.type_encoders)


_DEFAULT_OPTIONS: Final = ConnectionOptions()


class TelexApp(Protocol):
    """The part of the ``Telex`` app that its connections use."""

    @property
    def state(self) -> State:
        """The app's state."""

    @property
    def debug(self) -> bool:
        """Whether error details are sent to clients."""

    @property
    def connections(self) -> Collection[Socket]:
        """Every live connection of the app."""

    def route_reverse(self, target: object, **path_parameters: Any) -> str:
        """The path of a handler with these path parameters; ``target`` is the handler or its name."""


class WebSocket(HTTPConnection[StateT], Generic[UserT, AuthT, StateT]):
    """One WebSocket connection.

    ``socket.state`` is the :class:`State` of this connection; annotate ``WebSocket[User, Auth, MyState]`` to type
    ``user``, ``auth`` and ``state``. Calls that the state of the connection does not allow raise
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
        """The server's fast path, set by accept; ``None`` on servers without one."""
        self.asgi_send: Send = send or _no_channel
        self.close_code: int | None = None
        """The code that the connection ended with; ``None`` until then."""
        self.close_reason: str = ""
        self.ignored_messages: int = 0
        """Messages that were ignored because the listener does not receive their mode."""
        self._sent_in_a_row = 0
        self.is_open: bool = False
        """Whether the connection is accepted and neither side has ended it."""
        self._step: _Step = "init"
        self._was_accepted = False
        self._accepting: asyncio.Future[None] | None = None
        self._owner: asyncio.Task[object] | None = None
        self._announce: Callable[[WebSocket[Any, Any, Any]], None] | None = None
        self._family: object | None = None
        self._closer = 0
        self._ended_by = 0  # the exception's id: a reference would be a cycle

    def configure(self, options: ConnectionOptions) -> None:
        """Set the limits and encoders. The session calls this, so subclasses need not pass them to ``__init__``."""
        self.options = options
        self.event_reader.max_messages = options.max_queued_messages
        self.event_reader.max_bytes = options.max_message_size

    def own(self, task: asyncio.Task[object] | None) -> None:
        """Make ``task`` the only task that accepts by sending: it serves this connection."""
        self._owner = task
        self.event_reader.owner = task

    def own_tasks(self) -> None:
        """Allow tasks that this context starts from now on to accept by sending: they belong to the handler."""
        self._family = object()
        _family.set(self._family)

    def admit(self, announce: Callable[[WebSocket[Any, Any, Any]], None]) -> None:
        """Guards and dependencies have passed: call ``announce`` as soon as the connection is open."""
        self._announce = announce
        if self.is_open:
            announce(self)

    # -- values of the handshake

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
        """The state of this connection, a view of ``scope["state"]``."""
        if not hasattr(self, "_state"):
            self._state = State(self.scope.setdefault("state", {}))
        return cast("StateT", self._state)

    @property
    def user(self) -> UserT:
        """The ``user`` that an authentication middleware put into the scope."""
        return cast("UserT", self._from_middleware("user", "an authentication middleware"))

    @property
    def auth(self) -> AuthT:
        """The ``auth`` that an authentication middleware put into the scope."""
        return cast("AuthT", self._from_middleware("auth", "an authentication middleware"))

    @property
    def session(self) -> Any:
        """The session that a session middleware put into the scope.

        A cookie session (a plain dictionary) is read-only here: a cookie cannot be set after the handshake is
        answered, so a write raises. Session objects that save themselves on the server are returned unchanged.
        """
        session = self._from_middleware("session", "a session middleware")
        return ReadOnlySession(session) if isinstance(session, dict) else session

    @property
    def logger(self) -> logging.Logger:
        """The logger ``telex``."""
        return logging.getLogger("telex")

    def url_for(self, name: str, /, **path_params: Any) -> URL:
        """The absolute URL of the handler called ``name``.

        :raises NoRouteMatchFoundException: no handler has this name, or the handler takes other parameters.
        """
        path = URLPath(self.app.route_reverse(name, **path_params), protocol="websocket")
        # In a mounted app, starlette's base_url is that of the outermost app; this app's base is its mount path.
        return path.make_absolute_url(base_url=self.base_url.replace(path=self.scope.get("root_path", "") or "/"))

    def _from_middleware(self, key: str, middleware: str) -> object:
        if key not in self.scope:
            raise ImproperlyConfiguredException(f"socket.{key} is not set: it needs {middleware} on this route")
        return self.scope[key]

    # -- the opening handshake

    @property
    def connection_state(self) -> ConnectionState:
        """``init``, ``connect`` (the handshake waits for an answer), ``receive`` (open) or ``disconnect``."""
        return _PUBLIC[self._step]

    def has_left(self) -> bool:
        """Whether the client has left. Updates ``connection_state`` to match.

        The event reader can receive the disconnect before the handler does; the state then still describes the last
        event that the handler received.
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
        """Complete the handshake. With a list of ``subprotocols``, select the first one that the client offered.

        :raises ConnectionStateError: the connection is already accepted, closed or lost.
        :raises ValueError: the client did not offer the single subprotocol, or a header is not safe to send.
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
        """Refuse the handshake with an HTTP status, if the server supports denial responses.

        Other servers answer 403 to a close before accept. ``code`` (default: 4000 + ``status``) is the code of that
        close event, for middleware that reads it.

        :raises ConnectionStateError: the handshake is already answered.
        :raises ValueError: a header is not safe to send.
        """
        if self._accepting is not None or self._step not in _ALLOWED["deny"]:
            self._refuse("deny")
        # Built before the state changes: after an invalid denial the caller can still answer the handshake.
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
        """Accept the connection unless it is accepted. If another task is accepting, wait for it.

        ``call`` is the caller's method, for error messages.

        :raises WebSocketDisconnect: the client has left.
        :raises ConnectionStateError: the handshake was refused, the connection is closed, or a task that the handler
            did not start would accept by sending.
        """
        if self._step in {"closed", "disconnect"}:
            self._refuse(call)
        if self._step == "open":
            return
        if self._accepting is None:
            if call == "send" and not self._accepts_by_sending():
                raise ConnectionStateError(
                    "send() by a task that the handler did not start, on a connection that has not been accepted:"
                    " call 'await socket.accept()' in the handler before other tasks use the socket"
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
        """Close the connection, or refuse the handshake before accept. Does nothing after the connection has ended.

        ``reason`` is cut to 123 bytes at a character boundary.

        :raises ValueError: RFC 6455 section 7.4 forbids sending this code.
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
        """Record that ``exc`` ends this connection; returns whether it was already recorded."""
        before, self._ended_by = self._ended_by, id(exc)
        return before == id(exc)

    # -- raw events

    async def receive(self) -> Message:
        """The next ASGI event. Returns the disconnect event once, then raises.

        :raises WebSocketDisconnect: a disconnect event was already returned.
        :raises ConcurrencyError: another task is already waiting in ``receive``.
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
        """Send one ASGI event unchanged.

        :raises ConnectionStateError: the connection's state does not allow it.
        :raises WebSocketDisconnect: the client has left.
        """
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
        # A send that the transport accepts immediately does not suspend, so a loop of sends would block other tasks.
        self._sent_in_a_row = (self._sent_in_a_row + 1) % _SENDS_BEFORE_YIELD
        if not self._sent_in_a_row:
            await asyncio.sleep(0)

    def lost(self, code: int = 1006, reason: str = "the connection was lost") -> WebSocketDisconnect:
        """Mark the connection as lost; returns the exception that describes how the client left."""
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
        """Return the payload of the next message. Accepts the connection first if necessary.

        :raises WebSocketDisconnect: the client left.
        :raises WebSocketException: 1003 when the message has the other mode, 1009 when it is too long.
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

        :raises ValidationException: the message is not valid JSON.
        """
        return _decoded(_decode_json, await self.receive_data(mode))

    async def receive_msgpack(self) -> Any:
        """The next message, binary, decoded from MessagePack.

        :raises ValidationException: the message is not valid MessagePack.
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
        """Send one message in ``mode``. Accepts the connection first if necessary.

        Waits while the transport's write buffer is full.

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
        """Send ``data`` as JSON. ``serializer`` replaces the layers' ``type_encoders`` for types that JSON lacks."""
        raw = msgspec.json.encode(data, enc_hook=serializer) if serializer else self.options.encode_json(data)
        await self.send_data(raw, mode)

    async def send_msgpack(self, data: object, serializer: Callable[[Any], object] | None = None) -> None:
        """Send ``data`` as MessagePack in a binary message. ``serializer`` replaces the layers' ``type_encoders``."""
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
        """Send the items of ``stream`` while this handler continues to receive; returns the sending task.

        When the handler or the connection ends, the task is cancelled and the generator closed. An exception in the
        task ends the connection as if the handler had raised it. ``task.cancel()`` stops the stream earlier.

        :raises ConnectionStateError: no Telex handler runs on this connection.
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
    """A message has the other mode than the caller requested; closes with 1003 unless it is caught."""

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
"""A connection with any types of user, auth and state."""
