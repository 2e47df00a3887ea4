"""Every example of the documentation, run: what its page says of it holds."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from examples.docs import (
    authenticate_middleware,
    clock,
    concurrent,
    counter,
    custom_socket,
    echo,
    errors,
    farewell,
    from_fastapi,
    from_fastapi_low_level,
    hello,
    layers,
    limit_clients,
    limit_users,
    live,
    low_level,
    mount_fastapi,
    mount_litestar,
    mount_starlette,
    own_middleware,
    own_types,
    reconnect,
    scopes,
    security,
    send_while_receiving,
    shared_state,
    shop,
    with_attrs,
    with_dataclass,
    with_http,
    with_pydantic,
)
from examples.docs.test_calls import (  # noqa: F401
    test_a_call_and_what_the_server_asks,
    test_an_answer_in_parts,
    test_an_error,
    test_two_routes_on_one_socket,
)
from examples.docs.test_chat import (  # noqa: F401 - shown in the tutorial, run here
    test_a_line_is_not_endless,
    test_a_name_is_taken_once,
    test_two_people_talk,
)
from examples.docs.test_hello import test_hello  # noqa: F401
from examples.docs.test_things import (  # noqa: F401
    test_a_close,
    test_a_denial,
    test_a_handler_without_an_app,
    test_an_error_of_the_app,
    test_on_the_event_loop,
)
from examples.docs.test_time import (  # noqa: F401
    test_a_limit,
    test_a_time_out,
    test_one_a_second,
)
from telex import WebSocketDisconnect
from telex.server import Server, Settings
from telex.testing import AsyncTestClient, AsyncWebSocketTestSession, WebSocketDenied
from tests.docs.pages import EXAMPLES
from tests.support.programs import TELEX, output_of


async def denied(client: AsyncTestClient, path: str, **options: Any) -> WebSocketDenied:
    with pytest.raises(WebSocketDenied) as refused:
        await client.websocket_connect(path, **options)
    return refused.value


async def asked(session: AsyncWebSocketTestSession, message: object) -> Any:
    await session.send_json(message)
    return await session.receive_json()


async def test_the_error_frame_that_the_pages_show() -> None:
    async with AsyncTestClient(hello.app) as client, client.websocket_connect("/hello") as session:
        await session.send_json({"name": 5})
        await session.expect((EXAMPLES / "hello_error.json").read_text().strip())
        await session.send_json({"name": "Ada"})
        await session.expect("Hello, Ada!")


async def test_echo() -> None:
    async with AsyncTestClient(echo.app) as client, client.websocket_connect("/echo") as session:
        await session.send_text("hello")
        await session.expect("hello")


async def test_shop() -> None:
    path = "/shops/north/orders?currency=SEK"
    async with AsyncTestClient(shop.app) as client, client.websocket_connect(path) as session:
        receipt = {"article": "tea", "count": 1, "shop": "north", "currency": "SEK"}
        assert await asked(session, {"article": "tea"}) == receipt
        too_many = (await asked(session, {"article": "tea", "count": 100}))["error"]
        assert (too_many["message"], too_many["path"]) == ("Expected `int` <= 99", "$.count")


async def test_counter(capsys: pytest.CaptureFixture[str]) -> None:
    async with AsyncTestClient(counter.app) as client:
        async with client.websocket_connect("/count") as session:
            assert await asked(session, 2) == 2
            assert await asked(session, 3) == 5
        async with client.websocket_connect("/count") as session:
            assert await asked(session, 1) == 1
    assert capsys.readouterr().out.splitlines() == [f"this connection counted to {total}" for total in (5, 1)]


async def test_low_level() -> None:
    async with AsyncTestClient(low_level.app) as client, client.websocket_connect("/shout") as session:
        await session.send_text("hello")
        await session.expect("HELLO")


async def test_clock() -> None:
    async with AsyncTestClient(clock.app) as client, client.websocket_connect("/clock") as session:
        assert (await session.receive_text()).startswith('"20')


@pytest.mark.long
async def test_live() -> None:
    """The readiness route and the farewell, on the server whose status they read."""
    server = Server(live.app, Settings(port=0, log_format="none", drain_delay=1.0, drain_timeout=5.0))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        await server.listening.wait()
        address = f"127.0.0.1:{server.port}"
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as http:
            assert (await http.get("/ready")).json() == {
                "ready": True,
                "checks": {"accepting": True, "not_draining": True},
            }
        async with connect(f"ws://{address}/last-words", proxy=None) as client:
            assert await client.recv() == "working"
            server.should_exit = True
            assert await client.recv() == "done, goodbye"
        await serving


async def test_authenticate_in_middleware() -> None:
    async with AsyncTestClient(authenticate_middleware.app) as client:
        refused = await denied(client, "/me")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        headers = {"authorization": "Bearer let-me-in"}
        async with client.websocket_connect("/me", headers=headers) as session:
            await session.expect("ada")


async def test_shared_state() -> None:
    async with AsyncTestClient(shared_state.app) as client:
        for total in (1, 2):
            async with client.websocket_connect("/scores") as session:
                await session.send_text("red")
                assert await session.receive_json() == total
        async with client.websocket_connect("/greeting") as session:
            await session.send_text("Ada")
            await session.expect("welcome, Ada")
        async with client.websocket_connect("/everybody") as one, client.websocket_connect("/everybody") as other:
            await other.send_text("how many?")
            assert await other.receive_json() == 2
            await one.send_text("how many?")
            assert await one.receive_json() == 2


async def test_send_while_receiving(monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = asyncio.Event()
    monkeypatch.setattr(send_while_receiving, "do_half", may_go_on.wait)
    async with AsyncTestClient(send_while_receiving.app) as client:
        async with client.websocket_connect("/job") as session:
            for job in "ab":
                await session.send_text(job)
                await session.expect(f"{job}: begun")
            may_go_on.set()
            await session.expect("b: 50 %")
            await session.expect("b: done")
            await session.refute()
        async with client.websocket_connect("/jobs") as session:
            await session.send_text("a")
            await session.send_text("b")
            said = {await session.receive_text() for _ in range(6)}
            assert said == {f"{job}: {state}" for job in "ab" for state in ("begun", "50 %", "done")}


async def test_http_beside() -> None:
    async with AsyncTestClient(with_http.app) as client:
        assert (await client.get("/")).text == "the page"
        async with client.websocket_connect("/echo") as session:
            await session.send_text("hello")
            await session.expect("hello")
    async with AsyncTestClient(echo.app) as client:
        assert [(await client.get(path)).status_code for path in ("/", "/echo")] == [404, 426]


@pytest.mark.parametrize("host", [mount_starlette, mount_fastapi, mount_litestar], ids=lambda host: host.__name__)
async def test_mounted(host: Any) -> None:
    async with AsyncTestClient(host.app) as client:
        async with client.websocket_connect("/live/echo") as session:
            await session.send_text("hello")
            await session.expect("hello")
        if host is not mount_starlette:
            assert (await client.get("/")).status_code == 200


async def test_custom_socket() -> None:
    async with AsyncTestClient(custom_socket.app) as client:
        async with client.websocket_connect("/echo") as session:
            for before in (0, 2):
                await session.send_text("hello")
                assert await session.receive_json() == {"notice": "a message came", "sent_before": before}
                await session.expect("hello")
        async with client.websocket_connect("/plain") as session:
            await session.expect("WebSocket")


async def test_own_middleware(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "chat.timing"):
        async with AsyncTestClient(own_middleware.app) as client, client.websocket_connect("/echo") as session:
            await session.send_text("hello")
            await session.expect("hello")
    assert "chat: 1 messages in" in caplog.text


async def test_limit_clients() -> None:
    async with AsyncTestClient(limit_clients.app) as client:
        async with client.websocket_connect("/chat") as session:
            for _ in range(12):
                await session.send_text("hello")
                await session.expect("hello")
        async with client.websocket_connect("/search") as session:
            for _ in range(4):
                await session.send_text("cats")
                await session.expect("results for cats")
            await session.send_text("cats")
            error = (await session.receive_json())["error"]
            assert (error["code"], error["message"]) == ("rate_limited", "at most 2 in 1 s (at once 4)")
            assert 0 < error["retry_after"] <= 0.52
        async with client.websocket_connect("/upload") as session:
            await session.send_bytes(bytes(1_000_000))
            assert await session.receive_json() == 1_000_000
            await session.send_bytes(bytes(1_000_000))
            with pytest.raises(WebSocketDisconnect) as closed:
                await session.receive_json()
            assert closed.value.code == 4429


async def test_limit_users() -> None:
    async with AsyncTestClient(limit_users.app) as client, client.websocket_connect("/chat") as session:
        await session.send_text("hello")  # nobody: not counted, so no Redis is asked
        await session.expect("hello")


async def test_reconnect_with_the_last_number() -> None:
    async with AsyncTestClient(reconnect.app) as client:
        async with client.websocket_connect("/events") as events, client.websocket_connect("/write") as writer:
            await writer.send_text("one")
            await writer.send_text("two")
            assert (await events.expect(reconnect.Event)).text == "one"
            assert (await events.expect(reconnect.Event)).id == 2
        async with client.websocket_connect("/events?after=1") as events:
            assert await events.expect(reconnect.Event) == reconnect.Event(2, "two")


@pytest.mark.parametrize("module", [with_dataclass, with_attrs, with_pydantic], ids=lambda module: module.__name__)
async def test_models(module: Any) -> None:
    async with AsyncTestClient(module.app) as client, client.websocket_connect("/points") as session:
        assert await asked(session, {"x": 1}) == {"x": 0, "y": 1}
        assert "$" in (await asked(session, {"x": "one"}))["error"]["path"]
        assert (await asked(session, {"x": -1}))["error"]["code"] == "invalid_message"
        assert await asked(session, {"x": 5, "y": 7}) == {"x": 7, "y": 5}


async def test_own_types() -> None:
    async with AsyncTestClient(own_types.app) as client, client.websocket_connect("/next") as session:
        assert await asked(session, "10.0.0.1") == "10.0.0.2"
        assert (await asked(session, "10.0.0"))["error"]["code"] == "invalid_message"


async def test_errors() -> None:
    async with AsyncTestClient(errors.app) as client, client.websocket_connect("/orders") as session:
        problem = {"problem": "Expected `int`, got `str`", "at": "$[...]"}
        assert await asked(session, {"tea": "two"}) == problem
        assert await asked(session, {"moon": 1}) == {"problem": "moon is sold out"}
        await session.send_json({"tea": 2})
        await session.expect("ordered")


@pytest.mark.parametrize(("path", "answers"), [("/strict", 0), ("/patient", 3)])
async def test_the_end_of_patience(path: str, answers: int) -> None:
    async with AsyncTestClient(errors.plain) as client, client.websocket_connect(path) as session:
        for _ in range(max(answers, 1)):
            await session.send_text("no number")
        for _ in range(answers):
            assert (await session.receive_json())["error"]["code"] == "invalid_message"
        assert (await session.expect(WebSocketDisconnect)).code == 1007


async def test_scopes() -> None:
    scopes.LOG.clear()
    async with AsyncTestClient(scopes.app) as client, client.websocket_connect("/") as session:
        await session.send_text("one")
        await session.expect("one in transaction in session")
        await session.send_text("bad")
        await session.expect("refused")
    assert scopes.LOG == [
        "session opened",
        "begin one",
        "commit one",
        "begin bad",
        "roll back bad",
        "session closed",
    ]


async def test_concurrent() -> None:
    async with AsyncTestClient(concurrent.app) as client, client.websocket_connect("/fetch") as session:
        await session.send_json(3600)
        await session.send_json(0)
        assert await session.receive_json() == 0.0


@pytest.mark.parametrize(
    ("path", "origin", "passes"),
    [
        ("private", "http://testserver", True),
        ("private", "https://app.example.com", True),
        ("private", "https://eu.partner.example", True),
        ("private", None, True),
        ("private", "http://app.example.com", False),
        ("private", "https://app.example.com.evil", False),
        ("private", "null", False),
        ("public", "https://anywhere.example", True),
    ],
)
async def test_security(path: str, origin: str | None, passes: bool) -> None:
    headers = {"origin": origin} if origin else {}
    async with AsyncTestClient(security.app) as client:
        if passes:
            async with client.websocket_connect(f"/live/{path}", headers=headers):
                pass
        else:
            assert (await denied(client, f"/live/{path}", headers=headers)).status_code == 403


async def test_farewell() -> None:
    farewell.LOG.clear()
    async with AsyncTestClient(farewell.app) as client:
        async with client.websocket_connect("/hooks") as session:
            await session.close(4001, "bye")
        offered = ["chat.v1", "chat.v2"]
        async with client.websocket_connect("/lifespan", subprotocols=offered) as session:
            assert session.accepted_subprotocol == "chat.v2"
            assert (b"x-served-by", b"telex") in session.extra_headers
    assert farewell.LOG == ["left with 4001 'bye'", "entered", "left"]


async def test_from_fastapi() -> None:
    async with AsyncTestClient(from_fastapi.app) as client:
        headers = {"user-agent": "test"}
        async with client.websocket_connect("/items/5?page=2", headers=headers) as session:
            await session.send_text("hello")
            said = {"item": 5, "page": 2, "agent": "test", "text": "hello", "closed": False}
            assert await session.receive_json() == said
        assert (await denied(client, "/items/five")).status_code == 404
        assert (await denied(client, "/items/5?page=two")).status_code == 400


async def test_from_fastapi_low_level(capsys: pytest.CaptureFixture[str]) -> None:
    async with AsyncTestClient(from_fastapi_low_level.app) as client, client.websocket_connect("/ws") as session:
        await session.send_text("hello")
        await session.expect("you wrote hello")
        await session.close(4001)
    assert capsys.readouterr().out == "the client left with 4001\n"


async def test_layers() -> None:
    assert layers.app.route_reverse("say") == "/v1/words/say"
    assert layers.app.plans[0].layer.opt == {"shout": True}
    async with AsyncTestClient(layers.app) as client, client.websocket_connect("/v1/words/say") as session:
        await session.send_text("hello")
        await session.expect("router at home: hello")


def test_nginx_waits_longer_than_pings_take() -> None:
    """The proxy of the tutorial must not cut connections that the server's pings keep alive, and must upgrade them."""
    text = (EXAMPLES / "nginx.conf").read_text()
    settings = dict(line.strip(" ;").split(" ", 1) for line in text.splitlines() if line.strip().startswith("proxy_"))
    ping_interval = Settings().ping_interval
    assert ping_interval is not None
    assert float(settings["proxy_read_timeout"].rstrip("s")) > 2 * ping_interval
    for header in ("Upgrade $http_upgrade", 'Connection "upgrade"', "Host $http_host", "X-Forwarded-Proto $scheme"):
        assert f"proxy_set_header {header};" in text
    assert settings["proxy_http_version"] == "1.1"


@pytest.mark.program
def test_routes() -> None:
    printed = output_of(TELEX, "routes", "examples.docs.chat.app:app").stdout.splitlines()
    assert [line.strip() for line in printed if line.strip()] == (EXAMPLES / "routes.txt").read_text().splitlines()
