"""``websocket_listener`` and ``WebsocketListener``: hooks, lifespans, order, disconnects, errors when built."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from telex import (
    ImproperlyConfiguredException,
    NotAuthorizedException,
    PermissionDeniedException,
    Provide,
    Telex,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    WebsocketListener,
    websocket_listener,
)
from telex.handlers import ListenerHandler
from telex.types import Mode
from tests.channels.conftest import until
from tests.contract.servers import KINDS, ServerKind
from tests.support.live import asked, asked_json, connected, denied, ending, heard, serving, soon, talking


@pytest.fixture(params=[each for each in KINDS if each.name in {"uvicorn-websockets", "telex"}], ids=lambda k: k.name)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    """Stock uvicorn, and Telex's own server with its fast path."""
    found: ServerKind = request.param
    return found


MODES: tuple[Mode, ...] = ("text", "binary")


@dataclass
class Point:
    x: int


# -- what may be a listener


class Callback:
    async def __call__(self, data: str) -> str:
        return f"object {data}"

    @staticmethod
    def static(data: str) -> str:
        return f"static {data}"

    @classmethod
    async def of_class(cls, data: str) -> str:
        return f"class {data}"

    def method(self, data: str) -> str:
        return f"method {data}"


async def with_prefix(prefix: str, data: str) -> str:
    return f"{prefix} {data}"


def keyword_only(*, data: str) -> str:
    return f"keyword {data}"


def data_last(page: int = 1, data: str = "") -> str:
    return f"last {data} {page}"


@pytest.mark.parametrize(
    ("fn", "answer"),
    [
        (Callback(), "object x"),
        (Callback.static, "static x"),
        (Callback.of_class, "class x"),
        (Callback().method, "method x"),
        (functools.partial(with_prefix, prefix="partial"), "partial x"),
        (keyword_only, "keyword x"),
        (data_last, "last x 1"),
        (lambda data: data, None),
    ],
)
async def test_every_kind_of_callable(kind: ServerKind, fn: Callable[..., Any], answer: str | None) -> None:
    if answer is None:
        with pytest.raises(ImproperlyConfiguredException, match=r"parameter 'data' of .*lambda.* has no annotation"):
            Telex([websocket_listener("/")(fn)])
        return
    async with talking(Telex([websocket_listener("/")(fn)]), kind=kind) as client:
        assert await asked(client, "x") == answer


@pytest.mark.parametrize("returns", [str, bytes, str | bytes, Point, Any, list[Point]])
async def test_modes_choose_the_opcode_only(kind: ServerKind, returns: Any) -> None:
    values: dict[Any, Any] = {str: "ü", bytes: "ü".encode(), str | bytes: "ü", Point: Point(1), Any: {"x": 1}}

    async def listen(data: str) -> Any:
        return values.get(returns, [Point(1)])

    listen.__annotations__["return"] = returns
    text, binary = (websocket_listener(f"/{mode}", send_mode=mode)(listen) for mode in MODES)
    async with serving(Telex([text, binary]), kind) as running:
        async with connected(running, "/text") as client:
            as_text = await asked(client, "x")
        async with connected(running, "/binary") as client:
            as_binary = await asked(client, "x")
    assert isinstance(as_text, str)
    assert as_binary == as_text.encode()


async def test_none_as_return_annotation_sends_nothing_whatever_is_returned(kind: ServerKind) -> None:
    def listen(data: str) -> None:
        if data == "last":
            raise WebSocketException(4000)
        return data  # type: ignore[return-value]

    async with talking(Telex([websocket_listener("/")(listen)]), kind=kind) as client:
        await client.send("x")
        await client.send("last")
        assert (await ending(client))[0] == 4000


@pytest.mark.parametrize("in_thread", [None, False, True])
async def test_a_reply_that_cannot_be_written_closes_1011(kind: ServerKind, in_thread: bool | None) -> None:
    async def listen(data: str) -> str:
        return 5  # type: ignore[return-value]

    def sync(data: str) -> Any:
        return object()

    handler = (
        websocket_listener("/")(listen)
        if in_thread is None
        else websocket_listener("/", sync_to_thread=in_thread)(sync)
    )
    async with talking(Telex([handler]), kind=kind) as client:
        await client.send("x")
        assert await ending(client) == (1011, "internal error")


# -- order and concurrency


