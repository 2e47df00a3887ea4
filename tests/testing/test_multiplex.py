"""Sessions with routes on one test connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from telex import (
    Multiplex,
    NotAuthorizedException,
    Telex,
    WebSocket,
    WebSocketDisconnect,
    websocket,
    websocket_listener,
)
from telex import websocket_stream as stream
from telex.connection import Socket
from telex.exceptions import CallError, WebSocketException
from telex.handlers.base import Handler
from telex.testing import AsyncTestClient, TestClient, WebSocketDenied
from telex.testing.frames import Notify
from tests.protocol.apps import Journal, Said, Say, make_app
from tests.support.leaks import no_leaks


def refuse(socket: Socket, handler: Handler) -> None:
    raise NotAuthorizedException("log in first")


@websocket_listener("/rooms/{room:str}")
async def room(data: str, room: str, socket: WebSocket, since: int = 0) -> str:
    if data == "leave":
        raise WebSocketException(4001, "enough")
    if data == "fail":
        raise ValueError("a defect")
    return f"{room} {since} {data}"


@websocket_listener("/closed", guards=[refuse])
async def closed(data: str) -> str:
    return data


@websocket("/plain")
async def plain(socket: WebSocket) -> None:
    await socket.accept()
    async for data in socket.iter_text():
        await socket.send_text(data.upper())


@stream("/numbers")
async def numbers() -> AsyncGenerator[int, None]:
    number = 0
    while True:
        yield number
        number += 1


@pytest.fixture
def client() -> AsyncTestClient:
    routes = [room, closed, plain, numbers]
    return AsyncTestClient(Telex([*routes, Multiplex("/socket", routes=routes)]), timeout=3)


async def test_routes_have_the_verbs_of_a_connection_of_their_own(client: AsyncTestClient) -> None:
    async with client, no_leaks(), client.multiplex("/socket") as socket:
        assert socket.hello["type"] == "hello"
        async with socket.route("/rooms/a?since=3") as one, socket.route("/rooms/b", {"since": 4}) as other:
            assert one.hello["max"]
            assert list(await asyncio.gather(one.call("x"), other.call("y"))) == ["a 3 x", "b 4 y"]
            with pytest.raises(ValueError, match="a defect"):
                await one.call("fail")
            await other.refute()
            assert await other.call("still", str) == "b 4 still"


async def test_a_route_that_closes_and_one_that_follows(client: AsyncTestClient) -> None:
    async with client, client.multiplex("/socket") as socket:
        for _ in range(3):
            async with socket.route("/rooms/a") as session:
                with pytest.raises(WebSocketDisconnect) as left:
                    await session.call("leave")
                assert (left.value.code, left.value.reason) == (4001, "enough")
        async with socket.route("/rooms/a") as session:
            await session.notify("leave")
            assert (await session.expect(WebSocketDisconnect)).code == 4001


async def test_a_refused_route_is_a_denial(client: AsyncTestClient) -> None:
    async with client, client.multiplex("/socket") as socket:
        with pytest.raises(WebSocketDenied) as denied:
            await socket.route("/closed")
        assert denied.value.status_code == 401
        assert denied.value.json() == {"status_code": 401, "detail": "log in first"}
        with pytest.raises(WebSocketDenied) as unknown:
            await socket.route("/nowhere")
        assert unknown.value.status_code == 404


async def test_a_route_in_plain_mode(client: AsyncTestClient) -> None:
    async with client, client.multiplex("/socket") as socket, socket.route("/plain") as session:
        assert session.accepted_subprotocol is None
        for number in range(100):
            await session.send_text(f"message {number}")
            await session.expect(f"MESSAGE {number}")


async def test_a_route_pushes_no_more_than_the_test_takes(client: AsyncTestClient) -> None:
    async with client, client.multiplex("/socket") as socket:
        async with socket.route("/numbers", credit=4) as session, socket.route("/rooms/a") as other:
            assert await other.call("x", str) == "a 0 x"
            for number in range(100):
                await session.expect(Notify(number))
        await socket.session.send({"type": "ping"})
        await socket.session.expect({"type": "pong"})


async def test_the_socket_is_lost(client: AsyncTestClient) -> None:
    async with client, client.multiplex("/socket") as socket:
        session = await socket.route("/rooms/a")
        await socket.session.close()
        with pytest.raises(WebSocketDisconnect):
            await session.call("x")


async def test_the_handlers_of_calls_on_a_route() -> None:
    journal = Journal()
    async with AsyncTestClient(make_app(journal, is_shared=True)) as client, client.multiplex("/socket") as socket:
        async with socket.route("/parts") as session:
            assert [each.number async for each in session.stream(100, Said)] == list(range(100))
        async with socket.route("/ask") as session:
            session.answer(Say, Said("it", 1))
            assert await session.call("this", Said) == Said("it", 2)
        async with socket.route("/bytes") as session:
            assert await session.call(b"ab", bytes) == b"ba"
        async with socket.route("/slow") as session:
            pending = await session.begin("wait")
            await pending.cancel()
            with pytest.raises(CallError, match="cancelled"):
                await pending.result()


def test_the_synchronous_client() -> None:
    app = Telex([room, Multiplex("/socket", routes=[room])])
    with TestClient(app) as client, client.multiplex("/socket") as socket:
        with socket.route("/rooms/a") as one, socket.route("/rooms/b") as other:
            assert one.call("x", str) == "a 0 x"
            assert other.call("y", str) == "b 0 y"
        socket.session.send({"type": "ping"})
        socket.session.expect({"type": "pong"})
