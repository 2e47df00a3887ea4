"""``WebSocket`` on a raw ASGI scope: the state table, messages in and out, and what the handshake says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from starlette.datastructures import URL

from telex import State, Telex, WebSocket, websocket, websocket_listener
from telex.connection import ConnectionOptions
from telex.exceptions import (
    ConcurrencyError,
    ConnectionStateError,
    ImproperlyConfiguredException,
    NoRouteMatchFoundException,
    ValidationException,
    WebSocketDisconnect,
    WebSocketException,
)
from telex.testing import AsyncTestClient
from telex.types import Message
from tests.support.live import asked, asked_json, connected, ending, heard, serving, soon, talking
from tests.support.peer import Peer, scope


def made(peer: Peer, **more: Any) -> WebSocket:
    return WebSocket(scope(**more), peer.receive, peer.send)


async def opened(*messages: str | bytes, **more: Any) -> tuple[WebSocket, Peer]:
    peer = Peer()
    peer.tell(*messages)
    socket = made(peer, **more)
    await socket.accept()
    return socket, peer


# -- the state table

SETUPS: dict[str, Callable[[WebSocket, Peer], Awaitable[object]]] = {}


def setup(fn: Callable[[WebSocket, Peer], Awaitable[object]]) -> Callable[[WebSocket, Peer], Awaitable[object]]:
    SETUPS[fn.__name__] = fn
    return fn


@setup
async def init(socket: WebSocket, peer: Peer) -> None: ...


@setup
async def connect(socket: WebSocket, peer: Peer) -> None:
    assert (await socket.receive())["type"] == "websocket.connect"


@setup
async def open_(socket: WebSocket, peer: Peer) -> None:
    await socket.accept()


@setup
async def closed(socket: WebSocket, peer: Peer) -> None:
    await socket.accept()
    await socket.close()


@setup
async def denied_(socket: WebSocket, peer: Peer) -> None:
    await socket.deny()


@setup
async def refused(socket: WebSocket, peer: Peer) -> None:
    await socket.close(4001)


@setup
async def left(socket: WebSocket, peer: Peer) -> None:
    await socket.accept()
    peer.leave(4002, "bye")
    assert (await socket.receive())["type"] == "websocket.disconnect"


CALLS: dict[str, Callable[[WebSocket], Awaitable[object]]] = {
    "accept": lambda socket: socket.accept(),
    "deny": lambda socket: socket.deny(),
    "receive": lambda socket: socket.receive_text(),
    "send": lambda socket: socket.send_text("x"),
}

ALLOWED = {
    "init": {"accept", "deny", "receive", "send"},
    "connect": {"accept", "deny", "receive", "send"},
    "open_": {"receive", "send"},
}
PUBLIC = {"init": "init", "connect": "connect", "open_": "receive"}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("state", SETUPS)
async def test_the_table_says_which_call_each_state_allows(state: str, call: str) -> None:
    peer = Peer()
    socket = made(peer)
    await SETUPS[state](socket, peer)
    public = PUBLIC.get(state, "disconnect")
    assert socket.connection_state == public
    assert socket.is_open is (state == "open_")
    if state != "left":
        peer.tell("message")
    if call in ALLOWED.get(state, ()):
        await soon(CALLS[call](socket))
    elif state == "left":
        with pytest.raises(WebSocketDisconnect) as caught:
            await CALLS[call](socket)
        assert (caught.value.code, caught.value.reason) == (4002, "bye")
    else:
        with pytest.raises(ConnectionStateError, match=rf"{call}\(\) on a connection in state '{public}': it "):
            await CALLS[call](socket)


@pytest.mark.parametrize("state", SETUPS)
async def test_close_is_allowed_everywhere_and_sends_at_most_one_close(state: str) -> None:
    peer = Peer()
    socket = made(peer)
    await SETUPS[state](socket, peer)
    await socket.close(4003, "x")
    await socket.close(4004)
    assert peer.kinds.count("websocket.close") == (0 if state in {"denied_", "left"} else 1)
    assert socket.connection_state == "disconnect"


async def test_a_code_that_may_not_be_sent_is_refused_in_every_state() -> None:
    socket, _ = await opened()
    for code in (1005, 1006, 999, 5000):
        with pytest.raises(ValueError, match=str(code)):
            await socket.close(code)
    assert socket.is_open


async def test_close_knows_code_and_reason() -> None:
    socket, peer = await opened()
    await socket.close(4000, "ü" * 100)
    assert peer.sent[-1] == {"type": "websocket.close", "code": 4000, "reason": "ü" * 61}
    assert (socket.close_code, socket.close_reason) == (4000, "ü" * 61)
    assert socket.was_accepted


# -- accept


async def test_the_first_receive_or_send_accepts() -> None:
    for call in ("receive", "send"):
        peer = Peer()
        peer.tell("x")
        await soon(CALLS[call](made(peer)))
        assert peer.kinds[0] == "websocket.accept"


async def test_many_tasks_make_one_accept() -> None:
    peer = Peer()
    socket = made(peer)
    await asyncio.gather(*(socket.send_text(str(number)) for number in range(5)))
    assert peer.kinds == ["websocket.accept", *["websocket.send"] * 5]
    assert peer.payloads == [str(number) for number in range(5)]


async def test_a_failed_accept_raises_in_all_tasks_that_wait_for_it() -> None:
    peer = Peer(connect=False)
    socket = made(peer)
    waiting = [asyncio.create_task(socket.send_text("x")) for _ in range(2)]
    await asyncio.sleep(0)
    peer.leave()
    outcomes = await soon(asyncio.gather(*waiting, return_exceptions=True))
    assert all(isinstance(outcome, WebSocketDisconnect) for outcome in outcomes)
    assert not socket.was_accepted


async def test_a_failed_accept_may_be_tried_again() -> None:
    peer = Peer()
    socket = made(peer, subprotocols=["a"])
    with pytest.raises(ValueError, match="was not offered"):
        await socket.accept("b")
    with pytest.raises(ValueError, match="is set by the server"):
        await socket.accept(headers={"upgrade": "x"})
    await socket.accept("a")
    assert peer.sent == [{"type": "websocket.accept", "subprotocol": "a", "headers": []}]


async def test_a_client_that_has_left_before_accept_is_a_disconnect() -> None:
    peer = Peer(connect=False)
    peer.leave()
    with pytest.raises(WebSocketDisconnect):
        await made(peer).accept()


# -- deny


async def test_deny_answers_with_a_status_where_the_server_can() -> None:
    peer = Peer()
    await made(peer).deny(401, {"detail": "who?"}, {"www-authenticate": "Bearer"})
    assert peer.kinds == ["websocket.http.response.start", "websocket.http.response.body"]
    assert peer.sent[0]["status"] == 401
    assert peer.sent[1]["body"] == b'{"detail":"who?"}'


async def test_deny_closes_where_it_cannot() -> None:
    for given, code in ((None, 4401), (4321, 4321)):
        peer = Peer()
        await made(peer, denial=False).deny(401, code=given)
        assert peer.sent == [{"type": "websocket.close", "code": code, "reason": ""}]


async def test_a_denial_that_cannot_be_sent_leaves_the_handshake_open() -> None:
    peer = Peer()
    socket = made(peer)
    with pytest.raises(ValueError, match="control characters"):
        await socket.deny(401, headers={"x-a": "a\r\nb"})
    with pytest.raises(TypeError):
        await socket.deny(401, object())
    assert peer.sent == []
    await socket.deny(401)
    assert peer.sent[0]["status"] == 401


# -- raw events


async def test_raw_events_walk_through_the_states() -> None:
    peer = Peer()
    socket = made(peer)
    states: list[str] = [socket.connection_state]
    assert (await socket.receive())["type"] == "websocket.connect"
    states.append(socket.connection_state)
    await socket.send({"type": "websocket.accept", "subprotocol": None, "headers": [(b"x-a", b"b")]})
    states.append(socket.connection_state)
    assert states == ["init", "connect", "receive"]
    peer.tell("a")
    assert (await socket.receive())["text"] == "a"
    await socket.send({"type": "websocket.send", "text": "b"})
    await socket.send({"type": "websocket.close", "code": 4000, "reason": "x"})
    assert peer.kinds == ["websocket.accept", "websocket.send", "websocket.close"]
    with pytest.raises(ConnectionStateError, match=r"send\(\) on a connection in state 'disconnect'"):
        await socket.send({"type": "websocket.send", "text": "late"})


async def test_a_raw_denial_is_checked_too() -> None:
    peer = Peer()
    socket = made(peer)
    start = {"type": "websocket.http.response.start", "status": 401, "headers": []}
    await socket.send(start)
    await socket.send({"type": "websocket.http.response.body", "body": b"a", "more_body": True})
    await socket.send({"type": "websocket.http.response.body", "body": b"b"})
    assert len(peer.sent) == 3
    with pytest.raises(ConnectionStateError, match=r"deny\(\)"):
        await socket.send(start)


async def test_a_raw_send_before_accept_is_refused() -> None:
    with pytest.raises(ConnectionStateError, match="it has not been accepted yet"):
        await made(Peer()).send({"type": "websocket.send", "text": "x"})


async def test_receive_gives_a_disconnect_once() -> None:
    socket, peer = await opened()
    peer.leave(4000, "bye")
    assert (await socket.receive())["code"] == 4000
    with pytest.raises(WebSocketDisconnect):
        await socket.receive()
    assert (socket.close_code, socket.close_reason) == (4000, "bye")


async def test_two_receivers_are_refused() -> None:
    socket, _ = await opened()
    waiting = asyncio.create_task(socket.receive_text())
    await asyncio.sleep(0)
    with pytest.raises(ConcurrencyError):
        await socket.receive_text()
    waiting.cancel()
    await asyncio.wait((waiting,))


# -- a connection that is lost while sending


async def test_a_send_that_meets_a_lost_connection_is_a_disconnect() -> None:
    for call in ("send", "close"):
        peer = Peer(broken=True, broken_after=1)
        socket = made(peer)
        await socket.accept()
        if call == "send":
            with pytest.raises(WebSocketDisconnect) as caught:
                await socket.send_text("x")
            assert caught.value.code == 1006
            assert isinstance(caught.value.__cause__, OSError)
            assert socket.close_code == 1006
        else:
            await socket.close()
            assert socket.close_code == 1000
        assert socket.connection_state == "disconnect"
        with pytest.raises(WebSocketDisconnect):
            await socket.receive_text()


async def test_a_loop_of_sends_lets_others_run() -> None:
    socket, _ = await opened()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    for _ in range(100):
        await socket.send_text("x")
    counting.cancel()
    assert turns >= 3


# -- messages


async def test_every_kind_of_receive() -> None:
    packed = msgspec.msgpack.encode([1])
    socket, _ = await opened("a", b"b", "c", b"d", '{"e": 1}', b"2", packed)
    assert await socket.receive_text() == "a"
    assert await socket.receive_bytes() == b"b"
    assert await socket.receive_data("text") == "c"
    assert await socket.receive_data("binary") == b"d"
    assert await socket.receive_json() == {"e": 1}
    assert await socket.receive_json("binary") == 2
    assert await socket.receive_msgpack() == [1]


async def test_every_kind_of_iteration_ends_with_the_client() -> None:
    expected: dict[str, Any] = {
        "iter_data": (["a", "b"], ["a", "b"]),
        "iter_text": (["a", "b"], ["a", "b"]),
        "iter_bytes": ([b"a", b"b"], [b"a", b"b"]),
        "iter_json": (["1", "[]"], [1, []]),
        "iter_msgpack": ([b"\x01"], [1]),
    }
    for name, (messages, values) in expected.items():
        socket, peer = await opened(*messages)
        peer.leave()
        iteration: AsyncGenerator[Any, None] = getattr(socket, name)()
        assert [value async for value in iteration] == values, name
        assert socket.connection_state == "disconnect"


async def test_a_message_of_the_other_mode_is_1003() -> None:
    socket, _ = await opened(b"x", "y")
    with pytest.raises(WebSocketException, match="expected a text message") as caught:
        await socket.receive_text()
    assert caught.value.code == 1003
    with pytest.raises(WebSocketException, match="expected a binary message"):
        await socket.receive_bytes()


async def test_a_message_over_the_limit_is_1009() -> None:
    messages: dict[str | bytes, bool] = {"ü" * 5: True, "ü" * 6: False, b"x" * 10: True, b"x" * 11: False}
    for message, fits in messages.items():
        socket, _ = await opened(message)
        socket.configure(ConnectionOptions(max_message_size=10))
        if fits:
            assert await socket.receive_data("text" if isinstance(message, str) else "binary") == message
        else:
            with pytest.raises(WebSocketException, match="over 10 bytes") as caught:
                await socket.receive()
            assert caught.value.code == 1009


async def test_what_cannot_be_decoded_is_a_validation_error() -> None:
    socket, _ = await opened("{", b"\xc1")
    with pytest.raises(ValidationException):
        await socket.receive_json()
    with pytest.raises(ValidationException):
        await socket.receive_msgpack()
    assert socket.is_open


async def test_every_kind_of_send() -> None:
    socket, peer = await opened()
    await socket.send_text("a")
    await socket.send_text(b"b")
    await socket.send_bytes("c")
    await socket.send_bytes(b"d")
    await socket.send_data("e", "binary")
    await socket.send_data(b"\xfc", "text", "latin-1")
    await socket.send_json({"f": 1})
    await socket.send_json({"f": 1}, "binary")
    await socket.send_msgpack([1])
    await socket.send_json(1j, serializer=str)
    await socket.send_msgpack(1j, serializer=str)
    assert peer.payloads == ["a", "b", b"c", b"d", b"e", "ü", '{"f":1}', b'{"f":1}', b"\x91\x01", '"1j"', b"\xa21j"]


async def test_a_socket_without_channels_can_be_looked_at() -> None:
    socket: WebSocket = WebSocket(scope("/x"))
    assert socket.url.path == "/x"
    with pytest.raises(ConnectionStateError, match="made without an ASGI receive and send"):
        await socket.accept()


# -- what the handshake says


def test_what_is_on_starlettes_connection_is_here_too() -> None:
    socket = made(
        Peer(),
        path="/rooms/1",
        headers={"X-A": "b", "Cookie": "c=d"},
        path_params={"room": "1"},
        query_string=b"q=1&q=2",
    )
    assert socket.url == URL("ws://testserver/rooms/1?q=1&q=2")
    assert socket.headers["x-a"] == "b"
    assert socket.cookies == {"c": "d"}
    assert socket.query_params.getlist("q") == ["1", "2"]
    assert socket.path_params == {"room": "1"}
    assert socket.client is not None
    assert socket.client.host == "10.0.0.1"
    assert socket.logger is logging.getLogger("telex")


def test_state_is_a_view_of_the_scope() -> None:
    class Mine(State):
        count: int

    socket: WebSocket[Any, Any, Mine] = WebSocket(scope())
    socket.state.count = 1
    assert socket.scope["state"] == {"count": 1}
    assert socket.state is socket.state
    socket.scope["state"]["count"] = 2
    assert socket.state.count == 2


@pytest.mark.parametrize(
    ("name", "needs"), [("user", "authentication"), ("auth", "authentication"), ("session", "session")]
)
def test_what_a_middleware_gives_says_so_when_it_is_not_there(name: str, needs: str) -> None:
    with pytest.raises(
        ImproperlyConfiguredException, match=rf"socket.{name} is not set: it needs .*\b{needs} middleware"
    ):
        getattr(made(Peer()), name)
    assert getattr(made(Peer(), **{name: "given"}), name) == "given"


def test_every_write_to_a_cookie_session_is_refused() -> None:
    session = made(Peer(), session={"a": 1}).session
    assert session["a"] == 1
    writes: list[Callable[[], object]] = [
        lambda: session.update(a=2),
        lambda: session.pop("a"),
        lambda: session.popitem(),
        lambda: session.clear(),
        lambda: session.setdefault("b", 1),
        lambda: session.__setitem__("a", 2),
        lambda: session.__delitem__("a"),
        lambda: session.__ior__({"a": 2}),
    ]
    for write in writes:
        with pytest.raises(ImproperlyConfiguredException, match="read-only on a WebSocket"):
            write()
    assert session == {"a": 1}


async def test_urls_of_other_handlers() -> None:
    @websocket_listener("/rooms/{room:str}", name="room")
    async def listen(data: str, socket: WebSocket) -> list[str]:
        with contextlib.suppress(NoRouteMatchFoundException):
            socket.url_for("nobody")
        assert isinstance(socket.app, Telex)
        assert socket.route_handler is not None
        return [str(socket.url_for("room", room="a b"))]

    async with serving(Telex([listen])) as running, connected(running, "/rooms/x") as client:
        assert await asked_json(client, "x") == [running.url("/rooms/a%20b")]


# -- streams beside a handler


async def test_start_stream_sends_while_the_handler_receives() -> None:
    closed_by: list[str] = []

    async def ticks() -> AsyncGenerator[object, None]:
        try:
            yield {"tick": 1}
            await asyncio.Event().wait()
        finally:
            closed_by.append("end")

    @websocket_listener("/")
    async def listen(data: str, socket: WebSocket) -> str:
        if data == "start":
            socket.start_stream(ticks())
        return data

    async with talking(Telex([listen])) as client:
        assert sorted([await asked(client, "start"), await heard(client)], key=str) == ["start", '{"tick":1}']
        assert await asked(client, "still here") == "still here"
    assert closed_by == ["end"]


async def test_a_stream_can_be_stopped_and_ends_with_its_handler() -> None:
    ends: list[str] = []

    async def endless(name: str) -> AsyncGenerator[str, None]:
        try:
            yield name
            await asyncio.Event().wait()
        finally:
            ends.append(name)

    async def shout(socket: WebSocket, value: Any) -> None:
        await socket.send_text(value.upper())

    @websocket("/")
    async def handle(socket: WebSocket) -> None:
        await socket.accept()
        first = socket.start_stream(endless("first"))
        socket.start_stream(endless("second"), mode="binary")
        socket.start_stream(endless("third"), send_handler=shout)
        await socket.receive_text()
        first.cancel()
        await asyncio.wait((first,))
        await socket.send_text(",".join(ends))
        await socket.receive_text()

    async with talking(Telex([handle])) as client:
        got = {await heard(client) for _ in range(3)}
        assert got == {"first", b"second", "THIRD"}
        assert await asked(client, "stop") == "first"
        await client.send("end")
        assert await ending(client) == (1000, "")
    assert sorted(ends) == ["first", "second", "third"]


async def test_what_a_stream_raises_ends_the_connection() -> None:
    async def failing() -> AsyncGenerator[str, None]:
        yield "one"
        raise WebSocketException(4011, "from the stream")

    @websocket_listener("/")
    async def listen(data: str, socket: WebSocket) -> None:
        socket.start_stream(failing())

    async with talking(Telex([listen])) as client:
        assert await asked(client, "x") == "one"
        assert await ending(client) == (4011, "from the stream")


async def test_start_stream_outside_of_a_handler_says_what_to_write() -> None:
    async def one() -> AsyncGenerator[str, None]:
        yield "one"

    socket, _ = await opened()
    stream = one()
    with pytest.raises(ConnectionStateError, match=r"use send_websocket_stream\(socket, stream\)"):
        socket.start_stream(stream)
    await stream.aclose()


async def test_a_send_waits_for_the_accept_of_another_task() -> None:
    peer = Peer(connect=False)
    socket = made(peer)
    sending = [asyncio.create_task(socket.send_text(text)) for text in ("a", "b")]
    await asyncio.sleep(0)
    peer.connect()
    await soon(asyncio.gather(*sending))
    await socket.ensure_accepted()
    assert peer.kinds == ["websocket.accept", "websocket.send", "websocket.send"]


async def test_a_send_after_another_task_has_seen_the_client_leave() -> None:
    outcomes: list[object] = []

    @websocket("/")
    async def handle(socket: WebSocket) -> None:
        await socket.accept()
        socket_gone = asyncio.create_task(socket.event_reader.get())
        await asyncio.wait((socket_gone,))
        try:
            await socket.send_text("late")
        except WebSocketDisconnect as exc:
            outcomes.append(exc.code)

    peer = Peer()
    peer.leave(4001)
    await Telex([handle])(scope(), peer.receive, peer.send)
    assert outcomes == [4001]
    assert peer.kinds == ["websocket.accept"]


def test_what_a_decoder_raises_for_other_reasons_passes() -> None:
    from telex.connection import _decoded

    def broken(raw: str | bytes) -> object:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _decoded(broken, "")


# -- closing while the connection is read ahead on


async def test_two_closes_at_once_send_one() -> None:
    @websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        socket.event_reader.read_ahead()
        await asyncio.gather(socket.close(4001, "first"), socket.close(4002, "second"))

    async with AsyncTestClient(Telex([handler])) as client, client.websocket_connect("/") as session:
        with pytest.raises(WebSocketDisconnect) as closed:
            await session.receive()
        assert (closed.value.code, closed.value.reason) == (4001, "first")


async def test_a_close_does_not_end_the_reader_of_a_waiting_task() -> None:
    got: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    @websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        socket.event_reader.read_ahead()
        waiting = asyncio.create_task(socket.receive())
        await asyncio.sleep(0)
        await socket.close(4001)
        got.set_result(await waiting)

    async with AsyncTestClient(Telex([handler])) as client, client.websocket_connect("/") as session:
        with pytest.raises(WebSocketDisconnect):
            await session.receive()
        await session.close()
        assert (await asyncio.wait_for(got, 9))["type"] == "websocket.disconnect"