async def test_messages_are_handled_one_after_another_in_order(kind: ServerKind) -> None:
    running_now = 0

    @websocket_listener("/")
    async def listen(data: int) -> list[int]:
        nonlocal running_now
        running_now += 1
        await asyncio.sleep(0.001 if data % 3 else 0.005)
        seen, running_now = running_now, running_now - 1
        return [data, seen]

    async with talking(Telex([listen]), kind=kind) as client:
        for number in range(30):
            await client.send(str(number))
        assert [await heard(client) for _ in range(30)] == [f"[{number},1]" for number in range(30)]


async def test_max_concurrency_handles_so_many_at_once(kind: ServerKind) -> None:
    release: dict[str, asyncio.Event] = {name: asyncio.Event() for name in "abc"}
    began: list[str] = []
    two_began = asyncio.Event()

    @websocket_listener("/", max_concurrency=2)
    async def listen(data: str) -> str:
        began.append(data)
        if len(began) == 2:
            two_began.set()
        await release[data].wait()
        return data

    async with talking(Telex([listen]), kind=kind) as client:
        for name in "abc":
            await client.send(name)
        await soon(two_began.wait())
        await soon(await client.ping())
        assert began == ["a", "b"]
        release["b"].set()
        assert await heard(client) == "b"
        release["c"].set()
        assert await heard(client) == "c"
        release["a"].set()
        assert await heard(client) == "a"


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}], ids=["in turn", "concurrent"])
async def test_a_busy_listener_stops_reading(kind: ServerKind, options: Any) -> None:
    handled = 0
    proceed = asyncio.Event()

    @websocket_listener("/", max_queued_messages=4, **options)
    async def listen(data: str) -> None:
        nonlocal handled
        await proceed.wait()
        handled += 1

    message = "x" * 100_000

    async def flood() -> int:
        sent = 0
        try:
            async with asyncio.timeout(0.5):
                while True:
                    await client.send(message)
                    sent += 1
        except TimeoutError:
            return sent

    async with serving(Telex([listen]), kind) as running, connected(running, compression=None) as client:
        sent = await flood()
        assert sent < 300  # 30 MB would have been taken in half a second
        assert handled == 0
        proceed.set()
        await soon(await client.ping())


async def test_concurrent_messages_are_validated_recovered_and_limited_too(kind: ServerKind) -> None:
    @websocket_listener("/", max_concurrency=3, exception_handlers={KeyError: lambda socket, exc: "recovered"})
    async def listen(data: int) -> int | str | None:
        if data == 1:
            raise KeyError
        return None if data == 2 else data

    async with talking(Telex([listen]), kind=kind) as client:
        assert (await asked_json(client, "x"))["error"]["code"] == "invalid_message"
        await client.send(b"ignored")
        assert await asked(client, "1") == "recovered"
        await client.send("2")
        assert await asked_json(client, 3) == 3
        for _ in range(10):
            assert "error" in await asked_json(client, "x")
        assert (await ending(client))[0] == 1007


async def test_an_exception_in_a_task_group_is_recovered_like_any_other(kind: ServerKind) -> None:
    async def fail() -> None:
        raise KeyError

    @websocket_listener("/", exception_handlers={KeyError: lambda socket, exc: f"recovered {type(exc).__name__}"})
    async def listen(data: str) -> str:
        if data == "fail":
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
        return data

    async with talking(Telex([listen]), kind=kind) as client:
        assert await asked(client, "fail") == "recovered KeyError"
        assert await asked(client, "next") == "next"


async def test_what_a_concurrent_message_raises_cancels_the_others(kind: ServerKind) -> None:
    ends: list[str] = []

    @websocket_listener("/", max_concurrency=2)
    async def listen(data: str) -> None:
        if data == "fail":
            raise WebSocketException(4005, "failed")
        try:
            await asyncio.Event().wait()
        finally:
            ends.append(data)

    async with talking(Telex([listen]), kind=kind) as client:
        await client.send("wait")
        await client.send("fail")
        assert await ending(client) == (4005, "failed")
    assert ends == ["wait"]


