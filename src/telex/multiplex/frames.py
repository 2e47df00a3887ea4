"""The frames that open and close routes on one socket, and the number ``c`` in the frames of each.

A frame of an open route is passed to its connection unchanged, because the readers there ignore ``c``; in those that it
sends, ``c`` is inserted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec

from telex.codecs import as_validation_error
from telex.defaults import KIB
from telex.protocol.errors import error_body
from telex.protocol.frames import MAX_FRAME_OVERHEAD, MAX_ID, BadFrame, Encoded

__all__ = (
    "CREDIT",
    "PUSHES",
    "CloseRoute",
    "CreditFrame",
    "Head",
    "OpenRoute",
    "RouteFrame",
    "Sent",
    "error_of",
    "header_of",
    "read_head",
    "read_route_frame",
    "read_sent",
    "with_route",
)

CREDIT: Final = 16
"""Messages that may be sent on a route before the other side gives credit for more."""
MAX_CREDIT: Final = 1 << 16
MAX_TARGET: Final = 8 * KIB
"""Characters of a path or query, as of a request line."""

PUSHES: Final = frozenset({"notify", "call", "event", "gap", "present", "joined", "left"})
"""The frames of the server that take credit of the client. Answers do not: they would wait behind what they set free"""

_LENGTH: Final = struct.Struct(">I")

RouteId: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MAX_ID)]


class Head(msgspec.Struct, frozen=True, gc=False):
    """The part of a frame that decides where it goes."""

    type: str
    c: RouteId | None = None


class OpenRoute(msgspec.Struct, tag_field="type", tag="open", frozen=True):
    """Opens a route: the path and query as in a request target, relative to the app."""

    c: RouteId
    path: Annotated[str, msgspec.Meta(max_length=MAX_TARGET)]
    query: Annotated[str, msgspec.Meta(max_length=MAX_TARGET)] = ""
    credit: Annotated[int, msgspec.Meta(ge=0, le=MAX_CREDIT)] = CREDIT


class CloseRoute(msgspec.Struct, tag_field="type", tag="close", frozen=True):
    """Closes a route, as a close frame closes a connection."""

    c: RouteId
    code: int = 1000
    reason: Annotated[str, msgspec.Meta(max_length=123)] = ""


class CreditFrame(msgspec.Struct, tag_field="type", tag="credit", frozen=True):
    """The client takes ``n`` more messages of a route."""

    c: RouteId
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CREDIT)]


RouteFrame: TypeAlias = OpenRoute | CloseRoute | CreditFrame

_decode_head: Final[Callable[[str | bytes], Head]] = msgspec.json.Decoder(Head).decode
_decode_route_frame: Final[Callable[[str | bytes], RouteFrame]] = msgspec.json.Decoder(RouteFrame).decode


def header_of(raw: str | bytes) -> str | bytes:
    """The JSON of a message: a text message, or the header of a binary one.

    :raises BadFrame: the binary message has no header.
    """
    if isinstance(raw, str):
        return raw
    if len(raw) >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(raw)
        if length <= min(MAX_FRAME_OVERHEAD, len(raw) - _LENGTH.size):
            return raw[_LENGTH.size : _LENGTH.size + length]
    raise BadFrame("bad_frame", "a binary message begins with the length of its header, and the header")


def read_head(raw: str | bytes) -> Head:
    """The type of a frame, and its route.

    :raises BadFrame: the message is no frame, or its ``c`` is no number of a route.
    """
    header = header_of(raw)
    try:
        return _decode_head(header)
    except Exception as exc:
        bad = _explained(exc)
        if _kind_of(header) is None:
            bad.code = "invalid_message"  # as on a connection without routes
        raise bad from None


def read_route_frame(raw: str | bytes) -> RouteFrame:
    """The frame, whose type must be one of :data:`RouteFrame`.

    :raises BadFrame: it is not valid.
    """
    try:
        return _decode_route_frame(raw)
    except Exception as exc:
        raise _explained(exc) from None


def _explained(exc: Exception) -> BadFrame:
    invalid = as_validation_error(exc)
    if invalid is None:
        raise exc
    return BadFrame("bad_frame", invalid.detail, invalid.path)


# -- frames to send


class Sent(NamedTuple):
    """A frame that a route sends: its type, and where ``c`` is inserted into its JSON."""

    kind: str
    at: int


_START: Final = '{"type":"'
_START_BYTES: Final = _START.encode()


def read_sent(payload: Encoded) -> Sent | None:
    """What the connection of a route sends; ``None`` for a message that is no frame.

    Telex writes ``type`` first. Middleware may write it elsewhere: then the JSON is decoded.
    """
    if isinstance(payload, str):
        if payload.startswith(_START):
            end = payload.find('"', 9)
            return Sent(payload[9:end], end + 1)
        return _search(payload)
    if payload.startswith(_START_BYTES, _LENGTH.size):
        end = payload.find(b'"', 13)
        return Sent(payload[13:end].decode(), end + 1)
    try:
        return _search(header_of(payload).decode())  # type: ignore[union-attr]  # the header of bytes is bytes
    except (BadFrame, UnicodeDecodeError):
        return None


class _AnyFrame(msgspec.Struct):
    type: str


_decode_any: Final = msgspec.json.Decoder(_AnyFrame).decode


def _search(text: str) -> Sent | None:
    kind = _kind_of(text)
    return None if kind is None else Sent(kind, 0)


def _kind_of(header: str | bytes) -> str | None:
    """The type of a frame; ``None`` for what is no frame."""
    try:
        return _decode_any(header).type
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def with_route(payload: Encoded, at: int, c: int) -> Encoded:
    """``payload`` with ``c`` inserted at ``at`` (0: at the beginning of the object)."""
    if isinstance(payload, str):
        if at:
            return f'{payload[:at]},"c":{c}{payload[at:]}'
        return f'{{"c":{c},{payload[payload.index("{") + 1 :]}'
    header = with_route(header_of(payload).decode(), max(0, at - _LENGTH.size), c)  # type: ignore[union-attr]
    (length,) = _LENGTH.unpack_from(payload)
    encoded = header.encode()  # type: ignore[union-attr]  # it is text
    return b"".join((_LENGTH.pack(len(encoded)), encoded, payload[_LENGTH.size + length :]))


def error_of(c: int | None, code: str, message: str, path: str = "") -> str:
    """An error frame about a route, or about the socket."""
    head: dict[str, object] = {"type": "error", "about": "connection"}
    if c is not None:
        head["c"] = c
    return msgspec.json.encode({**head, "error": error_body(code, message, path=path)}).decode()
