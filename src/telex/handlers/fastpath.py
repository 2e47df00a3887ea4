"""The message path of listeners on a server that offers ``telex.transport``: no event dictionaries, no ASGI calls.

A sync function runs inside the server's frame callback: decoded, handled, encoded and written without a task switch.
Whatever is not plain (an invalid message, an exception, one of the wrong mode or size) is handed over to the
connection's task, which deals with it as on every server while the messages behind it wait in the server's queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import Any, cast

from telex.busy_monitor import DONE, FRESH, running_monitor
from telex.codecs import Raw, as_is, is_raw_writer
from telex.connection import Socket
from telex.event_reader import IDLE, READING, as_disconnect
from telex.exceptions import WebSocketDisconnect
from telex.handlers.message_loop import KEYS, NATIVE, Exchange, Handle, Slots
from telex.types import Message, Transport

__all__ = ("compile_callback", "serve_by_transport")


# What follows is long on purpose: what it was split into, every message would call.


class _HandOver:
    """What a frame callback leaves to the connection's task: one message, and why."""

    __slots__ = ("failure", "installing", "raw", "strikes", "task", "transport")

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.task = cast("asyncio.Task[object]", asyncio.current_task())
        self.installing = False
        self.strikes = 0
        self.raw: Raw | None = None
        self.failure: Exception | None = None

    def __call__(self, raw: Raw, failure: Exception | None = None) -> None:
        """Stop the callback, and wake the task unless it is the one that calls."""
        self.transport.set_message_handler(None)
        self.raw, self.failure = raw, failure
        if not self.installing:
            self.task.cancel()

    def take(self) -> tuple[Raw, Exception | None] | None:
        """What was left, if something was."""
        raw, failure, self.raw, self.failure = self.raw, self.failure, None, None
        return None if raw is None else (raw, failure)


def compile_callback(exchange: Exchange) -> Callable[[Socket, Transport, Slots], Coroutine[Any, Any, None]]:
    """Serve connections with a sync function inside the frame callback.

    What all connections share is bound here, so that a connection holds no more than what is its own.
    """
    on_messages = _compile_on_message(exchange)

    async def serve_by_callback(socket: Socket, transport: Transport, slots: Slots) -> None:
        handle, hand_over = exchange.bind(socket, slots), _HandOver(transport)
        on_message = on_messages(handle, transport, hand_over)
        while True:
            hand_over.installing = True
            transport.set_message_handler(on_message)
            hand_over.installing = False
            left = hand_over.take()
            if left is None:
                try:
                    # Here a connection is while all is well: in as few coroutines as can be.
                    await transport.receive()
                except asyncio.CancelledError:
                    left = hand_over.take()
                    if left is None or hand_over.task.uncancel():
                        raise
                else:
                    raise await _disconnect(socket)
            hand_over.strikes = await _settle(exchange, socket, handle, *left, hand_over.strikes)
            if not socket.is_open:
                return

    return serve_by_callback


def _compile_on_message(
    exchange: Exchange,
) -> Callable[[Handle, Transport, _HandOver], Callable[[Raw], None]]:
    decode, encode = exchange.decode, exchange.encode
    native, quick_limit = NATIVE[exchange.receive_mode], exchange.max_message_size // 4
    native_out = NATIVE[exchange.send_mode] if is_raw_writer(encode) else None

    def on_messages(handle: Handle, transport: Transport, hand_over: _HandOver) -> Callable[[Raw], None]:
        send = transport.send
        # The callback runs in the server's context; the handler is to see what dependencies and middleware have set.
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
                hand_over.strikes = 0
            try:
                reply = run(handle, data)
            except Exception as exc:
                hand_over(raw, exc)
                return
            if reply is not None and encode is not None:
                kind = reply.__class__
                try:
                    send(reply if kind is native_out else encode(reply))
                except Exception as exc:
                    hand_over(raw, _Unsent(exc))

        return on_message

    return on_messages


async def _disconnect(socket: Socket) -> WebSocketDisconnect:
    end = as_disconnect(await socket.event_reader.get())
    return socket.lost(end.code, end.reason)


class _Unsent(Exception):
    """A reply could not be encoded, or not be sent: no message's fault, and nothing for exception handlers."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


async def _settle(
    exchange: Exchange, socket: Socket, handle: Handle, raw: Raw, failure: Exception | None, strikes: int
) -> int:
    """Do in the connection's task what could not be done with one message in the callback; returns the strikes."""
    if isinstance(failure, _Unsent):
        raise socket.lost() if isinstance(failure.cause, OSError) else failure.cause
    if failure is not None:
        await exchange.recover(socket, failure)
        return strikes
    if not exchange.admit(socket, _as_event(raw)):
        return strikes
    try:
        data = exchange.decode(raw)
    except Exception as exc:
        return await exchange.refuse(socket, exc, strikes)
    try:
        reply = handle(data)
    except Exception as exc:
        await exchange.recover(socket, exc)
    else:
        if reply is not None and exchange.encode is not None:
            await socket.send_data(exchange.encode(reply), exchange.send_mode)
    return 0


async def serve_by_transport(  # noqa: C901
    exchange: Exchange, socket: Socket, transport: Transport, slots: Slots
) -> None:
    """Handle messages with an async function, which is cancelled when the client leaves meanwhile."""
    reader, send, drain = socket.event_reader, transport.send, transport.drain
    receive: Callable[[], Awaitable[Any]] = transport.receive
    handle, decode, encode = exchange.bind(socket, slots), exchange.decode, exchange.encode
    native, quick_limit = NATIVE[exchange.receive_mode], exchange.max_message_size // 4
    native_out = NATIVE[exchange.send_mode] if is_raw_writer(encode) else None
    monitor, strikes = running_monitor(), 0
    reader.work = DONE
    while True:
        if reader.state == IDLE:
            reader.state = READING
            raw = await receive()
            reader.state = IDLE
        else:
            raw = await reader.get()
        kind = raw.__class__
        if kind is not native or len(raw) > quick_limit:
            raw = await _payload(exchange, socket, raw)
            if raw is None:
                continue
        if decode is as_is:
            data = raw
        else:
            try:
                data = decode(raw)
            except Exception as exc:
                strikes = await exchange.refuse(socket, exc, strikes)
                if not socket.is_open:
                    return
                continue
            strikes = 0
        try:
            reader.work = FRESH
            if not reader.listed:
                monitor.enlist(reader)
            reply = await handle(data)
            reader.work = DONE
        except Exception as exc:
            reader.work = DONE
            await exchange.recover(socket, exc)
            continue
        if not socket.is_open:
            return
        if reply is not None and encode is not None:
            kind = reply.__class__
            payload = reply if kind is native_out else encode(reply)
            try:
                if not send(payload):
                    await drain()
            except OSError as exc:
                raise socket.lost() from exc


async def _payload(exchange: Exchange, socket: Socket, raw: Raw | Message | None) -> Raw | None:
    """What is to be handled of something that is not a plain message: read ahead, of the wrong mode, large, the end."""
    if raw is None:
        raw = await socket.event_reader.get()
    event = _as_event(raw) if isinstance(raw, (str, bytes)) else raw
    return event[KEYS[exchange.receive_mode]] if exchange.admit(socket, event) else None


def _as_event(raw: Raw) -> Message:
    return {"type": "websocket.receive", "text" if isinstance(raw, str) else "bytes": raw}
