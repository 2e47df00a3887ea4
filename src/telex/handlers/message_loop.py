"""The message loop of handlers that receive: read a message, call the handler, send the reply.

One :class:`MessageLoop` is compiled for each handler and path. It serves each connection with the cheapest of four
loops. They differ only in the source of the messages and in where the function runs:

- ``serve_by_callback``, for sync functions on Telex's server: in the server's frame callback, without a task switch.
- ``serve_by_transport``, for async functions on Telex's server: messages from ``transport.receive``, no event
  dictionaries.
- ``serve_by_events``, on every other server: calls ASGI's ``receive`` and ``send`` directly.
- ``serve_by_methods``, for a custom ``websocket_class`` or ``max_concurrency`` above 1: through ``socket.receive_data``
  and ``socket.send_data``, with up to ``max_concurrency`` messages at once.

All loops use the same decoder, the same :class:`InvalidMessages` and the same exception handlers. The first three
repeat a dozen lines on purpose: a shared function would cost a call for each message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from telex import events
from telex.calls import Slots
from telex.codecs import Raw, Reader, Writer, as_is, is_raw_writer
from telex.connection import Socket, WebSocket, WrongModeException
from telex.event_reader import READING, Supervision, as_disconnect, as_unexpected, unexpected
from telex.exception_handling import ExceptionPolicy, leaf
from telex.exceptions import WebSocketDisconnect, WebSocketException
from telex.handlers.invalid_messages import InvalidMessages
from telex.plans import Build
from telex.status_codes import WS_1009_MESSAGE_TOO_BIG
from telex.telemetry.counts import RouteCounts, timed
from telex.types import Message, Mode, Transport

__all__ = ("Handle", "MessageLoop", "Serve")

Handle: TypeAlias = Callable[[Any], Any]
"""Takes a decoded message; returns the reply or an awaitable of it."""
Serve: TypeAlias = Callable[[Socket, Slots], Coroutine[Any, Any, None]]
"""Exchanges the messages of an accepted connection, until it ends."""

KEYS: Final[dict[Mode, str]] = {"text": "text", "binary": "bytes"}
"""The event's key for the payload of each mode."""
NATIVE: Final[dict[Mode, type]] = {"text": str, "binary": bytes}
"""The class of each mode's payload."""

