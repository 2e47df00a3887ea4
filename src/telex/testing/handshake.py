"""The opening handshake of a test connection: makes an ASGI scope from a URL and headers."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

from telex.types import Scope

__all__ = ("DENIAL_EXTENSION", "Headers", "QueryParams", "http_url", "target_url", "websocket_scope")

Headers: TypeAlias = Mapping[str, str] | Sequence[tuple[str, str]]
"""Header names and values; use a sequence of pairs to repeat a name."""

QueryValue: TypeAlias = str | int | float | bool | None
QueryParams: TypeAlias = Mapping[str, QueryValue | Sequence[QueryValue]] | Sequence[tuple[str, QueryValue]]
"""Query parameters; ``True`` becomes ``true``, ``None`` becomes empty, a sequence repeats the name."""

DENIAL_EXTENSION: Final = "websocket.http.response"

_PATH_SAFE: Final = "/%:@!$&'()*+,;=~-._"  # RFC 3986 section 3.3; "%" is safe: escapes stay as they are
_QUERY_SAFE: Final = _PATH_SAFE + "?"
_DEFAULT_PORTS: Final = {"ws": 80, "wss": 443, "http": 80, "https": 443}
_SECURE: Final = ("https", "wss")


def target_url(base_url: str, url: str, params: QueryParams | None = None) -> SplitResult:
    """The escaped URL to connect to: ``url``, relative to ``base_url``, with ``params`` added to its query.

    :raises ValueError: the result has no host, or its scheme is not ws, wss, http or https.
    """
    wanted = urlsplit(url)
    if not wanted.netloc:
        base = urlsplit(base_url)
        path = f"{base.path.rstrip('/')}/{wanted.path.lstrip('/')}"
        wanted = wanted._replace(scheme=base.scheme, netloc=base.netloc, path=path)
    if wanted.scheme not in _DEFAULT_PORTS or not wanted.hostname:
        raise ValueError(f"not a URL to connect to: {wanted.geturl()!r}; write ws://host/path, or /path under base_url")
    query = [quote(wanted.query, safe=_QUERY_SAFE), urlencode(list(_pairs(params or ())))]
    return wanted._replace(
        path=quote(wanted.path or "/", safe=_PATH_SAFE),
        query="&".join(part for part in query if part),
        fragment="",
    )


def http_url(url: SplitResult) -> str:
    """The same URL with the scheme ``http`` or ``https``, for cookie jars."""
    return url._replace(scheme="https" if url.scheme in _SECURE else "http").geturl()


def websocket_scope(
    url: SplitResult,
    *,
    headers: Iterable[Headers],
    subprotocols: Sequence[str],
    cookie: str,
    root_path: str,
    extensions: Mapping[str, Mapping[str, object]],
    state: Mapping[str, object],
) -> Scope:
    """The ``websocket`` scope (ASGI 3.0, specification 2.4) of a connection to ``url``.

    Each item of ``headers`` replaces earlier headers of the same name, also those of the handshake.
    """
    port = url.port or _DEFAULT_PORTS[url.scheme]
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss" if url.scheme in _SECURE else "ws",
        "path": unquote(url.path),
        "raw_path": url.path.encode("ascii"),
        "query_string": url.query.encode("ascii"),
        "root_path": root_path,
        "headers": _raw_headers(_handshake_headers(url, subprotocols, cookie), *headers),
        "client": ("testclient", 50000),
        "server": (url.hostname, port),
        "subprotocols": list(subprotocols),
        "state": dict(state),
        "extensions": {name: dict(options) for name, options in extensions.items()},
    }


def _handshake_headers(url: SplitResult, subprotocols: Sequence[str], cookie: str) -> dict[str, str]:
    headers = {
        "host": url.netloc.rpartition("@")[2],
        "user-agent": "telex-testclient",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": base64.b64encode(secrets.token_bytes(16)).decode(),
    }
    if subprotocols:
        headers["sec-websocket-protocol"] = ", ".join(subprotocols)
    if cookie:
        headers["cookie"] = cookie
    return headers


def _raw_headers(*layers: Headers) -> list[tuple[bytes, bytes]]:
    merged: dict[str, list[str]] = {}
    for layer in layers:
        own: dict[str, list[str]] = {}
        for name, value in layer.items() if isinstance(layer, Mapping) else layer:
            own.setdefault(name.lower(), []).append(value)
        merged.update(own)
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, values in merged.items() for value in values]


def _pairs(params: QueryParams) -> Iterable[tuple[str, str]]:
    for name, given in params.items() if isinstance(params, Mapping) else params:
        values = [given] if isinstance(given, str) or not isinstance(given, Sequence) else given
        for value in values:
            yield name, _query_text(value)


def _query_text(value: QueryValue) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
