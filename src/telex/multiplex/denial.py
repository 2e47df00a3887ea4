"""Collects the HTTP response that refuses a route, and makes its ``denied`` frame."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from telex.defaults import KIB
from telex.protocol.failures import code_of_status, cut
from telex.types import Message

__all__ = ("Denial", "denied_frame")

MAX_BODY: Final = 4 * KIB
"""Bytes of a response's body that the client gets."""


class Denial:
    """A response: its status, its ``retry-after``, and the beginning of its body."""

    __slots__ = ("_body", "_retry_after", "_status")

    def __init__(self, start: Message) -> None:
        self._status: int = start["status"]
        headers = {name.lower(): value for name, value in start.get("headers") or ()}
        self._retry_after = _seconds(headers.get(b"retry-after"))
        self._body = b""

    def add(self, body: bytes) -> None:
        """Add a part of the body; what is over the limit is cut off."""
        self._body = (self._body + body)[: MAX_BODY + 1]

    def frame(self, c: int) -> str:
        """The frame for the client. A JSON body is the ``data`` of its error, and its ``detail`` the message."""
        if len(self._body) > MAX_BODY:
            return denied_frame(c, self._status, _text(self._body[:MAX_BODY]), retry_after=self._retry_after)
        try:
            data: Any = msgspec.json.decode(self._body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return denied_frame(c, self._status, _text(self._body), retry_after=self._retry_after)
        detail = data.get("detail") if isinstance(data, dict) else None
        message = cut(detail) if isinstance(detail, str) else ""
        return denied_frame(c, self._status, message, retry_after=self._retry_after, data=msgspec.Raw(self._body))


def denied_frame(
    c: int, status: int, message: str, *, retry_after: float | None = None, data: msgspec.Raw | None = None
) -> str:
    """The frame that refuses route ``c`` with an HTTP status."""
    code = code_of_status(status)
    error: dict[str, object] = {"code": code, "message": message}
    frame: dict[str, object] = {"type": "denied", "c": c, "status": status, "code": code, "error": error}
    if data is not None:
        error["data"] = data
    if retry_after is not None:
        frame["retry_after"] = error["retry_after"] = round(retry_after, 3)
    return msgspec.json.encode(frame).decode()


def _text(body: bytes) -> str:
    return body.decode(errors="replace")


def _seconds(value: bytes | None) -> float | None:
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:  # a date
        return None
