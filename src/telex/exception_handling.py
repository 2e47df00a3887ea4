"""Handles exceptions: first with the layers' exception handlers, then with HTTP statuses and close codes."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Mapping
from typing import Any, Final, cast

from starlette import exceptions as starlette_exceptions
from starlette.responses import Response

from telex import codecs
from telex.connection import Socket
from telex.exceptions import (
    BackendUnavailable,
    HTTPException,
    WebSocketDisconnect,
    WebSocketException,
)
from telex.status_codes import (
    CLOSE_CODE_OF_STATUS,
    WS_1000_NORMAL_CLOSURE,
    WS_1011_UNEXPECTED_ERROR,
    is_sendable_close_code,
)
from telex.types import ExceptionHandler, Mode, TypeEncoder

__all__ = ("ExceptionPolicy", "familiar", "leaf")

logger: Final = logging.getLogger("telex")

REPORT_EXTENSION: Final = "telex.exception_handling"
"""The ASGI extension of test clients: a function that is called with each unexpected exception."""


class ExceptionPolicy:
    """The merged exception handlers of one handler, and the defaults for other exceptions."""

    def __init__(
        self,
        handlers: Mapping[type[Exception] | int, ExceptionHandler],
        where: str,
        *,
        debug: bool = False,
        mode: Mode = "text",
        encoders: Mapping[type, TypeEncoder] | None = None,
    ) -> None:
        self._by_status = {key: handler for key, handler in handlers.items() if isinstance(key, int)}
        self._by_type = {key: handler for key, handler in handlers.items() if not isinstance(key, int)}
        self._groups = tuple(kind for kind in self._by_type if issubclass(kind, BaseExceptionGroup))
        self._where = where
        self._debug = debug
        self._mode: Mode = mode
        self._write = codecs.value_writer(Any, mode, encoders)

    def find(self, exc: Exception) -> ExceptionHandler | None:
        """The exception handler for ``exc``: by its HTTP status, else by the nearest of its classes, else by 500.

        For a group, the result of :func:`leaf` is looked up, unless an exception handler is registered for groups.
        """
        found = self._for_handlers(exc)
        if found is not exc and not _may_be_answered(found):
            return None
        status = getattr(found, "status_code", None)
        if status in self._by_status:
            return self._by_status[status]
        default = None if isinstance(found, _DELIBERATE) else self._by_status.get(500)
        return next((self._by_type[kind] for kind in type(found).__mro__ if kind in self._by_type), default)

    def _for_handlers(self, exc: BaseException) -> BaseException:
        """``exc``, or the :func:`leaf` of a group for which no exception handler is registered."""
        return exc if isinstance(exc, self._groups) else leaf(exc)

    async def reply(self, socket: Socket, handler: ExceptionHandler, exc: Exception) -> None:
        """Call ``handler`` for an exception of a message, and send its result unless it is ``None``."""
        answer = await self.answer(socket, handler, exc)
        if answer is not None and socket.is_open:
            await socket.send_data(self._write(answer), self._mode)

    async def answer(self, socket: Socket, handler: ExceptionHandler, exc: Exception) -> object:
        """The result of ``handler`` for an exception of a message."""
        return await _call(handler, socket, cast("Exception", self._for_handlers(exc)))

    def report(self, socket: Socket, error: Exception) -> None:
        """Log ``error`` unless it is a deliberate answer."""
        if isinstance(error, BackendUnavailable):
            # Every connection raises this while the broker is unavailable, which channels log: so no traceback here.
            logger.warning("%s: %s", self._where, error.detail)
        elif _is_unexpected(error):
            logger.error("%s failed", self._where, exc_info=error)
            _report(socket, error)

    async def end(self, socket: Socket, exc: BaseException) -> None:
        """End the connection because of an unhandled ``exc``.

        A user's exception handler is called first: before accept it can return a starlette response, after accept a
        message. If it raises or leaves the connection open, the default status or close code is used.
        """
        error = cast("Exception", leaf(exc))
        if _has_left(socket, error) or socket.ended_by(error):
            return
        handler = self.find(error)
        if handler is not None:
            try:
                await self._let_answer(socket, handler, error)
            except Exception as raised:
                error = cast("Exception", leaf(raised))
        try:
            await self._apply_table(socket, familiar(error))
        except WebSocketDisconnect:
            return

    def is_disconnect(self, socket: Socket, exc: BaseException) -> bool:
        """Whether ``exc`` only means that the client has left."""
        return _has_left(socket, leaf(exc))

    async def _let_answer(self, socket: Socket, handler: ExceptionHandler, error: Exception) -> None:
        if socket.connection_state != "receive":
            answer = await _call(handler, socket, error)
            if answer is not None and socket.connection_state in {"init", "connect"}:
                await _deny_with(socket, answer, getattr(error, "status_code", 500))
        else:
            await self.reply(socket, handler, error)

    async def _apply_table(self, socket: Socket, error: Exception) -> None:
        if _has_left(socket, error):
            return
        self.report(socket, error)
        if socket.connection_state in {"init", "connect"}:
            await self._deny(socket, error)
        else:
            await socket.close(*self._code_of(error))

    async def _deny(self, socket: Socket, error: Exception) -> None:
        if isinstance(error, HTTPException):
            status = error.status_code if 200 <= error.status_code <= 599 else 500
            body: dict[str, object] = {"status_code": status, "detail": self._public_text(error)}
            if error.extra is not None:
                body["extra"] = error.extra
            await socket.deny(status, body, error.headers)
        elif isinstance(error, WebSocketException):
            body = {"status_code": 403, "detail": error.detail, "code": error.code}
            await socket.deny(403, body, code=_wire_code(error))
        else:
            body = {"status_code": 500, "detail": "Internal Server Error"}
            if self._debug:
                body["traceback"] = traceback.format_exception(error)
            await socket.deny(500, body)

    def _code_of(self, error: BaseException) -> tuple[int, str]:
        if isinstance(error, WebSocketException):
            return _wire_code(error), error.reason
        if isinstance(error, HTTPException):
            code = CLOSE_CODE_OF_STATUS + error.status_code
            return code if is_sendable_close_code(code) else WS_1011_UNEXPECTED_ERROR, self._public_text(error)
        return WS_1011_UNEXPECTED_ERROR, f"{type(error).__name__}: {error}" if self._debug else "internal error"

    def _public_text(self, error: HTTPException) -> str:
        return error.detail if self._debug else error.public_detail


def leaf(exc: BaseException) -> BaseException:
    """The cause in an exception group: the first exception that is no disconnect and no cancellation, if any."""
    if not isinstance(exc, BaseExceptionGroup):
        return exc
    leaves = [leaf(each) for each in exc.exceptions]
    telling = (each for each in leaves if not isinstance(each, (WebSocketDisconnect, asyncio.CancelledError)))
    return next(telling, leaves[0])


_DELIBERATE: Final = (
    HTTPException,
    WebSocketException,
    starlette_exceptions.HTTPException,
    starlette_exceptions.WebSocketException,
)
"""Exceptions with a status or close code; all others are handled as status 500."""


def _may_be_answered(exc: BaseException) -> bool:
    return isinstance(exc, Exception) and not isinstance(exc, WebSocketDisconnect)


def familiar(exc: BaseException) -> Exception:
    """``exc``, with starlette's exceptions converted to Telex's."""
    if isinstance(exc, starlette_exceptions.HTTPException):
        return HTTPException(exc.detail, status_code=exc.status_code, headers=exc.headers)
    if isinstance(exc, starlette_exceptions.WebSocketException):
        return WebSocketException(exc.code, exc.reason)
    return cast("Exception", exc)


def _has_left(socket: Socket, error: BaseException) -> bool:
    """Whether ``error`` is a disconnect and the client has left: an app can also raise a disconnect by itself."""
    return isinstance(error, WebSocketDisconnect) and (socket.has_left() or socket.connection_state == "disconnect")


def _is_unexpected(error: Exception) -> bool:
    if isinstance(error, HTTPException):
        return error.status_code >= 500
    return not isinstance(error, WebSocketException)


def _report(socket: Socket, error: Exception) -> None:
    report = (socket.scope.get("extensions") or {}).get(REPORT_EXTENSION)
    if report is not None and not isinstance(error, HTTPException):  # a status is an answer, even a 503
        report(error)


def _wire_code(error: WebSocketException) -> int:
    if is_sendable_close_code(error.code):
        return error.code
    return WS_1000_NORMAL_CLOSURE if isinstance(error, WebSocketDisconnect) else WS_1011_UNEXPECTED_ERROR


async def _call(handler: ExceptionHandler, socket: Socket, exc: Exception) -> object:
    answer = handler(socket, exc)
    return await answer if isinstance(answer, Awaitable) else answer


async def _deny_with(socket: Socket, answer: object, status: int) -> None:
    if isinstance(answer, Response):
        headers = [(name, value) for name, value in answer.raw_headers if name != b"content-length"]
        await socket.deny(answer.status_code, bytes(answer.body), headers)
    else:
        await socket.deny(status, answer)
