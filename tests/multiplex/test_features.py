"""Every feature of a route works on a shared socket as on a connection of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Mount

from telex import (
    Channels,
    Controller,
    DefineMiddleware,
    Multiplex,
    NotAuthorizedException,
    Provide,
    Router,
    Telex,
    ValidationException,
    WebSocket,
    WebsocketListener,
    channel_listener,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.channels import Keep
from telex.dto import DataclassDTO, DTOConfig
from telex.exceptions import TooManyRequestsException
from telex.types import ASGIApp, Receive, Scope, Send
from tests.contract.servers import ServerKind
from tests.multiplex.conftest import joined, sharing
from tests.protocol.apps import Journal
from tests.support.live import serving


def app_of(*handlers: Any, **options: Any) -> Telex:
    return Telex([*handlers, Multiplex("/socket", routes=Multiplex.ALL)], **options)


def refuse(status: int, **more: Any) -> Callable[[WebSocket, object], None]:
    def guard(socket: WebSocket, _: object) -> None:
        raise NotAuthorizedException("not you", status_code=status, **more)

    return guard


async def test_a_guard_refuses_a_route_with_its_body(kind: ServerKind) -> None:
    def busy(_: WebSocket, __: object) -> None:
        raise TooManyRequestsException("slowly", headers={"retry-after": "2.5"}, extra={"left": 0})

    @websocket_listener("/a", guards=[refuse(401)])
    async def a(data: str) -> str:
        return data

    @websocket_listener("/b", guards=[busy])
    async def b(data: str) -> str:
        return data

    app = app_of(a, b)
    async with sharing(app, kind) as shared:
        denied = await shared.refused("/a")
        assert (denied["status"], denied["code"]) == (401, "not_authorized")
        assert denied["error"] == {
            "code": "not_authorized",
            "message": "not you",
            "data": {"status_code": 401, "detail": "not you"},
        }
        denied = await shared.refused("/b")
        assert (denied["code"], denied["retry_after"]) == ("rate_limited", 2.5)
        assert denied["error"]["data"]["extra"] == {"left": 0}
        assert not app.connections


@pytest.mark.parametrize("body", [b"x" * 5000, json.dumps("y" * 5000).encode(), b"short"])
async def test_a_long_denial_is_cut(kind: ServerKind, body: bytes) -> None:
    @websocket("/a")
    async def a(socket: WebSocket) -> None:
        await socket.deny(418, body, {"content-type": "text/plain"})

    async with sharing(app_of(a), kind) as shared:
        denied = await shared.refused("/a")
        assert denied["status"] == 418
        assert denied["error"]["message"] == body[:4096].decode()


async def test_the_origin_is_checked_by_each_route(kind: ServerKind) -> None:
    @websocket_listener("/own")
    async def own(data: str) -> str:
        return data

    @websocket_listener("/open", allowed_origins=["https://page.test"])
    async def opened(data: str) -> str:
        return data

    app = Telex([own, opened, Multiplex("/socket", routes=Multiplex.ALL, allowed_origins=["*"])])
    async with serving(app, kind) as running:
        async with joined(running, headers={"origin": f"http://127.0.0.1:{running.port}"}) as shared:
            await shared.open("/own")
        async with joined(running, headers={"origin": "https://page.test"}) as shared:
            assert (await shared.refused("/own"))["status"] == 403
            await shared.open("/open")


async def test_dependencies_are_closed_before_the_route_is(kind: ServerKind) -> None:
    journal = Journal()

    async def resource(room: str) -> AsyncGenerator[str, None]:
        journal.note(f"opened {room}")
        yield f"of {room}"
        journal.note(f"closed {room}")

    @websocket_listener("/rooms/{room:str}", dependencies={"thing": Provide(resource)})
    async def room(data: str, thing: str) -> str:
        return f"{data} {thing}"

    async with sharing(app_of(room), kind) as shared:
        route = await shared.open("/rooms/a%20b")
        assert (await route.call("x"))["data"] == "x of a b"
        assert (await route.close())["type"] == "closed"
        assert journal.entries == ["opened a b", "closed a b"]


class Tag:
    """Middleware that counts connections and adds to their scope."""

    def __init__(self, app: ASGIApp, journal: Journal) -> None:
        self.app = app
        self.journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.journal.note(scope["path"])
        scope["state"]["tag"] = scope["path"]
        await self.app(scope, receive, send)


async def test_the_middleware_of_each_layer_runs_for_each_route(kind: ServerKind) -> None:
    journal = Journal()

    @websocket_listener("/a")
    async def a(data: str, socket: WebSocket) -> str:
        return str(socket.state.tag)

    app = app_of(Router("/x", route_handlers=[a], middleware=[DefineMiddleware(Tag, journal=journal)]))
    async with sharing(app, kind) as shared:
        route = await shared.open("/x/a")
        assert (await route.call(""))["data"] == "/x/a"
        await route.close()
        assert journal.entries == ["/x/a"]


async def test_state_and_path_parameters_of_the_socket_stay_there(kind: ServerKind) -> None:
    @websocket_listener("/a/{key:int}")
    async def a(data: str, socket: WebSocket) -> list[object]:
        seen = [sorted(socket.path_params.items()), sorted(socket.state.dict())]
        socket.state.mine = True
        return [*seen, socket.query_params.get("q"), socket.url.path, socket.headers["x-mine"]]

    def mark(socket: WebSocket, _: object) -> None:
        socket.state.outer = True

    app = Telex([a, Multiplex("/socket/{key:str}", routes=[a], guards=[mark])])
    async with sharing(app, kind, "/socket/one", headers={"x-mine": "yes"}) as shared:
        for number in (7, 8):
            route = await shared.open(f"/a/{number}", query="q=%2B1&r=2")
            found = (await route.call(""))["data"]
            assert found == [[["key", number]], [], "+1", f"/a/{number}", "yes"]


class ByHeader(AuthenticationBackend):
    """Authenticates by a header."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        return AuthCredentials(), SimpleUser(conn.headers["x-name"])


