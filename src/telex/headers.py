"""Headers of the handshake: checks those of responses, and reads cookies and origins.

The checks are for Telex apps, and for every app on Telex's server.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

__all__ = (
    "ACCEPT_HEADERS",
    "CONTROL",
    "DENIAL_HEADERS",
    "TOKEN",
    "Header",
    "Origin",
    "checked_headers",
    "read_cookies",
    "read_origin",
)

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


def read_cookies(headers: Iterable[str]) -> dict[str, str]:
    """The cookies in ``Cookie`` headers, as Starlette reads them, in linear time.

    Starlette calls ``http.cookies`` of the standard library, which is quadratic in some releases of each Python
    version (CVE-2024-7592): a quoted value of backslashes takes more than a second.
    """
    pairs = (chunk.partition("=") if "=" in chunk else ("", "", chunk) for each in headers for chunk in each.split(";"))
    stripped = ((name.strip(), value.strip()) for name, _, value in pairs)
    return {name: _unquoted(value) for name, value in stripped if name or value}


def _unquoted(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)) if found[1] else found[2], value[1:-1])


_ESCAPED: Final = re.compile(r"\\(?:([0-3][0-7]{2})|(.))")


class Origin(NamedTuple):
    """The parts of an ``Origin`` header, in lower case."""

    text: str
    scheme: str
    netloc: str
    host: str
    port: int | None

    def is_own(self, hosts: Sequence[str], *, secure: bool) -> bool:
        """Whether it is that of a request with these ``Host`` headers, which came by TLS if ``secure``."""
        if len(hosts) != 1:
            return False
        try:
            own = urlsplit(f"//{hosts[0].lower()}")
            own_port = own.port
        except ValueError:
            return False
        if own.hostname != self.host or own.netloc != hosts[0].lower() or "@" in own.netloc or own.path or own.query:
            return False
        if self.scheme not in _DEFAULT_PORTS:
            return False
        if own_port is None:
            own_port = 443 if secure else _DEFAULT_PORTS[self.scheme]
        elif secure is not (self.scheme == "https"):
            return False
        return (_DEFAULT_PORTS[self.scheme] if self.port is None else self.port) == own_port


def read_origin(value: str) -> Origin | None:
    """The origin of a page with a host; ``None`` for any other value."""
    text = value.lower()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if host is None or text != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
        return None
    return Origin(text, parts.scheme, parts.netloc, host, port)


_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
