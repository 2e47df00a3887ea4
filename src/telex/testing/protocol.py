"""Checks an app's events against the rules of the ASGI WebSocket protocol (version 2.4).

Servers differ in the violations that they accept; an app that follows these rules works on all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from enum import Enum
from typing import Final

from telex.status_codes import MAX_CLOSE_REASON_BYTES, SENDABLE_CLOSE_CODES, is_sendable_close_code
from telex.testing.errors import ProtocolMisuse
from telex.types import Message

__all__ = ("AppProtocol", "ConnectionPhase", "check_close", "sendable_code")

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9110 section 5.6.2, lower-cased as ASGI requires
_FORBIDDEN_IN_VALUES: Final = re.compile(rb"[\r\n\0]")


class ConnectionPhase(Enum):
    """The state of a connection, determined by the events that the app sent."""

    CONNECTING = "before accept"
    OPEN = "after accept"
    DENYING = "in the middle of a denial response"
    CLOSED = "after its close"


_NEXT: Final[dict[tuple[ConnectionPhase, str], ConnectionPhase]] = {
    (ConnectionPhase.CONNECTING, "websocket.accept"): ConnectionPhase.OPEN,
    (ConnectionPhase.CONNECTING, "websocket.close"): ConnectionPhase.CLOSED,
    (ConnectionPhase.CONNECTING, "websocket.http.response.start"): ConnectionPhase.DENYING,
    (ConnectionPhase.OPEN, "websocket.send"): ConnectionPhase.OPEN,
    (ConnectionPhase.OPEN, "websocket.close"): ConnectionPhase.CLOSED,
    (ConnectionPhase.DENYING, "websocket.http.response.body"): ConnectionPhase.DENYING,  # the last one closes
}


class AppProtocol:
    """Tracks the state of one connection by the events that the app sends."""

    def __init__(self, subprotocols: Collection[str], *, may_deny: bool) -> None:
        """``subprotocols``: what the client offered. ``may_deny``: the scope has the denial extension."""
        self.state: ConnectionPhase = ConnectionPhase.CONNECTING
        self._subprotocols = subprotocols
        self._may_deny = may_deny

    def advance(self, event: Message) -> None:
        """Check ``event`` and change the state.

        :raises ProtocolMisuse: the state does not allow the event, or its shape is wrong.
        """
        kind = _kind(event)
        following = _NEXT.get((self.state, kind))
        if following is None:
            raise ProtocolMisuse(f"the app sent {kind!r} {self.state.value}: {self._allowed()}")
        if kind == "websocket.http.response.start" and not self._may_deny:
            raise ProtocolMisuse(f"the app sent {kind!r}, but scope['extensions'] does not offer it: close instead")
        _CHECKS[kind](event)
        if kind == "websocket.accept":
            self._check_offered(event.get("subprotocol"))
        is_last = kind == "websocket.http.response.body" and not event.get("more_body", False)
        self.state = ConnectionPhase.CLOSED if is_last else following

    def _allowed(self) -> str:
        allowed = [kind for state, kind in _NEXT if state is self.state]
        return f"allowed are {', '.join(allowed)}" if allowed else "nothing may follow"

    def _check_offered(self, subprotocol: str | None) -> None:
        if subprotocol is not None and subprotocol not in self._subprotocols:
            offered = ", ".join(self._subprotocols) or "none"
            raise ProtocolMisuse(f"the app accepted the subprotocol {subprotocol!r}; the client offered {offered}")


def sendable_code(code: object) -> bool:
    """Whether a close frame may carry ``code`` (RFC 6455 section 7.4)."""
    return isinstance(code, int) and not isinstance(code, bool) and is_sendable_close_code(code)


def check_close(code: object, reason: object) -> str | None:
    """The error text for a close frame with this code and reason; ``None`` if both are valid."""
    if not sendable_code(code):
        return f"a close frame cannot carry the code {code!r}: write {SENDABLE_CLOSE_CODES}"
    if not isinstance(reason, str):
        return f"a close reason is text, not {reason!r}"
    try:
        length = len(reason.encode())
    except UnicodeEncodeError:
        return f"the close reason {reason!r} cannot be written as UTF-8"
    if length > MAX_CLOSE_REASON_BYTES:
        return f"a close reason has at most {MAX_CLOSE_REASON_BYTES} bytes of UTF-8, this one has {length}: {reason!r}"
    return None


def _kind(event: object) -> str:
    kind = event.get("type") if isinstance(event, dict) else None
    if not isinstance(kind, str):
        raise ProtocolMisuse(f"an ASGI event is a dict with a 'type', the app sent {event!r}")
    return kind


def _accept(event: Message) -> None:
    subprotocol = event.get("subprotocol")
    if subprotocol is not None and not isinstance(subprotocol, str):
        raise _misshapen(event, "'subprotocol' is a str or None")
    _headers(event)
    if any(name == b"sec-websocket-protocol" for name, _ in event.get("headers", ())):
        raise _misshapen(event, "the subprotocol goes into 'subprotocol', not into 'headers'")


def _send(event: Message) -> None:
    text, data = event.get("text"), event.get("bytes")
    if (text is None) == (data is None):
        raise _misshapen(event, "one of 'text' and 'bytes' is given, the other missing or None")
    if data is not None and not isinstance(data, bytes):
        raise _misshapen(event, f"'bytes' is bytes, not {type(data).__name__}")
    if text is None:
        return
    if not isinstance(text, str):
        raise _misshapen(event, f"'text' is a str, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _misshapen(event, f"'text' cannot be written as UTF-8 ({error.reason})") from None


def _close(event: Message) -> None:
    reason = event.get("reason")
    if wrong := check_close(event.get("code", 1000), "" if reason is None else reason):
        raise _misshapen(event, wrong)


def _response_start(event: Message) -> None:
    status = event.get("status")
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise _misshapen(event, "'status' is an int from 200 to 599")
    _headers(event)


def _response_body(event: Message) -> None:
    if not isinstance(event.get("body", b""), bytes):
        raise _misshapen(event, "'body' is bytes")
    if not isinstance(event.get("more_body", False), bool):
        raise _misshapen(event, "'more_body' is a bool")


def _headers(event: Message) -> None:
    headers = event.get("headers", ())
    if not isinstance(headers, Iterable):
        raise _misshapen(event, "'headers' is an iterable of pairs")
    event["headers"] = list(headers)  # the client reads them again, and a generator can be read only once
    for header in event["headers"]:
        if not _is_header(header):
            raise _misshapen(event, f"a header is a pair (lower-case name, value) of bytes, not {header!r}")


def _is_header(header: object) -> bool:
    match header:
        case [bytes(name), bytes(value)]:
            return _TOKEN.fullmatch(name) is not None and _FORBIDDEN_IN_VALUES.search(value) is None
    return False


def _misshapen(event: Message, wanted: str) -> ProtocolMisuse:
    return ProtocolMisuse(f"the app sent {event!r}: {wanted}")


_CHECKS: Final[dict[str, Callable[[Message], None]]] = {
    "websocket.accept": _accept,
    "websocket.send": _send,
    "websocket.close": _close,
    "websocket.http.response.start": _response_start,
    "websocket.http.response.body": _response_body,
}
