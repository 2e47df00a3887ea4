"""The client's side of a test connection: the session with which a test sends and receives.

The app runs as one task on the session's event loop; two bounded pipes carry the events. Every wait has a timeout, and
a failure of the app (an exception, a protocol violation, an end without a close) ends the waits at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from types import TracebackType, UnionType
from typing import Any, Final, Self, TypeVar, cast, overload

import msgspec

from telex.codecs import writer
from telex.exceptions import ConnectionStateError, SerializationException, WebSocketDisconnect
from telex.protocol.envelope import SUBPROTOCOL
from telex.protocol.frames import Encoded
from telex.testing.app_run import AppRun
from telex.testing.calling import CallMethods
from telex.testing.clock import time_runs
from telex.testing.errors import WebSocketDenied
from telex.testing.frame_client import FrameClient
from telex.testing.frames import Frame, encode
from telex.testing.line import Line
from telex.testing.matching import Predicate, describe, disconnect_of, expects_close, match, payload, show
from telex.testing.protocol import check_close
from telex.testing.tasks import unmasked
from telex.types import ASGIApp, Message, Mode, RawHeaders, Scope

__all__ = ("AsyncWebSocketTestSession", "SessionOptions")

T = TypeVar("T")

_write_text: Final = writer(object, "text")
_write_binary: Final = writer(object, "binary")


@dataclass(frozen=True)
class SessionOptions:
    """The settings that a client passes to its sessions."""

    timeout: float
    raise_server_exceptions: bool
    max_queued: int
    on_accept: Callable[[RawHeaders], None] = field(default=lambda _: None)


class AsyncWebSocketTestSession(CallMethods):
    """One connection. ``async with`` connects and closes it; alternatively await it, and later :meth:`aclose` it.

    ``timeout`` of every method is in seconds; ``None`` means the session's default. A wait that reaches its timeout
    raises ``TimeoutError``, whose text names the app and the line where the app waits.

    If the app has selected ``telex.v1``, ``call``, ``stream``, ``notify`` and ``answer`` work. The session reads
    ``hello``, answers to its own calls, and credit itself; ``receive`` and ``expect`` get all other frames.
    """

    def __init__(
        self, app: ASGIApp, scope: Scope, options: SessionOptions, registry: set[AsyncWebSocketTestSession]
    ) -> None:
        """Created by ``AsyncTestClient.websocket_connect``; ``registry`` holds the open sessions."""
        self.accepted_subprotocol: str | None = None
        """The subprotocol that the app chose."""
        self.extra_headers: list[tuple[bytes, bytes]] = []
        """The headers that the app added to its accept."""
        self.timeout: float = options.timeout
        self._app = app
        self._scope = scope
        self._options = options
        self._registry = registry
        self._frames = FrameClient(self._send_frame, self._fail_test)
        self._run: Line | None = None  # set by the handshake
        self._closed: WebSocketDisconnect | None = None  # the client's own close, or the one it received

    @property
    def scope(self) -> Scope:
        """A copy of the connection's current scope; its headers are the request's, then those of the accept."""
        return {**self._scope, "headers": [*self._scope["headers"], *self.extra_headers]}

    # -- connecting and closing

    async def connect(self) -> Self:
        """Make the opening handshake, once; ``async with`` and ``await`` call this.

        :raises WebSocketDenied: the app answered with an HTTP response.
        :raises WebSocketDisconnect: the app closed instead of accepting.
        """
        if self._run is None:
            self._registry.add(self)
            self._run = self._begin_line()
            try:
                await self._shake_hands(self._run)
            except (TimeoutError, asyncio.CancelledError):
                self._registry.discard(self)
                await self._run.abandon()
                raise
            except BaseException:
                await self.aclose()
                raise
        return self

    def _begin_line(self) -> Line:
        return AppRun(
            self._app,
            self._scope,
            self._frames,
            max_queued=self._options.max_queued,
            raise_server_exceptions=self._options.raise_server_exceptions,
        )

    async def aclose(self) -> None:
        """Disconnect with 1000 if the connection is open, and wait for the app to end.

        :raises TimeoutError: the app did not end in time and was cancelled.
        :raises ProtocolMisuse: the app broke the protocol, and no earlier call raised this.
        :raises Exception: the exception of the app, if no earlier call raised it.
        """
        self._registry.discard(self)
        self._disconnect(WebSocketDisconnect(1000))
        if self._run is not None:
            with time_runs():
                await self._frames.aclose()
                await self._run.finish(self.timeout)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection as the client; does nothing if it is closed.

        :raises ValueError: a close frame cannot carry this code or reason.
        """
        if wrong := check_close(code, reason):
            raise ValueError(wrong)
        self._disconnect(WebSocketDisconnect(code, reason))

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await unmasked(self.aclose(), exc)

    def __await__(self) -> Generator[Any, None, Self]:
        return self.connect().__await__()

    # -- sending

    async def send(self, data: object, mode: Mode | None = None) -> None:
        """Send ``data``: a str as a text message, bytes as a binary one, anything else as JSON in a text message.

        A frame of :mod:`telex.testing.frames` travels as ``telex.v1`` says.

        ``mode`` overrides the kind of frame: text is then encoded, and bytes are decoded, as UTF-8.
        """
        raw = encode(data) if isinstance(data, Frame) else data if isinstance(data, (str, bytes)) else _raw(data)
        if (mode or ("text" if isinstance(raw, str) else "binary")) == "text":
            await self.send_raw({"type": "websocket.receive", "text": raw if isinstance(raw, str) else raw.decode()})
        else:
            await self.send_raw({"type": "websocket.receive", "bytes": raw.encode() if isinstance(raw, str) else raw})

    async def send_text(self, data: str) -> None:
        """Send a text message."""
        await self.send(data)

    async def send_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Send a binary message."""
        await self.send(data, mode="binary")

    async def send_json(self, data: object, mode: Mode = "text") -> None:
        """Send ``data`` as JSON: plain values, dataclasses, structs or models."""
        await self.send(_write_text(data) if mode == "text" else _write_binary(data), mode)

    async def send_msgpack(self, data: object) -> None:
        """Send ``data`` as MessagePack, in a binary message."""
        await self.send_bytes(msgspec.msgpack.encode(data))

    async def send_raw(self, event: Message) -> None:
        """Pass an ASGI event to the app unchanged; a ``websocket.disconnect`` ends the connection.

        A message to an app that has closed or ended is dropped until the client has received the close.

        :raises ConnectionStateError: the session is not connected, or the client has closed the connection.
        :raises WebSocketDisconnect: the client has received the app's close.
        :raises TimeoutError: the queue to the app is full (``max_queued``), and the app reads no message.
        """
        run = self._connected()
        if self._closed is not None:
            raise ConnectionStateError("a send after close()") if run.left else self._closed
        if event["type"] == "websocket.disconnect":
            self._closed = disconnect_of(event)
            run.disconnect(event)
        else:
            self._frames.note(event, sent=True)
            await run.put(event, self.timeout)

    # -- receiving

    async def receive(self, timeout: float | None = None, *, block: bool = True) -> Message:
        """The app's next ``websocket.send`` event; ``block=False`` does not wait for it.

        :raises WebSocketDisconnect: the connection is closed, with the code and the reason.
        """
        event = await self._next("no message came", timeout if block else 0)
        if closed := self._closed_by(event):
            raise closed
        return event

    async def receive_text(self, timeout: float | None = None, *, block: bool = True) -> str:
        """The next message; it must be text.

        :raises AssertionError: the message is binary.
        """
        return cast("str", payload(await self.receive(timeout, block=block), "text"))

    async def receive_bytes(self, timeout: float | None = None, *, block: bool = True) -> bytes:
        """The next message; it must be binary.

        :raises AssertionError: the message is text.
        """
        return cast("bytes", payload(await self.receive(timeout, block=block), "binary"))

    async def receive_json(self, mode: Mode = "text", timeout: float | None = None, *, block: bool = True) -> Any:
        """The next message, decoded from JSON; for a typed value see :meth:`expect`.

        :raises SerializationException: the message is not JSON.
        """
        return _decoded(msgspec.json.decode, payload(await self.receive(timeout, block=block), mode))

    async def receive_msgpack(self, timeout: float | None = None, *, block: bool = True) -> Any:
        """The next message, decoded from MessagePack; it must be binary.

        :raises SerializationException: the message is not MessagePack.
        """
        return _decoded(msgspec.msgpack.decode, await self.receive_bytes(timeout, block=block))

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        """The messages, text or bytes, until the connection is closed."""
        while True:
            try:
                event = await self.receive()
            except WebSocketDisconnect as closed:
                if closed is self._closed:
                    return
                raise  # an exception that the app raised
            yield event["text"] if event.get("text") is not None else event["bytes"]

    # -- expecting

    @overload
    async def expect(  # type: ignore[overload-overlap] # a class is callable too, but it comes first
        self, expected: type[T], timeout: float | None = ..., *, mode: Mode = ...
    ) -> T: ...
    @overload
    async def expect(self, expected: UnionType, timeout: float | None = ..., *, mode: Mode = ...) -> Any: ...
    @overload
    async def expect(self, expected: Predicate, timeout: float | None = ..., *, mode: Mode = ...) -> str | bytes: ...
    @overload
    async def expect(self, expected: T, timeout: float | None = ..., *, mode: Mode = ...) -> T: ...
    async def expect(self, expected: object, timeout: float | None = None, *, mode: Mode = "text") -> Any:
        """The next message; it must match ``expected``.

        - ``str``, ``bytes`` (the types): any text message, any binary message. ``WebSocketDisconnect``: the end of the
          connection; the exception is returned.
        - Another type, or a union: JSON, decoded and validated as that type.
        - A str or bytes: exactly this message.
        - A predicate: a message for which it returns true; its argument is the text or the bytes.
        - A class of :mod:`telex.testing.frames`, such as ``Notify[Joined]``, or a frame: that frame of ``telex.v1``.
        - Any other value: JSON that equals the value. On ``telex.v1`` a dict may have bytes as ``data``.

        ``mode`` is the kind of frame that carries the JSON.

        :raises AssertionError: the message does not match; the text shows it.
        """
        what = f"expected {describe(expected)}, nothing came"
        try:
            event = await self._next(what, timeout)
        except WebSocketDisconnect as closed:
            if closed is not self._closed:
                raise  # an exception that the app raised
            if expects_close(expected):
                return closed
            text = f"expected {describe(expected)}, but the connection is closed: {closed!r}"
            raise AssertionError(text + self._frames.transcript()) from closed
        self._closed_by(event)
        return self._match(expected, event, mode)

    async def refute(self, expected: object = None, timeout: float = 0.1, *, mode: Mode = "text") -> None:
        """Check that no ``expected`` message (``None``: no message) comes for ``timeout`` seconds.

        Messages that come during the wait are kept for the next receive. A close is not a message; it ends the wait.

        :raises AssertionError: such a message came.
        """
        run = self._connected()
        deadline = time.monotonic() + timeout
        index = 0
        while (event := await run.look(index, deadline - time.monotonic())) is not None:
            if event["type"] == "websocket.close":
                return
            if expected is None or self._matches(expected, event, mode):
                unwanted = "no message" if expected is None else f"not to get {describe(expected)}"
                raise AssertionError(f"expected {unwanted}, got {show(event)}")
            index += 1

    # -- internals

    async def _shake_hands(self, run: Line) -> None:
        await run.put({"type": "websocket.connect"}, self.timeout)
        event = await self._next("no answer to websocket.connect came", None)
        if closed := self._closed_by(event):
            raise closed
        if event["type"] == "websocket.http.response.start":
            self._closed = WebSocketDenied(event["status"], event.get("headers", ()), await self._denial_body())
            raise self._closed
        self.accepted_subprotocol = event.get("subprotocol")
        self.extra_headers = event.get("headers", [])
        self._options.on_accept(self.extra_headers)
        if self._frames.active:
            await self._within(self._frames.wait_for_first(), None, "no hello came")

    async def _denial_body(self) -> bytes:
        body = bytearray()
        more = True
        while more:
            event = await self._next("no end of the denial came", None)
            body += event.get("body", b"")
            more = event.get("more_body", False)
        return bytes(body)

    def _match(self, expected: object, event: Message, mode: Mode) -> Any:
        try:
            return match(expected, event, mode, in_frames=self._frames.active)
        except AssertionError as error:
            raise AssertionError(f"{error}{self._frames.transcript()}") from error.__cause__

    def _matches(self, expected: object, event: Message, mode: Mode) -> bool:
        try:
            self._match(expected, event, mode)
        except AssertionError:
            return False
        return True

    async def _next(self, what: str, timeout: float | None) -> Message:
        run = self._connected()
        event = await run.take(self.timeout if timeout is None else timeout, what)
        if event is None:
            self._closed = self._closed or run.ending()
            raise self._closed
        return event

    def _closed_by(self, event: Message) -> WebSocketDisconnect | None:
        """Store and return the app's close, if ``event`` is one."""
        if event["type"] == "websocket.close":
            self._closed = disconnect_of(event)
            self._connected().hang_up()
            return self._closed
        return None

    def _disconnect(self, closed: WebSocketDisconnect) -> None:
        if self._run is not None and self._closed is None:
            self._closed = closed
            self._run.disconnect({"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason})

    async def _send_frame(self, payload: Encoded) -> None:
        await self.send_raw({"type": "websocket.receive", "text" if isinstance(payload, str) else "bytes": payload})

    def _speaking(self) -> FrameClient:
        self._connected()
        if not self._frames.active:
            raise ConnectionStateError(f"the connection is in plain mode: connect with subprotocols=[{SUBPROTOCOL!r}]")
        return self._frames

    async def _within(self, wait: Coroutine[Any, Any, T], timeout: float | None, what: str) -> T:
        run = self._connected()
        try:
            return await run.within(wait, self.timeout if timeout is None else timeout, what)
        except WebSocketDisconnect:
            if failure := run.failure():
                raise failure from None
            raise

    def _failed_call(self) -> BaseException | None:
        return self._connected().failed_call()

    def _fail_test(self, error: BaseException) -> None:
        self._connected().fail(error)

    def _connected(self) -> Line:
        if self._run is None:
            raise ConnectionStateError("not connected yet: 'async with client.websocket_connect(...) as session'")
        return self._run


def _raw(data: object) -> str | bytes:
    return bytes(data) if isinstance(data, (bytearray, memoryview)) else _write_text(data)


def _decoded(decode: Callable[[Any], Any], data: Any) -> Any:
    try:
        return decode(data)
    except msgspec.DecodeError as error:
        raise SerializationException(f"the message cannot be decoded: {error}: {data!r}") from error
