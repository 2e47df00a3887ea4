"""What Telex promises to handlers and clients: over a real socket, on stock uvicorn and on the Telex server."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, NewType, TypedDict

import msgspec
import pydantic
import pytest
from starlette.middleware.sessions import SessionMiddleware

from telex import (
    Controller,
    DefineMiddleware,
    Dependency,
    FromCookie,
    FromHeader,
    FromPath,
    FromQuery,
    ImproperlyConfiguredException,
    NamedDependency,
    NotAuthorizedException,
    Provide,
    Router,
    Telex,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    WebsocketListener,
    send_websocket_stream,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.exceptions import ConnectionStateError, NoRouteMatchFoundException
from telex.testing import AsyncTestClient
from telex.types import ASGIApp, Receive, Scope, Send, TypeEncoder
from tests.contract.servers import KINDS, ServerKind
from tests.support.live import (
    asked,
    asked_json,
    connected,
    denied,
    ending,
    heard,
    heard_json,
    serving,
    soon,
    talking,
)

Socket = WebSocket[Any, Any, Any]


@pytest.fixture(params=[each for each in KINDS if each.name in {"uvicorn-websockets", "telex"}], ids=lambda k: k.name)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    """Stock uvicorn, and Telex's own server with its fast path."""
    found: ServerKind = request.param
    return found


# -- JSON reaches `data: Model` decoded and validated


class StructPoint(msgspec.Struct):
    x: int


@dataclass
class DataPoint:
    x: int


class TypedPoint(TypedDict):
    x: int


class PydanticPoint(pydantic.BaseModel):
    x: int


@pytest.mark.parametrize("model", [StructPoint, DataPoint, TypedPoint, PydanticPoint])
async def test_json_is_decoded_and_validated(kind: ServerKind, model: type) -> None:
    got: list[object] = []

    async def listen(data: Any) -> str:
        got.append(data)
        return type(data).__name__

    listen.__annotations__["data"] = model
    async with talking(Telex([websocket_listener("/")(listen)]), kind=kind) as client:
        name = dict.__name__ if model is TypedPoint else model.__name__
        assert await asked(client, '{"x": 1}') == name
        error = (await asked_json(client, {"x": "one"}))["error"]
        assert error["code"] == "invalid_message"
        assert error["path"] == "$.x"
    assert len(got) == 1


# -- a bad message gets an error frame, and the connection stays


async def test_an_invalid_message_is_answered_and_ten_in_a_row_close(kind: ServerKind) -> None:
    @websocket_listener("/")
    async def listen(data: StructPoint) -> int:
        return data.x

    async with talking(Telex([listen]), kind=kind) as client:
        for _ in range(9):
            assert (await asked_json(client, {"x": None}))["error"]["path"] == "$.x"
        assert await asked_json(client, {"x": 1}) == 1
        for _ in range(10):
            assert (await asked_json(client, []))["error"]["code"] == "invalid_message"
        code, reason = await ending(client)
    assert code == 1007
    assert reason


# -- a listener does not respond to the other mode


