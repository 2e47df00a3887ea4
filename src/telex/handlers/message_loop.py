"""The message path of listeners: a frame in, a reply out.

One ``Exchange`` is compiled per handler and path. It serves a connection with the leaner of its loops that the handler
allows: the one over bare events, or the one that goes through the methods of a custom ``websocket_class`` and can
handle several messages at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from telex.busy_monitor import DONE, FRESH, running_monitor
from telex.codecs import Raw, Reader, Writer, as_is, as_validation_error, is_raw_writer
from telex.connection import Socket, WrongModeException, is_too_long
from telex.event_reader import IDLE, READING, as_disconnect
from telex.exception_handling import ExceptionPolicy
from telex.exceptions import ValidationException, WebSocketDisconnect, WebSocketException
from telex.status_codes import WS_1007_INVALID_FRAME_PAYLOAD_DATA, WS_1009_MESSAGE_TOO_BIG
from telex.types import Message, Mode

__all__ = ("KEYS", "NATIVE", "Exchange", "Handle", "Slots")

Slots: TypeAlias = list[Any]
Handle: TypeAlias = Callable[[Any], Any]
"""Takes a decoded message; gives the reply, or an awaitable of it."""

KEYS: Final[dict[Mode, str]] = {"text": "text", "binary": "bytes"}
"""Where an event has the payload of each mode."""
NATIVE: Final[dict[Mode, type]] = {"text": str, "binary": bytes}
"""What the payload of each mode is."""

logger: Final = logging.getLogger("telex")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """How one handler's messages are read, handled and answered.

    ``bind`` gives the function that handles the messages of one connection, ``awaits`` says that it is asynchronous;
    ``encode`` is ``None`` when nothing is ever sent.
    """

    where: str
    receive_mode: Mode
    send_mode: Mode
    decode: Reader
    encode: Writer | None
    bind: Callable[[Socket, Slots], Handle]
    awaits: bool
    errors: ExceptionPolicy
    close_on_invalid: bool
    max_invalid_messages: int
    max_message_size: int
    max_concurrency: int

    async def serve_by_events(self, socket: Socket, slots: Slots) -> None:  # noqa: C901
        """The lean loop: ASGI events straight from and to the server.

        It is long on purpose: what it was split into, every message would call.
        """
        reader, receive, send = socket.event_reader, socket.event_reader.receive, socket.asgi_send
        handle, decode, encode, awaits = self.bind(socket, slots), self.decode, self.encode, self.awaits
        key_in, key_out, quick_limit = KEYS[self.receive_mode], KEYS[self.send_mode], self.max_message_size // 4
        native_out = NATIVE[self.send_mode] if is_raw_writer(encode) else None
        monitor, strikes = running_monitor(), 0
        reader.work = DONE
        while True:
            if reader.state == IDLE:
                reader.state = READING
                event = await receive()
                reader.state = IDLE
            else:
                event = await reader.get()
            raw: Any = event.get(key_in)
            if (raw is None or len(raw) > quick_limit) and not self.admit(socket, event):
                continue
            if decode is as_is:
                data = raw
            else:
                try:
                    data = decode(raw)
                except Exception as exc:
                    strikes = await self.refuse(socket, exc, strikes)
                    if not socket.is_open:
                        return
                    continue
                strikes = 0
            try:
                reply = handle(data)
                if awaits:
                    reader.work = FRESH
                    if not reader.listed:
                        monitor.enlist(reader)
                    reply = await reply
                    reader.work = DONE
            except Exception as exc:
                reader.work = DONE
                await self.recover(socket, exc)
                continue
            if not socket.is_open:
                return
            if reply is not None and encode is not None:
                try:
                    payload = reply if type(reply) is native_out else encode(reply)
                    await send({"type": "websocket.send", key_out: payload})
                except OSError as exc:
                    raise socket.lost() from exc

    async def serve_by_methods(self, socket: Socket, slots: Slots) -> None:
        """The loop for custom WebSocket classes and for ``max_concurrency`` over one: all goes through ``socket``."""
        handle, reader = self.bind(socket, slots), socket.event_reader
        reader.work = DONE
        places = asyncio.Semaphore(self.max_concurrency)
        strikes = 0
        async with asyncio.TaskGroup() as running:
            while True:
                reader.mark_busy()
                await places.acquire()
                reader.work = DONE
                raw = await self._read(socket)
                try:
                    data = self.decode(raw)
                except Exception as exc:
                    places.release()
                    strikes = await self.refuse(socket, exc, strikes)
                    if not socket.is_open:
                        return
                    continue
                strikes = 0
                work = self._handle_one(socket, handle, data, places)
                if self.max_concurrency == 1:
                    reader.mark_busy()
                    await work
                    reader.work = DONE
                else:
                    running.create_task(work)

    async def _read(self, socket: Socket) -> Raw:
        while True:
            try:
                return await socket.receive_data(self.receive_mode)
            except WrongModeException:
                self._note_wrong_mode(socket)

    async def _handle_one(self, socket: Socket, handle: Handle, data: Any, places: asyncio.Semaphore) -> None:
        try:
            reply = handle(data)
            if isinstance(reply, Awaitable):
                reply = await reply
        except Exception as exc:
            await self.recover(socket, exc)
        else:
            if reply is not None and self.encode is not None and socket.is_open:
                await socket.send_data(self.encode(reply), self.send_mode)
        finally:
            places.release()
        if not socket.is_open:
            # Not every server wakes a reader when the app itself has closed.
            raise WebSocketDisconnect(socket.close_code, socket.close_reason)

    def admit(self, socket: Socket, event: Message) -> bool:
        """Whether an event that is not simply a message of the right mode is one to handle after all.

        :raises WebSocketDisconnect: it says that the client left.
        :raises WebSocketException: 1009, it is too long.
        """
        if event["type"] == "websocket.disconnect":
            left = as_disconnect(event)
            raise socket.lost(left.code, left.reason)
        if event.get(KEYS[self.receive_mode]) is None:
            self._note_wrong_mode(socket)
            return False
        if is_too_long(event, self.max_message_size):
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

    async def refuse(self, socket: Socket, exc: Exception, strikes: int) -> int:
        """Answer a message that does not fit; returns how many such came in a row.

        :raises Exception: ``exc``, when it does not say that the message is at fault.
        """
        invalid = as_validation_error(exc)
        if invalid is None:
            raise exc
        strikes += 1
        handler = self.errors.find(invalid)
        if handler is not None:
            await self.errors.reply(socket, handler, invalid)
        elif not self.close_on_invalid:
            await socket.send_data(_error_frame(invalid), self.send_mode)
        if strikes >= self.max_invalid_messages or (handler is None and self.close_on_invalid):
            await socket.close(WS_1007_INVALID_FRAME_PAYLOAD_DATA, invalid.detail)
        return strikes

    async def recover(self, socket: Socket, exc: Exception) -> None:
        """Let the user's handler for ``exc`` answer, so that the connection goes on.

        :raises Exception: ``exc``, when there is none.
        """
        handler = None if isinstance(exc, WebSocketDisconnect) else self.errors.find(exc)
        if handler is None:
            raise exc
        await self.errors.reply(socket, handler, exc)


def _error_frame(invalid: ValidationException) -> bytes:
    error = {"code": "invalid_message", "message": invalid.detail, "path": invalid.path}
    return msgspec.json.encode({"error": error})