# -- disconnects


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}], ids=["in turn", "concurrent"])
@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("busy", [True, False])
async def test_a_client_that_leaves(kind: ServerKind, busy: bool, how: str, options: Any, caplog: Any) -> None:
    log: list[Any] = []
    began, ended = asyncio.Event(), asyncio.Event()

    def on_any(socket: WebSocket, exc: Exception) -> None:
        log.append(f"handler for {exc!r}")

    async def dependency() -> AsyncIterator[int]:
        try:
            yield 1
            log.append("dependency")
        except BaseException as exc:
            log.append(f"dependency {exc!r}")
            raise

    async def on_disconnect(socket: WebSocket, close_code: int) -> None:
        log.append(
            (socket.connection_state, socket.is_open, close_code in ({4567} if how == "close" else {1005, 1006}))
        )

    @websocket_listener(
        "/",
        on_disconnect=on_disconnect,
        exception_handlers={Exception: on_any},
        dependencies={"dependency": Provide(dependency)},
        **options,
    )
    async def listen(data: str, dependency: int) -> None:
        began.set()
        if busy:
            try:
                await asyncio.Event().wait()
            finally:
                log.append("cancelled")

    app = Telex([listen])
    async with serving(app, kind) as running, connected(running) as client:
        await client.send("x")
        await soon(began.wait())
        if how == "close":
            await client.close(4567)
        else:
            client.transport.abort()
        async with asyncio.timeout(9):
            while len(app.connections):  # noqa: ASYNC110 as there is no event of it
                await asyncio.sleep(0.001)
        ended.set()
    assert log == [*(["cancelled"] if busy else []), ("disconnect", False, True), "dependency"]
    assert not [record for record in caplog.records if record.name == "telex"]


async def test_a_disconnect_that_a_listener_raises_of_its_own_accord_is_answered(kind: ServerKind) -> None:
    codes: list[int] = []

    def on_disconnect(close_code: int) -> None:
        codes.append(close_code)

    @websocket_listener("/", on_disconnect=on_disconnect)
    async def listen(data: str) -> None:
        raise WebSocketDisconnect(4001, "as if")

    async with talking(Telex([listen]), kind=kind) as client:
        await client.send("x")
        assert await ending(client) == (4001, "as if")
    assert codes == [4001]


# -- the accept handler


async def test_an_accept_handler_may_be_sync_async_idle_or_refuse(kind: ServerKind) -> None:
    log: list[str] = []

    async def with_headers(socket: WebSocket) -> None:
        await socket.accept(headers={"x-a": "b"}, subprotocols=["v2"])

    def idle(socket: WebSocket) -> None:
        log.append("idle")

    async def closing(socket: WebSocket) -> None:
        await socket.close(4000)

    async def denying(socket: WebSocket) -> None:
        await socket.deny(402, {"pay": True})

    def hook() -> None:
        log.append("hook")

    async def listen(data: str) -> str:
        return data

    handlers: dict[str, Any] = {"/headers": with_headers, "/idle": idle, "/close": closing, "/deny": denying}
    app = Telex(
        [
            websocket_listener(path, connection_accept_handler=handler, on_accept=hook, on_disconnect=hook)(listen)
            for path, handler in handlers.items()
        ]
    )
    async with serving(app, kind) as running:
        async with connected(running, "/headers", subprotocols=["v1", "v2"]) as client:
            assert client.subprotocol == "v2"
            assert client.response is not None
            assert client.response.headers["x-a"] == "b"
        async with connected(running, "/idle") as client:
            assert await asked(client, "x") == "x"
        async with asyncio.timeout(9):
            while log.count("hook") < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        log.clear()
        assert (await denied(running, "/close")).status == 403
        denial = await denied(running, "/deny")
        assert (denial.status, denial.json()) == (402, {"pay": True})
    assert log == []


# -- the lifespan


async def test_a_lifespan_takes_dependencies_and_need_not_accept(kind: ServerKind) -> None:
    log: list[str] = []
    ended = asyncio.Event()

    @asynccontextmanager
    async def around(name: str) -> AsyncGenerator[None, None]:
        log.append(f"in {name}")
        try:
            yield
        except WebSocketDisconnect as exc:
            log.append(f"left {exc.code}")
        finally:
            ended.set()

    @websocket_listener("/", connection_lifespan=around, dependencies={"name": lambda: "dependency"})
    async def listen(data: str) -> str:
        return data

    async with talking(Telex([listen]), kind=kind) as client:
        assert await asked(client, "x") == "x"
        await client.close(4001)
        await soon(ended.wait())
    assert log == ["in dependency", "left 4001"]


# -- class listeners