async def test_the_other_mode_is_ignored_warned_of_once_and_counted(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    @websocket_listener("/")
    async def listen(data: str, socket: Socket) -> str:
        return f"{data} {socket.ignored_messages}"

    with caplog.at_level(logging.WARNING, "telex"):
        async with talking(Telex([listen]), kind=kind) as client:
            await client.send(b"one")
            await client.send(b"two")
            assert await asked(client, "three") == "three 2"
    warnings = [record.getMessage() for record in caplog.records if "ignores" in record.getMessage()]
    assert len(warnings) == 1
    assert "listen" in warnings[0]
    assert "receive_mode" in warnings[0]


async def test_binary_listeners_ignore_text(kind: ServerKind) -> None:
    @websocket_listener("/", receive_mode="binary", send_mode="binary")
    async def listen(data: bytes) -> bytes:
        return data

    async with talking(Telex([listen]), kind=kind) as client:
        await client.send("ignored")
        assert await asked(client, b"\xff") == b"\xff"


# -- which annotations switch JSON off

UserId = NewType("UserId", str)


@pytest.mark.parametrize(
    "annotation",
    [str, bytes, str | bytes, str | None, bytes | None, UserId, Annotated[str, "note"], Annotated[UserId | None, "n"]],
)
async def test_text_and_bytes_come_as_they_are(kind: ServerKind, annotation: Any) -> None:
    async def listen(data: Any) -> str:
        return repr(data)

    listen.__annotations__["data"] = annotation
    async with talking(Telex([websocket_listener("/")(listen)]), kind=kind) as client:
        expected = b'"a"' if annotation in {bytes, bytes | None} else '"a"'
        assert await asked(client, '"a"') == repr(expected)


@pytest.mark.parametrize("annotation", [dict, list[str], str | int, Any])
async def test_everything_else_is_json(kind: ServerKind, annotation: Any) -> None:
    async def listen(data: Any) -> str:
        return type(data).__name__

    listen.__annotations__["data"] = annotation
    sent, name = {dict: ("{}", "dict"), list[str]: ('["a"]', "list")}.get(annotation, ('"a"', "str"))
    async with talking(Telex([websocket_listener("/")(listen)]), kind=kind) as client:
        assert await asked(client, sent) == name


# -- data on a stream that nobody reads


@websocket_stream("/")
async def endless() -> AsyncGenerator[str, None]:
    yield "first"
    await asyncio.Event().wait()


async def test_data_that_a_stream_does_not_read_closes_with_1003(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    async with talking(Telex([endless]), kind=kind) as client:
        assert await heard(client) == "first"
        await client.send("unwanted")
        assert (await ending(client))[0] == 1003
    message = next(record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
    assert "endless" in message
    assert "allow_data_discard" in message


async def test_a_stream_that_takes_socket_reads_what_was_kept(kind: ServerKind) -> None:
    @websocket_stream("/")
    async def replies(socket: Socket) -> AsyncGenerator[str, None]:
        yield "first"
        await asyncio.sleep(0.05)  # longer than a handler is busy before its events are read ahead
        while True:
            yield (await socket.receive_text()).upper()

    async with talking(Telex([replies]), kind=kind) as client:
        assert await heard(client) == "first"
        for text in ("a", "b"):
            await client.send(text)
        assert [await heard(client), await heard(client)] == ["A", "B"]


async def test_a_stream_that_takes_socket_and_does_not_read_raises_on_overflow(kind: ServerKind) -> None:
    @websocket_stream("/", max_queued_messages=4)
    async def deaf(socket: Socket) -> AsyncGenerator[str, None]:
        yield "first"
        await asyncio.Event().wait()

    async with talking(Telex([deaf]), kind=kind) as client:
        assert await heard(client) == "first"
        for _ in range(5):
            await client.send("unwanted")
        assert (await ending(client))[0] == 1003


# -- accept


async def test_a_listener_and_a_stream_accept_before_they_start(kind: ServerKind) -> None:
    states: list[str] = []

    def on_accept(socket: Socket) -> None:
        states.append(socket.connection_state)

    @websocket_listener("/listener", on_accept=on_accept)
    def listen(data: str) -> str:
        return data

    @websocket_stream("/stream")
    async def stream(socket: Socket) -> AsyncGenerator[str, None]:
        yield socket.connection_state

    async with serving(Telex([listen, stream]), kind) as running:
        async with connected(running, "/listener") as client:
            assert await asked(client, "a") == "a"
        async with connected(running, "/stream") as client:
            assert await heard(client) == "receive"
    assert states == ["receive"]


async def test_accept_is_single_and_two_tasks_do_not_race(kind: ServerKind) -> None:
    errors: list[Exception] = []

    @websocket("/")
    async def handle(socket: Socket) -> None:
        outcomes = await asyncio.gather(socket.accept(), socket.accept(), return_exceptions=True)
        errors.extend(outcome for outcome in outcomes if isinstance(outcome, Exception))
        await asyncio.gather(socket.send_text("a"), socket.send_text("b"))
        try:
            await socket.accept()
        except ConnectionStateError as exc:
            errors.append(exc)

    async with talking(Telex([handle]), kind=kind) as client:
        assert {await heard(client), await heard(client)} == {"a", "b"}
        assert await ending(client) == (1000, "")
    assert len(errors) == 2
    assert all("accept()" in str(error) for error in errors)
    assert "'receive'" in str(errors[1])


async def test_a_handler_that_never_accepts_gives_a_403_denial(kind: ServerKind) -> None:
    @websocket("/")
    async def handle(socket: Socket) -> None:
        return

    async with serving(Telex([handle]), kind) as running:
        denial = await denied(running)
    assert denial.status == 403
    assert denial.json()["detail"] == "the handler did not accept the connection"


# -- the end of a handler is the end of the connection


async def test_returning_closes_with_1000(kind: ServerKind) -> None:
    @websocket("/")
    async def handle(socket: Socket) -> None:
        await socket.accept()

    async with talking(Telex([handle]), kind=kind) as client:
        assert await ending(client) == (1000, "")


# -- after one's own close


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}], ids=["in turn", "concurrent"])
async def test_close_is_idempotent_and_a_reply_after_it_is_dropped(
    kind: ServerKind, options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ended = asyncio.Event()

    def on_disconnect() -> None:
        ended.set()

    @websocket_listener("/", on_disconnect=on_disconnect, **options)
    async def listen(data: str, socket: Socket) -> str:
        await socket.close(4001, "enough")
        await socket.close(4002, "more")
        return data

    async with talking(Telex([listen]), kind=kind) as client:
        await client.send("a")
        assert await ending(client) == (4001, "enough")
        await soon(ended.wait())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_an_explicit_send_after_close_raises(kind: ServerKind) -> None:
    errors: list[Exception] = []

    @websocket("/")
    async def handle(socket: Socket) -> None:
        await socket.accept()
        await socket.close()
        try:
            await socket.send_text("late")
        except ConnectionStateError as exc:
            errors.append(exc)

    async with talking(Telex([handle]), kind=kind) as client:
        assert await ending(client) == (1000, "")
    assert str(errors[0]) == "send() on a connection in state 'disconnect': it was closed by this side"


# -- exceptions


class Quarrel(Exception):
    pass


async def test_the_nearest_layers_handler_answers(kind: ServerKind) -> None:
    def of(layer: str) -> Any:
        def handle(socket: Socket, exc: Exception) -> dict[str, str]:
            return {"handled by": layer, "exception": type(exc).__name__}

        return handle

    @websocket_listener("/{what:str}")
    async def listen(data: str, what: str) -> None:
        raise {"value": ValueError, "key": KeyError, "quarrel": Quarrel}[what]

    router = Router("/router", route_handlers=[listen], exception_handlers={LookupError: of("router")})
    app = Telex([router, listen], exception_handlers={Exception: of("app"), KeyError: of("app, key")})
    async with serving(app, kind) as running:
        for path, layer, name in [
            ("/router/value", "app", "ValueError"),
            ("/router/key", "app, key", "KeyError"),
            ("/quarrel", "app", "Quarrel"),
        ]:
            async with connected(running, path) as client:
                assert await asked_json(client, "x") == {"handled by": layer, "exception": name}
                assert await asked_json(client, "again") == {"handled by": layer, "exception": name}


async def test_a_status_denies_before_accept_and_closes_4000_plus_it_after(kind: ServerKind) -> None:
    def refuse() -> None:
        raise NotAuthorizedException("who are you?")

    @websocket_listener("/before", dependencies={"member": refuse})
    async def before(data: str, member: Any) -> None: ...

    @websocket_listener("/after")
    async def after(data: str) -> None:
        raise NotAuthorizedException("who are you?")

    async with serving(Telex([before, after]), kind) as running:
        denial = await denied(running, "/before")
        assert (denial.status, denial.json()) == (401, {"status_code": 401, "detail": "who are you?"})
        async with connected(running, "/after") as client:
            await client.send("x")
            assert await ending(client) == (4401, "who are you?")


async def test_an_unexpected_exception_closes_with_1011_without_details(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    @websocket_listener("/")
    async def listen(data: str) -> None:
        raise Quarrel("SECRET")

    async with talking(Telex([listen]), kind=kind) as client:
        await client.send("x")
        code, reason = await ending(client)
    assert code == 1011
    assert "SECRET" not in reason
    assert "Quarrel" not in reason
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert len(tracebacks) == 1
    assert "listen" in tracebacks[0].getMessage()


async def test_groups_are_unwrapped(kind: ServerKind) -> None:
    async def fail() -> None:
        raise WebSocketException(4009, "from a task")

    @websocket_listener("/")
    async def listen(data: str) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            tasks.create_task(asyncio.Event().wait())

    async with talking(Telex([listen]), kind=kind) as client:
        await client.send("x")
        assert await ending(client) == (4009, "from a task")


# -- close reasons


async def test_a_long_reason_is_cut_at_a_character_boundary(kind: ServerKind) -> None:
    @websocket("/")
    async def handle(socket: Socket) -> None:
        await socket.accept()
        await socket.close(4000, "a" + "ü" * 100)

    async with talking(Telex([handle]), kind=kind) as client:
        assert await ending(client) == (4000, "a" + "ü" * 61)


# -- subprotocols


async def test_a_subprotocol_that_was_not_offered_is_an_error_that_names_the_offered(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    @websocket("/")
    async def handle(socket: Socket) -> None:
        await socket.accept("v3")

    async with serving(Telex([handle]), kind) as running:
        assert (await denied(running, subprotocols=["v1", "v2"])).status == 500
    error = next(record.exc_info[1] for record in caplog.records if record.exc_info)
    assert isinstance(error, ValueError)
    assert "['v1', 'v2']" in str(error)


async def test_of_a_list_the_first_that_was_offered_is_taken(kind: ServerKind) -> None:
    @websocket("/")
    async def handle(socket: Socket) -> None:
        await socket.accept(["v3", "v2", "v1"])

    async with talking(Telex([handle]), kind=kind, subprotocols=["v1", "v2"]) as client:
        assert client.subprotocol == "v2"
    async with talking(Telex([handle]), kind=kind) as client:
        assert client.subprotocol is None


# -- sync callables run inline


@pytest.mark.parametrize("in_thread", [False, True])
async def test_sync_callables_run_inline_unless_asked(kind: ServerKind, in_thread: bool) -> None:
    threads: dict[str, bool] = {}
    main = threading.get_ident()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def note(what: str) -> None:
        threads[what] = threading.get_ident() != main

    def guard(socket: Socket) -> None:
        note("guard")

    def provider() -> int:
        note("provider")
        return 1

    def on_accept() -> None:
        note("on_accept")

    def on_disconnect() -> None:
        note("on_disconnect")
        loop.call_soon_threadsafe(ended.set)

    @websocket_listener(
        "/",
        guards=[guard],
        dependencies={"number": Provide(provider, sync_to_thread=in_thread)},
        on_accept=on_accept,
        on_disconnect=on_disconnect,
        sync_to_thread=in_thread,
    )
    def listen(data: str, number: int) -> str:
        note("listener")
        return data

    async with talking(Telex([listen]), kind=kind) as client:
        assert await asked(client, "a") == "a"
    await soon(ended.wait())
    assert threads.pop("guard") is False
    assert threads == dict.fromkeys(["provider", "on_accept", "listener", "on_disconnect"], in_thread)


# -- scopes and cleanup


async def test_a_message_scoped_dependency_is_made_for_each_message(kind: ServerKind) -> None:
    made: list[str] = []
    closed = asyncio.Event()

    async def transaction(data: str) -> AsyncIterator[int]:
        made.append(f"begin {data}")
        yield len(made)
        made.append(f"end {data}")
        if data == "b":
            closed.set()

    @websocket_listener("/", dependencies={"tx": Provide(transaction, scope="message")})
    async def listen(data: str, tx: int) -> int:
        return tx

    async with talking(Telex([listen]), kind=kind) as client:
        assert await asked_json(client, "a") == 1
        assert await asked(client, "b") == "3"
        await soon(closed.wait())
    assert made == ['begin "a"', 'end "a"', "begin b", "end b"]


def layered_generators(log: list[str], fail_in_setup: bool = False) -> dict[str, Provide]:
    def outer() -> Iterator[str]:
        log.append("outer in")
        try:
            yield "outer"
        except Exception as exc:
            log.append(f"outer sees {type(exc).__name__}")
            raise
        finally:
            log.append("outer out")

    async def middle(outer: str) -> AsyncIterator[str]:
        log.append("middle in")
        try:
            yield "middle"
        except Exception as exc:
            log.append(f"middle sees {type(exc).__name__}")
            raise WebSocketException(4321, "replaced") from exc
        finally:
            log.append("middle out")

    async def inner(middle: str) -> AsyncIterator[str]:
        log.append("inner in")
        if fail_in_setup:
            raise Quarrel
        try:
            yield "inner"
        finally:
            log.append("inner out")

    return {"outer": Provide(outer, sync_to_thread=True), "middle": Provide(middle), "inner": Provide(inner)}


async def test_cleanup_is_last_in_first_out_and_an_exception_is_thrown_in(kind: ServerKind) -> None:
    log: list[str] = []

    @websocket_listener("/", dependencies=layered_generators(log))
    async def listen(data: str, inner: str) -> None:
        raise Quarrel

    async with talking(Telex([listen]), kind=kind) as client:
        await client.send("x")
        assert await ending(client) == (4321, "replaced")
    assert log == [
        "outer in",
        "middle in",
        "inner in",
        "inner out",
        "middle sees Quarrel",
        "middle out",
        "outer sees WebSocketException",
        "outer out",
    ]


async def test_what_was_entered_is_cleaned_up_when_a_later_one_fails(kind: ServerKind) -> None:
    log: list[str] = []

    @websocket_listener("/", dependencies=layered_generators(log, fail_in_setup=True))
    async def listen(data: str, inner: str) -> None: ...

    async with serving(Telex([listen]), kind) as running:
        assert (await denied(running)).json() == {"status_code": 403, "detail": "replaced", "code": 4321}
    assert log[-4:] == ["middle sees Quarrel", "middle out", "outer sees WebSocketException", "outer out"]


# -- what fills parameters


async def test_a_providers_value_is_trusted(kind: ServerKind) -> None:
    lock = asyncio.Lock()

    async def provide_lock() -> asyncio.Lock:
        return lock

    def number() -> int:
        return "no number"  # type: ignore[return-value]

    @websocket_listener("/", dependencies={"lock": Provide(provide_lock), "number": number})
    async def listen(data: str, lock: asyncio.Lock, number: int) -> str:
        async with lock:
            return str(number)

    async with talking(Telex([listen]), kind=kind) as client:
        assert await asked(client, "x") == "no number"


async def test_a_bare_name_of_a_simple_type_is_a_query_parameter(kind: ServerKind) -> None:
    @websocket_listener("/")
    async def listen(data: str, page: int, tags: list[str]) -> dict[str, Any]:
        return {"page": page, "tags": tags}

    async with serving(Telex([listen]), kind) as running:
        async with connected(running, "/?page=3&tags=a&tags=b") as client:
            assert await asked_json(client, "x") == {"page": 3, "tags": ["a", "b"]}
        denial = await denied(running, "/?page=three")
    assert denial.status == 400
    assert {each["key"] for each in denial.json()["extra"]} == {"page", "tags"}
    assert "page" in denial.json()["detail"]
    assert "tags" in denial.json()["detail"]


def test_of_any_other_type_it_is_an_error_at_construction() -> None:
    async def listen(data: str, lock: asyncio.Lock) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=r"'lock' of .*listen \(.*test_behaviour.py:\d+\): add"):
        Telex([websocket_listener("/")(listen)])


async def test_bare_names_and_marks_both_work(kind: ServerKind) -> None:
    @websocket_listener("/{room:str}/{seat:int}", dependencies={"a": lambda: 1, "b": lambda: 2, "c": lambda: 3})
    async def listen(
        data: str,
        room: str,
        seat: FromPath[int],
        page: FromQuery[int],
        x_token: FromHeader[str],
        theme: FromCookie[str],
        a: int,
        b: NamedDependency[int],
        c: Annotated[int, Dependency()],
    ) -> list[Any]:
        return [room, seat, page, x_token, theme, a, b, c]

    headers = {"X-Token": "t", "Cookie": "theme=dark"}
    async with talking(Telex([listen]), "/blue/7?page=2", kind=kind, headers=headers) as client:
        assert await asked_json(client, "x") == ["blue", 7, 2, "t", "dark", 1, 2, 3]


# -- None sends nothing


@pytest.mark.parametrize("returns", [str | None, dict[str, int] | None, Any, StructPoint | None])
async def test_returning_none_sends_nothing(kind: ServerKind, returns: Any) -> None:
    async def listen(data: str) -> Any:
        return None if data == "quiet" else {"x": 1} if returns != str | None else "loud"

    listen.__annotations__["return"] = returns
    async with talking(Telex([websocket_listener("/")(listen)]), kind=kind) as client:
        await client.send("quiet")
        assert await asked(client, "x") in {"loud", '{"x":1}'}


# -- hooks


@pytest.mark.parametrize("failing", [True, False])
async def test_on_disconnect_runs_exactly_once_and_knows_how(kind: ServerKind, failing: bool) -> None:
    ended: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    async def on_accept() -> None:
        if failing:
            raise WebSocketException(4010, "not today")

    async def on_disconnect(close_code: int, close_reason: str) -> None:
        ended.put_nowait((close_code, close_reason))

    @websocket_listener("/", on_accept=on_accept, on_disconnect=on_disconnect)
    async def listen(data: str) -> str:
        return data

    async with talking(Telex([listen]), kind=kind) as client:
        if failing:
            assert await ending(client) == (4010, "not today")
        else:
            assert await asked(client, "a") == "a"
            await client.close(4567, "bye")
    assert await soon(ended.get()) == ((4010, "not today") if failing else (4567, "bye"))
    assert ended.empty()


# -- class listeners


async def test_a_class_has_the_accept_handler_and_one_instance(kind: ServerKind) -> None:
    async def accept(socket: Socket) -> None:
        await socket.accept(headers={"x-hello": "there"})

    class Chat(WebsocketListener):
        path = "/"
        connection_accept_handler = accept

        def __init__(self, owner: object) -> None:
            super().__init__(owner)
            self.members: set[str] = set()

        async def on_receive(self, data: str, socket: Socket) -> list[str]:
            socket.state.said = [*getattr(socket.state, "said", []), data]
            self.members.add(data)
            return [*sorted(self.members), "|", *socket.state.said]

    async with serving(Telex([Chat]), kind) as running, connected(running) as first, connected(running) as second:
        assert first.response is not None
        assert first.response.headers["x-hello"] == "there"
        assert await asked_json(first, "a") == ['"a"', "|", '"a"']
        assert await asked_json(second, "b") == ['"a"', '"b"', "|", '"b"']


async def test_a_class_has_the_connection_lifespan(kind: ServerKind) -> None:
    log: list[str] = []
    ended = asyncio.Event()

    @asynccontextmanager
    async def around(socket: Socket) -> AsyncGenerator[None, None]:
        log.append("in")
        await socket.accept()
        try:
            yield
        finally:
            log.append("out")
            ended.set()

    class Chat(WebsocketListener):
        path = "/"
        connection_lifespan = around

        def on_receive(self, data: str) -> str:
            return data

    async with talking(Telex([Chat]), kind=kind) as client:
        assert await asked(client, "a") == "a"
        assert log == ["in"]
    await soon(ended.wait())
    assert log == ["in", "out"]


# -- streams end in order


async def test_a_stream_is_closed_before_its_dependencies(kind: ServerKind) -> None:
    log: list[str] = []
    ended = asyncio.Event()

    async def resource() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            log.append("dependency")
            ended.set()

    @websocket_stream("/", dependencies={"resource": Provide(resource)})
    async def stream(resource: int) -> AsyncGenerator[int, None]:
        try:
            yield resource
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("generator")

    async with talking(Telex([stream]), kind=kind) as client:
        assert await heard(client) == "1"
    await soon(ended.wait())
    assert log == ["generator", "dependency"]


@pytest.mark.parametrize("listen", [True, False])
async def test_a_streams_codes_are_preserved(kind: ServerKind, listen: bool) -> None:
    @websocket_stream("/", listen_for_disconnect=listen)
    async def stream() -> AsyncGenerator[str, None]:
        yield "one"
        raise WebSocketException(4009, "enough")

    async with talking(Telex([stream]), kind=kind) as client:
        assert await heard(client) == "one"
        assert await ending(client) == (4009, "enough")


# -- serialisation


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


ENCODERS: dict[type, TypeEncoder] = {Money: lambda money: f"{money.cents / 100:.2f}"}


async def test_send_websocket_stream_serialises(kind: ServerKind) -> None:
    async def values() -> AsyncGenerator[object, None]:
        yield "text"
        yield b"bytes"
        yield {"price": Money(150)}
        yield DataPoint(1)

    async def shout(socket: Socket, value: object) -> None:
        await socket.send_text(f"<{type(value).__name__}>")

    @websocket("/plain", type_encoders=ENCODERS)
    async def plain(socket: Socket) -> None:
        await send_websocket_stream(socket, values())

    @websocket("/custom")
    async def custom(socket: Socket) -> None:
        await send_websocket_stream(socket, values(), send_handler=shout)

    async with serving(Telex([plain, custom]), kind) as running:
        async with connected(running, "/plain") as client:
            got = [await heard(client) for _ in range(4)]
            assert await ending(client) == (1000, "")
        assert got == ["text", "bytes", '{"price":"1.50"}', '{"x":1}']
        async with connected(running, "/custom") as client:
            assert [await heard(client) for _ in range(4)] == ["<str>", "<bytes>", "<dict>", "<DataPoint>"]


async def test_send_json_uses_the_layers_encoders(kind: ServerKind) -> None:
    @websocket("/")
    async def handle(socket: Socket) -> None:
        await socket.send_json(Money(150))
        await socket.send_json(Money(150), serializer=lambda money: money.cents)
        await socket.send_msgpack([Money(150)])

    async with talking(Telex([Router(route_handlers=[handle], type_encoders=ENCODERS)]), kind=kind) as client:
        assert await heard(client) == '"1.50"'
        assert await heard(client) == "150"
        packed = await heard(client)
    assert isinstance(packed, bytes)
    assert msgspec.msgpack.decode(packed) == ["1.50"]


# -- mistakes are errors


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"recieve_mode": "text"}, "unknown option 'recieve_mode'"),
        ({"receive_mode": "json"}, "receive_mode is 'text' or 'binary', not 'json'"),
        ({"send_mode": "foo"}, "send_mode is 'text' or 'binary', not 'foo'"),
    ],
)
def test_unknown_keywords_and_modes_are_errors(options: Any, complaint: str) -> None:
    async def listen(data: str) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=complaint) as caught:
        websocket_listener("/", **options)(listen)
    assert "test_behaviour.py:" in str(caught.value)


