"""The chat's page, as an ordinary ASGI app: Telex passes it every HTTP request."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import FileResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from telex.types import ASGIApp, Message, Receive, Scope, Send

STATIC = Path(__file__).parent / "static"


class Hardened:
    """Lets the page load its own files only, and forbids frames around it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_hardened(event: Message) -> None:
            if event["type"] == "http.response.start":
                headers = MutableHeaders(scope=event)
                headers["content-security-policy"] = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'"
                headers["x-content-type-options"] = "nosniff"
                headers["cache-control"] = "no-cache"
            await send(event)

        await self.app(scope, receive, send_hardened)


async def index(_: object) -> FileResponse:
    return FileResponse(STATIC / "index.html")


page = Starlette(
    routes=[Route("/", index), Mount("/static", StaticFiles(directory=STATIC))],
    middleware=[Middleware(Hardened)],
)
