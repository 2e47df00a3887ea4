"""The one table of close codes: what each means, and what a client does after it.

The documentation and the clients' tables are written from it; ``telex close-codes`` prints it as JSON.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

from telex.status_codes import CLOSE_CODE_OF_STATUS

__all__ = ("CLOSE_CODES", "OTHERWISE", "RANGES", "AfterClose", "CloseCode", "CodeRange", "after_close", "table")

AfterClose: TypeAlias = Literal["done", "never", "refresh", "retry_after", "back_off", "application"]
"""What a client does after a close:

- ``done``: nothing, the server has finished
- ``never``: report the error; the next attempt would end in the same way
- ``refresh``: get a new token, then try once
- ``retry_after``: wait for the seconds of ``retry-after=`` in the reason; without them as ``back_off``
- ``back_off``: try again after a pause that grows and is random
- ``application``: the code is the application's: report it, do not try again
"""


class CloseCode(NamedTuple):
    """One row of the table."""

    code: int
    meaning: str
    after: AfterClose


_ROWS: Final = (
    CloseCode(1000, "The server has finished", "done"),
    CloseCode(1001, "The server goes away", "back_off"),
    CloseCode(1002, "The client broke RFC 6455", "never"),
    CloseCode(1003, "The handler takes no data, or not of this mode", "never"),
    CloseCode(1005, "The close frame had no code", "back_off"),
    CloseCode(1006, "The connection was lost, or a browser's handshake was refused", "back_off"),
    CloseCode(1007, "Too many invalid messages", "never"),
    CloseCode(1008, "The client sent more than it had credit for", "never"),
    CloseCode(1009, "A message was too long", "never"),
    CloseCode(1011, "The server failed", "back_off"),
    CloseCode(1012, "The server restarts", "retry_after"),
    CloseCode(1013, "The server is overloaded, or the client reads too slowly", "retry_after"),
    CloseCode(CLOSE_CODE_OF_STATUS + 400, "The request is invalid", "never"),
    CloseCode(CLOSE_CODE_OF_STATUS + 401, "Credentials are missing, wrong or expired", "refresh"),
    CloseCode(CLOSE_CODE_OF_STATUS + 403, "The client has no permission", "never"),
    CloseCode(CLOSE_CODE_OF_STATUS + 404, "The path or resource does not exist", "never"),
    CloseCode(CLOSE_CODE_OF_STATUS + 405, "The path takes no WebSockets", "never"),
    CloseCode(CLOSE_CODE_OF_STATUS + 408, "The request took too long", "retry_after"),
    CloseCode(CLOSE_CODE_OF_STATUS + 409, "The request conflicts with another", "never"),
    CloseCode(CLOSE_CODE_OF_STATUS + 410, "The resource or position is gone", "never"),
    CloseCode(CLOSE_CODE_OF_STATUS + 425, "The request came too early", "retry_after"),
    CloseCode(CLOSE_CODE_OF_STATUS + 426, "The client must use another protocol", "never"),
    CloseCode(CLOSE_CODE_OF_STATUS + 429, "The client sends too many requests", "retry_after"),
    CloseCode(CLOSE_CODE_OF_STATUS + 500, "The server failed", "back_off"),
    CloseCode(CLOSE_CODE_OF_STATUS + 503, "The server is temporarily unavailable", "retry_after"),
)

CLOSE_CODES: Final = {row.code: row for row in _ROWS}


class CodeRange(NamedTuple):
    """What a client does after the codes between two, both included, that have no row."""

    first: int
    last: int
    after: AfterClose


RANGES: Final = (
    CodeRange(CLOSE_CODE_OF_STATUS + 400, CLOSE_CODE_OF_STATUS + 499, "never"),
    CodeRange(CLOSE_CODE_OF_STATUS + 500, CLOSE_CODE_OF_STATUS + 599, "back_off"),
    CodeRange(3000, 4999, "application"),
)
"""The first range that has the code decides. No HTTP status is above 599: codes from 4600 on are the application's."""

OTHERWISE: Final[AfterClose] = "back_off"
"""What a client does after a code in no range."""


def after_close(code: int) -> AfterClose:
    """What a client does after a close with ``code``."""
    row = CLOSE_CODES.get(code)
    if row is not None:
        return row.after
    return next((found.after for found in RANGES if found.first <= code <= found.last), OTHERWISE)


def table() -> dict[str, object]:
    """The table for clients in other languages, as plain values."""
    return {
        "codes": [{"code": row.code, "meaning": row.meaning, "after": row.after} for row in _ROWS],
        "ranges": [{"first": each.first, "last": each.last, "after": each.after} for each in RANGES],
        "otherwise": OTHERWISE,
    }
