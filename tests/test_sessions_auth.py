"""Starlette's session and authentication middleware around Telex's handlers."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import itsdangerous
import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from telex import (
    DefineMiddleware,
    NotAuthorizedException,
    Router,
    Telex,
    WebSocket,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.sessions import ReadOnlySession
from tests.support.live import asked_json, connected, denied, serving


class ByToken(AuthenticationBackend):
    """``Authorization: Bearer NAME`` is NAME."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        header = conn.headers.get("authorization")
        if header is None:
            return None
        kind, _, name = header.partition(" ")
        if kind != "Bearer":
            raise AuthenticationError("only Bearer")
        return AuthCredentials(["member"]), SimpleUser(name)


def only_members(socket: WebSocket) -> None:
    if not socket.user.is_authenticated:
        raise NotAuthorizedException("log in first", headers={"www-authenticate": "Bearer"})


@websocket_listener("/who")
async def who(data: str, socket: WebSocket[SimpleUser, AuthCredentials]) -> list[Any]:
    return [socket.user.display_name, list(socket.auth.scopes)]


@websocket("/raw")
async def raw(socket: WebSocket) -> None:
    await socket.accept()


AUTHENTICATION = DefineMiddleware(AuthenticationMiddleware, backend=ByToken())


async def test_user_and_auth_come_from_the_middleware() -> None:
    app = Telex([who], middleware=[AUTHENTICATION], guards=[only_members])
    async with serving(app) as running:
        async with connected(running, "/who", headers={"Authorization": "Bearer ann"}) as client:
            assert await asked_json(client, "x") == ["ann", ["member"]]
        denial = await denied(running, "/who")
        assert (denial.status, denial.json()["detail"]) == (401, "log in first")
        assert denial.headers["www-authenticate"] == "Bearer"


async def test_what_the_backend_refuses_is_refused() -> None:
    async with serving(Telex([who], middleware=[AUTHENTICATION])) as running:
        assert (await denied(running, "/who", headers={"Authorization": "Basic x"})).status == 403


@pytest.mark.parametrize("layer", ["app", "router", "handler"])
async def test_a_guard_on_any_layer_covers_every_route_and_path_trick(layer: str) -> None:
    entered: list[str] = []

    async def stream() -> Any:
        entered.append("stream")
        yield 1

    async def listen(data: str) -> None: ...

    def on_accept() -> None:
        entered.append("listener")

    from collections.abc import AsyncGenerator

    stream.__annotations__["return"] = AsyncGenerator[int, None]
    own: Any = {"guards": [only_members]} if layer == "handler" else {}
    handlers: Any = [
        websocket("/raw", **own)(raw.fn),
        websocket_listener("/listen/{x:str}", on_accept=on_accept, **own)(listen),
        websocket_stream("/stream", **own)(stream),
    ]
    router = Router("/v1", route_handlers=handlers, guards=[only_members] if layer == "router" else [])
    app = Telex([router], middleware=[AUTHENTICATION], guards=[only_members] if layer == "app" else [])
    async with serving(app) as running:
        for path in ("/v1/raw", "/v1/raw/", "/v1/listen/x", "/v1/stream"):
            assert (await denied(running, path)).status == 401, path
        for path in ("/v1/RAW", "//v1/raw", "/v1//raw", "/v1/%2e/raw", "/v1/../v1/raw", "/v1/raw;x", "/v1/raw%00"):
            assert (await denied(running, path)).status in {401, 404}, path
    assert entered == []


async def test_the_cookie_session_of_the_http_side_is_read_on_the_socket() -> None:
    async def log_in(request: Request) -> PlainTextResponse:
        request.session["user"] = "ann"
        return PlainTextResponse("in")

    @websocket_listener("/who")
    async def listen(data: str, socket: WebSocket) -> Any:
        return [dict(socket.session), type(socket.session).__name__]

    site = Starlette(
        routes=[Route("/login", log_in), Mount("/live", Telex([listen]))],
        middleware=[Middleware(SessionMiddleware, secret_key="secret")],
    )
    async with serving(site) as running:
        async with httpx.AsyncClient(base_url=running.url("").replace("ws://", "http://")) as client:
            cookie = (await client.get("/login")).headers["set-cookie"].partition(";")[0]
        async with connected(running, "/live/who", headers={"Cookie": cookie}) as socket:
            assert await asked_json(socket, "x") == [{"user": "ann"}, "ReadOnlySession"]
        forged = base64.b64encode(json.dumps({"user": "root"}).encode())
        wrong = itsdangerous.TimestampSigner("guessed").sign(forged).decode()
        async with connected(running, "/live/who", headers={"Cookie": f"session={wrong}"}) as socket:
            assert (await asked_json(socket, "x"))[0] == {}


def test_a_read_only_session_reads_as_a_dictionary() -> None:
    session = ReadOnlySession({"a": 1})
    assert session == {"a": 1}
    assert session.get("b", 2) == 2
    assert {**session} == {"a": 1}
