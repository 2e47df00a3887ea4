"""Builds the ASGI events that a connection sends, checked: nothing that a client could misread leaves from here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from telex.status_codes import cut_close_reason, is_sendable_close_code
from telex.types import AcceptEvent, CloseEvent, DenialBodyEvent, DenialStartEvent, Scope

__all__ = ("HeaderValues", "accept_event", "close_event", "denial_events", "offers_denial")

HeaderValues: TypeAlias = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A header's name, and a subprotocol (RFC 9110 section 5.6.2)."""
_UNSAFE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What no header value may hold (RFC 9110 section 5.5)."""
_SERVERS_OWN: Final = frozenset(
    {
        b"connection",
        b"upgrade",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"transfer-encoding",
        b"content-length",
    }
)


def accept_event(scope: Scope, subprotocols: str | Sequence[str] | None, headers: HeaderValues | None) -> AcceptEvent:
    """``websocket.accept`` with the subprotocol chosen and the headers checked.

    :raises ValueError: a subprotocol that the client did not offer, or a header that is not safe to send.
    """
    return {
        "type": "websocket.accept",
        "subprotocol": _choose(scope.get("subprotocols") or [], subprotocols),
        "headers": _checked_headers(headers or {}, forbidden=_SERVERS_OWN),
    }


def close_event(code: int, reason: str | None) -> CloseEvent:
    """``websocket.close``, the reason cut to 123 bytes at a character boundary (RFC 6455 section 5.5).

    :raises ValueError: the code may not be put on the wire (RFC 6455 section 7.4).
    """
    if not is_sendable_close_code(code):
        raise ValueError(
            f"close code {code} may not be sent: use 1000 to 1003, 1007 to 1014, or 3000 to 4999 (RFC 6455 section 7.4)"
        )
    return {"type": "websocket.close", "code": code, "reason": cut_close_reason(reason or "")}


def offers_denial(scope: Scope) -> bool:
    """Whether the server can answer the handshake with an HTTP response (ASGI's denial extension)."""
    return "websocket.http.response" in (scope.get("extensions") or {})


def denial_events(
    status: int, body: object, headers: HeaderValues | None = None
) -> tuple[DenialStartEvent, DenialBodyEvent]:
    """An HTTP answer in place of the handshake; ``body`` is bytes as they are, or anything that JSON has."""
    own = _checked_headers(headers or {}, forbidden=frozenset({b"content-length", b"transfer-encoding"}))
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    if not any(name == b"content-type" for name, _ in own):
        own.append((b"content-type", b"application/json"))
    own.append((b"content-length", str(len(raw)).encode()))
    return (
        {"type": "websocket.http.response.start", "status": status, "headers": own},
        {"type": "websocket.http.response.body", "body": raw},
    )


def _choose(offered: Sequence[str], wanted: str | Sequence[str] | None) -> str | None:
    if wanted is None:
        return None
    if isinstance(wanted, str):
        if wanted not in offered:
            raise ValueError(
                f"subprotocol {wanted!r} was not offered by the client, which offers {list(offered)!r}:"
                " pass a list of those you speak, and the first that was offered is taken"
            )
        return wanted
    return next((protocol for protocol in wanted if protocol in offered), None)


def _checked_headers(headers: HeaderValues, forbidden: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [_checked_header(_latin1(name).lower(), _latin1(value), forbidden) for name, value in pairs]


def _checked_header(name: bytes, value: bytes, forbidden: frozenset[bytes]) -> tuple[bytes, bytes]:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"header name {name!r} is not a token (RFC 9110 section 5.1)")
    if name in forbidden:
        raise ValueError(f"header {name.decode()!r} belongs to the server: it cannot be set here")
    if _UNSAFE.search(value):
        raise ValueError(f"the value of header {name.decode()!r} has control characters: {value!r}")
    return name, value


def _latin1(value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError as exc:
        raise ValueError(f"header text {value!r} is not Latin-1 (RFC 9110 section 5.5)") from exc
