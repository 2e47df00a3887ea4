"""ASGI middleware around handlers: the order, what it sees, what it raises, and what cannot work."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from telex import (
    DefineMiddleware,
    ImproperlyConfiguredException,
    NotAuthorizedException,
    Router,
    Telex,
    WebSocket,
    WebSocketDisconnect,
    websocket,
    websocket_listener,
)
from telex.types import ASGIApp, Message, Receive, Scope, Send
from tests.contract.servers import ServerKind
from tests.support.live import asked, connected, denied, ending, serving, talking


class Noting:
    """An ordinary ASGI middleware class."""

    def __init__(self, app: ASGIApp, name: str = "", log: list[str] | None = None) -> None:
        self.app = app
        self.name = name
        self.log = log if log is not None else []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.log.append(f"{self.name} in")
        try:
            await self.app(scope, receive, send)
        finally:
            self.log.append(f"{self.name} out")


async def test_middleware_of_all_layers_wraps_the_apps_outermost() -> None:
    log: list[str] = []

    def plain(app: ASGIApp) -> ASGIApp:
        return Noting(app, "handler", log)

    @websocket_listener("/", middleware=[plain])
    def listen(data: str) -> str:
        log.append(data)
        return data

    router = Router(route_handlers=[listen], middleware=[Middleware(Noting, "router", log=log)])
    app = Telex(
        [router], middleware=[DefineMiddleware(Noting, "app", log), DefineMiddleware(Noting, name="app 2", log=log)]
    )
    async with talking(app) as client:
        assert await asked(client, "message") == "message"
    names = ["app", "app 2", "router", "handler"]
    assert log == [*(f"{name} in" for name in names), "message", *(f"{name} out" for name in reversed(names))]


@pytest.mark.parametrize("kind", [ServerKind("uvicorn-websockets"), ServerKind("telex")], ids=lambda kind: kind.name)
async def test_middleware_sees_every_message_of_both_directions(kind: ServerKind) -> None:
    seen: list[str] = []

    def watching(app: ASGIApp) -> ASGIApp:
        async def watch(scope: Scope, receive: Receive, send: Send) -> None:
            async def watched_receive() -> Message:
                event = await receive()
                seen.append(f"< {event['type']} {event.get('text', '')}".strip())
                return event

            async def watched_send(event: Message) -> None:
                seen.append(f"> {event['type']} {event.get('text', '')}".strip())
                if event["type"] == "websocket.send":
                    event = {**event, "text": event["text"].upper()}
                await send(event)

            await app(scope, watched_receive, watched_send)

        return watch

    @websocket_listener("/", middleware=[watching])
    def listen(data: str) -> str:
        return data

    async with talking(Telex([listen]), kind=kind) as client:
        assert await asked(client, "a") == "A"
    assert seen == [
        "< websocket.connect",
        "> websocket.accept",
        "< websocket.receive a",
        "> websocket.send a",
        "< websocket.disconnect",
    ]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_a_middleware_raises_is_answered_too(when: str) -> None:
    def failing(app: ASGIApp) -> ASGIApp:
        async def fail(scope: Scope, receive: Receive, send: Send) -> None:
            if when == "after":

                async def failing_receive() -> Message:
                    event = await receive()
                    if event["type"] == "websocket.receive":
                        raise NotAuthorizedException("from the middleware")
                    return event

                await app(scope, failing_receive, send)
            raise NotAuthorizedException("from the middleware")

        return fail

    @websocket_listener("/", middleware=[failing])
    def listen(data: str) -> str:
        return data

    async with serving(Telex([listen])) as running:
        if when == "before":
            denial = await denied(running)
            assert (denial.status, denial.json()["detail"]) == (401, "from the middleware")
        else:
            async with connected(running) as client:
                await client.send("x")
                assert await ending(client) == (4401, "from the middleware")


async def test_a_middleware_may_close_by_itself() -> None:
    reached: list[bool] = []

    def closing(app: ASGIApp) -> ASGIApp:
        async def close(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.close", "code": 4000})

        return close

    @websocket_listener("/", middleware=[closing])
    def listen(data: str) -> None:
        reached.append(True)

    async with serving(Telex([listen])) as running:
        assert (await denied(running)).status == 403
    assert reached == []


async def test_the_origin_is_checked_before_any_middleware() -> None:
    log: list[str] = []

    @websocket("/", middleware=[DefineMiddleware(Noting, "m", log)])
    async def handle(socket: WebSocket) -> None: ...

    async with serving(Telex([handle])) as running:
        assert (await denied(running, origin="https://evil.example")).status == 403
    assert log == []


async def test_limits_hold_behind_a_middleware() -> None:
    @websocket_listener("/", middleware=[Noting], max_message_size=10)
    def listen(data: str) -> int:
        return len(data)

    async with talking(Telex([listen])) as client:
        assert await asked(client, "x" * 10) == "10"
        await client.send("x" * 11)
        assert (await ending(client))[0] == 1009


async def test_a_client_that_leaves_behind_a_middleware_is_one_disconnect() -> None:
    left: list[Any] = []

    @websocket("/", middleware=[Noting])
    async def handle(socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                await socket.receive_text()
        except WebSocketDisconnect as exc:
            left.append((exc.code, exc.reason))

    async with talking(Telex([handle])) as client:
        await client.close(4000, "bye")
    assert left == [(4000, "bye")]


@pytest.mark.parametrize(
    ("middleware", "complaint"),
    [
        (BaseHTTPMiddleware, "BaseHTTPMiddleware is a BaseHTTPMiddleware, which ignores WebSockets"),
        (DefineMiddleware(BaseHTTPMiddleware), "write a plain ASGI middleware, or a guard"),
        (Middleware(BaseHTTPMiddleware), "ignores WebSockets"),
        (3, r"middleware 3 is not callable: pass a function of the app, or DefineMiddleware\(cls, ...\)"),
    ],
)
def test_a_middleware_that_cannot_work_is_an_error(middleware: Any, complaint: str) -> None:
    @websocket("/", middleware=[middleware])
    async def handle(socket: WebSocket) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=complaint) as caught:
        Telex([handle])
    assert "handle (tests/test_middleware.py:" in str(caught.value)


async def test_all_origins_behind_a_middleware() -> None:
    @websocket_listener("/", middleware=[Noting], allowed_origins=["*"])
    def listen(data: str) -> str:
        return data

    async with talking(Telex([listen]), origin="https://anywhere.example") as client:
        assert await asked(client, "x") == "x"