logger: Final = logging.getLogger("telex")


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageLoop:
    """How one handler's messages are read, handled and answered.

    ``bind`` returns the function that handles the messages of one connection; ``awaits`` is true if that function is
    asynchronous; ``encode`` is ``None`` if the loop sends no replies.
    """

    where: str
    receive_mode: Mode
    send_mode: Mode
    decode: Reader
    encode: Writer | None
    bind: Callable[[Socket, Slots], Handle]
    awaits: bool
    errors: ExceptionPolicy
    invalid_messages: InvalidMessages
    max_message_size: int
    max_concurrency: int
    counts: RouteCounts | None

    @classmethod
    def compile(
        cls,
        build: Build,
        *,
        receive_mode: Mode,
        send_mode: Mode,
        decode: Reader,
        bind: Callable[[Socket, Slots], Handle],
        max_invalid_messages: int,
        encode: Writer | None = None,
        awaits: bool = True,
        max_concurrency: int = 1,
    ) -> Serve:
        """The function that exchanges a connection's messages with the options of ``build``."""
        errors = build.exception_policy(send_mode)
        if build.counts is not None:
            bind = timed(bind, build.counts, awaits=awaits)
        loop = cls(
            where=build.where,
            receive_mode=receive_mode,
            send_mode=send_mode,
            decode=decode,
            encode=encode,
            bind=bind,
            awaits=awaits,
            errors=errors,
            invalid_messages=InvalidMessages.compile(build, errors, send_mode, max_invalid_messages),
            max_message_size=build.max_message_size,
            max_concurrency=max_concurrency,
            counts=build.counts,
        )
        return loop._choose(build.websocket_class)

    def _choose(self, websocket_class: type[Socket]) -> Serve:
        """The cheapest loop that a connection's class and its server allow."""
        if self.max_concurrency > 1 or overrides_messages(websocket_class):
            return self.serve_by_methods
        serve_fast = self.serve_by_transport if self.awaits else self._compile_callback()

        def serve(socket: Socket, slots: Slots) -> Coroutine[Any, Any, None]:
            if socket.transport is None:
                return self.serve_by_events(socket, slots)
            return serve_fast(socket, socket.transport, slots)

        return serve

    # -- the loops

    async def serve_by_events(self, socket: Socket, slots: Slots) -> None:  # noqa: C901 - see the module's docstring
        """Read ASGI events from the server and send events back."""
        reader, receive, send = socket.event_reader, socket.event_reader.receive, socket.asgi_send
        handle, decode, encode, awaits = self.bind(socket, slots), self.decode, self.encode, self.awaits
        key_in, key_out, quick_limit = KEYS[self.receive_mode], KEYS[self.send_mode], self.max_message_size // 4
        native_out, counts, invalid_in_a_row = self._native_out, self.counts, 0
        async with Supervision(reader):
            while True:
                event = await (reader.next(receive) if awaits or reader.state != READING else receive())
                raw: Any = event.get(key_in)
                if (raw is None or len(raw) > quick_limit) and not self._admit(socket, event):
                    continue
                if decode is as_is:
                    data = raw
                else:
                    try:
                        data = decode(raw)
                    except Exception as exc:
                        invalid_in_a_row = await self._refuse(socket, exc, invalid_in_a_row)
                        if not socket.is_open:
                            return
                        continue
                    invalid_in_a_row = 0
                if counts is not None:
                    if counts.by_type is None:
                        counts.received += 1
                    else:
                        counts.by_type[data.__class__] += 1
                try:
                    reply = handle(data)
                    if awaits:
                        reader.begin_work()
                        reply = await reply
                except Exception as exc:
                    await self._recover(socket, exc, data)
                    continue
                if not socket.is_open:
                    return
                if reply is not None and encode is not None:
                    try:
                        payload = reply if type(reply) is native_out else encode(reply)
                        await send({"type": "websocket.send", key_out: payload})
                        if counts is not None:
                            counts.sent += 1
                    except OSError as exc:
                        raise socket.lost() from exc

    async def serve_by_transport(  # noqa: C901 - see the module's docstring
        self, socket: Socket, transport: Transport, slots: Slots
    ) -> None:
        """Read messages from the server's transport and write replies to it."""
        reader, receive, send, drain = socket.event_reader, transport.receive, transport.send, transport.drain
        handle, decode, encode = self.bind(socket, slots), self.decode, self.encode
        native, quick_limit = NATIVE[self.receive_mode], self.max_message_size // 4
        native_out, counts, invalid_in_a_row = self._native_out, self.counts, 0
        async with Supervision(reader):
            while True:
                raw: Any = await reader.next(receive)
                kind = raw.__class__
                if kind is not native or len(raw) > quick_limit:
                    raw = await self._payload(socket, raw)
                    if raw is None:
                        continue
                if decode is as_is:
                    data = raw
                else:
                    try:
                        data = decode(raw)
                    except Exception as exc:
                        invalid_in_a_row = await self._refuse(socket, exc, invalid_in_a_row)
                        if not socket.is_open:
                            return
                        continue
                    invalid_in_a_row = 0
                if counts is not None:
                    if counts.by_type is None:
                        counts.received += 1
                    else:
                        counts.by_type[data.__class__] += 1
                try:
                    reader.begin_work()
                    reply = await handle(data)
                except Exception as exc:
                    await self._recover(socket, exc, data)
                    continue
                if not socket.is_open:
                    return
                if reply is not None and encode is not None:
                    kind = reply.__class__
                    payload = reply if kind is native_out else encode(reply)
                    try:
                        if not send(payload):
                            await drain()
                        if counts is not None:
                            counts.sent += 1
                    except OSError as exc:
                        raise socket.lost() from exc

    def _compile_callback(self) -> Callable[[Socket, Transport, Slots], Coroutine[Any, Any, None]]:
        """Create ``serve_by_callback``. Values that all connections share are bound here once, to save memory."""
        compile_on_message = self._compile_on_message()

        async def serve_by_callback(socket: Socket, transport: Transport, slots: Slots) -> None:
            """Handle messages inside the frame callback; this task handles those that the callback hands over."""
            handle, handover, reader = self.bind(socket, slots), _Handover(), socket.event_reader
            on_message = compile_on_message(handle, transport, handover)
            while socket.is_open:
                raw: Any
                if reader.has_read_ahead:  # by a hook that was busy
                    raw = await reader.get()
                else:
                    transport.set_message_handler(on_message)
                    raw = await transport.receive()  # returns when the callback hands a message over
                failure, handover.failure = handover.failure, None
                data, handover.data = handover.data, None
                if failure is None:
                    handover.invalid_in_a_row = await self._settle(socket, handle, raw, handover.invalid_in_a_row)
                elif isinstance(failure, _Unsent):
                    raise socket.lost() if isinstance(failure.cause, OSError) else failure.cause
                else:
                    await self._recover(socket, failure, data)

        return serve_by_callback

    def _compile_on_message(  # noqa: C901 - see the module's docstring
        self,
    ) -> Callable[[Handle, Transport, _Handover], Callable[[Raw], None]]:
        decode, encode, native_out = self.decode, self.encode, self._native_out
        native, quick_limit, counts = NATIVE[self.receive_mode], self.max_message_size // 4, self.counts

        def compile_on_message(handle: Handle, transport: Transport, handover: _Handover) -> Callable[[Raw], None]:
            send, hand_over = transport.send, transport.hand_over
            # The callback runs in the server's context; the handler needs the context of dependencies and middleware.
            run = copy_context().run

            def on_message(raw: Raw) -> None:
                kind = raw.__class__
                if kind is not native or len(raw) > quick_limit:
                    hand_over(raw)
                    return
                if decode is as_is:
                    data: Any = raw
                else:
                    try:
                        data = decode(raw)
                    except Exception:
                        hand_over(raw)
                        return
                    handover.invalid_in_a_row = 0
                if counts is not None:
                    if counts.by_type is None:
                        counts.received += 1
                    else:
                        counts.by_type[data.__class__] += 1
                try:
                    reply = run(handle, data)
                except Exception as exc:
                    handover.failure, handover.data = exc, data
                    hand_over(raw)
                    return
                except asyncio.CancelledError as exc:
                    handover.failure, handover.data = unexpected(exc), data
                    hand_over(raw)
                    return
                if reply is not None and encode is not None:
                    kind = reply.__class__
                    try:
                        send(reply if kind is native_out else encode(reply))
                        if counts is not None:
                            counts.sent += 1
                    except Exception as exc:
                        handover.failure = _Unsent(exc)
                        hand_over(raw)

            return on_message

        return compile_on_message

    async def serve_by_methods(self, socket: Socket, slots: Slots) -> None:
        """Receive and send through the methods of ``socket``; up to ``max_concurrency`` messages at once."""
        reader, failures = socket.event_reader, list[Exception]()
        try:
            async with Supervision(reader), asyncio.TaskGroup() as running:
                try:
                    await self._start_messages(socket, slots, running, failures)
                except Exception:
                    await reader.until_let_go()
                    raise
                except asyncio.CancelledError:
                    if reader.interrupts:  # a task may have begun its cleanup since the interrupt
                        await reader.until_let_go()
                    raise
        except asyncio.CancelledError:
            if not failures:  # a failure counts more than a cancellation, as in a plain task group
                raise
        except Exception as exc:
            failures.append(exc)
        if failures:
            try:
                raise leaf(ExceptionGroup("", failures))
            finally:
                failures.clear()  # their tracebacks reference this frame

    async def _start_messages(
        self, socket: Socket, slots: Slots, running: asyncio.TaskGroup, failures: list[Exception]
    ) -> None:
        handle, reader = self.bind(socket, slots), socket.event_reader
        places = asyncio.Semaphore(self.max_concurrency)
        invalid_in_a_row = 0
        while True:
            reader.mark_busy()
            await places.acquire()
            reader.mark_idle()
            raw = await self._read(socket)
            try:
                data = self.decode(raw)
            except Exception as exc:
                places.release()
                invalid_in_a_row = await self._refuse(socket, exc, invalid_in_a_row)
                if not socket.is_open:
                    raise WebSocketDisconnect(socket.close_code, socket.close_reason) from None  # cancels the others
                continue
            invalid_in_a_row = 0
            if self.max_concurrency == 1:
                reader.mark_busy()
                await self._handle_one(socket, handle, data, places)
            else:
                running.create_task(self._handle_beside(socket, handle, data, places, failures))

    async def _read(self, socket: Socket) -> Raw:
        while True:
            try:
                return await socket.receive_data(self.receive_mode)
            except WrongModeException:
                self._note_wrong_mode(socket)

    async def _handle_one(self, socket: Socket, handle: Handle, data: Any, places: asyncio.Semaphore) -> None:
        try:
            await self._exchange(socket, handle, data)
            if not socket.is_open:
                # Some servers do not wake a task in ``receive`` after the app has closed the connection.
                raise WebSocketDisconnect(socket.close_code, socket.close_reason)
        except asyncio.CancelledError as exc:
            raise as_unexpected(exc) from exc  # a task group would ignore the CancelledError
        finally:
            places.release()

    async def _handle_beside(
        self, socket: Socket, handle: Handle, data: Any, places: asyncio.Semaphore, failures: list[Exception]
    ) -> None:
        """Handle one message beside others; a failure ends the loop as soon as no answered message is finished.

        A task group would cancel the other tasks one turn after a failure, also in the cleanup of an answered message.
        """
        try:
            await self._handle_one(socket, handle, data, places)
        except Exception as exc:
            failures.append(exc)
            socket.event_reader.interrupt(exc)

    # -- one message, outside of the fast path

    async def _exchange(self, socket: Socket, handle: Handle, data: Any) -> None:
        if self.counts is not None:
            self.counts.receive(data)
        try:
            reply = handle(data)
            if isinstance(reply, Awaitable):
                reply = await reply
        except Exception as exc:
            await self._recover(socket, exc, data)
        else:
            if reply is not None and self.encode is not None and socket.is_open:
                await socket.send_data(self.encode(reply), self.send_mode)

    async def _settle(self, socket: Socket, handle: Handle, raw: Raw | None, invalid_in_a_row: int) -> int:
        """Handle a message that the callback handed over; returns the number of consecutive invalid messages."""
        raw = await self._payload(socket, raw)
        if raw is None:
            return invalid_in_a_row
        try:
            data = self.decode(raw)
        except Exception as exc:
            return await self._refuse(socket, exc, invalid_in_a_row)
        await self._exchange(socket, handle, data)
        return 0

    async def _payload(self, socket: Socket, raw: Raw | Message | None) -> Raw | None:
        """The payload of an event outside of the fast path, or ``None`` to ignore it.

        The event was read ahead, has the wrong mode, is large, or is a disconnect.
        """
        if raw is None:
            raw = await socket.event_reader.next(socket.event_reader.receive)
        event: Message
        if isinstance(raw, (str, bytes)):
            event = {"type": "websocket.receive", "text" if isinstance(raw, str) else "bytes": raw}
        else:
            event = raw
        return event[KEYS[self.receive_mode]] if self._admit(socket, event) else None

    def _admit(self, socket: Socket, event: Message) -> bool:
        """Whether an event is a message to handle. Called for events that fail the loops' quick check.

        :raises WebSocketDisconnect: the event is a disconnect.
        :raises WebSocketException: 1009, the message is too long.
        """
        if event["type"] == "websocket.disconnect":
            end = as_disconnect(event)
            raise socket.lost(end.code, end.reason)
        if event.get(KEYS[self.receive_mode]) is None:
            self._note_wrong_mode(socket)
            return False
        if events.is_too_long(event, self.max_message_size):
            raise WebSocketException(WS_1009_MESSAGE_TOO_BIG, f"message over {self.max_message_size} bytes")
        return True

    def _note_wrong_mode(self, socket: Socket) -> None:
        if not socket.ignored_messages:
            logger.warning(
                "%s receives in mode %r and ignores the other kind of message; set receive_mode to change that",
                self.where,
                self.receive_mode,
            )
        socket.ignored_messages += 1
        if self.counts is not None:
            self.counts.ignored += 1

    async def _refuse(self, socket: Socket, exc: Exception, in_a_row: int) -> int:
        return await self.invalid_messages.refuse(socket, exc, in_a_row)

    async def _recover(self, socket: Socket, exc: Exception, data: Any) -> None:
        """Call the user's exception handler for ``exc``, which ``data`` has caused; the connection stays open.

        :raises Exception: ``exc``, if there is no exception handler for it.
        """
        if self.counts is not None and not isinstance(exc, WebSocketDisconnect):
            self.counts.failed[data.__class__] += 1
        handler = None if isinstance(exc, WebSocketDisconnect) else self.errors.find(exc)
        if handler is None:
            raise exc
        await self.errors.reply(socket, handler, exc)

    @property
    def _native_out(self) -> type | None:
        """The class of replies that need no encoding."""
        return NATIVE[self.send_mode] if is_raw_writer(self.encode) else None


class _Handover:
    """The data that one connection's frame callback passes to its task."""

    __slots__ = ("data", "failure", "invalid_in_a_row")

    def __init__(self) -> None:
        self.failure: Exception | None = None
        """The exception that the callback got for the message it handed over."""
        self.data: Any = None
        """What was decoded from that message."""
        self.invalid_in_a_row = 0


class _Unsent(Exception):
    """A reply could not be encoded or sent. Exception handlers are not called for it."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


def overrides_messages(websocket_class: type[Socket]) -> bool:
    """Whether a custom class overrides a method that receives or sends messages."""
    methods = ("receive_data", "receive", "send_data", "send")
    return any(getattr(websocket_class, name) is not getattr(WebSocket, name) for name in methods)
