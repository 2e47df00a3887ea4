"""Telex under a path of Starlette, FastAPI and Litestar, over a real server; and ``root_path``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from litestar import Litestar, asgi, get
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from telex import State, Telex, WebSocket, WebSocketException, websocket_listener
from telex.handlers.base import Handler
from telex.types import ASGIApp, Receive, Scope, Send
from tests.contract.servers import ServerKind
from tests.support.live import asked_json, connected, denied, ending, serving
from tests.support.peer import Peer, scope

KINDS = [ServerKind("uvicorn-websockets"), ServerKind("telex")]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    found: ServerKind = request.param
    return found


def live() -> Telex:
    """An app that returns its path, refuses, and fails."""

    @websocket_listener("/rooms/{room:str}", name="room")
    async def listen(data: str, room: str, socket: WebSocket, state: State, page: int = 1) -> Any:
        if data == '"fail"':
            raise WebSocketException(4009, "failed")
        return {
            "room": room,
            "page": page,
            "url": socket.url_for("room", room="other").path,
            "started": getattr(state, "started", False),
        }

    def start(app: Telex) -> None:
        app.state.started = True

    return Telex([listen], on_startup=[start])


def in_starlette(telex: Telex) -> ASGIApp:
    async def home(request: Request) -> PlainTextResponse:
        return PlainTextResponse("home")

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncGenerator[None, None]:
        async with telex.lifespan():
            yield

    return Starlette(routes=[Route("/", home), Mount("/live", telex)], lifespan=lifespan)


def in_fastapi(telex: Telex) -> ASGIApp:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        async with telex.lifespan():
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def home() -> str:
        return "home"

    app.mount("/live", telex)
    return app


def in_litestar(telex: Telex) -> ASGIApp:
    @get("/", media_type="text/plain", sync_to_thread=False)
    def home() -> str:
        return "home"

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None, None]:
        async with telex.lifespan():
            yield

    @asgi("/live", is_mount=True, copy_scope=True)
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await telex(scope, receive, send)

    return Litestar([home, mounted], lifespan=[lifespan], logging_config=None)  # type: ignore[return-value]


@pytest.mark.parametrize("mount", [in_starlette, in_fastapi, in_litestar])
async def test_telex_under_a_prefix(kind: ServerKind, mount: Any) -> None:
    telex = live()
    async with kind.loop(mount(telex)) as running:
        async with connected(running, "/live/rooms/blue?page=3") as client:
            got = await asked_json(client, "x")
            assert (got["room"], got["page"], got["started"]) == ("blue", 3, True)
            assert got["url"].endswith("/rooms/other")
            await client.send('"fail"')
            assert await ending(client) == (4009, "failed")
        assert (await denied(running, "/live/nowhere")).status in {403, 404}
        assert (await denied(running, "/live/rooms/x?page=y")).status in {400, 403}
        assert (await denied(running, "/live/rooms/x", origin="https://evil.example")).status == 403
        async with httpx.AsyncClient(base_url=running.url("").replace("ws://", "http://")) as client_:
            assert "home" in (await client_.get("/")).text
            assert (await client_.get("/live/rooms/x")).status_code == 426
    assert len(telex.connections) == 0


@pytest.mark.parametrize("mount", [in_starlette, in_fastapi])
async def test_urls_that_are_built_have_the_prefix(kind: ServerKind, mount: Any) -> None:
    async with kind.loop(mount(live())) as running, connected(running, "/live/rooms/blue") as client:
        assert (await asked_json(client, "x"))["url"] == "/live/rooms/other"


async def test_starlette_builds_urls_of_a_mounted_telex_app() -> None:
    site = Starlette(routes=[Mount("/live", live(), name="live")])
    assert str(site.url_path_for("live", path="/rooms/blue")) == "/live/rooms/blue"


async def test_telex_around_a_site_that_it_is_not_mounted_in(kind: ServerKind) -> None:
    handlers = [cast("Handler", plan.handler) for plan in live().plans]
    outer = Telex(handlers, http=Starlette(routes=[Mount("/", site())]))
    async with serving(outer, kind) as running:
        async with connected(running, "/rooms/blue") as client:
            assert (await asked_json(client, "x"))["room"] == "blue"
        async with httpx.AsyncClient(base_url=running.url("").replace("ws://", "http://")) as client_:
            assert (await client_.get("/page")).text == "page"


def site() -> ASGIApp:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("page")(scope, receive, send)

    return page


@pytest.mark.parametrize(
    ("root_path", "path", "found"),
    [
        ("", "/rooms/a", True),
        ("/live", "/live/rooms/a", True),
        ("/live", "/rooms/a", True),  # a server or proxy that has taken the prefix off the path
        ("/live", "/lively/rooms/a", False),
        ("/rooms", "/rooms/a", False),
        ("/a/b", "/a/b/rooms/x", True),
    ],
)
async def test_root_path(root_path: str, path: str, found: bool) -> None:
    peer = Peer()
    peer.leave()
    await live()(scope(path, root_path=root_path), peer.receive, peer.send)
    assert peer.kinds[0] == ("websocket.accept" if found else "websocket.http.response.start")


async def test_the_prefix_itself_is_the_root() -> None:
    @websocket_listener("/")
    async def root(data: str) -> None: ...

    for path in ("/live", "/live/"):
        peer = Peer()
        peer.leave()
        await Telex([root])(scope(path, root_path="/live"), peer.receive, peer.send)
        assert peer.kinds == ["websocket.accept"]


async def test_a_server_with_a_root_path(kind: ServerKind) -> None:
    async with serving(live(), kind, root_path="/behind") as running, connected(running, "/rooms/blue") as client:
        got = await asked_json(client, "x")
    assert got["room"] == "blue"
    assert got["url"] == "/behind/rooms/other"


async def test_path_parameters_of_the_outer_app_are_kept() -> None:
    @websocket_listener("/{room:str}")
    async def listen(data: str, room: str, socket: WebSocket) -> Any:
        return dict(socket.path_params)

    app = Starlette(routes=[Mount("/tenants/{tenant}", Telex([listen]))])
    async with serving(app) as running, connected(running, "/tenants/acme/blue") as client:
        assert await asked_json(client, "x") == {"tenant": "acme", "room": "blue"}
