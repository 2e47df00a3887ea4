"""Promises of the topic page, on the wire: who may publish, what it costs, what policies do, how a loss shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from websockets.exceptions import ConnectionClosed

from telex import Telex, channel_listener
from telex.channels import Channels, Event, Gap, Policy, conflate
from telex.channels.delivery.subscriber import recipient_of
from telex.exceptions import ImproperlyConfiguredException, WebSocketException
from telex.protocol.envelope import SUBPROTOCOL
from tests.channels.brokers import Broker, Valkey
from tests.channels.conftest import until, within
from tests.contract.servers import Running, ServerKind
from tests.support.live import connected, serving
from tests.support.raw import CLOSE, TEXT, RawClient


@pytest.fixture(params=["uvicorn-websockets", "telex"])
def kind(request: pytest.FixtureRequest) -> ServerKind:
    return ServerKind(request.param)


@asynccontextmanager
async def site(hub: Channels, kind: ServerKind, *handlers: Any, **options: Any) -> AsyncIterator[Running]:
    app = Telex(list(handlers), plugins=[hub], allowed_origins=["*"], **options)
    async with app.lifespan(), serving(app, kind) as running:
        yield running


async def test_http_handlers_publish_to_sockets_of_another_node(
    kind: ServerKind, running_broker: Callable[[str], Broker], name: str
) -> None:
    url = running_broker("valkey").url
    here, there = (Channels(url, arbitrary_channels_allowed=True) for _ in range(2))

    async def publish(request: Request) -> Response:
        await here.publish(name, await request.json())
        return PlainTextResponse("published")

    async with AsyncExitStack() as stack:
        http = Starlette(routes=[Route("/publish", publish, methods=["POST"])])
        web = await stack.enter_async_context(site(here, kind, http=http))
        sockets = await stack.enter_async_context(site(there, kind, channel_listener("/", channel=name)))
        client = await stack.enter_async_context(connected(sockets))
        await until(lambda: there.statistics().subscribers == 1)
        async with httpx.AsyncClient() as browser:
            answer = await browser.post(f"http://127.0.0.1:{web.port}/publish", json={"n": 1})
        assert answer.text == "published"
        assert json.loads(await within(client.recv())) == {"n": 1}


async def test_a_value_is_encoded_once_and_no_delivery_has_a_task(kind: ServerKind) -> None:
    class Price:
        encoded = 0

    def encode(price: Price) -> str:
        Price.encoded += 1
        return "12.50"

    hub = Channels("memory://", arbitrary_channels_allowed=True, type_encoders={Price: encode})
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(site(hub, kind, channel_listener("/{room:str}", channel="{room}")))
        clients = [await stack.enter_async_context(connected(running, f"/{number % 3}")) for number in range(30)]
        await until(lambda: hub.statistics().subscribers == 30)
        tasks = asyncio.all_tasks()
        for _ in range(10):
            await hub.publish(["0", "1", "2"], Price())
            begun = {str(task.get_coro()).split()[2] for task in asyncio.all_tasks() - tasks}
            # The busy monitor begins to read ahead of each waiting handler in its own time.
            assert begun <= {"EventReader._pump_events"}
        assert Price.encoded == 10
        for client in clients:
            assert [await within(client.recv()) for _ in range(10)] == ['"12.50"'] * 10


PADDING = "." * 20_000
TOTAL = 1_500
LIMIT = 20


def last_digit(event: Event) -> int:
    number: int = json.loads(event.data)["n"]
    return number % 10


POLICIES: dict[str, Policy] = {
    "drop_oldest": "drop_oldest",
    "drop_newest": "drop_newest",
    "close": "close",
    "conflate": conflate(last_digit),
}


async def read_numbers(client: RawClient) -> tuple[list[int], int | None]:
    """Everything up to the last number, or to the close frame and its code."""
    numbers: list[int] = []
    while not numbers or numbers[-1] != TOTAL:
        frame = await client.read_frame()
        if frame.opcode == CLOSE:
            return numbers, int.from_bytes(frame.payload[:2], "big")
        if frame.opcode == TEXT:
            numbers.append(json.loads(frame.payload)["n"])
    return numbers, None


@pytest.mark.parametrize("policy", POLICIES)
async def test_each_policy_applies_to_a_client_that_reads_late(kind: ServerKind, policy: str) -> None:
    hub = Channels("memory://", arbitrary_channels_allowed=True)
    room = channel_listener("/", channel="c", max_backlog=LIMIT, backlog_strategy=POLICIES[policy])
    async with site(hub, kind, room) as running, await RawClient.open(running.port, receive_buffer=4096) as client:
        assert (await client.handshake("/")).status == 101
        await until(lambda: hub.statistics().subscribers == 1)
        for number in range(TOTAL):
            await hub.publish("c", {"n": number, "padding": PADDING})
            # A publish in memory may not suspend: the task that sends gets its turn here.
            await asyncio.sleep(0)
        figures = hub.statistics()
        reading = asyncio.create_task(read_numbers(client))
        if policy == "close":
            numbers, code = await within(reading)
            assert (numbers, code) == (list(range(len(numbers))), 1013)
            assert len(numbers) > 2 * LIMIT
            return
        assert figures.delivered + figures.backlog + figures.dropped + figures.conflated == TOTAL
        assert LIMIT // 2 <= figures.backlog <= LIMIT
        await until(lambda: not hub.statistics().backlog)
        await hub.publish("c", {"n": TOTAL, "padding": ""})
        numbers, code = await within(reading)
        assert code is None
        assert len(set(numbers)) == len(numbers)
        figures = hub.statistics()
        assert len(numbers) == figures.delivered
        assert len(numbers) + figures.dropped + figures.conflated == TOTAL + 1
        lost = set(range(TOTAL)) - set(numbers)
        assert len(lost) > TOTAL // 10
        if policy == "drop_oldest":
            assert numbers == sorted(numbers)
            assert numbers[-LIMIT - 1 : -1] == list(range(TOTAL - LIMIT, TOTAL))
        elif policy == "drop_newest":
            assert numbers == sorted(numbers)
            assert lost > set(range(TOTAL - LIMIT, TOTAL))
        else:
            assert sorted(numbers[-11:-1]) == list(range(TOTAL - 10, TOTAL))


# -- how a loss shows


async def test_a_loss_is_an_event_or_the_end_as_it_is_set() -> None:
    async with Channels("memory://", arbitrary_channels_allowed=True, subscriber_on_gap="close") as hub:
        closing, telling = await hub.subscribe("c"), await hub.subscribe("c", on_gap="event")
        for subscriber in (closing, telling):
            recipient_of(subscriber).put_gap(Gap("c", "a test"))
        assert await within(anext(telling)) == Gap("c", "a test")
        with pytest.raises(WebSocketException, match="events of 'c' were lost: a test") as raised:
            await within(anext(closing))
        assert raised.value.code == 1012
        with pytest.raises(ImproperlyConfiguredException, match="write 'event' or 'close'"):
            hub.subscribe("c", on_gap="ignore")  # type: ignore[arg-type]


@pytest.fixture
def valkey() -> Iterator[Broker]:
    """A broker of this test's own, to be killed."""
    broker = Valkey()
    try:
        broker.start()
        yield broker
    finally:
        broker.remove()


