"""Errors as clients get them: the codes of Telex, and the one shape in both modes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ("ERROR_CODES", "LONGEST_TEXT", "checked_code", "cut", "error_body")

ERROR_CODES: Final[Mapping[str, str]] = {
    "invalid_message": "the data is not of the handler's type, with the `path` of the value; or the message is no JSON",
    "bad_frame": "a frame is not as it must be: a field is missing or wrong, an id is not higher than the last",
    "unknown_type": "the server takes no frame of this `type`",
    "timeout": "`call_timeout`, or the caller's own `timeout`, has passed; or an answer in parts got no `more`",
    "cancelled": "the caller has cancelled the call",
    "too_many_calls": "more calls, answers in parts, or bytes than may be in work at once",
    "rate_limited": "`message_limit` or `byte_limit`, or an exception with status 429; perhaps with `retry_after`",
    "contract": "reserved",
    "not_authorized": "the token is refused or has expired; or an exception with status 401",
    "permission_denied": "the token is another user's; or an exception with status 403",
    "not_found": "an exception with status 404 or 405; or the handler takes no calls, or no tokens",
    "conflict": "an exception with status 409; or a `key` that cannot be used again, with the `reason` in `data`",
    "unavailable": "an exception with status 503, such as a broker that is away; or the store of keys is",
    "internal": "any other exception; the log has it",
}
"""The codes of Telex, and what each means; those of declared exceptions are others. The documentation has this text."""

LONGEST_TEXT: Final = 500
"""The limit, in characters, of a message or path in an error: both may repeat data of the client."""


_CODE: Final = re.compile("[a-z][a-z0-9_]{0,63}")


def checked_code(code: str) -> str:
    """``code``, if it is one of Telex or has their form.

    :raises ValueError: it has another form.
    """
    if not isinstance(code, str) or _CODE.fullmatch(code) is None:
        raise ValueError(
            f"the code of an error is a word as 'not_found' or 'room_is_full': at most 64 of a-z, 0-9 and _, beginning"
            f" with a letter, not {code!r:.80}"
        )
    return code


def cut(text: str) -> str:
    """``text``, cut to a limited length."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def error_body(
    code: str, message: str = "", *, path: str = "", retry_after: float | None = None, data: object = None
) -> dict[str, object]:
    """The ``error`` of a frame or message ``{"type": "error", "error": …}``; what is not given is left out."""
    error: dict[str, object] = {"code": code, "message": message}
    if path:
        error["path"] = path
    if retry_after is not None:
        error["retry_after"] = retry_after
    if data is not None:
        error["data"] = data
    return error
