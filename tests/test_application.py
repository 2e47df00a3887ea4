"""``Telex``: lifespan, plugins, HTTP beside WebSockets, unknown paths."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from telex import AppConfig, ImproperlyConfiguredException, Plugin, Provide, State, Telex, WebSocket, websocket_listener
from telex.types import Message
from tests.contract.servers import ServerKind
from tests.support.live import asked, asked_json, connected, denied, serving
from tests.support.peer import Peer, scope


@websocket_listener("/echo", name="echo")
async def echo(data: str) -> str:
    return data


async def live(app: Telex, *, shutdown: bool = True) -> list[Message]:
    """The answers of an app to a server's lifespan."""
    events: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Message] = []

    async def receive() -> Message:
        return events.pop(0)

    async def send(event: Message) -> None:
        sent.append(event)

    await app({"type": "lifespan"}, receive, send)
    return sent


# -- lifespan


async def test_start_and_end_in_order_over_a_server() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def first(app: Telex) -> AsyncGenerator[None, None]:
        app.state.first = "ready"
        log.append("first in")
        yield
        log.append("first out")

    @asynccontextmanager
    async def second() -> AsyncGenerator[None, None]:
        log.append("second in")
        yield
        log.append("second out")

    async def start(app: Telex) -> None:
        log.append(f"start {app.state.first}")

    def start_plainly() -> None:
        log.append("start 2")

    async def stop() -> None:
        log.append("stop")

    @websocket_listener("/")
    async def listen(data: str, state: State) -> str:
        return str(state.first)

    app = Telex(
        [listen], lifespan=[first, second()], on_startup=[start, start_plainly], on_shutdown=[stop], state={"given": 1}
    )
    async with ServerKind("uvicorn-websockets").loop(app) as running, connected(running) as client:
        assert await asked(client, "x") == "ready"
        assert log == ["first in", "second in", "start ready", "start 2"]
    assert log[4:] == ["stop", "second out", "first out"]
    assert app.state["given"] == 1


async def test_one_lifespan_needs_no_list() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def only(app: object) -> AsyncGenerator[None, None]:
        log.append("in")
        yield
        log.append("out")

    assert [event["type"] for event in await live(Telex(lifespan=only))] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert log == ["in", "out"]


async def test_a_failed_start_or_end_is_reported_to_the_server_and_cleans_up() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def resource(app: object) -> AsyncGenerator[None, None]:
        yield
        log.append("freed")

    @asynccontextmanager
    async def guarded(app: object) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            log.append("freed")

    def fail() -> None:
        raise KeyError("no database")

    sent: list[Message] = []
    events: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        return events.pop(0)

    async def send(event: Message) -> None:
        sent.append(event)

    with pytest.raises(KeyError):
        await Telex(lifespan=guarded, on_startup=[fail])({"type": "lifespan"}, receive, send)
    assert sent == [{"type": "lifespan.startup.failed", "message": "KeyError: 'no database'"}]
    assert log == ["freed"]
    events[:] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent.clear()
    with pytest.raises(KeyError):
        await Telex(lifespan=guarded, on_shutdown=[fail])({"type": "lifespan"}, receive, send)
    assert [event["type"] for event in sent] == ["lifespan.startup.complete", "lifespan.shutdown.failed"]
    assert log == ["freed", "freed"]
    assert resource is not guarded


async def test_state_may_be_a_state_of_ones_own() -> None:
    class Mine(State):
        count: int

    mine = Mine({"count": 1})
    assert Telex(state=mine).state is mine
    assert isinstance(Telex().state, State)


# -- plugins


async def test_a_plugin_changes_the_configuration_before_the_app_is_built() -> None:
    class Adding:
        def on_app_init(self, config: AppConfig) -> None:
            config.route_handlers.append(echo)
            config.dependencies["who"] = Provide(lambda: "plugin")
            config.options["opt"] = {"plugged": True}
            config.state.plugged = True

    class Replacing:
        def on_app_init(self, config: AppConfig) -> AppConfig:
            return AppConfig(route_handlers=[*config.route_handlers], options=config.options, state=config.state)

    @websocket_listener("/")
    async def listen(data: str, who: Any, socket: WebSocket) -> list[Any]:
        assert isinstance(socket.app, Telex)
        return [who, socket.app.plans[0].layer.opt["plugged"], socket.app.state.plugged]

    assert isinstance(Adding(), Plugin)
    app = Telex([listen], plugins=[Adding(), Replacing()], dependencies={"other": lambda: 1})
    async with serving(app) as running:
        async with connected(running) as client:
            assert await asked_json(client, "x") == ["plugin", True, True]
        async with connected(running, "/echo") as client:
            assert await asked(client, "x") == "x"


