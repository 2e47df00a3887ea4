"""``app.users`` within one process: who is told, who is closed, who is counted, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from telex import (
    Authenticate,
    Identity,
    ImproperlyConfiguredException,
    Multiplex,
    Router,
    Telex,
    WebSocket,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.clock import loop_time
from telex.connection import Socket
from telex.exceptions import ConcurrencyError, ConnectionStateError, WebSocketDisconnect, WebSocketException
from telex.plans import BEGAN
from telex.types import ASGIApp, Receive, Scope, Send
from telex.users import index, notices
from tests.channels.conftest import until, within
from tests.contract.servers import ServerKind
from tests.support.leaks import no_leaks
from tests.support.live import asked, connected, ending, heard, heard_json, serving, soon
from tests.support.raw import RawClient
from tests.users.conftest import as_user, by_header, site


async def lower(data: str) -> str:
    return data.lower()


@websocket_listener("/echo")
async def echo(data: str) -> str:
    return data


@websocket_listener("/rooms/{room:int}")
async def room(data: int, room: int) -> int:
    return data * room


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


async def test_a_user_is_told_on_each_socket_and_nobody_else(kind: ServerKind) -> None:
    app = Telex([echo])
    async with site(app, kind) as running, AsyncExitStack() as stack:
        open_ = stack.enter_async_context
        first = await open_(connected(running, "/echo", **as_user("ada")))
        second = await open_(connected(running, "/echo", **as_user("ada")))
        framed = await open_(connected(running, "/echo", subprotocols=["telex.v1"], **as_user("ada")))
        other = await open_(connected(running, "/echo", **as_user("ben")))
        nobody = await open_(connected(running, "/echo"))
        for client in (first, second, other, nobody):
            assert await asked(client, "hello") == "hello"
        assert (await heard_json(framed))["type"] == "hello"
        for value in ({"n": 1}, "text", b"bytes"):
            await app.users.notify("ada", value)
        for client in (first, second):
            assert [await heard(client) for _ in range(3)] == ['{"n":1}', "text", b"bytes"]
        assert await heard(framed) == '{"type":"notify","data":{"n":1}}'
        assert await heard(framed) == '{"type":"notify","data":"text"}'
        binary = await heard(framed)
        assert isinstance(binary, bytes)
        assert binary.endswith(b"bytes")
        for client in (other, nobody):
            assert await asked(client, "still") == "still"
        assert app.users.sent == 9
        assert (await app.users.count("ada"), await app.users.count("ben"), await app.users.count("eve")) == (3, 1, 0)
        assert len(app.users.connections("ada")) == 3
        assert all(socket.user == "ada" and socket in app.connections for socket in app.users.connections("ada"))
    assert app.users.connections("ada") == ()


async def test_notices_may_be_left_out_on_any_layer_and_closes_may_not() -> None:
    @websocket_listener("/quiet", notices=False)
    async def quiet(data: str) -> str:
        return data

    @websocket_listener("/told", notices=True)
    async def told(data: str) -> str:
        return data

    app = Telex([quiet, Router("/r", route_handlers=[told, echo], notices=False)])
    async with site(app) as running, AsyncExitStack() as stack:
        paths = ("/quiet", "/r/told", "/r/echo")
        clients = {path: await stack.enter_async_context(connected(running, path, **as_user("ada"))) for path in paths}
        for client in clients.values():
            await asked(client, "x")
        await app.users.notify("ada", "notice")
        assert await app.users.count("ada") == 3
        assert await heard(clients["/r/told"]) == "notice"
        await app.users.close("ada")
        for client in clients.values():
            assert await ending(client) == (4403, "revoked")
    with pytest.raises(ImproperlyConfiguredException, match="notices is True or False, not 'no'"):
        Telex([quiet], notices="no")  # type: ignore[arg-type]


async def test_a_value_is_written_by_the_encoders_of_the_app_and_once() -> None:
    calls: list[int] = []

    def write(money: Money) -> str:
        calls.append(money.cents)
        return f"{money.cents / 100:.2f}"

    app = Telex([echo], type_encoders={Money: write})
    async with site(app) as running, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(running, "/echo", **as_user("ada"))) for _ in range(3)]
        for client in clients:
            await asked(client, "x")
        await app.users.notify("ada", {"price": Money(1250)})
        assert [await heard(client) for client in clients] == ['{"price":"12.50"}'] * 3
    assert calls == [1250]


class Ada:
    """A user as an ORM has it."""

    id = 7
    is_authenticated = True


async def test_a_user_is_named_as_limits_name_them() -> None:
    async def as_object(scope: Any, receive: Any, send: Any) -> None:
        scope["user"] = Ada()
        await app(scope, receive, send)

    app = Telex([echo])
    async with serving(as_object) as running, connected(running, "/echo") as client:
        await asked(client, "x")
        for name in (7, "7", Ada()):
            assert await app.users.count(name) == 1
        for nobody in (None, object(), b"7"):
            with pytest.raises(ValueError, match="names no user"):
                await app.users.notify(nobody, "x")


async def test_users_that_cannot_be_named_are_reported_once_and_served(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        @property
        def id(self) -> str:
            raise RuntimeError("the session of this object has ended")

    users: list[object] = [{"id": 1}, Broken(), object()]

    async def as_object(scope: Any, receive: Any, send: Any) -> None:
        scope["user"] = users.pop()
        await app(scope, receive, send)

    app = Telex([echo])
    async with serving(as_object) as running:
        for _ in range(3):
            async with connected(running, "/echo") as client:
                assert await asked(client, "x") == "x"
    assert [record.message for record in caplog.records if record.name == "telex.users"] == [
        "app.users cannot reach connections whose user is a object without an id, identity, username or email"
    ]


async def test_another_event_loop_is_an_error_that_says_what_to_write(kind: ServerKind) -> None:
    app = Telex([echo])
    async with site(app, kind) as running, connected(running, "/echo", **as_user("ada")) as client:
        await asked(client, "x")
        for call in (app.users.notify("ada", "x"), app.users.close("ada"), app.users.count("ada")):
            with pytest.raises(ConcurrencyError, match="run_coroutine_threadsafe"):
                await asyncio.to_thread(asyncio.run, call)
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(app.users.notify("ada", "y"), loop).result(9))
        assert await heard(client) == "y"
    assert app.connections.users.loop is None


async def test_without_channels_it_says_once_that_it_reaches_this_process(caplog: pytest.LogCaptureFixture) -> None:
    app = Telex([echo])
    await app.users.notify("ada", "x")
    await app.users.close("ada")
    assert await app.users.count("ada") == 0
    assert [record.levelname for record in caplog.records if "this process only" in record.message] == ["WARNING"]


# -- many routes on one socket


async def test_a_page_with_many_routes_is_told_once_and_on_no_route(kind: ServerKind) -> None:
    app = Telex([echo, room, Multiplex("/socket", routes=[room])])
    async with (
        site(app, kind) as running,
        connected(running, "/socket", subprotocols=["telex.v1"], **as_user("ada")) as page,
    ):
        await heard_json(page)
        assert await app.users.count("ada") == 1
        for c in (1, 2, 3):
            await page.send(json.dumps({"type": "open", "c": c, "path": f"/rooms/{c}"}))
            assert (await heard_json(page))["type"] == "opened"
        await app.users.notify("ada", {"n": 1})
        assert await heard_json(page) == {"type": "notify", "data": {"n": 1}}
        assert await app.users.count("ada") == 1
        assert len(app.users.connections("ada")) == 3
        await page.send('{"type":"call","c":2,"id":1,"data":21}')
        assert await heard_json(page) == {"type": "reply", "c": 2, "id": 1, "data": 42}
        await app.users.close("ada", 4403, "revoked")
        assert await ending(page) == (4403, "revoked")
    assert app.users.sent == 1


async def test_a_socket_whose_routes_alone_have_the_user_is_told_once_by_the_oldest() -> None:
    def some_user(app: Any) -> Any:
        async def authenticated(scope: Any, receive: Any, send: Any) -> None:
            scope["user"] = scope["query_string"].decode()
            await app(scope, receive, send)

        return authenticated

    @websocket_listener("/own", middleware=[some_user])
    async def own(data: str) -> str:
        return data

    app = Telex([own, Multiplex("/socket", routes=[own])])
    async with site(app) as running, connected(running, "/socket", subprotocols=["telex.v1"]) as page:
        await heard_json(page)
        for c, name in ((1, "ada"), (2, "ada"), (3, "ben")):
            await page.send(json.dumps({"type": "open", "c": c, "path": "/own", "query": name}))
            assert (await heard_json(page))["type"] == "opened"
        assert await app.users.count("ada") == 1
        await app.users.notify("ada", 1)
        assert await heard_json(page) == {"type": "notify", "c": 1, "data": 1}
        await app.users.close("ada", 4403, "gone")
        closed = [await heard_json(page) for _ in range(2)]
        assert sorted(frame["c"] for frame in closed) == [1, 2]
        assert {(frame["type"], frame["code"], frame["reason"]) for frame in closed} == {("closed", 4403, "gone")}
        await page.send('{"type":"call","c":3,"id":1,"data":"still"}')
        assert (await heard_json(page))["data"] == "still"


# -- closing


async def test_close_ends_handlers_whatever_they_do(kind: ServerKind) -> None:
    ended: list[str] = []
    began = asyncio.Semaphore(0)
    in_thread, may_return = threading.Event(), threading.Event()

    async def leave(socket: WebSocket) -> None:
        ended.append(f"{socket.scope['path']} {socket.close_code} {socket.close_reason}")

    @websocket("/busy")
    async def busy(socket: WebSocket) -> None:
        await socket.accept()
        began.release()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("busy")

    @websocket_listener("/thread", sync_to_thread=True, on_disconnect=leave)
    def thread(data: str) -> str:
        in_thread.set()
        may_return.wait(9)
        ended.append("thread")
        return data

    @websocket_stream("/stream")
    async def stream() -> AsyncGenerator[str, None]:
        began.release()
        try:
            await asyncio.Event().wait()
            yield ""
        finally:
            ended.append("stream")

    @websocket_listener("/idle", on_disconnect=leave)
    async def idle(data: str) -> str:
        return data

    app = Telex([busy, thread, stream, idle])
    async with site(app, kind) as running, AsyncExitStack() as stack:
        clients = {
            path: await stack.enter_async_context(connected(running, path, **as_user("ada")))
            for path in ("/busy", "/thread", "/stream", "/idle")
        }
        other = await stack.enter_async_context(connected(running, "/idle", **as_user("ben")))
        assert await asked(clients["/idle"], "x") == await asked(other, "x") == "x"
        await clients["/thread"].send("x")
        await soon(asyncio.to_thread(in_thread.wait, 9))
        for _ in range(2):
            await soon(began.acquire())
        await soon(app.users.close("ada", 4403, "revoked"))
        for client in clients.values():
            assert await ending(client) == (4403, "revoked")
        assert app.connections.users.of("ben")
        may_return.set()
        await until(lambda: not app.users.connections("ada"))
        assert await asked(other, "x") == "x"
        done = sorted(ended)
    assert done == sorted(["busy", "thread", "stream", *(f"/{path} 4403 revoked" for path in ("thread", "idle"))])


async def test_a_handler_may_close_its_own_user_everywhere() -> None:
    @websocket_listener("/leave")
    async def leave(data: str, socket: WebSocket) -> None:
        await app.users.close(socket.user, 4001, data)

    app = Telex([leave, echo])
    async with site(app) as running, AsyncExitStack() as stack:
        here = await stack.enter_async_context(connected(running, "/leave", **as_user("ada")))
        others = [await stack.enter_async_context(connected(running, "/echo", **as_user("ada"))) for _ in range(5)]
        for client in others:
            await asked(client, "x")
        await here.send("logged out")
        for client in (here, *others):
            assert await ending(client) == (4001, "logged out")


async def test_a_code_that_may_not_be_sent_is_refused_before_anything_is_closed() -> None:
    app = Telex([echo])
    async with site(app) as running, connected(running, "/echo", **as_user("ada")) as client:
        await asked(client, "x")
        with pytest.raises(ValueError, match="1006"):
            await app.users.close("ada", 1006)
        assert await asked(client, "x") == "x"


# -- a close while a connection opens


@pytest.mark.parametrize("place", ["guard", "dependency", "handler", "middleware"])
async def test_a_handshake_that_began_before_the_close_is_closed_when_it_opens(place: str) -> None:
    reached, may_go_on = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    async def wait() -> None:
        reached.set()
        await soon(may_go_on.wait())

    async def guard(socket: Socket) -> None:
        if place == "guard":
            await wait()

    async def resource() -> int:
        if place == "dependency":
            await wait()
        return 1

    def slowly(app: Any) -> Any:
        async def middleware(scope: Any, receive: Any, send: Any) -> None:
            await wait()
            await by_header(app)(scope, receive, send)

        return middleware

    @websocket("/", guards=[guard], dependencies={"resource": resource})
    async def handler(socket: WebSocket, resource: int) -> None:
        if place == "handler":
            await wait()
        await socket.accept()
        ran.append(await socket.receive_text())

    app = Telex([handler], middleware=[slowly] if place == "middleware" else [])
    whole = app if place == "middleware" else by_header(app)
    async with serving(whole) as running:

        async def connect() -> tuple[int, str]:
            async with connected(running, "/", **as_user("ada")) as client:
                return await ending(client)

        opening = asyncio.create_task(connect())
        await soon(reached.wait())
        await app.users.close("ada", 4403, "revoked")
        may_go_on.set()
        assert await soon(opening) == (4403, "revoked")
        assert app.users.connections("ada") == ()
        # What begins afterwards is a matter of authentication and guards again.
        async with connected(running, "/", **as_user("ada")) as client:
            await client.send("again")
            await until(lambda: ran == ["again"])
    assert ran == ["again"]


@pytest.mark.parametrize("framed", [False, True], ids=["plain", "telex.v1"])
async def test_so_is_one_whose_provider_has_read_the_old_table(kind: ServerKind, framed: bool) -> None:
    reached, may_go_on = asyncio.Event(), asyncio.Event()
    left: list[int | None] = []

    async def who(token: str) -> Identity[str]:
        reached.set()
        await soon(may_go_on.wait())
        return Identity(token)

    async def leave(socket: WebSocket) -> None:
        left.append(socket.close_code)

    @websocket_listener("/", on_disconnect=leave)
    async def listen(data: str) -> str:
        raise AssertionError("a message was handled")

    app = Telex([listen], authenticate=Authenticate(who, cookie="session"))
    cookie = {"cookie": "session=ada"}
    async with serving(app, kind) as running:

        async def connect() -> tuple[int | None, str | None]:
            async with connected(running, "/", headers=cookie, subprotocols=["telex.v1"] if framed else []) as client:
                with contextlib.suppress(ConnectionClosed):
                    await client.send("x")
                await soon(client.wait_closed())
                return client.close_code, client.close_reason

        opening = asyncio.create_task(connect())
        await soon(reached.wait())
        await app.users.close("ada", 4403, "revoked")
        may_go_on.set()
        assert await soon(opening) == (4403, "revoked")
        await until(lambda: left == [4403])
        assert not app.users.connections("ada")


@pytest.mark.parametrize("path", ["/", "/socket"])
async def test_with_a_token_in_a_frame_the_handshake_begins_with_the_token(kind: ServerKind, path: str) -> None:
    reached, may_go_on = asyncio.Event(), asyncio.Event()

    async def who(token: str) -> Identity[str]:
        if token == "eve":
            reached.set()
            await within(may_go_on.wait())
        return Identity(token)

    in_band = Authenticate(who, in_band=True)
    listen = websocket_listener("/", authenticate=in_band)(lower)
    app = Telex([listen, Multiplex("/socket", routes=[listen], authenticate=in_band)])
    async with (
        site(app, kind) as running,
        connected(running, path, subprotocols=["telex.v1"]) as ada,
        connected(running, path, subprotocols=["telex.v1"]) as eve,
    ):
        for client in (ada, eve):
            assert (await heard_json(client))["auth"] == "required"
        await app.users.close("ada", 4403, "before she has logged in")
        await ada.send('{"type":"auth","id":1,"token":"ada"}')
        assert (await heard_json(ada))["type"] == "reply"
        assert await app.users.count("ada") == 1
        await app.users.notify("ada", "hello")
        assert await heard_json(ada) == {"type": "notify", "data": "hello"}

        await eve.send('{"type":"auth","id":1,"token":"eve"}')
        await within(reached.wait())
        await app.users.close("eve", 4403, "revoked")
        may_go_on.set()
        assert await ending(eve) == (4403, "revoked")
        assert await app.users.count("eve") == 0


async def test_a_handler_that_catches_what_accept_raises_has_a_closed_connection() -> None:
    went_on: list[str] = []

    @websocket("/")
    async def stubborn(socket: WebSocket) -> None:
        await app.users.close("ada", 4403, "revoked")
        with contextlib.suppress(WebSocketException):
            await socket.accept()
        with contextlib.suppress(ConnectionStateError, WebSocketDisconnect):
            await socket.send_text("still here")
            went_on.append("sent")

    app = Telex([stubborn])
    async with site(app) as running, connected(running, "/", **as_user("ada")) as client:
        assert await ending(client) == (4403, "revoked")
    assert not went_on


async def test_so_is_a_route_that_opens() -> None:
    reached, may_go_on = asyncio.Event(), asyncio.Event()

    def slowly(app: ASGIApp) -> ASGIApp:
        async def authenticated(scope: Scope, receive: Receive, send: Send) -> None:
            reached.set()
            await within(may_go_on.wait())
            scope["user"] = scope["query_string"].decode()
            await app(scope, receive, send)

        return authenticated

    @websocket_listener("/own", middleware=[slowly])
    async def own(data: str) -> str:
        return data

    app = Telex([own, Multiplex("/socket", routes=[own])])
    async with site(app) as running, connected(running, "/socket", subprotocols=["telex.v1"]) as page:
        await heard_json(page)
        await page.send('{"type":"open","c":1,"path":"/own","query":"ada"}')
        await within(reached.wait())
        await app.users.close("ada", 4403, "revoked")
        may_go_on.set()
        frames = [await heard_json(page)]
        while frames[-1]["type"] != "closed":
            frames.append(await heard_json(page))
        assert (frames[-1]["code"], frames[-1]["reason"]) == (4403, "revoked")
        assert not app.users.connections("ada")


# -- slow clients


async def test_a_client_that_does_not_read_delays_nobody_and_is_closed(
    kind: ServerKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int | None] = []

    async def leave(socket: WebSocket) -> None:
        codes.append(socket.close_code)

    @websocket_listener("/", on_disconnect=leave)
    async def listen(data: str) -> str:
        return data

    monkeypatch.setattr("telex.registry.CLOSE_WITHIN", 0.1)
    app = Telex([listen])
    notice = "x" * 100_000
    async with site(app, kind) as running, connected(running, "/", **as_user("ada")) as reads:
        async with await RawClient.open(running.port, receive_buffer=4096) as slow:
            await slow.handshake("/", headers=[("x-user", "ada")])
            await asked(reads, "x")
            await until(lambda: len(app.users.connections("ada")) == 2)
            count = 0
            while not codes:  # until the buffers of both ends and the backlog are full
                count += 1
                await soon(app.users.notify("ada", notice))
                assert await heard(reads) == notice
            assert codes == [1013]
        await until(lambda: len(app.users.connections("ada")) == 1)
        assert app.users.dropped >= 1
        assert app.users.sent + app.users.dropped >= count
        await until(lambda: not app.users._notices._queues)


async def test_a_socket_class_with_its_own_send_data_sends_the_notices() -> None:
    class Shouting(WebSocket):
        async def send_data(self, data: str | bytes, mode: Any = "text", encoding: str = "utf-8") -> None:
            await super().send_data(data.upper(), mode, encoding)

    @websocket_listener("/", websocket_class=Shouting)
    async def listen(data: str) -> str:
        return data

    app = Telex([listen])
    async with site(app) as running, connected(running, "/", **as_user("ada")) as client:
        await asked(client, "x")
        await app.users.notify("ada", "hello")
        assert await heard(client) == "HELLO"


async def test_notices_keep_their_order(kind: ServerKind) -> None:
    app = Telex([echo])
    async with site(app, kind) as running, connected(running, "/echo", **as_user("ada")) as client:
        await asked(client, "x")
        for number in range(notices.BACKLOG):
            await app.users.notify("ada", number)
        assert [await heard_json(client) for _ in range(notices.BACKLOG)] == list(range(notices.BACKLOG))


# -- memory


async def test_nothing_is_left_of_those_who_were_here(kind: ServerKind) -> None:
    app = Telex([echo])
    async with site(app, kind) as running:
        async with connected(running, "/echo", **as_user("warm")) as client:
            await asked(client, "x")
        async with no_leaks():
            for turn in range(20):
                async with connected(running, "/echo", **as_user(f"user {turn}")) as client:
                    await asked(client, "x")
                    await app.users.notify(f"user {turn}", turn)
                    assert await heard_json(client) == turn
            await until(lambda: not len(app.connections))
        users = app.connections.users
        assert not users._sockets
        assert not users._keys
        assert not users._closed
        await until(lambda: not app.users._notices._queues)
        assert not app.users._notices._tasks


async def test_a_connection_without_a_user_is_not_stored() -> None:
    app = Telex([echo])
    async with site(app) as running, connected(running, "/echo") as client:
        await asked(client, "x")
        (socket,) = app.connections
        assert not app.connections.users._keys
        assert "began" not in vars(socket)
        assert BEGAN not in socket.scope


async def test_remembered_closes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "KEPT", 10)
    kept: dict[str, index.Closed] = {}
    for number in range(100):
        index.remember(kept, str(number), index.Closed(f"id {number}", 1e9 + number, 4403, ""))
    assert list(kept) == [str(number) for number in range(90, 100)]
    index.remember(kept, "95", index.Closed("older", 1e9, 4403, "older"))
    assert kept["95"].reason == ""  # the newer one counts


async def test_closes_are_forgotten_after_a_time() -> None:
    kept: dict[str, index.Closed] = {}
    now = loop_time()
    index.remember(kept, "old", index.Closed("id", now - index.KEPT_SECONDS + 60, 4403, ""))
    index.remember(kept, "too old", index.Closed("id", now - index.KEPT_SECONDS - 1, 4403, ""))
    assert "old" in kept
    kept["old"] = index.Closed("id", now - index.KEPT_SECONDS - 1, 4403, "")
    index.remember(kept, "new", index.Closed("id", now, 4403, ""))
    assert list(kept) == ["new"]
