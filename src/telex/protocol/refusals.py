"""Refusals that a browser can read: the denial of a handshake as an ``error`` frame and a close code.

A browser reports every refused handshake as 1006, whatever its status. So a client that offers ``telex.v1`` and sends
an ``Origin`` is accepted, gets one ``error`` frame, and is closed with 4000 + status. No handler, hook or ``hello`` is
involved: the denial is converted where it is sent, so that those of middleware are included. Programs get HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from telex.defaults import KIB
from telex.protocol.envelope import MULTIPLEXED, SUBPROTOCOL
from telex.protocol.errors import error_body
from telex.status_codes import (
    CLOSE_CODE_OF_STATUS,
    HTTP_403_FORBIDDEN,
    WS_1000_NORMAL_CLOSURE,
    cut_close_reason,
    is_sendable_close_code,
)
from telex.types import Message, Scope, Send

__all__ = (
    "MAX_BODY",
    "CLOSE_WITHIN",
    "CODE_OF_STATUS",
    "Denial",
    "Refusable",
    "compile_refusals",
    "code_of_status",
    "offers_frames",
)

logger: Final = logging.getLogger("telex")

CLOSE_WITHIN: Final = 1.0
"""Seconds in which a refused client is told and closed."""
MAX_BODY: Final = 4 * KIB
"""Bytes of a denial's body that are read; the rest is dropped."""
LONGEST_TEXT: Final = 500

CODE_OF_STATUS: Final[Mapping[int, str]] = {
    401: "not_authorized",
    403: "permission_denied",
    404: "not_found",
    405: "not_found",
    409: "conflict",
    429: "rate_limited",
    503: "unavailable",
}
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


def code_of_status(status: int) -> str:
    """The code of an error for an HTTP status."""
    return CODE_OF_STATUS.get(status, "invalid_message" if 400 <= status < 500 else "internal")


class Denial(NamedTuple):
    """What a client is told of a handshake that was refused."""

    status: int
    message: str
    retry_after: float | None = None
    data: object = None
    close_code: int | None = None
    """The code to close with, if it is not 4000 + status."""

    @classmethod
    def of(cls, status: int, message: str = "", *, retry_after: float | None = None) -> Denial:
        """A denial with this text, or else the phrase of the status."""
        return cls(status, message or _phrase(status), retry_after)

    @classmethod
    def read(cls, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Denial:
        """The denial of an HTTP response. A JSON body is the ``data`` of the error, and its ``detail`` the message."""
        found = {bytes(name).lower(): bytes(value).decode("latin-1").strip() for name, value in headers}
        wait = found.get(b"retry-after", "")
        message, data, code = _read_body(body, found.get(b"content-type", ""))
        retry_after = float(wait) if _SECONDS.fullmatch(wait) else None
        return cls(status, message or _phrase(status), retry_after, data, code)

    @classmethod
    def of_close(cls, code: int, reason: str) -> Denial:
        """The denial of a close before accept, which servers answer with 403."""
        status = code - CLOSE_CODE_OF_STATUS
        if 400 <= status <= 599:
            return cls.of(status, reason)
        own = code if is_sendable_close_code(code) and code != WS_1000_NORMAL_CLOSURE else None
        return cls(HTTP_403_FORBIDDEN, reason or _phrase(HTTP_403_FORBIDDEN), close_code=own)

    @property
    def error(self) -> dict[str, object]:
        """The body of the error."""
        return error_body(code_of_status(self.status), self.message, retry_after=self.retry_after, data=self.data)

    @property
    def frame(self) -> str:
        """The error frame."""
        return msgspec.json.encode({"type": "error", "about": "connection", "error": self.error}).decode()

    @property
    def close(self) -> tuple[int, str]:
        """The close code and reason."""
        code = CLOSE_CODE_OF_STATUS + self.status if self.close_code is None else self.close_code
        reason = self.message if self.retry_after is None else f"retry-after={self.retry_after:.2f}"
        return code, cut_close_reason(reason)


def _read_body(body: bytes, content_type: str) -> tuple[str, object, int | None]:
    """The text, the data and the close code of a denial's body."""
    kind = content_type.partition(";")[0].strip().lower()
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return body.decode("utf-8", "replace").strip() if kind in _TEXTS else "", None, None
    if not isinstance(found, dict):
        return "", msgspec.Raw(body), None
    detail, code = found.get("detail"), found.get("code") if "status_code" in found else None
    message = detail[:LONGEST_TEXT] if isinstance(detail, str) else ""
    return message, msgspec.Raw(body), code if type(code) is int and is_sendable_close_code(code) else None


_TEXTS: Final = frozenset({"", "text/plain", "application/json"})
"""The content types of bodies that are shown if they are no JSON, or were cut."""


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP {status}"


class Refusable(Protocol):
    """The part of a connection whose denial may be converted."""

    scope: Scope
    asgi_send: Send


def offers_frames(scope: Scope) -> bool:
    """Whether the client of this handshake reads frames of telex.v1."""
    return SUBPROTOCOL in (scope.get("subprotocols") or ())


def compile_refusals(denials: str) -> Callable[[Refusable], None] | None:
    """Compile the option ``denials``: the function that converts the denial of one connection, if its client reads it.

    Call it after the Origin check: a page of a foreign origin must not learn more than that it was refused.
    """
    if denials == "http":
        return None
    for_programs = denials == "socket"

    def make_readable(connection: Refusable) -> None:
        scope = connection.scope
        if not offers_frames(scope) or MULTIPLEXED in scope:
            return
        if for_programs or any(name == b"origin" for name, _ in scope["headers"]):
            SocketRefusal(connection)

    return make_readable


class SocketRefusal:
    """The ``send`` of a connection until it is accepted: converts a denial, and offers denials on every server."""

    __slots__ = ("_body", "_connection", "_headers", "_send", "_status")

    def __init__(self, connection: Refusable) -> None:
        self._connection = connection
        self._send = connection.asgi_send
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""
        scope = connection.scope
        scope["extensions"] = {**(scope.get("extensions") or {}), "websocket.http.response": {}}
        connection.asgi_send = self

    async def __call__(self, event: Message) -> None:
        """Send one event."""
        match event["type"]:
            case "websocket.http.response.start":
                self._status, self._headers = event["status"], list(event.get("headers") or ())
            case "websocket.http.response.body":
                self._body += event.get("body", b"")[: MAX_BODY - len(self._body)]
                if not event.get("more_body"):
                    await self._refuse(Denial.read(self._status, self._headers, self._body))
            case "websocket.close":
                await self._refuse(Denial.of_close(event.get("code", 1000), event.get("reason") or ""))
            case _:
                await self._send(event)
                self._connection.asgi_send = self._send

    async def _refuse(self, denial: Denial) -> None:
        self._connection.asgi_send = self._send
        _log(self._connection.scope, denial.status)
        code, reason = denial.close
        accept = {"type": "websocket.accept", "subprotocol": SUBPROTOCOL, "headers": [], "refused_with": denial.status}
        with contextlib.suppress(TimeoutError):  # the client does not read
            async with asyncio.timeout(CLOSE_WITHIN):
                await self._send(accept)
                await self._send({"type": "websocket.send", "text": denial.frame})
                await self._send({"type": "websocket.close", "code": code, "reason": reason})


def _log(scope: Scope, status: int) -> None:
    client = scope.get("client")
    where = "an unknown client" if client is None else f"{client[0]}:{client[1]}"
    logger.info("%s: the handshake at %.500r was refused with %d, in the socket", where, scope["path"], status)