def test_a_mistake_of_a_plugin_is_an_error_too() -> None:
    class Wrong:
        def on_app_init(self, config: AppConfig) -> None:
            config.options["guard"] = []  # type: ignore[typeddict-unknown-key]

    with pytest.raises(ImproperlyConfiguredException, match=r"Telex\(...\): unknown option 'guard'"):
        Telex(plugins=[Wrong()])


# -- unknown paths


async def test_an_unknown_path_is_a_404_denial_or_a_close_4404() -> None:
    async with serving(Telex([echo])) as running:
        denial = await denied(running, "/nowhere")
        assert (denial.status, denial.json()) == (404, {"status_code": 404, "detail": "Not Found"})
    peer = Peer()
    await Telex([echo])(scope("/nowhere", denial=False), peer.receive, peer.send)
    assert peer.sent == [{"type": "websocket.close", "code": 4404, "reason": ""}]


async def test_other_kinds_of_scope_are_refused() -> None:
    with pytest.raises(
        ImproperlyConfiguredException, match="Telex serves http, websocket and lifespan, not 'webtransport'"
    ):
        await Telex()({"type": "webtransport"}, Peer().receive, Peer().send)


# -- HTTP


async def test_without_an_http_app_requests_are_answered_404_or_426() -> None:
    async with serving(Telex([echo])) as running:
        base = running.url("").replace("ws://", "http://")
        async with httpx.AsyncClient(base_url=base) as client:
            answer = await client.get("/nowhere")
            assert (answer.status_code, answer.json()) == (404, {"status_code": 404, "detail": "Not Found"})
            answer = await client.get("/echo")
            assert (answer.status_code, answer.json()["detail"]) == (426, "this path is a WebSocket")
            assert answer.headers["upgrade"] == "websocket"


async def test_an_http_app_gets_every_request() -> None:
    async def home(request: Request) -> PlainTextResponse:
        return PlainTextResponse("home")

    async def same(request: Request) -> JSONResponse:
        return JSONResponse(await request.json())

    site = Starlette(routes=[Route("/", home), Route("/echo", same, methods=["POST"])])
    async with serving(Telex([echo], http=site)) as running:
        async with httpx.AsyncClient(base_url=running.url("").replace("ws://", "http://")) as client:
            assert (await client.get("/")).text == "home"
            assert (await client.post("/echo", json={"a": 1})).json() == {"a": 1}
            assert (await client.get("/nowhere")).status_code == 404
        async with connected(running, "/echo") as socket:
            assert await asked(socket, "x") == "x"


# -- many connections


async def test_many_connections_at_once_have_a_state_each() -> None:
    @websocket_listener("/{number:int}")
    async def listen(data: int, number: int, socket: WebSocket) -> list[int]:
        socket.state.total = getattr(socket.state, "total", 0) + data
        return [number, socket.state.total]

    async with serving(Telex([listen])) as running:

        async def talk(number: int) -> None:
            async with connected(running, f"/{number}") as client:
                for count in range(1, 4):
                    assert await asked_json(client, number) == [number, number * count]

        await asyncio.gather(*(talk(number) for number in range(50)))


async def test_plans_say_what_the_app_has() -> None:
    @websocket_listener("/{room:str}", name="room", send_mode="binary", max_message_size=10)
    async def listen(data: int, room: str, page: int = 1) -> list[str]:
        return []

    plan = Telex([listen]).plans[0]
    assert (plan.path, plan.name, plan.kind, plan.handler) == ("/{room:str}", "room", "listener", listen)
    assert [(shape.annotation, shape.mode) for shape in plan.receives] == [(int, "text")]
    assert [(shape.annotation, shape.mode) for shape in plan.sends] == [(list[str], "binary")]
    assert [(each.name, each.source) for each in plan.parameters] == [("room", "path"), ("page", "query")]
    assert plan.where.startswith("test_plans_say_what_the_app_has.<locals>.listen (tests/test_application.py:")
    assert plan.layer.max_message_size == 10


async def test_a_close_before_accept_is_a_refusal() -> None:
    async def closing(socket: WebSocket) -> None:
        await socket.close(4000)

    @websocket_listener("/", connection_accept_handler=closing)
    async def listen(data: str) -> None: ...

    async with serving(Telex([listen])) as running:
        assert (await denied(running)).status == 403