async def test_a_class_sync_and_async_with_hooks_and_inheritance(kind: ServerKind) -> None:
    log: list[str] = []
    ended = asyncio.Event()

    class Base(WebsocketListener):
        receive_mode = "binary"
        opt = {"base": True}  # noqa: RUF012

        def on_accept(self, socket: WebSocket) -> None:
            log.append(f"accept {socket.connection_state}")

        async def on_disconnect(self, close_code: int) -> None:
            log.append(f"disconnect {close_code}")
            ended.set()

    class Echo(Base):
        path = ["/a", "/b"]  # noqa: RUF012
        name = "echo"

        def on_receive(self, data: bytes) -> str:
            return data.decode().upper()

    app = Telex([Echo])
    assert app.route_reverse("echo") == "/a"
    async with talking(app, "/b", kind=kind) as client:
        assert await asked(client, b"x") == "X"
        await client.close(4003)
        await soon(ended.wait())
    assert log == ["accept receive", "disconnect 4003"]


async def test_a_class_may_take_the_owner_or_nothing_and_is_made_once_a_registration() -> None:
    owners: list[object] = []

    class Owned(WebsocketListener):
        path = "/owned"

        def __init__(self, owner: object) -> None:
            super().__init__(owner)
            owners.append(owner)

        def on_receive(self, data: str) -> None: ...

    class Free(WebsocketListener):
        path = "/free"

        def __init__(self) -> None:
            owners.append(None)

        def on_receive(self, data: str) -> str:
            return data

    first, second = Telex([Owned, Free]), Telex([Owned])
    assert owners == [first, None, second]
    async with talking(first, "/free") as client:
        assert await asked(client, "x") == "x"


# -- errors at construction


async def listen(data: str) -> None: ...


async def no_data(text: str) -> None: ...


async def takes_request(data: str, request: Any) -> None: ...


async def takes_body(data: str, body: bytes) -> None: ...


def yields(data: str) -> Iterator[int]:
    yield 1


async def not_a_manager(socket: WebSocket) -> None: ...


async def two_arguments(socket: WebSocket, other: int) -> None: ...


def hook_with_data(data: str) -> None: ...


def unannotated_hook(thing) -> None: ...  # type: ignore[no-untyped-def]


@asynccontextmanager
async def lifespan(socket: WebSocket) -> AsyncGenerator[None, None]:
    yield


@pytest.mark.parametrize(
    ("fn", "options", "complaint"),
    [
        (no_data, {}, r"no_data \(.*\) takes no 'data': add the parameter data with the type of its messages"),
        (takes_request, {}, "'request' is not available in a listener: take 'data' and 'socket'"),
        (takes_body, {}, "'body' is not available in a listener"),
        (
            yields,
            {},
            r"a listener cannot yield from a sync function: write async def",
        ),
        (listen, {"connection_lifespan": lifespan, "on_accept": hook_with_data}, "connection_lifespan replaces"),
        (
            listen,
            {"connection_lifespan": not_a_manager},
            r"not_a_manager \(.*\) returns no context manager: decorate",
        ),
        (
            listen,
            {"connection_accept_handler": two_arguments},
            r"two_arguments \(.*\) takes the socket and nothing else",
        ),
        (
            listen,
            {"on_accept": hook_with_data},
            r"hook_with_data \(.*\) has a parameter 'data', but it does not run for a message",
        ),
        (listen, {"on_disconnect": unannotated_hook}, r"parameter 'thing' of unannotated_hook .* has no annotation"),
        (listen, {"guards": [5]}, r"guard 5 is not callable: write def guard\(socket, handler\)"),
        (listen, {"guards": [lambda: None]}, r"guard .*lambda.* takes no socket: write def guard\(socket, handler\)"),
    ],
)
def test_what_is_wrong_is_known_when_the_app_is_built(fn: Any, options: Any, complaint: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=complaint) as caught:
        Telex([websocket_listener("/", **options)(fn)])
    assert "test_listener.py:" in str(caught.value)


@pytest.mark.parametrize("limit", ["max_concurrency", "max_invalid_messages"])
@pytest.mark.parametrize("value", [0, -1, "2", 1.5])
def test_limits_are_whole_numbers_from_one(limit: str, value: object) -> None:
    with pytest.raises(
        ImproperlyConfiguredException, match=rf"listen .*: {limit} is a whole number from 1, not {value!r}"
    ):
        websocket_listener("/", **{limit: value})(listen)  # type: ignore[arg-type]


