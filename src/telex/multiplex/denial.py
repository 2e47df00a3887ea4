"""Collects the HTTP response that refuses a route, and makes its ``denied`` frame."""

from __future__ import annotations

import msgspec

from telex.protocol.refusals import MAX_BODY, Denial
from telex.types import Message

__all__ = ("DenialResponse", "denied_frame")


class DenialResponse:
    """A response that comes in events: its status, its headers, and the beginning of its body."""

    __slots__ = ("_body", "_start")

    def __init__(self, start: Message) -> None:
        self._start = start
        self._body = b""

    def add(self, body: bytes) -> None:
        """Add a part of the body; what is over the limit is cut off."""
        self._body += body[: MAX_BODY - len(self._body)]

    def frame(self, c: int) -> str:
        """The frame for the client."""
        return denied_frame(c, Denial.read(self._start["status"], self._start.get("headers") or (), self._body))


def denied_frame(c: int, denial: Denial) -> str:
    """The frame that refuses route ``c``."""
    error = denial.error
    frame = {"type": "denied", "c": c, "status": denial.status, "code": error["code"], "error": error}
    if denial.retry_after is not None:
        frame["retry_after"] = denial.retry_after
    return msgspec.json.encode(frame).decode()
