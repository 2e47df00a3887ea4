"""The opening handshake: checks the request and writes the response (RFC 6455 section 4.2, RFC 9110)."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha1
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

from telex.defaults import KIB
from telex.headers import CONTROL, TOKEN, Header

__all__ = (
    "MAX_HEADERS",
    "MAX_HEADER_BYTES",
    "MAX_REQUEST_LINE",
    "Refusal",
    "Request",
    "denial",
    "read_request",
    "switching_protocols",
)

MAX_REQUEST_LINE: Final = 8 * KIB
MAX_HEADERS: Final = 128
MAX_HEADER_BYTES: Final = 8 * KIB

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_ABSOLUTE: Final = re.compile(rb"(?i:https?|wss?)://([^/?#]*)")
_HOST: Final = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=\-]*(?::[0-9]*)?|\[[0-9A-Fa-f:.]+\](?::[0-9]*)?")

_USUAL_NAMES: Final = {
    name: name
    for name in b"accept-encoding accept-language authorization cache-control connection cookie host origin pragma "
    b"sec-websocket-extensions sec-websocket-key sec-websocket-protocol sec-websocket-version upgrade user-agent "
    b"x-forwarded-for x-forwarded-host x-forwarded-proto".split()
}
"""Requests share these objects: the headers are kept for the lifetime of a connection."""


class Refusal(Exception):
    """The handshake is refused with ``status``; ``text`` is the response body and names the error in the request."""

    def __init__(self, status: HTTPStatus, text: str, headers: Iterable[Header] = ()) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text
        self.headers: list[Header] = list(headers)


@dataclass(frozen=True, slots=True)
class Request:
    """A checked opening handshake."""

    raw_path: bytes
    path: str
    query_string: bytes
    headers: list[Header]
    subprotocols: list[str]
    extensions: list[bytes]
    key: bytes


def read_request(raw: bytes) -> Request:
    """Parse and check an opening handshake.

    :raises Refusal: 400, 405, 414, 426 or 431, for a request that the RFC or the limits forbid.
    """
    lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, _, rest = lines[0].partition(b" ")
    target = rest.rpartition(b" ")[0]
    if len(lines[0]) > MAX_REQUEST_LINE:
        raise Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, f"The request line is longer than {MAX_REQUEST_LINE} bytes.")
    if method != b"GET":
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "A WebSocket opens with GET.", [(b"allow", b"GET")])
    headers = _read_headers(lines[1:])
    raw_path, query_string = _split_target(target)
    _check_host(_values(headers, b"host"))
    if _values(headers, b"transfer-encoding") or set(_values(headers, b"content-length")) - {b"0"}:
        raise Refusal(HTTPStatus.BAD_REQUEST, "A WebSocket's opening request has no body.")
    return Request(
        raw_path=raw_path,
        path=unquote(raw_path.decode("ascii")),
        query_string=query_string,
        headers=headers,
        subprotocols=_read_subprotocols(_values(headers, b"sec-websocket-protocol")),
        extensions=_values(headers, b"sec-websocket-extensions"),
        key=_read_key(headers),
    )


def _read_headers(lines: list[bytes]) -> list[Header]:
    if len(lines) > MAX_HEADERS:
        raise _too_large(f"The request has more than {MAX_HEADERS} headers.")
    headers = []
    for line in lines:
        if len(line) > MAX_HEADER_BYTES:
            raise _too_large(f"A header is longer than {MAX_HEADER_BYTES} bytes.")
        name, _, value = line.partition(b":")
        if not TOKEN.fullmatch(name) or CONTROL.search(value):
            raise Refusal(HTTPStatus.BAD_REQUEST, "A header contains characters that are not allowed.")
        name = name.lower()
        headers.append((_USUAL_NAMES.get(name, name), value.strip(b" \t")))
    return headers


def _too_large(text: str) -> Refusal:
    return Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text)


def _split_target(target: bytes) -> Header:
    """The path and query of a target in origin-form or absolute-form (RFC 9112 section 3.2)."""
    if not _TARGET.fullmatch(target):
        raise Refusal(HTTPStatus.BAD_REQUEST, "The request target contains characters that must be percent-encoded.")
    absolute = _ABSOLUTE.match(target)
    if absolute is not None:
        _check_host([absolute[1]])
        target = target[absolute.end() :]
        target = target if target.startswith(b"/") else b"/" + target
    if not target.startswith(b"/"):
        raise Refusal(HTTPStatus.BAD_REQUEST, "The request target must be a path that starts with a slash.")
    path, _, query = target.partition(b"?")
    return path, query


def _check_host(hosts: list[bytes]) -> None:
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise Refusal(
            HTTPStatus.BAD_REQUEST, "The request needs exactly one Host header, with a host and an optional port."
        )


def _read_subprotocols(values: list[bytes]) -> list[str]:
    tokens = [token.strip(b" \t") for token in b",".join(values).split(b",")]
    tokens = [token for token in tokens if token]  # a list may have empty elements (RFC 9110 section 5.6.1)
    if not all(TOKEN.fullmatch(token) for token in tokens):
        raise Refusal(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Protocol must be a list of tokens.")
    return [token.decode("ascii") for token in tokens]


def _read_key(headers: list[Header]) -> bytes:
    if _values(headers, b"sec-websocket-version") != [b"13"]:
        raise Refusal(
            HTTPStatus.UPGRADE_REQUIRED,
            "Sec-WebSocket-Version must be 13.",
            [(b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")],
        )
    keys = _values(headers, b"sec-websocket-key")
    try:
        (key,) = keys
        if len(b64decode(key, validate=True)) == 16:
            return key
    except (ValueError, Base64Error):
        pass
    raise Refusal(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key must be given once, as 16 bytes in base64.")


def _values(headers: list[Header], wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


def switching_protocols(
    request: Request, subprotocol: str | None, extension: bytes | None, headers: Iterable[Header]
) -> bytes:
    """The response that opens the connection.

    :raises ValueError: the client did not offer ``subprotocol``, so it would fail the connection.
    """
    accept = b64encode(sha1(request.key + _GUID, usedforsecurity=False).digest())
    own = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accept)]
    if subprotocol is not None:
        if subprotocol not in request.subprotocols:
            raise ValueError(
                f"websocket.accept names the subprotocol {subprotocol!r}, which the client did not offer: "
                f"choose one of scope['subprotocols'] ({request.subprotocols}) or None."
            )
        own.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
    if extension is not None:
        own.append((b"sec-websocket-extensions", extension))
    return _head(HTTPStatus.SWITCHING_PROTOCOLS, [*own, *headers])


def denial(status: int, headers: Iterable[Header]) -> bytes:
    """The head of a response that refuses the handshake and closes the connection."""
    kept = [(name, value) for name, value in headers if name not in (b"connection", b"transfer-encoding")]
    return _head(status, [*kept, (b"connection", b"close")])


def _head(status: int, headers: Iterable[Header]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {int(status)} {phrase}".encode()]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join([*lines, b"", b""])