@pytest.mark.parametrize("inside", [False, True], ids=["around", "on the Multiplex"])
async def test_the_user_of_the_handshake_is_that_of_the_routes(kind: ServerKind, inside: bool) -> None:
    @websocket_listener("/me")
    async def me(data: str, socket: WebSocket) -> str:
        return str(socket.user.display_name)

    own = {"middleware": [DefineMiddleware(AuthenticationMiddleware, backend=ByHeader())]} if inside else {}
    app: Any = Telex([me, Multiplex("/socket", routes=[me], **own)])  # type: ignore[arg-type]
    if not inside:
        app = AuthenticationMiddleware(app, backend=ByHeader())
    async with sharing(app, kind, headers={"x-name": "ada"}) as shared:
        assert (await (await shared.open("/me")).call(""))["data"] == "ada"


async def test_a_mounted_app_opens_routes_relative_to_itself(kind: ServerKind) -> None:
    @websocket_listener("/a")
    async def a(data: str, socket: WebSocket) -> list[str]:
        return [socket.url.path, socket.scope["root_path"], socket.app.route_reverse("b")]

    @websocket_listener("/b", name="b")
    async def b(data: str) -> str:
        return data

    mounted = Starlette(routes=[Mount("/under", app=app_of(a, b))])
    async with sharing(mounted, kind, "/under/socket") as shared:
        assert (await (await shared.open("/a")).call(""))["data"] == ["/under/a", "/under", "/b"]
        assert (await shared.refused("/under/a"))["status"] == 404


async def test_a_stream_sends_until_it_ends(kind: ServerKind) -> None:
    @websocket_stream("/ticks")
    async def ticks() -> AsyncGenerator[int, None]:
        for number in range(3):
            yield number

    async with sharing(app_of(ticks), kind) as shared:
        route = await shared.open("/ticks")
        found = [await route.receive() for _ in range(4)]
        assert [each["data"] for each in found[:3]] in ([0, 1, 2], ["0", "1", "2"])
        assert found[3] == {"type": "closed", "code": 1000, "reason": ""}


