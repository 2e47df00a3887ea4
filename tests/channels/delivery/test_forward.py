"""Forwarding over real sockets: every event once and in order, whatever the client, the middleware or the server does.

What this is about is the way from the queue to the short ways and back, which a client that reads well never takes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from telex import Telex, WebSocket, websocket, websocket_listener
from telex.channels import Channels, Subscriber
from telex.channels.delivery.encoding import Encoding, as_bytes, as_text
from telex.channels.delivery.forward import forward
from telex.channels.events import Item
from telex.exceptions import ConcurrencyError
from telex.types import ASGIApp, Message, Mode, Receive, Scope, Send
from tests.channels.conftest import until, within
from tests.contract.servers import Running, ServerKind
from tests.support.live import connected, serving
from tests.support.raw import BINARY, PING, TEXT, RawClient, frame

KINDS = [ServerKind(name) for name in ("uvicorn-websockets", "uvicorn-wsproto", "hypercorn", "telex")]
PADDING = "." * 20_000


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    found: ServerKind = request.param
    return found


@pytest.fixture
def hub() -> Channels:
    return Channels("memory://", arbitrary_channels_allowed=True, subscriber_max_backlog=100_000)


@asynccontextmanager
async def site(hub: Channels, kind: ServerKind, *handlers: Any, **options: Any) -> AsyncIterator[Running]:
    app = Telex(list(handlers), plugins=[hub], allowed_origins=["*"], **options)
    async with contextlib.AsyncExitStack() as stack:
        if kind.name == "hypercorn":
            yield await stack.enter_async_context(kind.loop(app))
        else:
            await stack.enter_async_context(app.lifespan())
            yield await stack.enter_async_context(serving(app, kind))


def follower(
    *names: str, made: list[Subscriber] | None = None, path: str = "/", frame: Any = as_text, **options: Any
) -> Any:
    """A handler that forwards the channels and tells who it is."""

    @websocket(path, **options)
    async def follow(socket: WebSocket[Any, Any, Any], channels: Channels) -> None:
        await socket.accept()
        async with channels.subscribe(names) as events:
            if made is not None:
                made.append(events)
            await forward(events, socket, frame)

    return follow


async def read_text(client: RawClient, count: int) -> list[str]:
    """The next messages. Pings, which servers send to a client that is there for 20 s, are passed over."""
    texts: list[str] = []
    while len(texts) < count:
        got = await client.read_frame()
        if got.opcode != PING:
            assert got.opcode == TEXT
            texts.append(got.payload.decode())
    return texts


@asynccontextmanager
async def raw(running: Running, path: str = "/", **options: Any) -> AsyncIterator[RawClient]:
    async with await RawClient.open(running.port, **options) as client:
        assert (await client.handshake(path)).status == 101
        yield client


async def test_who_reads_late_misses_nothing_and_keeps_nobody_waiting(hub: Channels, kind: ServerKind) -> None:
    made: list[Subscriber] = []
    total = 600
    expected = [f"{number} {PADDING}" for number in range(total)]
    async with site(hub, kind, follower("news", made=made)) as running:
        async with raw(running, receive_buffer=4096) as late, raw(running) as prompt:
            await until(lambda: len(made) == 2)
            reading = asyncio.create_task(read_text(prompt, total))
            for value in expected:
                await hub.publish("news", value)
                await asyncio.sleep(0)
            assert await within(reading) == expected
            # 12 MB did not fit between it and us: what waits, waits in its backlog.
            waiting = [events.qsize for events in made]
            assert max(waiting) > 100
            assert min(waiting) == 0
            late.timeout = 10
            assert await within(read_text(late, total), 30) == expected
            # It is fast again, and has all that comes from now on.
            for number in range(50):
                await hub.publish("news", f"again {number}")
                assert await read_text(late, 1) == await read_text(prompt, 1) == [f"again {number}"]
        await until(lambda: not hub.statistics().subscribers)
    figures = hub.statistics()
    assert (figures.delivered, figures.dropped, figures.backlog) == (2 * (total + 50), 0, 0)


async def test_events_and_replies_of_a_pipelining_client_keep_their_order(hub: Channels, kind: ServerKind) -> None:
    async def follow(socket: WebSocket, channels: Channels) -> None:
        events = await channels.subscribe("news", socket=socket)
        assert socket.streams is not None
        socket.streams.start(forward(events, socket, as_text))

    @websocket_listener("/", on_accept=follow)
    async def publish(data: str, channels: Channels) -> str:
        await channels.publish("news", f"event {data}")
        return f"reply {data}"

    async with site(hub, kind, publish) as running, raw(running) as client:
        await until(lambda: hub.statistics().subscribers == 1)
        for start in range(0, 300, 30):
            numbers = range(start, start + 30)
            await client.send(b"".join(frame(TEXT, b"%d" % number) for number in numbers))
            got = await within(read_text(client, 60))
            assert [each for each in got if each.startswith("event")] == [f"event {number}" for number in numbers]
            assert [each for each in got if each.startswith("reply")] == [f"reply {number}" for number in numbers]


async def test_several_channels_are_one_stream_and_may_be_left_one_by_one(hub: Channels, kind: ServerKind) -> None:
    made: list[Subscriber] = []
    async with site(hub, kind, follower("a", "b", "c", made=made)) as running, raw(running) as client:
        await until(lambda: hub.statistics().subscribers == 1)
        for number in range(10):
            for name in ("a", "b", "c"):
                await hub.publish(name, f"{name}{number}")
        await hub.unsubscribe(made[0], "b")
        await until(lambda: made[0].delivered == 30)
        for name in ("a", "b", "c"):
            await hub.publish(name, f"{name} last")
        expected = [f"{name}{number}" for number in range(10) for name in ("a", "b", "c")]
        assert await within(read_text(client, 32)) == [*expected, "a last", "c last"]
        await until(lambda: made[0].delivered == 32)


async def test_text_and_binary_followers_get_their_kind_and_bad_text_ends_text_alone(
    hub: Channels, kind: ServerKind
) -> None:
    handlers = [follower("news"), follower("news", path="/binary", frame=as_bytes)]
    async with site(hub, kind, *handlers) as running, raw(running) as text, raw(running, "/binary") as binary:
        await until(lambda: hub.statistics().subscribers == 2)
        for value in ("short", "ü" * 9000, b"\x00\xff"):
            await hub.publish("news", value)
        assert await read_text(text, 2) == ["short", "ü" * 9000]
        assert (await text.read_close()).code == 1003
        frames = [await binary.read_frame() for _ in range(3)]
        assert [each.opcode for each in frames] == [BINARY] * 3
        assert frames[2].payload == b"\x00\xff"


async def test_a_class_that_sends_in_its_own_way_does(hub: Channels, kind: ServerKind) -> None:
    class Shouting(WebSocket[Any, Any, Any]):
        async def send_data(self, data: str | bytes, mode: Mode = "text", encoding: str = "utf-8") -> None:
            await super().send_data(str(data).upper(), mode, encoding)

    async with site(hub, kind, follower("news", websocket_class=Shouting)) as running, raw(running) as client:
        await until(lambda: hub.statistics().subscribers == 1)
        for _ in range(3):
            await hub.publish("news", "hello")
        assert await read_text(client, 3) == ["HELLO"] * 3


request_id: ContextVar[str] = ContextVar("request_id")


def traced(told: list[str]) -> Callable[[ASGIApp], ASGIApp]:
    """A middleware as tracers write them: around each send a span in the context, and a time-out in the task."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            request_id.set(scope["path"])

            async def traced_send(event: Message) -> None:
                span = request_id.set(f"{request_id.get()} {event['type']}")
                try:
                    async with asyncio.timeout(30):
                        await send(event)
                finally:
                    told.append(request_id.get())
                    request_id.reset(span)

            await app(scope, receive, traced_send)

        return middleware

    return wrap


