"""Who is measured. A new peer is an entry here and a module beside.

A module for uvicorn has ``APPS``: makers of an ASGI app by the app's name (``text``, ``json``, ``routes-10``,
``routes-1000``; one that is missing is left out of the report). A module with a server of its own has
``serve(app, socket)``, and ``APPS`` with the names of the apps that it can do.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

ROUTE = "/room{}/{}"


@dataclass(frozen=True)
class Peer:
    """One row of the report.

    :param ws: uvicorn's WebSocket protocol; ``None`` for a module that serves itself.
    """

    title: str
    module: str
    ws: str | None = "websockets-sansio"

    def apps(self) -> Mapping[str, Callable[[], Any]]:
        """What this peer can do, by the app's name."""
        makers: Mapping[str, Callable[[], Any]] = self._module().APPS
        return makers

    def serve(self, app: str, listening: socket.socket) -> None:
        """Serves one of its apps until the process is killed."""
        if self.ws is None:
            self._module().serve(app, listening)
        else:
            serve_by_uvicorn(self.apps()[app](), self.ws, listening)

    def _module(self) -> Any:
        return importlib.import_module(f"benchmarks.peers.{self.module}")


def serve_by_uvicorn(app: Any, ws: str, listening: socket.socket) -> None:
    """Stock uvicorn with its fast parts. The load generator offers no compression, so there is none."""
    import uvicorn

    config = uvicorn.Config(
        app,
        ws=ws,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
    uvicorn.Server(config).run(sockets=[listening])


OWN = "telex.server:WebSocketProtocol"

PEERS: Mapping[str, Peer] = {
    "asgi": Peer("raw ASGI loop, uvicorn", "asgi"),
    "telex-sync": Peer("Telex, sync listener, uvicorn", "telex_sync"),
    "telex-async": Peer("Telex, async listener, uvicorn", "telex_async"),
    "litestar": Peer("Litestar, uvicorn", "litestar_listener"),
    "starlette": Peer("Starlette, uvicorn", "starlette_endpoint"),
    "fastapi": Peer("FastAPI, uvicorn", "fastapi_endpoint"),
    "aiohttp": Peer("aiohttp", "aiohttp_handler", ws=None),
    "websockets": Peer("websockets", "websockets_server", ws=None),
    "picows": Peer("bare picows", "picows_listener", ws=None),
    "asgi-own": Peer("raw ASGI loop, Telex server", "asgi", OWN),
    "telex-sync-own": Peer("Telex, sync listener, Telex server", "telex_sync", OWN),
    "telex-async-own": Peer("Telex, async listener, Telex server", "telex_async", OWN),
}
ON_UVICORN = ("asgi", "telex-sync", "telex-async", "litestar", "starlette", "fastapi")
