"""``WebSocket``: what a handler reads from a connection, and the messages that it receives and sends."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from functools import cached_property, partial
from typing import Any, Final, Generic, Protocol, TypeAlias, cast, overload

import msgspec
from starlette.datastructures import URL, URLPath

from telex import codecs
from telex.connection_state import ConnectionOptions, ConnectionState, StatefulConnection
from telex.datastructures import State
from telex.defaults import MAX_INVALID_MESSAGES
from telex.exceptions import (
    ConnectionStateError,
    ImproperlyConfiguredException,
    WebSocketDisconnect,
    WebSocketException,
)
from telex.headers import read_cookies
from telex.plain_incoming import PlainMessages
from telex.protocol.envelope import SUBPROTOCOL, Incoming
from telex.sessions import ReadOnlySession
from telex.streams import SendHandler, send_stream
from telex.types import Mode, Transport

if sys.version_info >= (3, 13):
    from typing import TypeVar
else:
    from typing_extensions import TypeVar

__all__ = ("TelexApp", "ConnectionOptions", "ConnectionState", "Socket", "WebSocket")

MessageData: TypeAlias = str | bytes | bytearray | memoryview
"""The types that are sent without being serialized."""

AnswerT = TypeVar("AnswerT")
DataT = TypeVar("DataT")
UserT = TypeVar("UserT", default=Any)
AuthT = TypeVar("AuthT", default=Any)
StateT = TypeVar("StateT", bound=State, default=State)


class AppUsers(Protocol):
    """What connections see of :class:`telex.users.people.Users`."""

    async def notify(self, user: object, value: object) -> None:
        """Send ``value`` to each socket of ``user``, on all nodes."""

    async def close(self, user: object, code: int = ..., reason: str = ...) -> None:
        """Close the connections of ``user``, on all nodes."""

    async def count(self, user: object, *, within: float = ...) -> int:
        """The number of sockets of ``user``, on all nodes."""

    def connections(self, user: object) -> Collection[Socket]:
        """The connections of ``user`` in this process."""


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

    @property
    def users(self) -> AppUsers:
        """The connections of each user."""

    def route_reverse(self, target: object, **path_parameters: Any) -> str:
        """The path of a handler with these path parameters; ``target`` is the handler or its name."""


class WebSocket(StatefulConnection[StateT], Generic[UserT, AuthT, StateT]):
    """One WebSocket connection.

    ``socket.state`` is the :class:`State` of this connection; annotate ``WebSocket[User, Auth, MyState]`` to type
    ``user``, ``auth`` and ``state``. Calls that the state of the connection does not allow raise
    ``ConnectionStateError``; calls after the client has left raise ``WebSocketDisconnect``.
    """

    # -- values of the handshake

    @property
    def app(self) -> TelexApp:
        """The Telex app that serves this connection."""
        return cast("TelexApp", self.scope["app"])

    @property
    def route_handler(self) -> object:
        """The description of the handler that serves this connection."""
        return self.scope["route_handler"]

    @cached_property
    def cookies(self) -> dict[str, str]:
        """The cookies of the handshake."""
        return read_cookies(self.headers.getlist("cookie"))

    @property
    def state(self) -> StateT:
        """The state of this connection, a view of ``scope["state"]``."""
        if not hasattr(self, "_state"):
            self._state = State(self.scope.setdefault("state", {}))
        return cast("StateT", self._state)

    @property
    def user(self) -> UserT:
        """The user of the newest token, or the ``user`` that an authentication middleware put into the scope."""
        return cast("UserT", self._from_middleware("user", "authenticate=, or an authentication middleware"))

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

    # -- messages in

    async def receive_data(self, mode: Mode) -> str | bytes:
        """Return the payload of the next message. Accepts the connection first if necessary.

        In telex.v1 the message is the data of a call or notify; a call is answered with an empty reply as soon as it is
        received. Use :meth:`incoming` to answer calls.

        :raises WebSocketDisconnect: the client left.
        :raises WebSocketException: 1003 when the message has the other mode, 1009 when it is too long.
        """
        if self._step != "open":
            await self.ensure_accepted("receive")
        if self.envelope is not None:
            return cast("str | bytes", await self._receive_framed(str if mode == "text" else bytes))
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
        if self._step != "open":
            await self.ensure_accepted("receive")
        if self.envelope is not None:
            return await self._receive_framed(Any)
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
        try:
            while True:
                yield await self.receive_json(mode)
        except WebSocketDisconnect:
            return

    async def iter_msgpack(self) -> AsyncGenerator[Any, None]:
        """Every binary message, decoded from MessagePack, until the client leaves."""
        async for data in self.iter_data("binary"):
            yield _decoded(_decode_msgpack, data)

    @overload
    def incoming(self, kind: type[DataT]) -> AsyncGenerator[Incoming[DataT], None]: ...

    @overload
    def incoming(self, kind: Any = ...) -> AsyncGenerator[Incoming[Any], None]: ...

    async def incoming(self, kind: Any = Any) -> AsyncGenerator[Incoming[Any], None]:
        """Every call and notify of a client that speaks telex.v1, until it leaves, with ``data`` of type ``kind``.

        In plain mode every message, and answers are messages. Data of another type is answered with an error.
        """
        if self._step != "open":
            await self.ensure_accepted("receive")
        take: Callable[[], Awaitable[Incoming[Any]]]
        if self.envelope is not None:
            take = partial(self.envelope.next, kind)
        else:
            take = PlainMessages(self, kind, self.options.type_decoders, MAX_INVALID_MESSAGES).next
        try:
            while True:
                yield await take()
        except WebSocketDisconnect:
            return

    async def _receive_framed(self, kind: Any) -> Any:
        if self.envelope is None:
            raise ConnectionStateError("this connection is in plain mode")
        message = await self.envelope.next(kind)
        await message.reply()
        return message.data

    # -- messages out

    async def send_data(self, data: str | bytes, mode: Mode = "text", encoding: str = "utf-8") -> None:
        """Send one message in ``mode``. Accepts the connection first if necessary.

        Waits while the transport's write buffer is full. In telex.v1 the message is the data of a notify: text as a
        JSON string, bytes in a binary message.

        :raises WebSocketDisconnect: the client has left.
        """
        if self._step != "open":
            await self.ensure_accepted("send")
        if self.envelope is not None:
            wrapped = codecs.as_text(data, encoding) if mode == "text" else codecs.as_bytes(data, encoding)
            await self.envelope.notify(wrapped)
            return
        if mode == "text":
            payload: str | bytes = data if data.__class__ is str else codecs.as_text(data, encoding)
        else:
            payload = data if data.__class__ is bytes else codecs.as_bytes(data, encoding)
        await self._transmit(payload)

    async def send_unchanged(self, message: str | bytes) -> None:
        """Send one message as it is; on a connection that speaks telex.v1 it must be a frame.

        :raises WebSocketDisconnect: the client has left.
        """
        if self._step != "open":
            await self.ensure_accepted("send")
        await self._transmit(message)

    def _transmit(self, message: str | bytes) -> Awaitable[None]:
        if self.options.counts is not None:
            self.options.counts.sent += 1
        if self.transport is not None:
            return self._send_fast(self.transport, message)
        return self._wire({"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message})

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
        if self.envelope is not None:
            await self.envelope.notify(msgspec.Raw(raw))
            return
        await self.send_data(raw, mode)

    async def send_msgpack(self, data: object, serializer: Callable[[Any], object] | None = None) -> None:
        """Send ``data`` as MessagePack in a binary message. ``serializer`` replaces the layers' ``type_encoders``."""
        enc_hook = serializer or codecs.encoder_hook(self.options.type_encoders)
        await self.send_data(msgspec.msgpack.encode(data, enc_hook=enc_hook), "binary")

    async def notify(self, data: object) -> None:
        """Send a value that wants no answer: text and bytes unchanged, other values as JSON.

        :raises WebSocketDisconnect: the client has left.
        """
        if self._step != "open":
            await self.ensure_accepted("send")
        if self.envelope is not None:
            await self.envelope.notify(data)
        elif isinstance(data, str):
            await self.send_data(data, "text")
        elif isinstance(data, codecs.BINARY_TYPES):
            await self.send_data(bytes(data), "binary")
        else:
            await self.send_json(data)

    @overload
    async def call(self, data: object, answer: type[AnswerT], *, timeout: float = ...) -> AnswerT: ...
    @overload
    async def call(self, data: object, answer: Any = ..., *, timeout: float = ...) -> Any: ...
    async def call(self, data: object, answer: Any = None, *, timeout: float = 30.0) -> Any:
        """Ask the client, and return its answer, decoded and validated as the type ``answer``.

        Answers do not wait behind messages: a handler can ask its own client. With ``answer=None`` the client's data
        is ignored. In a function that runs in a thread, pass the coroutine to the event loop, which a dependency
        provides, and wait: ``asyncio.run_coroutine_threadsafe(socket.call(...), loop).result()``.

        :raises ImproperlyConfiguredException: the client does not speak telex.v1.
        :raises ValueError: ``timeout`` is not above 0.
        :raises CallTimeout: no answer came within ``timeout`` seconds.
        :raises CallError: the client answered with an error, or with data of another type.
        :raises WebSocketDisconnect: the client has left.
        """
        if self._step != "open":
            await self.ensure_accepted("send")
        if self.envelope is None:
            raise ImproperlyConfiguredException(
                f"call() needs a client that offers the subprotocol {SUBPROTOCOL!r}: this connection is in plain mode"
            )
        return await self.envelope.call(data, answer, timeout)

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
        if send_handler is None and self.envelope is not None:
            send_handler = _notify
        return self.streams.start(send_stream(self, stream, self.options.value_writer(mode), mode, send_handler))


async def _notify(socket: Socket, value: object) -> None:
    await socket.notify(value)


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


Socket: TypeAlias = WebSocket[Any, Any, Any]
"""A connection with any types of user, auth and state."""
