"""The servers that run ASGI apps, each with its fast parts and its default configuration."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from benchmarks.certificate import Certificate

Serve: TypeAlias = Callable[[str, str, socket.socket, Certificate | None], None]
"""Serves the app of this name of a module in ``benchmarks.peers``, until it is killed."""

_WANTED = "TELEX_BENCHMARKS_APP"


def made_app(module: str, name: str) -> Any:
    """The ASGI app."""
    return importlib.import_module(f"benchmarks.peers.{module}").APPS[name]()


def wanted_app() -> Any:
    """The same for a process that is configured by its environment."""
    return made_app(*os.environ[_WANTED].split())


def on_uvicorn(ws: str) -> Serve:
    """Stock uvicorn, with one WebSocket protocol or the other."""

    def serve(module: str, app: str, listening: socket.socket, certificate: Certificate | None) -> None:
        import uvicorn

        config = uvicorn.Config(
            made_app(module, app),
            ws=ws,
            loop="uvloop",
            http="httptools",
            log_level="warning",
            access_log=False,
            ssl_certfile=certificate.certificate if certificate else None,
            ssl_keyfile=certificate.key if certificate else None,
        )
        uvicorn.Server(config).run(sockets=[listening])

    return serve


def on_granian(module: str, app: str, listening: socket.socket, certificate: Certificate | None) -> None:
    """granian with one worker; it opens its own listening socket beside the one that reserves the port."""
    from granian.constants import Interfaces, Loops
    from granian.server.mp import MPServer

    os.environ[_WANTED] = f"{module} {app}"
    MPServer(
        "benchmarks.servers:wanted_app",
        factory=True,
        port=listening.getsockname()[1],
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        backlog=2048,
        log_enabled=False,
        ssl_cert=certificate.certificate if certificate else None,
        ssl_key=certificate.key if certificate else None,
    ).serve()


SERVERS: Mapping[str, Serve] = {
    "uvicorn": on_uvicorn("websockets-sansio"),
    "telex": on_uvicorn("telex.server:WebSocketProtocol"),
    "granian": on_granian,
}