@pytest.mark.broker
async def test_a_broker_that_dies_shows_to_clients_and_to_readiness(kind: ServerKind, valkey: Broker) -> None:
    hub = Channels(valkey.url, arbitrary_channels_allowed=True)

    async def ready(_: Request) -> Response:
        return PlainTextResponse("", 200 if hub.is_ready else 503)

    handlers = [
        channel_listener("/", channel="c"),
        channel_listener("/closing", channel="c", on_gap="close"),
    ]
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(
            site(hub, kind, *handlers, http=Starlette(routes=[Route("/ready", ready)]))
        )
        plain = await stack.enter_async_context(connected(running))
        framed = await stack.enter_async_context(connected(running, subprotocols=[SUBPROTOCOL]))
        closing = await stack.enter_async_context(connected(running, "/closing", subprotocols=[SUBPROTOCOL]))
        browser = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}"))
        await until(lambda: hub.statistics().subscribers == 3)
        assert (await browser.get("/ready")).status_code == 200
        valkey.kill()
        await until(lambda: not hub.is_ready)
        assert (await browser.get("/ready")).status_code == 503
        await valkey.restart()
        await until(lambda: hub.is_ready)
        assert (await browser.get("/ready")).status_code == 200
        assert [json.loads(await within(framed.recv()))["type"] for _ in range(3)] == ["hello", "subscribed", "gap"]
        assert [json.loads(await within(closing.recv()))["type"] for _ in range(2)] == ["hello", "subscribed"]
        for client in (plain, closing):
            with pytest.raises(ConnectionClosed):
                await within(client.recv())
            assert client.close_code == 1012
        await hub.publish("c", "after")
        assert json.loads(await within(framed.recv())) == {"type": "event", "data": "after"}
        assert hub.statistics().gaps == 1
