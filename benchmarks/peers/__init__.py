"""Who is measured. A new peer is an entry here and a module beside.

``APPS`` of a module holds what it can do by the app's name: ``text``, ``json``, ``fanout``, ``channels``, ``routes-1``
to ``routes-1000``; one that is missing is a dash in the report. On one of the servers of :mod:`benchmarks.servers` the
value makes the ASGI app. A module with a server of its own has ``serve(app, socket, certificate)``.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.certificate import Certificate
from benchmarks.servers import SERVERS

ROUTE = "/room{}/{}"
ROUTE_COUNTS = (1, 10, 100, 1000)


@dataclass(frozen=True)
class Peer:
    """One row of the report.

    :param server: one of :data:`benchmarks.servers.SERVERS`; ``None`` for a module that serves itself.
    :param baseline: the peer that its ratios are to.
    :param lacks: what its server has not, of ``tls`` and ``deflate``.
    """

    title: str
    module: str
    server: str | None = "uvicorn"
    baseline: str = "asgi"
    lacks: frozenset[str] = frozenset()

    def can(self, app: str, needs: str = "") -> bool:
        """Whether there is such an app, and its server has what is needed."""
        return app in self.apps() and needs not in self.lacks

    def apps(self) -> Mapping[str, Any]:
        """What this peer can do, by the app's name."""
        apps: Mapping[str, Any] = self._module().APPS
        return apps

    def serve(self, app: str, listening: socket.socket, certificate: Certificate | None) -> None:
        """Serves one of its apps until the process is killed."""
        if self.server is None:
            self._module().serve(app, listening, certificate)
        else:
            SERVERS[self.server](self.module, app, listening, certificate)

    @property
    def listens(self) -> bool:
        """Whether it accepts a listening socket; otherwise it needs a bound one, and listens beside it."""
        return self.server != "granian"

    def _module(self) -> Any:
        return importlib.import_module(f"benchmarks.peers.{self.module}")


_NO_DEFLATE = frozenset({"deflate"})

PEERS: Mapping[str, Peer] = {
    "asgi": Peer("raw ASGI loop, uvicorn", "asgi"),
    "telex-sync": Peer("Telex, sync listener, uvicorn", "telex_sync"),
    "telex-async": Peer("Telex, async listener, uvicorn", "telex_async"),
    "litestar": Peer("Litestar, uvicorn", "litestar_listener"),
    "starlette": Peer("Starlette, uvicorn", "starlette_endpoint"),
    "fastapi": Peer("FastAPI, uvicorn", "fastapi_endpoint"),
    "c": Peer("C, epoll: the floor", "c_floor", None, "picows", frozenset({"deflate", "tls"})),
    "picows": Peer("bare picows", "picows_listener", None, "picows", _NO_DEFLATE),
    "telex-sync-own": Peer("Telex, sync listener, Telex server", "telex_sync", "telex", "picows"),
    "telex-async-own": Peer("Telex, async listener, Telex server", "telex_async", "telex", "picows"),
    "asgi-own": Peer("raw ASGI loop, Telex server", "asgi", "telex", "picows"),
    "aiohttp": Peer("aiohttp", "aiohttp_handler", None, "picows"),
    "websockets": Peer("websockets", "websockets_server", None, "picows"),
    "node": Peer("Node, ws", "node_ws", None, "picows", frozenset({"deflate", "tls"})),
    "sanic": Peer("Sanic", "sanic_handler", None, "picows", _NO_DEFLATE),
    "granian": Peer("raw ASGI loop, granian", "asgi", "granian", "picows", _NO_DEFLATE),
    "telex-sync-granian": Peer("Telex, sync listener, granian", "telex_sync", "granian", "picows", _NO_DEFLATE),
}
ON_UVICORN = ("asgi", "telex-sync", "telex-async", "litestar", "starlette", "fastapi")
