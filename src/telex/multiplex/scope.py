"""The ASGI scope of a route on a shared socket."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from telex.protocol.envelope import MULTIPLEXED, SUBPROTOCOL
from telex.types import RouteConnection, Scope

__all__ = ("before_routing", "is_target", "route_extensions", "route_scope")

_PATH: Final = re.compile(r"/[\x21\x22\x24-\x3e\x40-\x7e]*")
"""The path of a request target (RFC 9112 section 3.2.1), without ``?`` and ``#``."""
_QUERY: Final = re.compile(r"[\x21\x22\x24-\x7e]*")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_OFFERED: Final = (SUBPROTOCOL,)
_FROM_MIDDLEWARE: Final = ("user", "auth", "session")


def is_target(path: str, query: str) -> bool:
    """Whether both may stand in a request: other characters must be percent-encoded, and ``%`` begins nothing else."""
    if not _PATH.fullmatch(path) or not _QUERY.fullmatch(query):
        return False
    return not _BAD_ESCAPE.search(path) and not _BAD_ESCAPE.search(query)


def before_routing(scope: Scope) -> Scope:
    """What ``scope`` is before a route adds to it: its own path parameters, and what it puts into the state."""
    return {**scope, "path_params": dict(scope.get("path_params") or {}), "state": dict(scope.get("state") or {})}


def route_extensions(before: Mapping[str, Any]) -> dict[str, Any]:
    """The extensions that all routes of a socket have: those of its server without the fast path, and denials."""
    extensions = {name: value for name, value in (before.get("extensions") or {}).items() if name != "telex.transport"}
    return {**extensions, "websocket.http.response": {}}


def route_scope(
    before: Mapping[str, Any], now: Mapping[str, Any], route: RouteConnection, extensions: dict[str, Any]
) -> Scope:
    """The scope of ``route``. ``before`` is that of the socket before routing, ``now`` as its handler has it.

    The user, auth and session of the handler's middleware apply, and the headers, the client and the cookies of the
    handshake. The server's fast path does not: it would write to the socket itself.
    """
    root = before.get("root_path", "")
    return {
        **before,
        **{key: now[key] for key in _FROM_MIDDLEWARE if key in now},
        "path": root + unquote(route.path),
        "raw_path": (quote(root) + route.path).encode("ascii"),
        "query_string": route.query.encode("ascii"),
        "subprotocols": _OFFERED,
        "state": dict(before["state"]),
        "path_params": dict(before["path_params"]),
        "extensions": extensions,
        MULTIPLEXED: route,
    }
