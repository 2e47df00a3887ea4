"""Checks the headers of handshake responses: in Telex apps, and in Telex's server for every app."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, TypeAlias

__all__ = ("ACCEPT_HEADERS", "CONTROL", "DENIAL_HEADERS", "TOKEN", "Header", "checked_headers")

Header: TypeAlias = tuple[bytes, bytes]

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A header's name, and a subprotocol (RFC 9110 section 5.6.2)."""
CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Characters that a header value must not contain (RFC 9110 section 5.5)."""

DENIAL_HEADERS: Final = frozenset({b"content-length", b"transfer-encoding"})
"""Headers that are computed from a denial's body and cannot be given."""
ACCEPT_HEADERS: Final = DENIAL_HEADERS | {
    b"connection",
    b"sec-websocket-accept",
    b"sec-websocket-extensions",
    b"sec-websocket-key",
    b"sec-websocket-protocol",
    b"sec-websocket-version",
    b"upgrade",
}
"""Headers that the server sets in its answer to the opening handshake."""


def checked_headers(headers: Iterable[Header], forbidden: Collection[bytes] = ()) -> list[Header]:
    """``headers`` with lower-case names.

    :raises ValueError: a name is no token or is ``forbidden``, or a value has control characters.
    """
    return [_checked(bytes(name).lower(), bytes(value), forbidden) for name, value in headers]


def _checked(name: bytes, value: bytes, forbidden: Collection[bytes]) -> Header:
    if not TOKEN.fullmatch(name):
        raise ValueError(f"header name {name!r} is not a token (RFC 9110 section 5.1)")
    if CONTROL.search(value):
        raise ValueError(f"the value of header {name.decode()!r} has control characters: {value!r}")
    if name in forbidden:
        hint = "; give the subprotocol as 'subprotocol'" if name == b"sec-websocket-protocol" else ""
        raise ValueError(f"header {name.decode()!r} is set by the server: remove it{hint}")
    return name, value
