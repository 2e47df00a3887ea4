"""Builds the ASGI events that a connection sends, and checks their subprotocols, headers, codes and reasons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from telex.headers import ACCEPT_HEADERS, DENIAL_HEADERS, Header, checked_headers
from telex.status_codes import SENDABLE_CLOSE_CODES, cut_close_reason, is_sendable_close_code
from telex.types import AcceptEvent, CloseEvent, DenialBodyEvent, DenialStartEvent, Message, Scope

__all__ = ("HeaderValues", "accept_event", "close_event", "denial_events", "is_too_long", "offers_denial")

HeaderValues: TypeAlias = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]


def accept_event(scope: Scope, subprotocols: str | Sequence[str] | None, headers: HeaderValues | None) -> AcceptEvent:
    """``websocket.accept`` with the selected subprotocol and the checked headers.

    :raises ValueError: the client did not offer the subprotocol, or a header is not safe to send.
    """
    return {
        "type": "websocket.accept",
        "subprotocol": _choose(scope.get("subprotocols") or [], subprotocols),
        "headers": checked_headers(_pairs(headers), ACCEPT_HEADERS),
    }


def close_event(code: int, reason: str | None) -> CloseEvent:
    """``websocket.close``, the reason cut to 123 bytes at a character boundary (RFC 6455 section 5.5).

    :raises ValueError: RFC 6455 section 7.4 forbids sending the code.
    """
    if not is_sendable_close_code(code):
        raise ValueError(f"close code {code} may not be sent: use {SENDABLE_CLOSE_CODES} (RFC 6455 section 7.4)")
    return {"type": "websocket.close", "code": code, "reason": cut_close_reason(reason or "")}


def offers_denial(scope: Scope) -> bool:
    """Whether the server can answer the handshake with an HTTP response (ASGI's denial extension)."""
    return "websocket.http.response" in (scope.get("extensions") or {})


def denial_events(
    status: int, body: object, headers: HeaderValues | None = None
) -> tuple[DenialStartEvent, DenialBodyEvent]:
    """An HTTP response that refuses the handshake; ``body`` is sent unchanged if it is bytes, otherwise as JSON."""
    own = checked_headers(_pairs(headers), DENIAL_HEADERS)
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
                " pass a list of the supported subprotocols to select the first one that the client offers"
            )
        return wanted
    return next((protocol for protocol in wanted if protocol in offered), None)


def _pairs(headers: HeaderValues | None) -> Iterator[Header]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    return ((_latin1(name), _latin1(value)) for name, value in pairs)


def _latin1(value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError as exc:
        raise ValueError(f"header text {value!r} is not Latin-1 (RFC 9110 section 5.5)") from exc


def is_too_long(event: Message, limit: int) -> bool:
    """Whether the message has more than ``limit`` bytes on the wire."""
    data = event.get("text")
    if data is None:
        return len(event.get("bytes") or b"") > limit
    return len(data) * 4 > limit and len(data.encode("utf-8", "surrogatepass")) > limit