async def test_a_middleware_finds_its_own_task_and_context(hub: Channels, kind: ServerKind) -> None:
    told: list[str] = []
    made: list[Subscriber] = []
    total = 600
    async with site(hub, kind, follower("news", made=made, middleware=[traced(told)])) as running:
        async with raw(running, receive_buffer=4096) as client:
            await until(lambda: len(made) == 1)
            for number in range(total):
                await hub.publish("news", f"{number} {PADDING}")
            await until(lambda: made[0].qsize > 100)
            client.timeout = 10
            got = await within(read_text(client, total), 30)
            assert [each.split()[0] for each in got] == [str(number) for number in range(total)]
        await until(lambda: not hub.statistics().subscribers)
    assert told.count("/ websocket.send") == total


async def test_a_middleware_that_publishes_what_it_sends_does_not_turn_in_circles(
    hub: Channels, kind: ServerKind
) -> None:
    def echoing(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            async def echo(event: Message) -> None:
                if event.get("text") == "ping":
                    await hub.publish("news", "pong")
                await send(event)

            await app(scope, receive, echo)

        return middleware

    async with site(hub, kind, follower("news", middleware=[echoing])) as running, raw(running) as client:
        await until(lambda: hub.statistics().subscribers == 1)
        for _ in range(5):
            await hub.publish("news", "ping")
            assert sorted(await within(read_text(client, 2))) == ["ping", "pong"]


async def test_one_subscriber_forwards_to_one_socket(hub: Channels) -> None:
    refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @websocket("/")
    async def follow(socket: WebSocket, channels: Channels) -> None:
        await socket.accept()
        async with channels.subscribe("news") as events, asyncio.TaskGroup() as group:
            group.create_task(forward(events, socket, as_text))
            await asyncio.sleep(0)
            with pytest.raises(ConcurrencyError) as raised:
                await forward(events, socket, as_text)
            refused.set_result(str(raised.value))

    async with site(hub, ServerKind("telex"), follow) as running, raw(running) as client:
        assert "forwarded already" in await within(refused)
        await hub.publish("news", "hello")
        assert await read_text(client, 1) == ["hello"]


async def test_clients_that_vanish_in_the_middle_cost_nobody_else(hub: Channels, kind: ServerKind) -> None:
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(site(hub, kind, follower("news")))
        faithful, *others = [await stack.enter_async_context(raw(running)) for _ in range(9)]
        await until(lambda: hub.statistics().subscribers == 9)
        for number in range(80):
            if number % 10 == 5:
                others[number // 10].reset()
            await hub.publish("news", str(number))
            assert await read_text(faithful, 1) == [str(number)]
        await until(lambda: hub.statistics().subscribers == 1)


async def test_a_socket_that_this_side_closes_gets_nothing_more(
    hub: Channels, kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    sockets: list[WebSocket[Any, Any, Any]] = []

    @websocket("/")
    async def follow(socket: WebSocket, channels: Channels) -> None:
        sockets.append(socket)
        await socket.accept()
        async with channels.subscribe("news") as events:
            await forward(events, socket, as_text)

    async with site(hub, kind, follow) as running, connected(running) as client:
        await until(lambda: hub.statistics().subscribers == 1)
        await hub.publish("news", "first")
        assert await within(client.recv()) == "first"
        await sockets[0].close(4001)
        await hub.publish("news", "second")
        await within(client.wait_closed())
        assert client.close_code == 4001
        with pytest.raises(ConnectionClosed):
            await within(client.recv())
        await until(lambda: not hub.statistics().subscribers)
    assert "ERROR" not in [record.levelname for record in caplog.records]


@pytest.mark.parametrize("error", [StopAsyncIteration, StopIteration])
@pytest.mark.parametrize("overrides", [False, True])
async def test_an_encoding_that_raises_an_end_of_iteration_is_an_error(
    hub: Channels, kind: ServerKind, error: type[Exception], overrides: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Own(WebSocket[Any, Any, Any]):
        async def send_data(self, data: str | bytes, mode: Mode = "text", encoding: str = "utf-8") -> None:
            await super().send_data(data, mode, encoding)

    def write(item: Item) -> str:
        raise error

    options: dict[str, Any] = {"websocket_class": Own} if overrides else {}
    handler = follower("news", frame=Encoding(write), **options)
    async with site(hub, kind, handler) as running, raw(running) as client:
        await until(lambda: hub.statistics().subscribers == 1)
        await hub.publish("news", "one")
        assert (await client.read_close()).code == 1011
    assert error.__name__ in caplog.text


async def test_a_callback_that_raises_an_end_of_iteration_is_an_error() -> None:
    async def fail(data: bytes) -> None:
        raise StopAsyncIteration

    async with Channels("memory://", channels=["news"]) as hub, hub.subscribe("news") as events:
        with pytest.raises(RuntimeError, match="StopAsyncIteration"):
            await within(publish_while_it_runs(hub, events, fail))


async def publish_while_it_runs(
    hub: Channels, events: Subscriber, on_event: Callable[[bytes], Awaitable[None]]
) -> None:
    async with events.run_in_background(on_event):
        await hub.publish("news", "one")
        await asyncio.Event().wait()