async def test_opt_carries_ones_own(kind: ServerKind) -> None:
    seen: list[object] = []

    def guard(socket: Socket, handler: Any) -> None:
        seen.append(handler.opt)

    @websocket_listener("/", opt={"role": "admin"}, guards=[guard])
    async def listen(data: str, socket: Socket) -> Any:
        return socket.route_handler.opt  # type: ignore[attr-defined]

    async with talking(Telex([listen], opt={"app": True}), kind=kind) as client:
        assert (await asked_json(client, "x"))["role"] == "admin"
    assert seen == [{"role": "admin"}]


def test_the_same_path_twice_is_an_error() -> None:
    @websocket_listener("/chat/{room:str}")
    async def first(data: str) -> None: ...

    @websocket_listener("/{name:str}")
    async def second(data: str) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=r"second \(.*\) at '/chat/\{name:str\}' can never be"):
        Telex([first, Router("/chat", route_handlers=[second])])


# -- URLs


def test_paths_by_name_and_by_handler() -> None:
    @websocket_listener("/a/{room:str}", name="room")
    async def named(data: str) -> None: ...

    @websocket_listener(["/b", "/b/{page:int}"])
    async def unnamed(data: str) -> None: ...

    @websocket("/c")
    async def other(socket: Socket) -> None: ...

    class Chat(WebsocketListener):
        path = "/chat"

        async def on_receive(self, data: str) -> None: ...

    class Lobby(Controller):
        path = "/lobby"

        @websocket_listener("/door", name="door")
        async def door(self, data: str) -> None: ...

    app = Telex([Router("/v1", route_handlers=[named, unnamed]), other, Chat, Lobby])
    assert app.route_reverse("room", room="blue") == "/v1/a/blue"
    assert app.route_reverse(named, room="blue") == "/v1/a/blue"
    assert app.route_reverse(unnamed) == "/v1/b"
    assert app.route_reverse(unnamed, page=3) == "/v1/b/3"
    assert app.route_reverse(other) == "/c"
    assert app.route_reverse(Chat) == "/chat"
    assert app.route_reverse("door") == "/lobby/door"
    assert app.route_reverse(Lobby.door) == "/lobby/door"
    refused: list[tuple[object, dict[str, Any]]] = [
        ("room", {}),
        ("room", {"seat": 1}),
        ("nobody", {}),
        (unnamed, {"page": "x"}),
    ]
    for target, given in refused:
        with pytest.raises(NoRouteMatchFoundException):
            app.route_reverse(target, **given)


