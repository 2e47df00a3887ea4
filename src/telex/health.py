"""Answers the probes of load balancers and orchestrators: is the process alive, and does it take new clients?"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol

from starlette.responses import JSONResponse, PlainTextResponse, Response

from telex.exceptions import ImproperlyConfiguredException
from telex.types import ASGIApp, Receive, Scope, Send

__all__ = ("READINESS", "Health", "Probes")

READINESS: Final = "telex.readiness"
"""The key of ``scope["state"]`` under which the app has its readiness, for the endpoints of ``telex run``."""

Readiness = Callable[[], Mapping[str, bool]]


class ProbedConfig(Protocol):
    http_routes: dict[str, ASGIApp]
    lifespan: list[Any]


class _App(Protocol):
    def readiness(self) -> Mapping[str, bool]: ...


class Health:
    """A plugin: answers ``GET path`` while the process is alive, and ``GET ready_path`` while it takes new clients.

    ``ready_path`` answers 200 if all of ``app.readiness()`` and ``checks`` are true, else 503. The JSON body has each
    of them: ``{"ready": false, "checks": {"accepting": true, "not_draining": true, "channels": false}}``. A check is
    called for each request, in the event loop: it returns a flag that something else keeps, and asks no database.

    The paths are exact, belong to HTTP alone, and come before the app's ``http``; ``None`` leaves one out.
    """

    def __init__(
        self,
        path: str | None = "/health",
        *,
        ready_path: str | None = "/ready",
        checks: Mapping[str, Callable[[], bool]] | None = None,
    ) -> None:
        self._path = path
        self._ready_path = ready_path
        self._checks = dict(checks or {})

    def on_app_init(self, config: ProbedConfig) -> None:
        """Add the two paths to the app."""
        probes, checks = Probes(self._path, self._ready_path, _not_started), tuple(self._checks.items())

        @asynccontextmanager
        async def watch(app: _App) -> AsyncGenerator[None, None]:
            probes.readiness = lambda: {**app.readiness(), **{name: bool(is_ready()) for name, is_ready in checks}}
            try:
                yield
            finally:
                probes.readiness = _not_started

        config.http_routes.update(probes.routes)
        config.lifespan.insert(0, watch)


def _not_started() -> Mapping[str, bool]:
    return {"accepting": False}


class Probes:
    """The answers to the two probes, for one app.

    Without ``readiness`` they ask the app that has put its own into the lifespan state.
    """

    def __init__(self, path: str | None, ready_path: str | None, readiness: Readiness | None = None) -> None:
        for given in (path, ready_path):
            if given is not None and not given.startswith("/"):
                raise ImproperlyConfiguredException(f"{given!r} is not the path of a probe: begin it with '/'")
        if path is not None and path == ready_path:
            raise ImproperlyConfiguredException(f"health and readiness have the same path {path!r}: give two paths")
        self.readiness = readiness
        answers = ((path, self._health), (ready_path, self._ready))
        self.routes: dict[str, ASGIApp] = {path: partial(_serve, answer) for path, answer in answers if path}
        """The ASGI app of each path."""

    def _health(self, scope: Scope) -> Response:
        return JSONResponse({"alive": True}, headers=_NOT_CACHED)

    def _ready(self, scope: Scope) -> Response:
        state = scope.get("state") or {}
        readiness: Readiness | None = self.readiness or state.get(READINESS)
        checks = {"accepting": True, "not_draining": True, **(readiness() if readiness is not None else {})}
        server = state.get("telex.server")
        if server is not None and server.draining.is_set():
            checks["not_draining"] = False
        is_ready = all(checks.values())
        return JSONResponse({"ready": is_ready, "checks": checks}, 200 if is_ready else 503, headers=_NOT_CACHED)


_NOT_CACHED: Final = {"cache-control": "no-store"}


async def _serve(answer: Callable[[Scope], Response], scope: Scope, receive: Receive, send: Send) -> None:
    if scope["method"] in {"GET", "HEAD"}:
        response = answer(scope)
    else:
        response = PlainTextResponse("GET or HEAD\n", 405, headers={"allow": "GET, HEAD"})
    await response(scope, receive, send)
