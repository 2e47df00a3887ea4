"""Denials as error frames: what is read of a denial; what a real browser is told."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import async_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from telex import (
    ImproperlyConfiguredException,
    PermissionDeniedException,
    Telex,
    WebSocket,
    WebSocketDisconnect,
    websocket_listener,
)
from telex.protocol.envelope import MULTIPLEXED
from telex.protocol.refusals import Denial
from telex.testing import AsyncTestClient
from tests.contract.servers import ServerKind
from tests.support.live import connected, ending, heard_json, serving
from tests.support.peer import Peer, scope


def read(status: int, body: bytes, content_type: str = "application/json", wait: str = "") -> Denial:
    headers = [(b"Content-Type", content_type.encode()), (b"Retry-After", wait.encode())]
    return Denial.read(status, headers, body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"detail": "no"}', "no"),
        (b'{"detail": 5}', "Forbidden"),
        (b'["detail"]', "Forbidden"),
        (b"{", "{"),
        (b"[" * 4000, "[" * 4000),
        (b"\xff", "\ufffd"),
        (b"", "Forbidden"),
        (b'{"detail": "' + b"x" * 2000 + b'"}', "x" * 500),
    ],
)
def test_the_message_is_the_detail_or_the_text_of_a_body(body: bytes, message: str) -> None:
    assert read(403, body).message == message


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "1e9", "9" * 400, "Wed, 21 Oct 2015 07:28:00 GMT", "", "1;2"])
def test_a_wait_that_is_no_number_of_seconds_is_left_out(wait: str) -> None:
    denial = read(503, b"", wait=wait)
    assert denial.retry_after is None
    assert denial.close == (4503, "Service Unavailable")


def test_only_telex_itself_says_another_close_code() -> None:
    assert read(403, b'{"status_code": 403, "detail": "no", "code": 4001}').close == (4001, "no")
    assert read(403, b'{"detail": "no", "code": 4001}').close == (4403, "no")
    for code in ("1006", "true", '"4001"', "99999"):
        assert read(403, b'{"status_code": 403, "detail": "no", "code": %s}' % code.encode()).close == (4403, "no")


def test_an_option_of_another_name_is_an_error() -> None:
    with pytest.raises(ImproperlyConfiguredException, match="denials is 'auto', 'http' or 'socket'"):
        Telex([], denials="json")  # type: ignore[arg-type]


def refuse(_: WebSocket[Any, Any, Any]) -> None:
    raise PermissionDeniedException("members only")


@websocket_listener("/room", guards=[refuse])
async def room(data: str) -> str:
    return data


async def test_a_virtual_connection_is_denied_as_by_http() -> None:
    """A Multiplex makes a ``denied`` frame of it."""
    peer = Peer()
    headers = {"origin": "http://testserver"}
    given = scope("/room", headers=headers, subprotocols=["telex.v1"])
    given[MULTIPLEXED] = {}
    await Telex([room])(given, peer.receive, peer.send)
    assert peer.kinds == ["websocket.http.response.start", "websocket.http.response.body"]


@pytest.mark.parametrize("path", ["/live/room", "/live/nowhere"])
async def test_a_mounted_app_tells_its_browsers(path: str) -> None:
    outer = Starlette(routes=[Mount("/live", Telex([room]))])
    async with serving(outer) as running:
        origin = running.url("").replace("ws://", "http://")
        async with connected(running, path, headers={"origin": origin}, subprotocols=["telex.v1"]) as client:
            assert (await heard_json(client))["type"] == "error"
            assert (await ending(client))[0] == (4403 if path == "/live/room" else 4404)


async def test_the_test_client_sees_what_a_browser_sees() -> None:
    async with AsyncTestClient(Telex([room])) as client:
        headers = {"origin": "http://testserver"}
        async with await client.websocket_connect("/room", headers=headers, subprotocols=["telex.v1"]) as session:
            assert (await session.receive_json())["error"]["code"] == "permission_denied"
            with pytest.raises(WebSocketDisconnect) as closed:
                await session.receive_text()
        assert (closed.value.code, closed.value.reason) == (4403, "members only")


async def blank(_: Request) -> HTMLResponse:
    return HTMLResponse("<!doctype html><title>test</title>")


SCRIPT = """url => new Promise((resolve) => {
  const socket = new WebSocket(url, "telex.v1"), told = [];
  socket.onmessage = (message) => told.push(JSON.parse(message.data));
  socket.onclose = ({ code, reason }) => resolve([code, reason, told]);
})"""


@pytest.mark.browser
@pytest.mark.parametrize("name", ["telex", "uvicorn-websockets", "uvicorn-wsproto"])
async def test_a_real_browser_is_told(chromium: str, name: str) -> None:
    app = Telex([room], http=Starlette(routes=[Route("/", blank)]))
    async with serving(app, ServerKind(name)) as running, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.goto(running.url("/").replace("ws://", "http://"))
        code, reason, frames = await page.evaluate(SCRIPT, running.url("/room"))
        assert (code, reason) == (4403, "members only")
        body = {"status_code": 403, "detail": "members only"}
        error = {"code": "permission_denied", "message": "members only", "data": body}
        assert frames == [{"type": "error", "about": "connection", "error": error}]
        assert (await page.evaluate(SCRIPT, running.url("/nowhere")))[0] == 4404
        await browser.close()