# -- sessions


async def test_a_cookie_session_is_read_only(kind: ServerKind) -> None:
    errors: list[str] = []

    @websocket_listener("/")
    async def listen(data: str, socket: Socket) -> bool:
        try:
            socket.session["user"] = data
        except ImproperlyConfiguredException as exc:
            errors.append(str(exc))
        return "user" in socket.session

    app = Telex([listen], middleware=[DefineMiddleware(SessionMiddleware, secret_key="s")])
    async with talking(app, kind=kind) as client:
        assert await asked_json(client, "x") is False
    assert "read-only" in errors[0]


async def test_a_session_that_is_stored_on_the_server_saves(kind: ServerKind) -> None:
    class Stored:
        def __init__(self) -> None:
            self.saved: dict[str, str] = {}

    stored = Stored()

    def sessions(app: ASGIApp) -> ASGIApp:
        async def with_session(scope: Scope, receive: Receive, send: Send) -> None:
            scope["session"] = stored
            await app(scope, receive, send)

        return with_session

    @websocket_listener("/")
    async def listen(data: str, socket: Socket) -> str:
        socket.session.saved["said"] = data
        return data

    async with talking(Telex([listen], middleware=[sessions]), kind=kind) as client:
        assert await asked(client, "x") == "x"
    assert stored.saved == {"said": "x"}


