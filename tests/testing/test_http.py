"""HTTP requests through the clients."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from telex.exceptions import MissingDependencyException
from telex.testing import AsyncTestClient, TestClient


async def mirror(request: Request) -> Response:
    return JSONResponse({
        "method": request.method,
        "url": str(request.url),
        "body": (await request.body()).decode(),
        "header": request.headers.get("x-a"),
        "cookies": request.cookies,
        "client": request.client.host if request.client else None,
        "root_path": request.scope["root_path"],
        "state": request.scope["state"],
    })  # fmt: skip


async def login(request: Request) -> Response:
    response = Response()
    response.set_cookie("session", "abc")
    return response


async def fails(request: Request) -> Response:
    raise LookupError("boom")


async def hangs(request: Request) -> Response:
    await asyncio.Event().wait()
    raise AssertionError("not reached")


async def whoami(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_json(socket.cookies)
    await socket.close()


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
app = Starlette(
    routes=[
        Route("/", mirror, methods=METHODS),
        Route("/login", login),
        Route("/fails", fails),
        Route("/hangs", hangs),
        WebSocketRoute("/whoami", whoami),
    ]
)


@pytest.mark.parametrize("method", METHODS)
async def test_each_method_async(method: str) -> None:
    async with AsyncTestClient(app, headers={"x-a": "1"}, cookies={"c": "2"}, root_path="/root") as client:
        response = await getattr(client, method.lower())("/", params={"q": "3"})
    assert response.json() == {
        "method": method,
        "url": "http://testserver/?q=3",
        "body": "",
        "header": "1",
        "cookies": {"c": "2"},
        "client": "testclient",
        "root_path": "/root",
        "state": {},
    }


@pytest.mark.parametrize("method", METHODS)
def test_each_method_sync(method: str) -> None:
    with TestClient(app, headers=[("x-a", "1")]) as client:
        response = getattr(client, method.lower())("/", headers={"x-a": "2"})
    assert (response.json()["method"], response.json()["header"]) == (method, "2")


def test_a_body_is_sent() -> None:
    with TestClient(app) as client:
        assert client.post("/", json={"a": 1}).json()["body"] == '{"a":1}'
        assert client.post("/", content=b"raw").json()["body"] == "raw"


def test_requests_and_connections_share_their_cookies() -> None:
    with TestClient(app) as client:
        client.get("/login")
        assert client.cookies["session"] == "abc"
        with client.websocket_connect("/whoami") as session:
            session.expect({"session": "abc"})


def test_exceptions_are_raised_or_answered_with_500() -> None:
    with TestClient(app) as client, pytest.raises(LookupError, match="boom"):
        client.get("/fails")
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/fails").status_code == 500


async def test_a_request_that_does_not_end_is_cancelled_and_named() -> None:
    async with AsyncTestClient(app, timeout=0.05) as client:
        with pytest.raises(TimeoutError, match=r"did not finish GET /hangs within 0\.05 s; it waits in hangs"):
            await client.get("/hangs")
        with pytest.raises(TimeoutError, match=r"did not finish GET /hangs within 0\.01 s"):
            await client.get("/hangs", timeout=0.01)


async def test_without_httpx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    async with AsyncTestClient(app) as client:
        with pytest.raises(MissingDependencyException, match=r"pip install 'telex\[testing\]'"):
            await client.get("/")


def test_without_with_requests_are_answered_and_no_thread_remains() -> None:
    client = TestClient(app)
    before = set(threading.enumerate())
    assert client.get("/").json()["method"] == "GET"
    client.get("/login")
    with client.websocket_connect("/whoami") as session:
        session.expect({"session": "abc"})
        assert client.post("/", json=1).json()["body"] == "1"
    assert set(threading.enumerate()) <= before


async def test_without_async_with_requests_are_answered() -> None:
    assert (await AsyncTestClient(app).get("/")).json()["method"] == "GET"
