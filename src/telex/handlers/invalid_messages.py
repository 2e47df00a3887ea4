"""The policy for invalid messages, shared by every kind of handler and every message loop.

A user's exception handler for ``ValidationException`` is called first. Without one, ``on_invalid_message="reply"``
answers with an error frame and ``"close"`` closes with 1007. Too many consecutive invalid messages always close with
1007.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from telex.codecs import as_validation_error
from telex.connection import Socket
from telex.exception_handling import ExceptionPolicy
from telex.exceptions import ValidationException
from telex.layers import nearest
from telex.plans import Build
from telex.protocol.errors import cut, error_body
from telex.status_codes import WS_1007_INVALID_FRAME_PAYLOAD_DATA
from telex.telemetry.counts import RouteCounts
from telex.types import Mode

__all__ = ("InvalidMessages",)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidMessages:
    """The policy of one handler. ``max_in_a_row`` consecutive invalid messages close the connection, or the first."""

    errors: ExceptionPolicy
    send_mode: Mode
    close_at_first: bool
    max_in_a_row: int
    counts: RouteCounts | None

    @classmethod
    def compile(cls, build: Build, errors: ExceptionPolicy, send_mode: Mode, max_in_a_row: int) -> InvalidMessages:
        """The policy from the options of ``build``; ``errors`` holds the exception handlers."""
        close_at_first = nearest(build.layer.on_invalid_message, "reply") == "close"
        return cls(
            errors=errors,
            send_mode=send_mode,
            close_at_first=close_at_first,
            max_in_a_row=max_in_a_row,
            counts=build.counts,
        )

    async def refuse(self, socket: Socket, exc: Exception, in_a_row: int) -> int:
        """Answer an invalid message that follows ``in_a_row`` others; returns the new number.

        :raises Exception: ``exc``, if it was not raised for an invalid message.
        """
        invalid = as_validation_error(exc)
        if invalid is None:
            raise exc
        in_a_row += 1
        if self.counts is not None:
            self.counts.invalid += 1
        handler = self.errors.find(invalid)
        if handler is not None:
            await self.errors.reply(socket, handler, invalid)
        elif not self.close_at_first:
            await socket.send_data(_error_frame(invalid), self.send_mode)
        if in_a_row >= self.max_in_a_row or (handler is None and self.close_at_first):
            await socket.close(WS_1007_INVALID_FRAME_PAYLOAD_DATA, invalid.detail)
        return in_a_row


def _error_frame(invalid: ValidationException) -> bytes:
    error = error_body("invalid_message", cut(invalid.detail), path=cut(invalid.path))
    return msgspec.json.encode({"type": "error", "error": error})