# -- the Origin check applies to every route


async def test_a_foreign_origin_is_refused_on_every_kind_of_route(kind: ServerKind) -> None:
    entered: list[str] = []

    @websocket("/raw")
    async def raw(socket: Socket) -> None:
        entered.append("raw")
        await socket.accept()

    @websocket_listener("/listener")
    async def listen(data: str) -> None:
        entered.append("listener")

    @websocket_stream("/stream")
    async def stream() -> AsyncGenerator[str, None]:
        entered.append("stream")
        yield "x"

    def transparent(app: ASGIApp) -> ASGIApp:
        return app

    @websocket("/wrapped", middleware=[transparent])
    async def wrapped(socket: Socket) -> None:
        entered.append("wrapped")

    @websocket("/open", allowed_origins=["evil.example"])
    async def opened(socket: Socket) -> None:
        await socket.accept()

    async with serving(Telex([raw, listen, stream, wrapped, opened]), kind) as running:
        for path in ("/raw", "/listener", "/stream", "/wrapped"):
            denial = await denied(running, path, origin="https://evil.example")
            assert (denial.status, denial.json()["detail"]) == (403, "this origin may not connect")
        async with connected(running, "/open", origin="https://evil.example") as client:
            assert await ending(client) == (1000, "")
        async with connected(running, "/raw", origin=f"http://127.0.0.1:{running.port}") as client:
            assert await ending(client) == (1000, "")
    assert entered == ["raw"]