async def test_a_channel_listener_sends_events_and_publishes(kind: ServerKind) -> None:
    hub = Channels("memory://", arbitrary_channels_allowed=True, history=Keep(10))

    listener = channel_listener("/rooms/{room:str}", channel="room:{room}", publish=str)
    async with hub, sharing(app_of(listener, plugins=[hub]), kind) as shared:
        one, two = await shared.open("/rooms/a"), await shared.open("/rooms/b")
        for route in (one, two):
            assert (await route.receive())["type"] == "subscribed"
        await one.send({"type": "call", "id": 1, "data": "hi"})
        found = [await one.receive(), await one.receive()]
        assert sorted(each["type"] for each in found) == ["event", "reply"]
        assert next(each["data"] for each in found if each["type"] == "event") == "hi"
        await hub.publish("room:b", {"n": 1})
        assert (await two.receive())["data"] == {"n": 1}
        assert not shared.kept(one.c)


@pytest.mark.parametrize("large", [False, True])
async def test_one_room_that_is_not_read_costs_the_others_no_event(kind: ServerKind, large: bool) -> None:
    hub = Channels("memory://", arbitrary_channels_allowed=True)
    rooms = channel_listener("/rooms/{room:str}", channel="room:{room}", max_backlog=300)
    events, padding = 300, "x" * 20_000 if large else ""
    async with hub, sharing(app_of(rooms, plugins=[hub]), kind) as shared:
        routes = [await shared.open(f"/rooms/{room}", credit=events if room else 2) for room in range(5)]
        for route in routes:
            assert (await route.receive())["type"] == "subscribed"

        async def publish() -> None:
            for number in range(events):
                for room in range(5):
                    await hub.publish(f"room:{room}", [number, padding])

        publishing = asyncio.create_task(publish())
        for route in routes[1:]:
            found = [await route.receive() for _ in range(events)]
            assert [each["data"][0] for each in found] == list(range(events))
        await publishing
        assert len(shared.kept(routes[0].c)) == 2


@dataclass
class Person:
    """A model with a secret."""

    name: str
    secret: str = "s"


async def test_data_transfer_objects_apply(kind: ServerKind) -> None:
    @websocket_listener("/people", dto=_dto())
    async def people(data: Person) -> Person:
        return data

    async with sharing(app_of(people), kind) as shared:
        route = await shared.open("/people")
        assert (await route.call({"name": "ada"}))["data"] == {"name": "ada"}


def _dto() -> Any:
    class PersonDTO(DataclassDTO[Person]):
        config = DTOConfig(exclude={"secret"})

    return PersonDTO


async def test_binary_data_travels_both_ways(kind: ServerKind) -> None:
    @websocket_listener("/bytes")
    async def reverse(data: bytes) -> bytes:
        return data[::-1]

    @websocket("/raw")
    async def raw(socket: WebSocket) -> None:
        await socket.accept()
        async for data in socket.iter_bytes():
            await socket.send_bytes(data + b"!")

    async with sharing(app_of(reverse, raw), kind) as shared:
        route = await shared.open("/bytes")
        await route.send({"type": "call", "id": 1}, b"\x00\x01")
        assert await route.receive() == {"type": "reply", "id": 1, "bytes": b"\x01\x00"}
        route = await shared.open("/raw")
        await route.send({"type": "notify"}, b"\xff")
        assert await route.receive() == {"type": "notify", "bytes": b"\xff!"}


async def test_hooks_get_the_codes_of_the_route(kind: ServerKind) -> None:
    journal = Journal()

    class Room(WebsocketListener):
        path = "/room"

        def on_accept(self) -> None:
            journal.note("accepted")

        async def on_receive(self, data: str, socket: WebSocket) -> str:
            if data == "close":
                await socket.close(4010, "enough")
            if data == "fail":
                raise ValidationException("no", path="$.x")
            return data

        def on_disconnect(self, close_code: int, close_reason: str) -> None:
            journal.note(f"{close_code} {close_reason}")

    app = app_of(Room)
    async with serving(app, kind) as running:
        async with joined(running) as shared:
            route = await shared.open("/room")
            assert (await route.close(4001, "bye"))["code"] == 4001
            route = await shared.open("/room")
            assert (await route.call("fail"))["error"]["path"] == "$.x"
            await route.send({"type": "call", "id": 2, "data": "close"})
            found = await route.receive()
            assert (found["type"], found["code"], found["reason"]) == ("closed", 4010, "enough")
            await shared.open("/room")
            assert len(app.connections) == 1
            await shared.client.close(4002, "gone")
        await journal.until("4002 gone")
    assert journal.entries == ["accepted", "4001 bye", "accepted", "4010 enough", "accepted", "4002 gone"]
    assert not app.connections


