"""What an application may put into the headers of its answers. Telex checks it, and Telex's server for every app."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, TypeAlias

__all__ = ("ACCEPT_HEADERS", "CONTROL", "DENIAL_HEADERS", "TOKEN", "Header", "checked_headers")

Header: TypeAlias = tuple[bytes, bytes]

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A header's name, and a subprotocol (RFC 9110 section 5.6.2)."""
CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What no header value may hold (RFC 9110 section 5.5)."""

DENIAL_HEADERS: Final = frozenset({b"content-length", b"transfer-encoding"})
"""Headers of a denial that only the sender of its body can know."""
ACCEPT_HEADERS: Final = DENIAL_HEADERS | {
    b"connection",
    b"sec-websocket-accept",
    b"sec-websocket-extensions",
    b"sec-websocket-key",
    b"sec-websocket-protocol",
    b"sec-websocket-version",
    b"upgrade",
}
"""Headers with which the server itself answers the opening handshake."""


def checked_headers(headers: Iterable[Header], forbidden: Collection[bytes] = ()) -> list[Header]:
    """``headers`` with lower-case names.

    :raises ValueError: a name that is no token, a value that would end the header early, or a ``forbidden`` name.
    """
    return [_checked(bytes(name).lower(), bytes(value), forbidden) for name, value in headers]


def _checked(name: bytes, value: bytes, forbidden: Collection[bytes]) -> Header:
    if not TOKEN.fullmatch(name):
        raise ValueError(f"header name {name!r} is not a token (RFC 9110 section 5.1)")
    if CONTROL.search(value):
        raise ValueError(f"the value of header {name.decode()!r} has control characters: {value!r}")
    if name in forbidden:
        hint = "; give the subprotocol as 'subprotocol'" if name == b"sec-websocket-protocol" else ""
        raise ValueError(f"header {name.decode()!r} belongs to the server: it cannot be set here{hint}")
    return name, value
