"""``subscribe(..., socket=socket)``: the subscription ends with the connection, whoever holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from telex import Telex, WebSocket, WebSocketDisconnect, websocket, websocket_listener
from telex.channels import Channels, Subscriber
from telex.exceptions import ChannelsException
from tests.channels.conftest import take_data, until, within
from tests.contract.servers import Running, ServerKind
from tests.support.live import connected, denied, serving


@pytest.fixture(params=["uvicorn-websockets", "telex"])
def kind(request: pytest.FixtureRequest) -> ServerKind:
    return ServerKind(request.param)


@pytest.fixture
def hub() -> Channels:
    return Channels("memory://", arbitrary_channels_allowed=True)


@asynccontextmanager
async def site(hub: Channels, kind: ServerKind, *handlers: Any) -> AsyncIterator[Running]:
    app = Telex(list(handlers), plugins=[hub], allowed_origins=["*"])
    async with app.lifespan(), serving(app, kind) as running:
        yield running


def nobody_left(hub: Channels) -> Callable[[], bool]:
    return lambda: (hub.statistics().subscribers, hub.statistics().channels) == (0, 0)


async def rest_of(events: Subscriber) -> list[object]:
    return [item async for item in events]


async def test_a_subscription_of_a_hook_ends_with_the_connection(hub: Channels, kind: ServerKind) -> None:
    made: list[Subscriber] = []

    async def follow(socket: WebSocket, channels: Channels) -> None:
        events = await channels.subscribe("news", socket=socket)
        made.append(events)
        socket.start_stream(events.iter_events())

    @websocket_listener("/", on_accept=follow)
    def echo(data: str) -> str:
        return data

    async with site(hub, kind, echo) as running:
        async with connected(running) as one, connected(running) as two:
            await until(lambda: hub.statistics().subscribers == 2)
            await hub.publish("news", "hello")
            assert [await within(client.recv()) for client in (one, two)] == ["hello", "hello"]
        await until(nobody_left(hub))
        assert [await within(rest_of(events)) for events in made] == [[], []]


async def test_a_subscription_of_another_task_ends_with_the_connection(hub: Channels, kind: ServerKind) -> None:
    sockets: asyncio.Queue[WebSocket] = asyncio.Queue()

    @websocket("/")
    async def wait(socket: WebSocket) -> None:
        await socket.accept()
        await sockets.put(socket)
        await socket.receive()

    async with site(hub, kind, wait) as running:
        async with connected(running):
            socket = await within(sockets.get())
            events = await hub.subscribe(["a", "b"], socket=socket)
            await hub.publish("a", "last")
            assert hub.statistics().subscribers == 1
        await until(nobody_left(hub))
        assert await take_data(events, 1) == ["last"]
        assert await within(rest_of(events)) == []
        with pytest.raises(WebSocketDisconnect):
            await hub.subscribe("a", socket=socket)
        assert nobody_left(hub)()


async def test_it_ends_when_this_side_closes_or_the_handler_fails(hub: Channels, kind: ServerKind) -> None:
    @websocket("/{how:str}")
    async def leave(socket: WebSocket, channels: Channels) -> None:
        await socket.accept()
        await channels.subscribe("a", socket=socket)
        await socket.send_json(channels.statistics().subscribers)
        if socket.path_params["how"] == "closes":
            await socket.close(4000)
        elif socket.path_params["how"] == "fails":
            raise LookupError("on purpose")

    async with site(hub, kind, leave) as running:
        for how in ("closes", "fails", "returns"):
            async with connected(running, f"/{how}") as client:
                assert await within(client.recv()) == "1"
                await within(client.wait_closed())
            await until(nobody_left(hub))


async def test_one_that_left_earlier_leaves_no_task(hub: Channels, kind: ServerKind) -> None:
    @websocket("/")
    async def count(socket: WebSocket, channels: Channels) -> None:
        await socket.accept()
        socket.event_reader.read_ahead()  # its task is there before the count, however long this takes
        before = asyncio.all_tasks()
        for _ in range(20):
            async with channels.subscribe("a", socket=socket):
                assert channels.statistics().subscribers == 1
            events = await channels.subscribe("b", socket=socket)
            await channels.unsubscribe(events)
            assert await rest_of(events) == []
        await until(lambda: asyncio.all_tasks() <= before)
        await socket.send_text("clean")

    async with site(hub, kind, count) as running, connected(running, ping_interval=None) as client:
        assert await within(client.recv()) == "clean"
        assert nobody_left(hub)()


async def test_a_client_that_leaves_while_the_broker_is_asked_leaves_nothing(
    hub: Channels, kind: ServerKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets: asyncio.Queue[WebSocket] = asyncio.Queue()
    asked, answer = asyncio.Event(), asyncio.Event()
    listen = hub.backend.listen

    @asynccontextmanager
    async def slow(sink: Any) -> AsyncIterator[Any]:
        async with listen(sink) as listener:
            subscribe = listener.subscribe

            async def subscribe_slowly(topics: Any) -> None:
                asked.set()
                await answer.wait()
                await subscribe(topics)

            monkeypatch.setattr(listener, "subscribe", subscribe_slowly)
            yield listener

    monkeypatch.setattr(hub.backend, "listen", slow)

    @websocket("/")
    async def wait(socket: WebSocket) -> None:
        await socket.accept()
        await sockets.put(socket)
        await socket.receive()

    async with site(hub, kind, wait) as running:
        async with connected(running):
            socket = await within(sockets.get())
            subscribing = asyncio.ensure_future(hub.subscribe("a", socket=socket))
            await within(asked.wait())
        await until(lambda: socket.streams is None)
        answer.set()
        with pytest.raises(WebSocketDisconnect):
            await within(subscribing)
        assert nobody_left(hub)()


async def test_without_a_running_handler_it_says_so(hub: Channels) -> None:
    async def guard(socket: WebSocket) -> None:
        with pytest.raises(ChannelsException, match="needs a running handler"):
            await hub.subscribe("a", socket=socket)

    @websocket("/", guards=[guard])
    async def refuse(socket: WebSocket) -> None:
        """Accepts nobody."""

    async with site(hub, ServerKind("telex"), refuse) as running:
        assert (await denied(running)).status == 403
        assert nobody_left(hub)()