async def test_a_route_has_its_own_limit_of_size(kind: ServerKind) -> None:
    @websocket_listener("/small", max_message_size=1000)
    async def small(data: str) -> str:
        return data

    @websocket_listener("/large", max_message_size=2 << 20)
    async def large(data: str) -> int:
        return len(data)

    async with sharing(app_of(small, large), kind) as shared:
        one, two = await shared.open("/small"), await shared.open("/large")
        assert (await two.call("x" * 1_000_000))["data"] == 1_000_000
        await one.notify("x" * 6000)
        assert (await one.receive())["code"] == 1009
        assert (await two.call("x"))["data"] == 1


async def test_a_websocket_class_of_its_own_exchanges_plain_messages(kind: ServerKind) -> None:
    class Loud(WebSocket[Any, Any, Any]):
        async def send_data(self, data: str | bytes, mode: Any = "text", encoding: str = "utf-8") -> None:
            assert isinstance(data, str)
            await super().send_data(data.upper(), mode, encoding)

    @websocket_listener("/loud", websocket_class=Loud)
    async def loud(data: str) -> str:
        return data

    async with sharing(app_of(loud), kind) as shared:
        route = await shared.open("/loud")
        assert route.opened["plain"]
        await route.notify("hi")
        assert (await route.receive())["data"] == "HI"


async def test_a_handler_asks_its_client_while_its_window_is_full(kind: ServerKind) -> None:
    @websocket_listener("/ask", max_calls=1)
    async def ask(data: str, socket: WebSocket) -> str:
        answer: str = await socket.call(f"{data}?", str, timeout=5)
        return answer

    async with sharing(app_of(ask), kind) as shared:
        route = await shared.open("/ask")
        await route.send({"type": "call", "id": 1, "data": "ready"})
        question = await route.receive()
        assert (question["type"], question["data"]) == ("call", "ready?")
        await route.send({"type": "reply", "id": question["id"], "data": "yes"})
        assert (await route.receive())["data"] == "yes"


async def test_controllers_and_routers_are_listed_as_a_whole(kind: ServerKind) -> None:
    class Desk(Controller):
        path = "/desk"

        @websocket_listener("/a")
        async def a(self, data: str) -> str:
            return data

    @websocket_listener("/b")
    async def b(data: str) -> str:
        return data

    @websocket_listener("/c")
    async def c(data: str) -> str:
        return data

    router = Router("/r", route_handlers=[b])
    app = Telex([Desk, router, c, Multiplex("/socket", routes=[Desk, router])])
    async with sharing(app, kind) as shared:
        await shared.open("/desk/a")
        await shared.open("/r/b")
        assert (await shared.refused("/c"))["status"] == 404


async def test_the_registry_has_the_routes_and_closes_each_once(kind: ServerKind) -> None:
    journal = Journal()

    class Room(WebsocketListener):
        path = "/room/{number:int}"

        async def on_receive(self, data: str) -> str:
            return data

        def on_disconnect(self, close_code: int, number: int) -> None:
            journal.note(f"{number} {close_code}")

    app = app_of(Room)
    async with serving(app, kind) as running, joined(running) as shared:
        assert not app.connections
        for number in range(3):
            await shared.open(f"/room/{number}")
        assert len(app.connections) == 3
        assert all(socket.is_route for socket in app.connections)
        assert await app.connections.drain(within=0, code=1001) == 1
        await journal.until("2 1001")
        assert sorted(journal.entries) == ["0 1001", "1 1001", "2 1001"]
        async with asyncio.timeout(30):
            await shared.client.wait_closed()
        assert shared.client.close_code == 1001