# -- the test client


async def test_waits_of_the_test_client_are_bounded_and_errors_surface() -> None:
    @websocket_listener("/")
    async def listen(data: str) -> None:
        if data == "fail":
            raise Quarrel

    client = AsyncTestClient(Telex([listen]), raise_server_exceptions=False)
    async with client, client.websocket_connect("/") as session:
        with pytest.raises(TimeoutError):
            await session.receive_text(timeout=0.01)
        await session.send_text("fail")
        with pytest.raises(WebSocketDisconnect) as caught:
            await session.receive_text()
    assert caught.value.code == 1011


# -- allow_data_discard and listen_for_disconnect


async def test_allow_data_discard_ignores_what_comes(kind: ServerKind) -> None:
    proceed = asyncio.Event()

    @websocket_stream("/", allow_data_discard=True)
    async def stream() -> AsyncGenerator[str, None]:
        yield "one"
        await proceed.wait()
        yield "two"

    async with talking(Telex([stream]), kind=kind) as client:
        assert await heard(client) == "one"
        for _ in range(100):
            await client.send("ignored")
        await soon(await client.ping())
        proceed.set()
        assert await heard(client) == "two"
        assert await ending(client) == (1000, "")


async def test_without_listening_a_stream_runs_to_its_end(kind: ServerKind) -> None:
    left = asyncio.Event()
    done: list[bool] = []
    finished = asyncio.Event()

    @websocket_stream("/", listen_for_disconnect=False)
    async def stream() -> AsyncGenerator[str, None]:
        try:
            yield "one"
            await left.wait()
            await asyncio.sleep(0.05)  # longer than a handler is busy before its events are read ahead
            done.append(True)
        finally:
            finished.set()

    async with talking(Telex([stream]), kind=kind) as client:
        assert await heard(client) == "one"
        await client.close()
        left.set()
        await soon(finished.wait())
    assert done == [True]


async def test_reading_and_streaming_at_once_loses_nothing(kind: ServerKind) -> None:
    async def ticks(stop: asyncio.Event) -> AsyncGenerator[dict[str, int], None]:
        yield {"tick": 1}
        await stop.wait()

    @websocket("/")
    async def handle(socket: Socket) -> None:
        stop = asyncio.Event()
        await socket.accept()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send_websocket_stream(socket, ticks(stop), listen_for_disconnect=False))
            async for text in socket.iter_text():
                if text == "stop":
                    stop.set()
                    break
                await socket.send_text(text)

    async with talking(Telex([handle]), kind=kind) as client:
        assert await heard_json(client) == {"tick": 1}
        for number in range(20):
            await client.send(str(number))
        assert [json.loads(await heard(client)) for _ in range(20)] == list(range(20))
        await client.send("stop")
        assert await ending(client) == (1000, "")
