"""The rules of a shared socket: numbers, credit, turns, limits of opening, bad frames, and the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from telex import Multiplex, Telex, WebSocket, websocket, websocket_listener, websocket_stream
from telex.multiplex import opening
from telex.types import ASGIApp, Receive, Scope, Send
from tests.contract.servers import KINDS, ServerKind
from tests.multiplex.conftest import joined, sharing
from tests.protocol.apps import Journal
from tests.support.leaks import no_leaks
from tests.support.live import Denial, connected, denied, ending, serving

TELEX = next(each for each in KINDS if each.name == "telex")


@websocket_listener("/echo")
async def echo(data: str) -> str:
    return data


@websocket_stream("/endless")
async def endless() -> AsyncGenerator[str, None]:
    while True:
        yield "tick"


@websocket("/push")
async def push(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    while True:
        await socket.send_text("x" * 1000)


def make_app(*handlers: Any, **options: Any) -> Telex:
    return Telex([echo, endless, push, *handlers, Multiplex("/socket", routes=Multiplex.ALL, **options)])


# -- numbers


async def test_numbers_rise_and_are_never_used_again(kind: ServerKind) -> None:
    async with sharing(make_app(), kind) as shared:
        one = await shared.open("/endless", credit=4)
        await one.send({"type": "close"})
        two = await shared.open("/echo")
        await shared.send({"type": "open", "c": 1, "path": "/echo"})
        refused = await shared.next_of(None)
        assert (refused["error"]["code"], refused["error"]["path"]) == ("bad_frame", "$.c")
        assert (await two.call("hi"))["data"] == "hi"
        kept = [each["type"] for each in shared.kept(1)]
        assert kept == ["notify"] * (len(kept) - 1) + ["closed"]
        await one.notify("late")
        await one.send({"type": "close"})
        await one.send({"type": "credit", "n": 1})
        await shared.settle()
        assert (await two.call("on"))["data"] == "on"
        assert len(shared.kept(1)) == len(kept)


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "notify", "c": 2, "data": "x"},
        {"type": "close", "c": 2},
        {"type": "credit", "c": 2, "n": 1},
        {"type": "credit", "c": 1, "n": -1},
        {"type": "credit", "c": 1, "n": 2**53},
        {"type": "close", "c": 1, "code": 1005},
        {"type": "close", "c": 1, "reason": "x" * 124},
        {"type": "open", "c": 2**53, "path": "/echo"},
        {"type": "open", "c": 0, "path": "/echo"},
        {"type": "open", "c": "2", "path": "/echo"},
        {"type": "open", "c": 2},
        {"type": "open", "path": "/echo"},
        {"type": "call", "id": 1, "data": "x"},
        {"type": "ping", "c": 1},
    ],
    ids=str,
)
async def test_a_bad_frame_is_answered_and_hurts_no_route(kind: ServerKind, frame: object) -> None:
    async with sharing(make_app(), kind) as shared:
        route = await shared.open("/echo")
        await shared.send(frame)
        found = await shared.next_of(None)
        assert (found["type"], found["error"]["code"]) == ("error", "bad_frame")
        assert (await route.call("hi"))["data"] == "hi"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        *((each, "invalid_message") for each in ("x", "", "{}", "null", "[]", '"x"', '{"type":1}', '{"c":1}')),
        (b"\x00\x00\x00\x01x", "invalid_message"),
        (b"\x00\x00\x00\x02{}", "invalid_message"),
        *((f'{{"type":"{each}"}}', "unknown_type") for each in ("nothing", "hello", "goaway", "opened")),
        ('{"type":"call"}', "bad_frame"),
        ('{"type":"auth"}', "bad_frame"),
        ('{"type":"more","n":1}', "bad_frame"),
    ],
    ids=str,
)
async def test_the_socket_refuses_what_is_no_frame_as_a_direct_route_does(
    kind: ServerKind, message: str | bytes, code: str
) -> None:
    async with serving(make_app(), kind) as running, joined(running) as shared, joined(running, "/echo") as direct:
        for each in (shared, direct):
            await each.client.send(message)
            assert (await each.receive())["error"]["code"] == code


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"open","type":"close","c":1}',
        '{"type":"close","type":"open","c":9,"path":"/echo"}',
        '{"type":"call","type":"close","c":1,"id":1,"data":"x"}',
    ],
)
async def test_a_frame_with_two_types_has_no_effect(kind: ServerKind, text: str) -> None:
    async with sharing(make_app(), kind) as shared:
        route = await shared.open("/echo")
        await shared.client.send(text)
        assert (await shared.next_of(None))["error"]["code"] == "bad_frame"
        assert (await route.call("hi"))["data"] == "hi"


async def test_a_frame_that_a_route_does_not_know_is_answered_by_the_route(kind: ServerKind) -> None:
    async with sharing(make_app(), kind) as shared:
        route = await shared.open("/echo")
        await route.send({"type": "strange"})
        assert (await route.receive())["error"]["code"] == "unknown_type"
        await shared.client.send('{"type":"close","type":"call","c":1,"id":1,"data":"x"}')
        assert (await route.receive())["error"]["code"] == "bad_frame"


@pytest.mark.parametrize("data", [b"", b"\x00\x00", b"\xff\xff\xff\xff{}", b"\x00\x00\x00\x05{}"])
async def test_a_binary_message_without_its_header_is_a_bad_frame(kind: ServerKind, data: bytes) -> None:
    async with sharing(make_app(), kind) as shared:
        await shared.client.send(data)
        assert (await shared.next_of(None))["error"]["code"] == "bad_frame"


async def test_bad_frames_in_a_row_close_the_socket(kind: ServerKind) -> None:
    async with sharing(make_app(), kind) as shared:
        await shared.open("/echo")
        for _ in range(10):
            await shared.send({"type": "nothing"})
        for _ in range(10):
            assert (await shared.next_of(None))["type"] == "error"
        assert (await ending(shared.client))[0] == 1007


async def test_a_client_that_does_not_offer_the_subprotocol_is_refused(kind: ServerKind) -> None:
    async with serving(make_app(), kind) as running:
        refused: Denial = await denied(running, "/socket")
        assert refused.status == 400
        assert "telex.v1" in refused.json()["detail"]


@pytest.mark.parametrize("middleware", [False, True])
async def test_telexs_server_compresses_each_message_by_itself(middleware: bool) -> None:
    """Stock servers have no option for one connection: there, the context is kept as they are configured."""
    wrapped: Any = {"middleware": [lambda app: app]} if middleware else {}
    app = Telex([echo, Multiplex("/socket", routes=[echo], **wrapped)])
    async with serving(app, TELEX) as running:
        async with connected(running, "/echo") as direct:
            assert "server_no_context_takeover" not in extensions_of(direct)
        async with joined(running) as shared:
            assert "server_no_context_takeover" in extensions_of(shared.client)
            route = await shared.open("/echo")
            assert (await route.call("x" * 5000))["data"] == "x" * 5000


def extensions_of(client: ClientConnection) -> str:
    assert client.response is not None
    return client.response.headers["sec-websocket-extensions"]


# -- credit and turns


async def test_a_route_sends_as_much_as_it_has_credit_for(kind: ServerKind) -> None:
    async with sharing(make_app(), kind) as shared:
        stalled = await shared.open("/endless", credit=3)
        other = await shared.open("/echo")
        for number in range(50):
            assert (await other.call(str(number)))["data"] == str(number)
        assert len(shared.kept(stalled.c)) == 3
        await stalled.send({"type": "credit", "n": 2})
        found = [await stalled.receive() for _ in range(5)]
        assert {each["type"] for each in found} == {"notify"}
        await shared.settle()
        await shared.settle()
        assert not shared.kept(stalled.c)
        assert (await stalled.close())["type"] == "closed"


async def test_answers_need_no_credit(kind: ServerKind) -> None:
    @websocket_listener("/ask")
    async def ask(data: str, socket: WebSocket) -> str:
        return str(await socket.call(data, str, timeout=5)) if data == "ask" else data

    async with sharing(make_app(ask), kind) as shared:
        route = await shared.open("/ask", credit=0)
        await route.send({"type": "call", "id": 1, "data": "ask"})
        await route.send({"type": "cancel", "id": 1})
        assert (await route.receive())["error"]["code"] == "cancelled"
        await route.send({"type": "call", "id": 2, "data": "plain"})
        assert (await route.receive())["data"] == "plain"
        await route.send({"type": "call", "id": 3, "data": "ask"})
        await shared.settle()
        await route.send({"type": "credit", "n": 1})
        question = await route.receive()
        await route.send({"type": "reply", "id": question["id"], "data": "yes"})
        assert await route.receive() == {"type": "reply", "id": 3, "data": "yes"}


async def test_routes_take_turns(kind: ServerKind) -> None:
    async with sharing(make_app(), kind) as shared:
        routes = [await shared.open("/push", credit=0) for _ in range(3)]
        for route in routes:
            await route.send({"type": "credit", "n": 1000})
        order = [found["c"] for found in [await shared.receive() for _ in range(3000)]]
        counts = [order[900:1800].count(route.c) for route in routes]
        assert min(counts) > 150, counts


async def test_a_plain_route_gives_the_client_credit(kind: ServerKind) -> None:
    released = asyncio.Event()

    @websocket("/slow")
    async def slow(socket: WebSocket) -> None:
        await socket.accept()
        await released.wait()
        while True:
            await socket.receive_text()

    async with sharing(make_app(slow), kind) as shared:
        route = await shared.open("/slow")
        for number in range(16):
            await route.notify(str(number))
        await shared.settle()
        released.set()
        assert await route.receive() == {"type": "credit", "n": 8}
        assert await route.receive() == {"type": "credit", "n": 8}


async def test_frames_before_a_plain_route_is_accepted_are_its_messages(kind: ServerKind) -> None:
    async def wait(socket: WebSocket, _: object) -> None:
        await released.wait()

    @websocket("/waits", guards=[wait])
    async def waits(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())

    released = asyncio.Event()
    async with sharing(make_app(waits), kind) as shared:
        route = await shared.ask_open("/waits")
        await route.notify("early")
        await route.send({"type": "call", "id": 1, "data": "x"})
        await shared.settle()
        released.set()
        found = [await route.receive() for _ in range(4)]
        assert found[0]["type"] == "opened"
        assert sorted(each["type"] for each in found[1:3]) == ["error", "notify"]
        assert next(each["data"] for each in found if each["type"] == "notify") == "early"
        assert found[3]["type"] == "closed"


@pytest.mark.parametrize("plain", [False, True])
async def test_a_client_that_overruns_its_credit_loses_that_route(kind: ServerKind, plain: bool) -> None:
    journal = Journal()

    @websocket("/slow/plain")
    async def slow(socket: WebSocket) -> None:
        await socket.accept()
        await asyncio.Event().wait()

    @websocket_listener("/slow/frames", max_calls=4, on_disconnect=lambda close_code: journal.note(str(close_code)))
    async def frames(data: str) -> None:
        await asyncio.Event().wait()

    async with sharing(make_app(slow, frames), kind) as shared:
        other = await shared.open("/echo")
        route = await shared.open("/slow/plain" if plain else "/slow/frames")
        for _ in range(40):
            await route.notify("x")
        found = await route.receive()
        assert (found["type"], found["code"]) == ("closed", 1008)
        assert (await other.call("on"))["data"] == "on"


@pytest.mark.parametrize(("data", "count"), [("x" * 1_000_000, 10), ("x", 300)])
async def test_calls_that_wait_unread_are_refused_and_the_route_goes_on(
    kind: ServerKind, data: str, count: int
) -> None:
    reads = asyncio.Event()
    reads.set()

    def late(app: ASGIApp) -> ASGIApp:
        async def reads_late(scope: Scope, receive: Receive, send: Send) -> None:
            async def receive_late() -> Any:
                event = await receive()
                await reads.wait()
                return event

            await app(scope, receive_late, send)

        return reads_late

    @websocket_listener("/late", middleware=[late])
    async def echo_late(data: str) -> str:
        return data[:1]

    async with sharing(make_app(echo_late), kind) as shared:
        route = await shared.open("/late")
        assert (await route.call("x"))["data"] == "x"
        reads.clear()
        for number in range(2, count + 2):
            await route.send({"type": "call", "id": number, "data": data})
        found = [await route.receive()]
        await route.send({"type": "cancel", "id": count + 1})
        await route.send({"type": "more", "id": count + 1, "n": 1})
        await shared.settle()
        reads.set()
        found += [await route.receive() for _ in range(count - 1)]
        refused = [each["id"] for each in found if each.get("error", {}).get("code") == "too_many_calls"]
        answered = [each["id"] for each in found if each["type"] == "reply"]
        assert sorted(answered + refused) == list(range(2, count + 2))
        assert answered
        assert refused
        await route.send({"type": "call", "id": count + 2, "data": "x"})
        assert await route.receive() == {"type": "reply", "id": count + 2, "data": "x"}
        await route.send({"type": "cancel", "id": count + 1})
        assert (await route.close())["type"] == "closed"


async def test_answers_that_a_server_gives_without_a_pause_close_no_route() -> None:
    """A server may have a queue of messages: its ``receive`` then never waits, and the routes must read in between."""

    @websocket_listener("/ask")
    async def ask(data: str, socket: WebSocket) -> int:
        return len(await socket.call(data, str, timeout=5))

    routes = range(1, 21)
    sent: asyncio.Queue[Any] = asyncio.Queue()
    client: asyncio.Queue[Any] = asyncio.Queue()

    async def send(event: Any) -> None:
        sent.put_nowait(json.loads(event["text"]) if "text" in event else event)

    async def until(kind: str) -> list[Any]:
        found: list[Any] = []
        while len(found) < len(routes):
            each = await sent.get()
            assert each["type"] not in {"closed", "denied", "error"}, each
            if each["type"] == kind:
                found.append(each)
        return found

    def put(*frames: object) -> None:
        for frame in frames:
            client.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})

    scope = {
        "type": "websocket", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "ws", "path": "/socket",
        "raw_path": b"/socket", "query_string": b"", "root_path": "", "headers": [], "client": None, "server": None,
        "subprotocols": ["telex.v1"], "extensions": {},
    }  # fmt: skip
    client.put_nowait({"type": "websocket.connect"})
    serving_it = asyncio.create_task(make_app(ask)(scope, client.get, send))
    async with asyncio.timeout(5):
        put(*({"type": "open", "c": c, "path": "/ask"} for c in routes))
        await until("opened")
        put(*({"type": "call", "c": c, "id": 1, "data": "x"} for c in routes))
        asked = await until("call")
        put(*({"type": "reply", "c": each["c"], "id": each["id"], "data": "x" * 1_000_000} for each in asked))
        assert {each["data"] for each in await until("reply")} == {1_000_000}
        client.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await serving_it


# -- opening


@pytest.mark.parametrize(
    ("path", "query"),
    [("echo", ""), ("", ""), ("/e cho", ""), ("/écho", ""), ("/echo?x", ""), ("/echo#x", ""), ("/echo", "a b"),
     ("/echo", "a#b"), ("/echo\r\n", ""), ("http://other.test/echo", ""), ("/" + "x" * 9000, ""),
     ("/%", ""), ("/echo%zz", ""), ("/echo%4", ""), ("/echo%4/1", ""), ("/%%41", ""), ("/echo", "a=%"),
     ("/echo", "a=%zz&b=%41"), ("/echo", "%e"), ("/echo%", "41")],
)  # fmt: skip
async def test_a_path_is_checked_like_a_request_target(kind: ServerKind, path: str, query: str) -> None:
    async with sharing(make_app(), kind) as shared:
        await shared.send({"type": "open", "c": 1, "path": path, "query": query})
        found = await shared.receive()
        if len(path) > 8192:
            assert found["error"]["code"] == "bad_frame"
        else:
            assert (found["type"], found["status"]) == ("denied", 400)


async def test_a_path_and_query_may_hold_any_percent_encoded_byte(kind: ServerKind) -> None:
    @websocket_listener("/of/{name:str}")
    async def named(data: str, name: str, socket: WebSocket) -> list[str]:
        return [name, socket.query_params["q"]]

    async with sharing(make_app(named), kind) as shared:
        route = await shared.open("/of/%C3%a9%25zz", query="q=%25%e2%82%AC")
        assert (await route.call("x"))["data"] == ["é%zz", "%€"]
        await shared.open("/of/%ff", query="q=%00")


async def test_more_routes_than_the_limit_are_refused_until_one_has_ended(kind: ServerKind) -> None:
    async with sharing(make_app(max_routes=2), kind) as shared:
        assert shared.hello["routes"] == 2
        one, two = await shared.open("/echo"), await shared.open("/echo")
        assert (await shared.refused("/echo"))["status"] == 429
        await one.close()
        three = await shared.open("/echo")
        assert [(await route.call("x"))["data"] for route in (two, three)] == ["x", "x"]


@pytest.mark.long
async def test_ten_thousand_opens_are_all_answered(kind: ServerKind) -> None:
    async with sharing(make_app(), kind) as shared:
        for c in range(1, 10_001):
            await shared.send({"type": "open", "c": c, "path": "/echo"})
            await shared.send({"type": "close", "c": c})
        finals: list[Any] = []
        while len(finals) < 10_000:
            found = await shared.receive()
            finals += [found] if found["type"] in {"denied", "closed"} else []
        assert sorted(each["c"] for each in finals) == list(range(1, 10_001))
        refused = [each for each in finals if each["type"] == "denied"]
        assert {(each["status"], each["code"]) for each in refused} == {(429, "rate_limited")}
        assert all(0 < each["retry_after"] < 10 for each in refused if "retry_after" in each)


async def test_routes_open_a_few_at_a_time(kind: ServerKind) -> None:
    journal, released = Journal(), asyncio.Event()

    async def wait(socket: WebSocket, _: object) -> None:
        journal.note("guard")
        await released.wait()

    @websocket_listener("/guarded", guards=[wait])
    async def guarded(data: str) -> str:
        return data

    async with sharing(make_app(guarded), kind) as shared:
        routes = [await shared.ask_open("/guarded") for _ in range(20)]
        await journal.until("guard", opening.MAX_PENDING)
        await shared.settle()
        assert len(journal.entries) == opening.MAX_PENDING
        await routes[-1].send({"type": "close", "code": 4000})
        assert (await routes[-1].receive())["code"] == 4000
        released.set()
        for route in routes[:-1]:
            assert (await route.receive())["type"] == "opened"
        assert len(journal.entries) == 19


async def test_denials_in_a_row_delay_the_next(kind: ServerKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "DENIAL_PAUSE", 0.2)
    loop = asyncio.get_running_loop()
    async with sharing(make_app(), kind) as shared:
        for number in range(9):
            await shared.refused(f"/{number}")
        began = loop.time()
        await shared.refused("/9")
        await shared.refused("/next")
        await shared.open("/echo")
        assert loop.time() - began > 0.38
        # The next is refused without a pause: this one would not end within the test's limit.
        monkeypatch.setattr(opening, "DENIAL_PAUSE", 600)
        await shared.refused("/again")


async def test_a_route_that_does_not_answer_is_given_up(kind: ServerKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "OPEN_WITHIN", 0.05)
    journal = Journal()

    async def wait(socket: WebSocket, _: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            journal.note("ended")

    @websocket_listener("/guarded", guards=[wait])
    async def guarded(data: str) -> str:
        return data

    async with sharing(make_app(guarded), kind) as shared:
        assert (await shared.refused("/guarded"))["status"] == 503
        await journal.until("ended")
        assert (await (await shared.open("/echo")).call("x"))["data"] == "x"


async def test_headers_of_an_accept_are_lost_and_logged_once(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    @websocket("/headers")
    async def headers(socket: WebSocket) -> None:
        await socket.accept(headers={"x-mine": "1"})

    async with sharing(make_app(headers), kind) as shared:
        for _ in range(2):
            await shared.open("/headers")
    assert sum("sets headers" in record.getMessage() for record in caplog.records) == 1


class Refusing:
    """Middleware that answers without Telex."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        how = scope["path"]
        if how == "/mw/close":
            await send({"type": "websocket.close", "code": 4000, "reason": "no"})
        elif how == "/mw/raise":
            raise ValueError("broken")
        elif how == "/mw/parts":
            await send({"type": "websocket.http.response.start", "status": 402, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"pay ", "more_body": True})
            await send({"type": "websocket.http.response.body", "body": b"first"})
        elif how == "/mw/spaced":

            async def spaced(event: Any) -> None:
                if "text" in event:
                    event = {**event, "text": event["text"].replace('{"type":', '{ "x": 1, "type" : ')}
                await send(event)

            await self.app(scope, receive, spaced)


