"""Calls of the server to one client: their ids, and the futures of their answers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from telex.codecs import Reader, as_validation_error, frame_reader
from telex.exceptions import CallError, CallTimeout, ValidationException, WebSocketDisconnect
from telex.protocol import frames
from telex.protocol.frames import Encoded
from telex.telemetry.counts import RouteCounts

__all__ = ("Asking",)


class Asking:
    """The calls of the server on one connection that wait for an answer."""

    __slots__ = ("_counts", "_end", "_ids", "_send", "_waiting", "_write", "ignored")

    def __init__(
        self,
        send: Callable[[Encoded], Awaitable[None]],
        write: Callable[[Encoded], None],
        counts: RouteCounts | None = None,
    ) -> None:
        self._counts = counts
        self._send = send
        self._write = write
        self._ids = 0
        self._waiting: dict[int, asyncio.Future[tuple[Any, bytes | None]]] = {}
        self._end: WebSocketDisconnect | None = None
        self.ignored: int = 0
        """Answers to calls that had ended before."""

    async def ask(self, data: Encoded, answer: Any, within: float) -> Any:
        """Send a call and wait for its answer, as the type ``answer``.

        :raises ValueError: ``within`` is not above 0.
        :raises CallTimeout: no answer came within ``within`` seconds.
        :raises CallError: the client answered with an error, or with data of another type.
        :raises WebSocketDisconnect: the connection ended first.
        """
        if within <= 0:
            raise ValueError(f"timeout={within!r}: write the seconds in which the client must answer, more than 0")
        if self._end is not None:
            raise self._end
        read = _reader(answer)
        self._ids += 1
        call_id = self._ids
        waiting = self._waiting[call_id] = asyncio.get_running_loop().create_future()
        is_sent = False
        try:
            async with asyncio.timeout(within):
                await self._send(frames.frame(f'{{"type":"call","id":{call_id}', data))
                is_sent = True
                found, payload = await waiting
        except TimeoutError:
            raise CallTimeout(f"the client did not answer within {within:g} s") from None
        finally:
            if self._waiting.pop(call_id, None) is not None and self._end is None and is_sent:
                self._write(f'{{"type":"cancel","id":{call_id}}}')
            if waiting.done() and not waiting.cancelled():
                waiting.exception()  # the connection may have ended before anybody waited
        return read(found, payload)

    def answered(self, found: frames.ReplyFrame | frames.ErrorFrame, payload: bytes | None) -> bool:
        """Pass an answer to the task that waits for it; returns false for the answer to a call that nobody made."""
        call_id = found.id or 0
        waiting = self._waiting.pop(call_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result((found, payload))
        elif call_id > self._ids:
            return False
        else:
            self.ignored += 1
            if self._counts is not None:
                self._counts.answers_ignored += 1
        return True

    def end(self, end: WebSocketDisconnect) -> None:
        """The connection has ended: raise in every task that waits."""
        self._end = end
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(WebSocketDisconnect(end.code, end.reason))


def _reader(answer: Any) -> Callable[[Any, bytes | None], Any]:
    try:
        return _cached_reader(answer)
    except TypeError:  # an annotation that cannot be hashed
        return _new_reader(answer)


def _new_reader(answer: Any) -> Callable[[Any, bytes | None], Any]:
    read_json, read_bytes = frame_reader(answer) if answer is not None else (_nothing, None)

    def read(found: frames.ReplyFrame | frames.ErrorFrame, payload: bytes | None) -> Any:
        if isinstance(found, frames.ErrorFrame):
            raise CallError(found.error.code, found.error.message, found.error.data)
        try:
            return read_data(found.data, payload, read_json, read_bytes)
        except Exception as exc:
            invalid = as_validation_error(exc)
            if invalid is None:
                raise
            where = f" at {invalid.path}" if invalid.path else ""
            raise CallError("invalid_message", f"the client's answer: {invalid.detail}{where}") from exc

    return read


_cached_reader = functools.lru_cache(256)(_new_reader)


def read_data(data: msgspec.Raw, payload: bytes | None, read_json: Reader | None, read_bytes: Reader | None) -> Any:
    """Decode the data of a frame; ``payload`` is that of a binary message.

    :raises ValidationException: there is none, or it is JSON instead of bytes, or bytes instead of JSON.
    """
    if payload is not None:
        if read_bytes is None:
            raise ValidationException("Expected JSON, got a binary message")
        return read_bytes(payload)
    if read_json is None:
        raise ValidationException("Expected a binary message, got JSON")
    if not data and read_json is not _nothing:
        raise ValidationException("Object missing required field `data`")
    return read_json(bytes(data))


def _nothing(_: Any) -> None:
    """Read the answer of a call that wants none but to know that it was handled."""
