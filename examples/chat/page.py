"""The chat's page and stored messages, as an ordinary ASGI app: Telex passes it every HTTP request."""

from __future__ import annotations

from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from examples.chat.messages import Messages
from examples.chat.store import History
from telex.types import ASGIApp, Message, Receive, Scope, Send

STATIC = Path(__file__).parent / "static"
RECENT = 50
"""Messages in one answer."""


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


def create_page(history: History) -> ASGIApp:
    """The page, its files, and the stored messages of a room, which it loads before it follows the room."""

    async def index(_: object) -> FileResponse:
        return FileResponse(STATIC / "index.html")

    async def messages(request: Request) -> Response:
        before = request.query_params.get("before", "")
        if before and not before.isdecimal():
            return Response("before is the number of a message", 400)
        found = await history.last(request.path_params["room"], RECENT, int(before) if before else None)
        answer = Messages(found, complete=len(found) < RECENT)
        return Response(msgspec.json.encode(answer), media_type="application/json")

    return Starlette(
        routes=[
            Route("/", index),
            Route("/rooms/{room}/messages", messages),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Hardened)],
    )
