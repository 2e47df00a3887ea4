"""What an app counts, as a foreign client makes it count, and as Prometheus reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from telex import Channels, Multiplex, Telex, WebSocket, websocket, websocket_listener, websocket_stream
from telex.exceptions import NotAuthorizedException
from telex.limits import Limit, client_ip
from telex.telemetry.counts import MOST_CODES
from telex.telemetry.labels import message_labels
from telex.telemetry.prometheus import Prometheus
from tests.channels.conftest import until
from tests.contract.servers import Running, ServerKind
from tests.server.conftest import connected, running
from tests.support.raw import TEXT, frame

TELEX_SERVER = ServerKind("telex")
STOCK = ServerKind("uvicorn-websockets")
FRAMES = [Subprotocol("telex.v1")]


class Move(msgspec.Struct, tag="move"):
    x: int


class Say(msgspec.Struct, tag="say"):
    text: str


@websocket_listener("/rooms/{room:str}")
async def room(data: Move | Say, room: str) -> str | None:
    if isinstance(data, Say) and data.text == "fail":
        raise ArithmeticError("as asked")
    return None if isinstance(data, Move) else data.text


@websocket_listener("/sync")
def sync(data: str) -> str:
    if data == "fail":
        raise ArithmeticError("as asked")
    return data


def survive(socket: Any, exc: ArithmeticError) -> None: ...


def app_of(*handlers: Any, registry: CollectorRegistry | None = None, **options: Any) -> Telex:
    plugins = [*options.pop("plugins", ()), Prometheus(registry=registry or CollectorRegistry())]
    return Telex(handlers, plugins=plugins, exception_handlers={ArithmeticError: survive}, **options)


class Shown:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        found = [
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found)

    def labels(self, name: str) -> set[str]:
        """All values of all labels of one metric."""
        return {value for sample in self.samples if sample.name == name for value in sample.labels.values()}


async def scrape(port: int) -> Shown:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        return Shown(answer.text)


def opened(server: Running, path: str, **options: Any) -> connect:
    return connect(server.url(path), proxy=None, open_timeout=20, **options)


async def asked(client: ClientConnection, message: str) -> str | bytes:
    async with asyncio.timeout(20):
        await client.send(message)
        return await client.recv()


@pytest.fixture(params=[TELEX_SERVER, pytest.param(STOCK, marks=pytest.mark.stock)], ids=lambda kind: str(kind.name))
def kind(request: pytest.FixtureRequest) -> ServerKind:
    found: ServerKind = request.param
    return found


async def test_messages_count_by_route_type_and_outcome(kind: ServerKind) -> None:
    app = app_of(room, sync)
    async with kind.loop(app) as server:
        async with opened(server, "/rooms/secret-plans") as client:
            await client.send('{"type": "move", "x": 1}')
            assert await asked(client, '{"type": "say", "text": "hi"}') == "hi"
            await client.send('{"type": "say", "text": "fail"}')
            assert b"invalid_message" in bytes(str(await asked(client, '{"type": "sing"}')), "utf-8")
            await client.send(b"binary")
            assert await asked(client, '{"type": "say", "text": "again"}') == "again"
            shown = await scrape(server.port)
        route, name = "/rooms/{room:str}", "telex_messages_total"
        assert shown.value(name, route=route, type="move", outcome="ok") == 1
        assert shown.value(name, route=route, type="say", outcome="ok") == 2
        assert shown.value(name, route=route, type="say", outcome="failed") == 1
        assert shown.value(name, route=route, outcome="invalid") == 1
        assert shown.value(name, route=route, outcome="ignored") == 1
        assert shown.value(name, route=route, direction="out") == 3
        assert shown.value("telex_invalid_messages_total", route=route) == 1
        assert "secret-plans" not in shown.text


async def test_a_sync_listener_counts_in_the_frame_callback(kind: ServerKind) -> None:
    app = app_of(sync)
    async with kind.loop(app) as server, opened(server, "/sync") as client:
        for text in ("one", "two"):
            assert await asked(client, text) == text
        await client.send("fail")
        assert await asked(client, "x" * 400_000) == "x" * 400_000  # the slower path, for large messages
        shown = await scrape(server.port)
        assert shown.value("telex_messages_total", type="str", outcome="ok") == 3
        assert shown.value("telex_messages_total", type="str", outcome="failed") == 1
        assert shown.value("telex_messages_total", direction="out") == 3


async def test_several_messages_at_once_count_too() -> None:
    @websocket_listener("/", max_concurrency=4)
    async def beside(data: int) -> int:
        return data

    app = app_of(beside)
    async with TELEX_SERVER.loop(app) as server, opened(server, "/") as client:
        assert await asked(client, "1") == "1"
        shown = await scrape(server.port)
        assert shown.value("telex_messages_total", type="int", outcome="ok") == 1
        assert shown.value("telex_messages_total", direction="out") == 1


async def test_streams_and_low_level_handlers_count_what_they_send() -> None:
    @websocket_stream("/stream")
    async def stream() -> AsyncGenerator[int, None]:
        for number in range(3):
            yield number

    app = app_of(stream)
    async with TELEX_SERVER.loop(app) as server:
        async with opened(server, "/stream") as client:
            assert [message async for message in client] == ["0", "1", "2"]
        shown = await scrape(server.port)
        assert shown.value("telex_messages_total", route="/stream", direction="out") == 3


async def test_connections_count_by_how_they_end(kind: ServerKind) -> None:
    @websocket("/choose/{code:int}")
    async def choose(socket: WebSocket[Any, Any, Any], code: int) -> None:
        await socket.accept()
        await socket.close(code)

    app = app_of(sync, choose)
    name = "telex_server_connection_duration_seconds_count"
    async with kind.loop(app) as server:
        async with opened(server, "/sync"), opened(server, "/sync"):
            await until(lambda: len(app.connections) == 2)
            assert (await scrape(server.port)).value("telex_server_active_connections", route="/sync") == 2
        client = await opened(server, "/sync")
        await client.close(4321, "a code of the client's own")
        client = await opened(server, "/sync")
        client.transport.abort()
        async with opened(server, "/choose/4100") as client:
            await client.wait_closed()
        await until(lambda: len(app.connections) == 0)
        shown = await scrape(server.port)
        assert shown.value("telex_server_active_connections") == 0
        assert shown.value(name, route="/sync", close_code="1000", status="normal") == 2
        assert shown.value(name, route="/sync", close_code="4xxx", status="error") == 1
        # uvicorn's protocol over websockets reports a connection that was reset as 1005.
        lost = {"close_code": "1006", "status": "lost"} if kind is TELEX_SERVER else {"close_code": "1005"}
        assert shown.value(name, route="/sync", **lost) == 1
        assert shown.value(name, close_code="4100", status="error") == 1


async def test_clients_make_no_labels() -> None:
    """What clients choose, paths, codes and channels, never makes a label; what handlers choose does within bounds."""

    @websocket("/choose/{code:int}")
    async def choose(socket: WebSocket[Any, Any, Any], code: int) -> None:
        await socket.accept()
        await socket.close(code)

    @websocket_listener("/any/{name:str}")
    def anything(data: Any, name: str) -> None: ...

    channels = Channels("memory://", arbitrary_channels_allowed=True)
    app = app_of(sync, choose, anything, plugins=[channels])
    async with TELEX_SERVER.loop(app) as server:
        for number in range(MOST_CODES + 8):
            client = await opened(server, "/sync")
            await client.close(3000 + number)
            async with opened(server, f"/choose/{4000 + number}") as chosen:
                await chosen.wait_closed()
        async with opened(server, "/any/a-user's-name") as client, channels.subscribe("a-channel's-name"):
            for message in ('"text"', "1", "[1]", '{"a-key": 1}', "null", "1.5", "true"):
                await client.send(message)
            with pytest.raises(InvalidStatus):
                await opened(server, "/no-such-path")
            await until(lambda: sum((app.counts.routes[2].by_type or {}).values()) == 7 if app.counts else False)
            shown = await scrape(server.port)
        await until(lambda: len(app.connections) == 0)
        shown = await scrape(server.port)
        codes = {one for one in shown.labels("telex_server_connection_duration_seconds_count") if one[0].isdigit()}
        assert len(codes) == MOST_CODES + len({"3xxx", "4xxx", "1000"})
        types = {
            sample.labels["type"]
            for sample in shown.samples
            if sample.labels.get("route") == "/any/{name:str}" and "type" in sample.labels
        }
        assert types == {"", "other"}
        for text in ("a-user", "a-channel", "a-key", "no-such-path"):
            assert text not in shown.text


async def test_handshakes_count_by_outcome_and_status(kind: ServerKind) -> None:
    def guard(socket: Any, handler: Any) -> None:
        raise NotAuthorizedException

    def through(app: Any) -> Any:
        async def middleware(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)

        return middleware

    @websocket_listener("/guarded", guards=[guard])
    def guarded(data: str) -> None: ...

    @websocket_listener("/behind", middleware=[through], guards=[guard])
    def behind(data: str) -> None: ...

    @websocket_listener("/open", middleware=[through])
    def free(data: str) -> None: ...

    app = app_of(guarded, behind, free, sync)
    async with kind.loop(app) as server:
        for path, status in (("/guarded", 401), ("/behind", 401), ("/missing", 404)):
            with pytest.raises(InvalidStatus) as refused:
                await opened(server, path)
            assert refused.value.response.status_code == status
        with pytest.raises(InvalidStatus):
            await opened(server, "/sync", origin="https://elsewhere.example")
        async with opened(server, "/open"), opened(server, "/sync"):
            shown = await scrape(server.port)
        name = "telex_server_handshakes_total"
        assert shown.value(name, outcome="accepted", status="101") == 2
        assert shown.value(name, outcome="denied", status="401") == 2
        assert shown.value(name, outcome="denied", status="404") == 1
        assert shown.value(name, outcome="denied", status="403") == 1
        assert shown.value(name) == 6


async def test_limits_count_what_they_refuse(kind: ServerKind) -> None:
    @websocket_listener("/few", message_limit=Limit(1, per=3600, on_exceed="reply"))
    def few(data: str) -> str:
        return data

    @websocket_listener("/rare", connect_limit=Limit(1, per=3600, key=client_ip))
    def rare(data: str) -> None: ...

    app = app_of(few, rare)
    async with kind.loop(app) as server:
        async with opened(server, "/few") as client:
            assert await asked(client, "one") == "one"
            assert "rate_limited" in str(await asked(client, "two"))
        async with opened(server, "/rare"):
            with pytest.raises(InvalidStatus):
                await opened(server, "/rare")
        shown = await scrape(server.port)
        assert shown.value("telex_rate_limited_total", limit="messages", action="reply") == 1
        assert shown.value("telex_rate_limited_total", limit="connect_limit", action="deny") == 1
        assert shown.value("telex_server_handshakes_total", outcome="denied", status="429") == 1


async def test_calls_count_by_direction_and_outcome(kind: ServerKind) -> None:
    @websocket_listener("/calls", call_timeout=0.05)
    async def calls(data: str, socket: WebSocket[Any, Any, Any]) -> str:
        if data == "fail":
            raise LookupError("as asked")
        if data == "sleep":
            await asyncio.Event().wait()
        return data

    @websocket_listener("/quick")
    def quick(data: str) -> str:
        return data

    app = app_of(calls, quick)
    async with kind.loop(app) as server:
        async with opened(server, "/calls", subprotocols=FRAMES) as client:
            await client.recv()  # hello
            for number, text in enumerate(("one", "fail", "sleep"), 1):
                assert f'"id":{number}' in str(await asked(client, f'{{"type":"call","id":{number},"data":"{text}"}}'))
            assert "invalid" in str(await asked(client, '{"type":"call","id":4,"data":5}'))
            (socket,) = app.connections
            asking = asyncio.create_task(socket.call("question", str))
            async with asyncio.timeout(20):
                await client.recv()
                await client.send('{"type":"reply","id":1,"data":"answer"}')
                assert await asking == "answer"
                await client.send('{"type":"reply","id":1,"data":"too late"}')
                assert '"id":5' in str(await asked(client, '{"type":"call","id":5,"data":"two"}'))
        async with opened(server, "/quick", subprotocols=FRAMES) as client:
            await client.recv()
            assert '"id":1' in str(await asked(client, '{"type":"call","id":1,"data":"one"}'))
        shown = await scrape(server.port)
        name = "telex_calls_total"
        assert shown.value(name, direction="in", outcome="ok") == 3
        assert shown.value(name, direction="in", outcome="error") == 1
        assert shown.value(name, direction="in", outcome="timeout") == 1
        assert shown.value(name, direction="in", outcome="refused") == 1
        assert shown.value(name, direction="out", outcome="ok") == 1
        assert shown.value("telex_calls_late_answers_total", route="/calls") == 1
        assert shown.value("telex_messages_total", route="/calls", type="str", outcome="failed") == 1
        assert shown.value("telex_messages_total", route="/quick", type="str", outcome="ok") == 1


async def test_routes_on_a_shared_socket_count_as_routes() -> None:
    app = app_of(sync, Multiplex("/socket", routes=[sync]))
    async with TELEX_SERVER.loop(app) as server:
        async with opened(server, "/socket", subprotocols=FRAMES) as client:
            await client.recv()
            assert "opened" in str(await asked(client, '{"type":"open","c":1,"path":"/sync"}'))
            await client.send('{"type":"close","c":1,"code":1000}')
            async with asyncio.timeout(20):
                while '"closed"' not in str(await client.recv()):
                    pass
            await client.send('{"type":"notify","c":1,"data":"too late"}')
            await asked(client, '{"type":"ping"}')
            shown = await scrape(server.port)
        assert shown.value("telex_server_active_connections", route="/socket") == 1
        assert shown.value("telex_server_connection_duration_seconds_count", route="/sync", close_code="1000") == 1
        assert shown.value("telex_multiplex_dropped_frames_total", route="/socket") == 1


async def test_what_waits_is_shown() -> None:
    leave = asyncio.Event()

    @websocket_listener("/slow")
    async def slow(data: str) -> None:
        await leave.wait()

    @websocket_listener("/loud")
    async def loud(data: str) -> str:
        return "x" * 10_000_000

    app = app_of(slow, loud, max_message_size=20_000_000)
    async with (
        running(app) as server,
        connected(server.port, "/slow") as client,
        connected(server.port, "/loud") as deaf,  # it reads nothing
    ):
        await deaf.send(frame(TEXT, b"begin"))
        for text in (b"one", b"two", b"three"):
            await client.send(frame(TEXT, text))
        async with asyncio.timeout(20):
            while True:
                shown = await scrape(server.port)
                depth = shown.value("telex_inbox_depth", route="/slow")
                unsent = shown.value("telex_send_buffered_bytes", route="/loud")
                if depth == 2 and unsent > 1_000_000:
                    break
        leave.set()


async def test_channels_show_the_statistics_of_each_hub() -> None:
    channels = Channels("memory://", channels=["news"])
    app = app_of(sync, plugins=[channels])
    async with TELEX_SERVER.loop(app) as server, channels.subscribe("news") as events:
        await channels.publish("news", "one")
        await anext(events)
        shown = await scrape(server.port)
        assert shown.value("telex_channels_connected", hub="channels") == 1
        assert shown.value("telex_channels_published_total", hub="channels") == 1
        assert shown.value("telex_channels_delivered_total", hub="channels") == 1
        assert shown.value("telex_channels_subscribers", hub="channels") == 1


async def test_pings_and_the_lag_of_the_event_loop_are_measured() -> None:
    app = app_of(sync)
    async with running(app, ping_interval=0.05) as telex_server, opened(Running(telex_server.port), "/sync"):
        async with asyncio.timeout(20):
            while not (shown := await scrape(telex_server.port)).value("telex_ping_rtt_seconds_count"):
                pass
        assert shown.value("telex_event_loop_lag_seconds") >= 0
        assert shown.value("telex_drain_remaining") == 0


async def test_a_drain_shows_what_remains() -> None:
    app = app_of(sync)
    async with running(app, drain_delay=20.0, drain_timeout=20.0) as server, opened(Running(server.port), "/sync"):
        await until(lambda: len(app.connections) == 1)
        server.stop()
        await until(server.status.draining.is_set)
        shown = await scrape(server.port)
        assert shown.value("telex_drain_remaining") == 1
        server.force_exit = True


async def test_the_time_of_handlers_is_measured_on_demand() -> None:
    @websocket_listener("/later")
    async def later(data: str) -> str:
        return data

    registry = CollectorRegistry()
    plugin = Prometheus(registry=registry, handle_duration=True)
    app = Telex([sync, later], plugins=[plugin], exception_handlers={ArithmeticError: survive})
    name = "telex_message_handle_duration_seconds_count"
    async with TELEX_SERVER.loop(app) as server:
        for path in ("/sync", "/later"):
            async with opened(server, path) as client:
                assert await asked(client, "one") == "one"
            async with opened(server, path, subprotocols=FRAMES) as client:
                await client.recv()
                await asked(client, '{"type":"call","id":1,"data":"two"}')
        async with opened(server, "/sync") as client:
            await client.send("fail")
            assert await asked(client, "one") == "one"
        shown = await scrape(server.port)
        assert shown.value(name, route="/sync") == 4
        assert shown.value(name, route="/later") == 2


async def test_an_app_without_a_plugin_counts_nothing() -> None:
    app = Telex([room, sync])
    assert app.counts is None
    async with TELEX_SERVER.loop(app) as server, opened(server, "/sync") as client:
        assert await asked(client, "one") == "one"
        (socket,) = app.connections
        assert (socket.options.counts, socket.options.handshakes) == (None, None)


async def test_the_registry_has_the_metrics_while_the_app_runs() -> None:
    registry = CollectorRegistry()
    app = app_of(sync, registry=registry)
    assert list(registry.collect()) == []
    async with app.lifespan():
        names = {metric.name for metric in registry.collect()}
        assert {"telex_messages", "telex_server_active_connections"} <= names
    assert list(registry.collect()) == []


@pytest.mark.parametrize(
    ("annotation", "labels"),
    [
        (str, {str: "str"}),
        (Move | Say, {Move: "move", Say: "say"}),
        (list[int], {list: "list"}),
        (Move | None, {Move: "move", type(None): "NoneType"}),
        (Any, {}),
        (str | Any, {}),
    ],
    ids=str,
)
def test_labels_of_messages_are_tags_and_names_of_types(annotation: Any, labels: dict[type, str]) -> None:
    assert message_labels([annotation]) == labels


async def test_another_thread_may_read_while_the_app_works() -> None:
    registry = CollectorRegistry()
    channels = Channels("memory://", channels=["news"])
    app = app_of(sync, registry=registry, plugins=[channels])
    stop = asyncio.Event()

    def read_on() -> int:
        scrapes = 0
        while not stop.is_set() or not scrapes:
            generate_latest(registry)
            scrapes += 1
        return scrapes

    async with TELEX_SERVER.loop(app) as server:
        reading = asyncio.create_task(asyncio.to_thread(read_on))
        for _ in range(20):
            async with opened(server, "/sync") as client, channels.subscribe("news"):
                assert await asked(client, "one") == "one"
        stop.set()
        assert await reading
        assert app.counts is not None
        assert app.counts.routes[0].opened == 20
