"""An idle route of a plain listener has no task; it goes on for the next message and ends as every other."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from typing import Any

from telex import Multiplex, Provide, Telex, websocket_listener
from telex.connection import Socket
from telex.types import Message
from tests.contract.servers import ServerKind
from tests.multiplex.conftest import sharing
from tests.support.live import connected, serving

seen: ContextVar[str] = ContextVar("seen", default="nothing")


@websocket_listener("/echo")
async def echo(data: str) -> str:
    return data


@websocket_listener("/waits")
async def waits(data: str) -> str:
    before = seen.get()
    seen.set(data)
    await asyncio.sleep(0)
    return before


@websocket_listener("/fails")
async def fails(data: str) -> str:
    raise ConnectionAbortedError(data)


async def one() -> int:
    return 1


async def closed() -> AsyncGenerator[int, None]:
    yield 1


@websocket_listener("/rooms/{room:str}", dependencies={"number": Provide(one)})
async def room(data: str, room: str, number: int) -> str:
    return f"{room}{number}: {data}"


@websocket_listener("/closed", dependencies={"number": Provide(closed)})
async def needs_closing(data: str, number: int) -> str:
    return data


def make_app() -> Telex:
    return Telex([echo, waits, fails, room, needs_closing, Multiplex("/socket", routes=Multiplex.ALL)])


async def until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 as it is about turns of the loop
            await asyncio.sleep(0)


def rests(socket: Socket) -> bool:
    """Whether the route has no task."""
    return socket.event_reader.resting is not None


async def resting(app: Telex, count: int = 1) -> list[Socket]:
    """The connections of routes, which all rest."""
    await until(lambda: len(app.connections) == count and all(map(rests, app.connections)))
    return list(app.connections)


async def test_a_route_rests_after_each_message_and_keeps_the_context_of_its_handler(kind: ServerKind) -> None:
    app = make_app()
    async with sharing(app, kind) as shared:
        one, two = await shared.open("/waits"), await shared.open("/waits")
        for before, text in (("nothing", "a"), ("a", "b"), ("b", "c")):
            await resting(app, 2)
            assert (await one.call(text))["data"] == before
        assert (await two.call("x"))["data"] == "nothing"
        assert seen.get() == "nothing"


async def test_parameters_and_dependencies_are_kept_through_a_rest(kind: ServerKind) -> None:
    app = make_app()
    async with sharing(app, kind) as shared:
        route = await shared.open("/rooms/a")
        for _ in range(2):
            await resting(app)
            assert (await route.call("hi"))["data"] == "a1: hi"


async def test_a_dependency_that_must_be_closed_stays_open_in_its_task(kind: ServerKind) -> None:
    app = make_app()
    async with sharing(app, kind) as shared:
        route, other = await shared.open("/closed"), await shared.open("/echo")
        for each in (route, other, route, other):
            assert (await each.call("hi"))["data"] == "hi"
        await until(lambda: any(map(rests, app.connections)))
        assert sum(map(rests, app.connections)) == 1


async def test_calls_that_come_together_are_answered_in_order_after_a_rest(kind: ServerKind) -> None:
    app = make_app()
    async with sharing(app, kind) as shared:
        route = await shared.open("/waits")
        await resting(app)
        for number in range(1, 6):
            await route.send({"type": "call", "id": number, "data": str(number)})
        assert [(await route.receive())["id"] for _ in range(5)] == [1, 2, 3, 4, 5]


async def test_an_exception_after_a_rest_is_answered_and_the_route_goes_on(kind: ServerKind) -> None:
    app = make_app()
    async with sharing(app, kind) as shared:
        route = await shared.open("/fails")
        for _ in range(2):
            await resting(app)
            assert (await route.call("no"))["error"]["code"] == "internal"


async def test_a_resting_route_ends_when_its_client_closes_it(kind: ServerKind) -> None:
    app = make_app()
    async with sharing(app, kind) as shared:
        route = await shared.open("/echo")
        [socket] = await resting(app)
        assert await route.close(4001, "bye") == {"type": "closed", "code": 4001, "reason": "bye"}
        assert socket.close_code == 4001
        assert not app.connections


async def test_a_resting_route_ends_when_another_task_closes_it(kind: ServerKind) -> None:
    app = make_app()
    async with sharing(app, kind) as shared:
        route, other = await shared.open("/echo"), await shared.open("/echo")
        sockets = await resting(app, 2)
        closed = next(each for each in sockets if each.route is not None and getattr(each.route, "c", 0) == route.c)
        await closed.close(4002, "enough")
        assert await route.receive() == {"type": "closed", "code": 4002, "reason": "enough"}
        assert (await other.call("on"))["data"] == "on"
        assert len(app.connections) == 1


async def test_resting_routes_end_with_their_socket(kind: ServerKind) -> None:
    app = make_app()
    async with sharing(app, kind) as shared:
        for _ in range(5):
            await shared.open("/echo")
        sockets = await resting(app, 5)
        await shared.client.close(4003)
        await until(lambda: not app.connections)
        assert {each.close_code for each in sockets} == {4003}


async def test_resting_routes_end_when_the_task_of_their_socket_is_cancelled(kind: ServerKind) -> None:
    app = make_app()
    tasks: list[asyncio.Task[Any] | None] = []

    async def served(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            tasks.append(asyncio.current_task())
        await app(scope, receive, send)

    async with serving(served, kind) as running, connected(running, "/socket", subprotocols=["telex.v1"]) as client:
        await client.recv()
        for c in range(1, 4):
            await client.send(json.dumps({"type": "open", "c": c, "path": "/echo"}))
            await client.recv()
        sockets = await resting(app, 3)
        assert tasks[0] is not None
        tasks[0].cancel()
        await until(lambda: not app.connections)
        assert {each.close_code for each in sockets} == {1012}


async def test_an_idle_route_takes_less_than_three_kibibytes() -> None:
    app = make_app()
    events: asyncio.Queue[Message] = asyncio.Queue()
    sent: list[Message] = []
    got = asyncio.Event()

    async def send(event: Message) -> None:
        sent.append(event)
        got.set()

    async def ask(frame: dict[str, object]) -> None:
        got.clear()
        events.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})
        await got.wait()

    async def grown(first: int, count: int) -> float:
        for c in range(first, first + count):
            await ask({"type": "open", "c": c, "path": "/echo"})
            await ask({"type": "call", "c": c, "id": 1, "data": "hello"})
        await resting(app, first + count - 1)
        sent.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    events.put_nowait({"type": "websocket.connect"})
    scope = {"type": "websocket", "path": "/socket", "headers": [], "query_string": b"", "subprotocols": ["telex.v1"]}
    running = asyncio.create_task(app(scope, events.get, send))
    tracemalloc.start()
    try:
        before = await grown(1, 20)
        assert (await grown(21, 70) - before) / 70 < 3 * 1024
    finally:
        tracemalloc.stop()
        running.cancel()
        await asyncio.wait((running,))