def test_a_handler_is_decorated_once() -> None:
    handler = websocket_listener("/")(listen)
    assert isinstance(handler, ListenerHandler)
    with pytest.raises(ImproperlyConfiguredException, match="is a handler already: decorate it once"):
        websocket_listener("/")(handler)  # type: ignore[arg-type]


# -- options of the bad-message contract


async def test_on_invalid_message_close_closes_at_the_first(kind: ServerKind) -> None:
    @websocket_listener("/", on_invalid_message="close")
    async def close(data: Point) -> None: ...

    async with talking(Telex([close]), kind=kind) as client:
        await client.send("{}")
        code, reason = await ending(client)
    assert code == 1007
    assert "x" in reason


async def test_the_error_frame_goes_in_the_send_mode(kind: ServerKind) -> None:
    @websocket_listener("/", send_mode="binary", max_invalid_messages=1)
    def invalid(data: Point) -> None: ...

    async with talking(Telex([invalid]), kind=kind) as client:
        frame = await asked(client, '{"x":"y"}')
        assert isinstance(frame, bytes)
        assert b'"path":"$.x"' in frame
        assert (await ending(client))[0] == 1007


async def test_counting_invalid_messages_starts_anew_after_a_valid_one(kind: ServerKind) -> None:
    @websocket_listener("/", max_invalid_messages=3)
    def sync(data: Point) -> int:
        return data.x

    async with talking(Telex([sync]), kind=kind) as client:
        for _ in range(3):
            for _ in range(2):
                assert "error" in await asked_json(client, {})
            assert await asked_json(client, {"x": 5}) == 5
        for _ in range(3):
            assert "error" in await asked_json(client, {})
        assert (await ending(client))[0] == 1007


@pytest.mark.parametrize("sync", [True, False])
async def test_a_message_over_the_limit_closes_1009(kind: ServerKind, sync: bool) -> None:
    def short(data: str) -> int:
        return len(data)

    async def short_async(data: str) -> int:
        return len(data)

    handler = websocket_listener("/", max_message_size=100)(short if sync else short_async)
    async with talking(Telex([handler]), kind=kind) as client:
        assert await asked(client, "x" * 100) == "100"
        assert await asked(client, "ü" * 50) == "50"
        await client.send("ü" * 51)
        assert await ending(client) == (1009, "message over 100 bytes")


# -- custom classes


async def test_a_custom_class_is_made_and_its_messages_go_through_it(kind: ServerKind) -> None:
    class Shouting(WebSocket):
        async def receive_data(self, mode: Any) -> Any:
            data = await super().receive_data(mode)
            return f"<{data}>" if isinstance(data, str) else data

        async def send_data(self, data: str | bytes, mode: Any = "text", encoding: str = "utf-8") -> None:
            await super().send_data(str(data).upper(), mode, encoding)

    @websocket_listener("/", websocket_class=Shouting)
    async def echo(data: str, socket: WebSocket) -> str:
        assert isinstance(socket, Shouting)
        return data

    def sync(data: str) -> str:
        return data

    app = Telex([echo, websocket_listener("/sync", websocket_class=Shouting)(sync)])
    async with serving(app, kind) as running:
        for path in ("/", "/sync"):
            async with connected(running, path) as client:
                await client.send(b"ignored")
                assert await asked(client, "a") == "<A>"


async def test_guards_may_refuse_by_raising_or_by_false(kind: ServerKind, caplog: pytest.LogCaptureFixture) -> None:
    async def later(socket: WebSocket) -> bool:
        return socket.headers.get("x-ok") == "yes"

    def at_once(socket: WebSocket, handler: Any) -> bool | None:
        return None if handler.name == "guarded" else False

    guarded = websocket_listener("/a", name="guarded", guards=[at_once, later])(listen)
    other = websocket_listener("/b", guards=[at_once])(listen)
    async with serving(Telex([guarded, other]), kind) as running:
        assert (await denied(running, "/a")).status == 403
        assert (await denied(running, "/b", headers={"x-ok": "yes"})).status == 403
        async with connected(running, "/a", headers={"x-ok": "yes"}):
            pass
    assert not [record for record in caplog.records if record.name == "telex" and record.levelno >= logging.ERROR]