async def test_what_middleware_sends_counts(kind: ServerKind) -> None:
    @websocket_listener("/mw/{how:str}", middleware=[Refusing])
    async def behind(data: str) -> str:
        return data

    async with sharing(make_app(behind), kind) as shared:
        for how, status, text in (
            ("close", 403, "no"),
            ("raise", 500, "Internal Server Error"),
            ("parts", 402, "pay first"),
            ("nothing", 500, "the route ended without an answer"),
        ):
            found = await shared.refused(f"/mw/{how}")
            assert (found["status"], found["error"]["message"]) == (status, text)
        route = await shared.ask_open("/mw/spaced")
        assert (await route.receive())["type"] == "opened"
        assert (await route.receive())["type"] == "hello"
        assert (await route.call("x"))["data"] == "x"


# -- the end


async def test_a_route_that_cancels_its_own_task_is_closed_and_the_others_go_on(kind: ServerKind) -> None:
    @websocket("/cancelled/{accepts:int}")
    async def cancelled(socket: WebSocket, accepts: int) -> None:
        if accepts:
            await socket.accept()
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with sharing(make_app(cancelled, max_routes=2), kind) as shared:
        other = await shared.open("/echo")
        for accepts in (0, 1, 0, 1):
            route = await shared.ask_open(f"/cancelled/{accepts}")
            found = await route.receive()
            if accepts:
                assert found["type"] == "opened"
                assert (await route.receive())["type"] == "closed"
            else:
                assert (found["type"], found["status"]) == ("denied", 500)
            assert (await other.call("on"))["data"] == "on"


async def test_nothing_is_left_of_a_socket(kind: ServerKind) -> None:
    async with serving(make_app(), kind) as running, no_leaks(), joined(running) as shared:
        for path in ("/echo", "/endless", "/push"):
            await shared.open(path, credit=1)
        await shared.refused("/nothing")
