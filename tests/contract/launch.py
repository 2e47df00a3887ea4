"""Runs one server as a process: ``python -m tests.contract.launch SERVER module:attribute FD-OR-PORT SETTINGS``.

All but granian get a socket that is bound already, so that no other process can take its port in between.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from typing import Any

UVICORN: Mapping[str, str] = {
    "uvicorn-websockets": "websockets-sansio",
    "uvicorn-wsproto": "wsproto",
    "telex": "telex.server:WebSocketProtocol",
}
"""uvicorn's ``ws`` option for each server that is uvicorn with another protocol."""


def main(kind: str, app: str, place: str, settings: str) -> None:
    """Serves until SIGTERM."""
    options: dict[str, Any] = json.loads(settings)
    if kind in UVICORN:
        run_uvicorn(kind, app, socket.socket(fileno=int(place)), options)
    elif kind == "hypercorn":
        run_hypercorn(app, int(place), options)
    else:
        run_granian(app, int(place), options)


def run_uvicorn(kind: str, app: str, bound: socket.socket, options: dict[str, Any]) -> None:
    import uvicorn

    config = uvicorn.Config(app, ws=UVICORN[kind], **{"timeout_graceful_shutdown": 3, "lifespan": "on", **options})
    uvicorn.Server(config).run(sockets=[bound])


def run_hypercorn(app: str, descriptor: int, options: dict[str, Any]) -> None:
    from hypercorn.config import Config
    from hypercorn.run import run

    config = Config.from_mapping({"bind": [f"fd://{descriptor}"], "graceful_timeout": 3, "errorlog": "-", **options})
    config.application_path = app
    # Workers would be processes of their own, started by importing this module again.
    config.workers = 0
    run(config)


def run_granian(app: str, port: int, options: dict[str, Any]) -> None:
    from granian import Granian
    from granian.constants import Interfaces

    Granian(app, "127.0.0.1", port, interface=Interfaces.ASGI, workers_kill_timeout=3, **options).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