async def test_guards_take_dependencies_and_parameters_which_are_made_before_all_others(kind: ServerKind) -> None:
    made: list[str] = []

    def user(socket: WebSocket) -> str:
        made.append("user")
        return socket.headers.get("x-user", "")

    def account(user: str) -> Iterator[str]:
        made.append("account")
        yield f"account of {user}"
        made.append("closed")

    def known(socket: WebSocket, handler: object, user: str) -> bool:
        return user != ""

    async def admitted(socket: WebSocket, room: str, *, user: str, key: str = "") -> None:
        if (room, key) != (user, "open"):
            raise NotAuthorizedException("not your room")

    @websocket_listener(
        "/{room:str}", guards=[known, admitted], dependencies={"user": Provide(user), "account": Provide(account)}
    )
    async def listen(data: str, account: str) -> str:
        return account

    async with serving(Telex([listen]), kind) as running:
        assert (await denied(running, "/ann")).status == 403
        assert (await denied(running, "/ann?key=open", headers={"x-user": "bob"})).status == 401
        assert made == ["user", "user"]
        async with connected(running, "/ann?key=open", headers={"x-user": "ann"}) as client:
            assert await asked(client, "x") == "account of ann"
    assert made == ["user", "user", "user", "account", "closed"]


def test_what_a_guard_takes_is_known_when_the_app_is_built() -> None:
    def guard(socket: WebSocket, *, session: object) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=r"nothing provides parameter 'session' of .*guard"):
        Telex([websocket_listener("/", guards=[guard])(listen)])


async def test_on_disconnect_is_told_how_the_server_ends_it(kind: ServerKind) -> None:
    told: list[tuple[int, str]] = []

    def on_disconnect(close_code: int, close_reason: str) -> None:
        told.append((close_code, close_reason))

    @websocket_listener("/", on_disconnect=on_disconnect)
    async def ending_itself(data: str, socket: WebSocket) -> None:
        if data == "close":
            await socket.close(4001, "own")
        if data == "status":
            raise PermissionDeniedException("not yours")
        raise KeyError

    async with serving(Telex([ending_itself]), kind) as running:
        for message in ("close", "status", "unexpected"):
            async with connected(running) as client:
                await client.send(message)
                assert (await ending(client))[0] in {4001, 4403, 1011}
    assert told == [(4001, "own"), (4403, "not yours"), (1011, "internal error")]


async def test_an_on_disconnect_that_fails_is_logged_once_and_the_rest_is_cleaned_up(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    freed: list[bool] = []

    async def resource() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            freed.append(True)

    def on_disconnect() -> None:
        raise KeyError("in the hook")

    @websocket_listener("/", on_disconnect=on_disconnect, dependencies={"resource": resource})
    async def echo(data: str, resource: int) -> str:
        return data

    async with talking(Telex([echo]), kind=kind) as client:
        assert await asked(client, "x") == "x"
    assert freed == [True]
    records = [record for record in caplog.records if record.name == "telex"]
    assert len(records) == 1
    assert records[0].exc_info is not None
    assert "in the hook" in str(records[0].exc_info[1])


async def test_concurrent_work_that_ignores_its_cancellation_does_not_hold_the_connection(kind: ServerKind) -> None:
    begun: list[str] = []
    told: list[int] = []

    async def each() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0.02)

    def on_disconnect(close_code: int) -> None:
        told.append(close_code)

    @websocket_listener(
        "/",
        max_concurrency=3,
        dependencies={"each": Provide(each, scope="message")},
        on_disconnect=on_disconnect,
    )
    async def listen(data: str, each: None) -> str:
        begun.append(data)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return data

    async with serving(Telex([listen]), kind) as running, connected(running) as client:
        for _ in range(3):
            await client.send("x")
        await until(lambda: len(begun) == 3)
        client.transport.abort()
        await until(lambda: len(told) == 1, 3)


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}], ids=str)
async def test_the_cleanup_after_a_message_that_failed_is_not_interrupted(
    kind: ServerKind, options: dict[str, Any]
) -> None:
    steps: list[str] = []
    left = asyncio.Event()

    async def each() -> AsyncIterator[None]:
        try:
            yield
        finally:
            steps.append("cleaning")
            await left.wait()
            await asyncio.sleep(0.2)  # long enough for an interrupt to come
            steps.append("cleaned")

    @websocket_listener("/", dependencies={"each": Provide(each, scope="message")}, **options)
    async def listen(data: str, each: None) -> str:
        raise WebSocketException(4000, "refused")

    async with serving(Telex([listen]), kind) as running, connected(running) as client:
        await client.send("x")
        await until(lambda: steps == ["cleaning"])
        client.transport.abort()
        left.set()
        await until(lambda: steps == ["cleaning", "cleaned"])
