"""Routes on one socket: they open, exchange frames and close, over a real socket."""

from __future__ import annotations

from typing import Any

from telex import Multiplex, Telex, WebSocket, websocket, websocket_listener
from tests.contract.servers import ServerKind
from tests.multiplex.conftest import sharing


@websocket_listener("/rooms/{room:str}")
async def room(data: str, room: str) -> str:
    return f"{room}: {data}"


@websocket_listener("/numbers")
def numbers(data: int) -> int:
    return data + 1


@websocket("/raw")
async def raw(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


@websocket_listener("/hidden")
async def hidden(data: str) -> str:
    return data


def make_app() -> Telex:
    return Telex([room, numbers, raw, hidden, Multiplex("/socket", routes=[room, numbers, raw])])


async def test_routes_on_one_socket_answer_calls(kind: ServerKind) -> None:
    async with sharing(make_app(), kind) as shared:
        one, two = await shared.open("/rooms/a"), await shared.open("/rooms/b")
        assert await one.call("hi") == {"type": "reply", "id": 1, "data": "a: hi"}
        assert await two.call("hi") == {"type": "reply", "id": 1, "data": "b: hi"}
        assert await (await shared.open("/numbers")).call(4) == {"type": "reply", "id": 1, "data": 5}
        assert await one.close(4001, "bye") == {"type": "closed", "code": 4001, "reason": "bye"}
        assert await two.call("on") == {"type": "reply", "id": 2, "data": "b: on"}


async def test_a_plain_handler_exchanges_its_messages_as_notifies(kind: ServerKind) -> None:
    async with sharing(make_app(), kind) as shared:
        route = await shared.open("/raw")
        assert route.opened == {"type": "opened", "plain": True, "credit": 16}
        await route.notify("text")
        assert await route.receive() == {"type": "notify", "data": "text"}
        await route.notify({"a": 1})
        assert await route.receive() == {"type": "notify", "data": '{"a": 1}'}
        await route.send({"type": "call", "id": 1, "data": 1})
        assert (await route.receive())["error"]["code"] == "bad_frame"


async def test_a_route_that_is_not_listed_and_the_socket_itself_are_not_found(kind: ServerKind) -> None:
    async with sharing(make_app(), kind) as shared:
        for path in ("/hidden", "/socket", "/nothing"):
            denied = await shared.refused(path)
            assert (denied["status"], denied["code"]) == (404, "not_found")
