"""Exceptions: the layered handlers first, then the table; before accept and after it; logged once, not sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.exceptions import WebSocketException as StarletteWebSocketException
from starlette.responses import JSONResponse, PlainTextResponse

from telex import (
    NotAuthorizedException,
    NotFoundException,
    PermissionDeniedException,
    Provide,
    Telex,
    ValidationException,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.exception_handling import ExceptionPolicy, leaf
from telex.exceptions import (
    BackendUnavailable,
    ClientException,
    HTTPException,
    InternalServerException,
    MethodNotAllowedException,
    MissingDependencyException,
    ServiceUnavailableException,
    TelexException,
    TooManyRequestsException,
    UnexpectedCancellation,
)
from telex.testing import AsyncTestClient
from tests.contract.servers import KINDS, ServerKind
from tests.support.live import asked, asked_json, connected, denied, ending, heard, serving, talking
from tests.support.peer import Peer, scope

SECRET = "SECRET"


def raising(exc: BaseException, *, accepted: bool, **options: Any) -> Telex:
    """An app whose one handler raises, before accept or after."""

    @websocket("/", **options)
    async def handle(socket: WebSocket) -> None:
        if accepted:
            await socket.accept()
        raise exc

    return Telex([handle])


TABLE: list[tuple[BaseException, int, int, str, bool]] = [
    # what is raised, the denial's status, the close code, the detail, whether it is logged
    (NotAuthorizedException("who?"), 401, 4401, "who?", False),
    (PermissionDeniedException(), 403, 4403, "Forbidden", False),
    (NotFoundException("no room"), 404, 4404, "no room", False),
    (MethodNotAllowedException(), 405, 4405, "Method Not Allowed", False),
    (TooManyRequestsException(), 429, 4429, "Too Many Requests", False),
    (ValidationException("bad"), 400, 4400, "bad", False),
    (InternalServerException("told"), 500, 4500, "told", True),
    (ServiceUnavailableException(), 503, 4503, "Service Unavailable", True),
    (BackendUnavailable("redis at 10.0.0.7"), 503, 4503, "Service Unavailable", False),
    (HTTPException("teapot", status_code=418), 418, 4418, "teapot", False),
    (HTTPException(status_code=599), 599, 4599, "HTTP 599", True),
    (StarletteHTTPException(410, "gone"), 410, 4410, "gone", False),
    (WebSocketException(4009, "own"), 403, 4009, "own", False),
    (WebSocketException(detail="default"), 403, 4500, "default", False),
    (StarletteWebSocketException(4010, "theirs"), 403, 4010, "theirs", False),
    (WebSocketException(1006, "unsendable"), 403, 1011, "unsendable", False),
    (WebSocketDisconnect(reason="as if"), 403, 1000, "as if", False),
    (WebSocketDisconnect(1006, "as if"), 403, 1000, "as if", False),
    (ValueError(SECRET), 500, 1011, "internal error", True),
    (ExceptionGroup("g", [WebSocketDisconnect(1000), NotFoundException("in a group")]), 404, 4404, "in a group", False),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{type(row[0]).__name__} {row[2]}")
async def test_the_table_before_accept_and_after(row: Any, caplog: pytest.LogCaptureFixture) -> None:
    exc, status, code, detail, logged = row
    async with serving(raising(exc, accepted=False)) as running:
        denial = await denied(running)
        assert denial.status == status
        assert denial.json()["detail"] == ("Internal Server Error" if detail == "internal error" else detail)
    async with talking(raising(exc, accepted=True)) as client:
        assert await ending(client) == (code, detail)
    assert len([record for record in caplog.records if record.exc_info]) == (2 if logged else 0)


async def test_a_server_without_denials_gets_a_close_with_the_code() -> None:
    for exc, code in [
        (NotAuthorizedException(), 4401),
        (WebSocketException(4009), 4009),
        (KeyError(), 4500),
    ]:
        peer = Peer()
        app = raising(exc, accepted=False)
        await app(scope(denial=False), peer.receive, peer.send)
        assert peer.sent == [{"type": "websocket.close", "code": code, "reason": ""}]


async def test_headers_and_extra_of_an_exception_are_in_the_denial() -> None:
    exc = NotAuthorizedException("who?", headers={"WWW-Authenticate": "Bearer"}, extra={"hint": "log in"})
    async with serving(raising(exc, accepted=False)) as running:
        denial = await denied(running)
    assert denial.headers["www-authenticate"] == "Bearer"
    assert denial.json() == {"status_code": 401, "detail": "who?", "extra": {"hint": "log in"}}


async def test_an_unexpected_exception_is_logged_once_and_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    for accepted in (False, True):
        caplog.clear()
        async with serving(raising(KeyError(SECRET), accepted=accepted)) as running:
            if accepted:
                async with connected(running) as client:
                    assert SECRET not in (await ending(client))[1]
            else:
                assert SECRET.encode() not in (await denied(running)).body
        records = [each for each in caplog.records if each.levelno >= logging.ERROR and each.name == "telex"]
        assert len(records) == 1
        assert "raising.<locals>.handle (tests/test_exception_handling.py:" in records[0].getMessage()
        assert records[0].exc_info is not None
        assert SECRET in str(records[0].exc_info[1])


async def test_debug_sends_the_exception_to_the_client() -> None:
    @websocket("/{accepted:int}")
    async def handle(socket: WebSocket, accepted: int) -> None:
        if accepted:
            await socket.accept()
        raise KeyError(SECRET)

    async with serving(Telex([handle], debug=True)) as running:
        body = (await denied(running, "/0")).json()
        assert any(SECRET in line for line in body["traceback"])
        async with connected(running, "/1") as client:
            assert await ending(client) == (1011, "KeyError: 'SECRET'")


# -- exception handlers


class Base(Exception):
    pass


class Derived(Base):
    pass


def test_the_nearest_class_or_the_status_is_found() -> None:
    handlers: dict[Any, Any] = {Exception: "any", Base: "base", 404: "status", HTTPException: "http"}
    find: Any = ExceptionPolicy(handlers, "here").find
    assert find(Derived()) == "base"
    assert find(KeyError()) == "any"
    assert find(NotFoundException()) == "status"
    assert find(ClientException()) == "http"
    del handlers[Exception]
    assert ExceptionPolicy(handlers, "here").find(KeyError()) is None


async def test_an_exception_handler_replies_and_the_connection_stays_open() -> None:
    async def on_base(socket: WebSocket, exc: Base) -> dict[str, str]:
        return {"sorry": str(exc)}

    def quiet(socket: WebSocket, exc: KeyError) -> None: ...

    async def close(socket: WebSocket, exc: IndexError) -> str:
        await socket.close(4001, "handled")
        return "dropped"

    def worse(socket: WebSocket, exc: OSError) -> None:
        raise WebSocketException(4002, "worse")

    raised = {"base": Derived("me"), "key": KeyError(), "index": IndexError(), "os": OSError()}
    handlers: dict[Any, Any] = {Base: on_base, KeyError: quiet, IndexError: close, OSError: worse}

    @websocket_listener("/", exception_handlers=handlers)
    async def listen(data: str) -> str:
        if data in raised:
            raise raised[data]
        return data

    async with serving(Telex([listen])) as running:
        async with connected(running) as client:
            assert await asked_json(client, None) is None
            assert await asked(client, "base") == '{"sorry":"me"}'
            await client.send("key")
            assert await asked(client, "still here") == "still here"
            await client.send("index")
            assert await ending(client) == (4001, "handled")
        async with connected(running) as client:
            await client.send("os")
            assert await ending(client) == (4002, "worse")


async def test_a_handler_for_validation_may_reply_close_or_raise() -> None:
    def replying(socket: WebSocket, exc: ValidationException) -> dict[str, str]:
        return {"wrong": exc.path}

    async def closing(socket: WebSocket, exc: ValidationException) -> None:
        await socket.close(4001)

    def raising_(socket: WebSocket, exc: ValidationException) -> None:
        raise WebSocketException(4002)

    async def listen(data: dict[str, int]) -> None: ...

    handlers: dict[str, Any] = {"/reply": replying, "/close": closing, "/raise": raising_}
    app = Telex(
        [
            websocket_listener(path, exception_handlers={ValidationException: handler})(listen)
            for path, handler in handlers.items()
        ]
    )
    async with serving(app) as running:
        async with connected(running, "/reply") as client:
            for _ in range(10):
                assert await asked(client, "[]") == '{"wrong":""}'
            assert (await ending(client))[0] == 1007
        for path, code in (("/close", 4001), ("/raise", 4002)):
            async with connected(running, path) as client:
                await client.send("[]")
                assert (await ending(client))[0] == code


async def test_a_handler_for_400_gets_a_parameter_that_does_not_fit_too() -> None:
    def on_400(socket: WebSocket, exc: ValidationException) -> dict[str, Any]:
        return {"parameters": [each["key"] for each in exc.extra]}  # type: ignore[attr-defined]

    @websocket_listener("/", exception_handlers={400: on_400})
    async def listen(data: str, page: int) -> None: ...

    async with serving(Telex([listen])) as running:
        denial = await denied(running, "/?page=x")
    assert (denial.status, denial.json()) == (400, {"parameters": ["page"]})


async def test_before_accept_a_handler_answers_the_handshake() -> None:
    answers: dict[str, Any] = {
        "/response": JSONResponse({"no": 1}, 451, {"x-a": "b"}),
        "/text": PlainTextResponse("no", 402),
        "/value": {"why": "not"},
        "/none": None,
    }

    def answer(socket: WebSocket, exc: Exception) -> object:
        return answers[socket.url.path]

    async def accepting(socket: WebSocket, exc: Exception) -> str:
        await socket.accept()
        return "after all"

    def refuse() -> None:
        raise KeyError

    async def listen(data: str, refuse: None) -> None: ...

    options: dict[str, Any] = {"dependencies": {"refuse": refuse}}
    app = Telex(
        [
            websocket_listener(list(answers), exception_handlers={KeyError: answer}, **options)(listen),
            websocket_listener("/accept", exception_handlers={KeyError: accepting}, **options)(listen),
        ]
    )
    async with serving(app) as running:
        denial = await denied(running, "/response")
        assert (denial.status, denial.json(), denial.headers["x-a"]) == (451, {"no": 1}, "b")
        denial = await denied(running, "/text")
        assert (denial.status, denial.body) == (402, b"no")
        denial = await denied(running, "/value")
        assert (denial.status, denial.json()) == (500, {"why": "not"})
        assert (await denied(running, "/none")).status == 500
        async with connected(running, "/accept") as client:
            assert (await ending(client))[0] == 1011


async def test_the_apps_handlers_answer_for_unknown_paths() -> None:
    def no_such_room(socket: WebSocket, exc: NotFoundException) -> dict[str, str]:
        return {"no": socket.url.path}

    async with serving(Telex([], exception_handlers={404: no_such_room})) as running:
        denial = await denied(running, "/nowhere")
    assert (denial.status, denial.json()) == (404, {"no": "/nowhere"})


async def test_replies_of_handlers_use_the_layers_encoders_and_the_send_mode() -> None:
    class Money:
        pass

    def priced(socket: WebSocket, exc: Exception) -> Any:
        return {"price": Money()}

    @websocket_listener(
        "/", send_mode="binary", exception_handlers={KeyError: priced}, type_encoders={Money: lambda _: 5}
    )
    async def listen(data: str) -> None:
        raise KeyError

    async with talking(Telex([listen])) as client:
        assert await asked(client, "x") == b'{"price":5}'


# -- disconnects are no errors


async def test_a_disconnect_that_a_handler_does_not_catch_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    async def watching() -> AsyncIterator[int]:
        try:
            yield 1
        except WebSocketDisconnect as exc:
            seen.append(exc.code)
            raise

    @websocket("/", dependencies={"watching": watching})
    async def handle(socket: WebSocket, watching: int) -> None:
        await socket.accept()
        await socket.send_text("hi")
        await socket.receive_text()

    async with talking(Telex([handle])) as client:
        assert await heard(client) == "hi"
        await client.close(4000)
    assert seen == [4000]
    assert not [record for record in caplog.records if record.name == "telex"]


async def test_a_client_that_is_lost_while_an_exception_is_answered() -> None:
    peer = Peer(broken=True)
    await raising(NotFoundException(), accepted=False)(scope(), peer.receive, peer.send)
    assert peer.sent == []


# -- groups, and the tree


def test_the_exception_that_counts_in_a_group() -> None:
    plain = KeyError()
    assert leaf(plain) is plain
    left, cancelled = WebSocketDisconnect(), asyncio.CancelledError()
    assert leaf(BaseExceptionGroup("", [left, cancelled, plain])) is plain
    assert leaf(BaseExceptionGroup("", [ExceptionGroup("", [left]), ExceptionGroup("", [plain])])) is plain
    assert leaf(ExceptionGroup("", [left])) is left


def test_the_texts_of_exceptions() -> None:
    assert repr(TelexException("x")) == "TelexException('x')"
    assert repr(NotFoundException("x")) == "NotFoundException(404, 'x')"
    assert repr(WebSocketException(4000, "x")) == "WebSocketException(4000, 'x')"
    assert str(MissingDependencyException("redis")) == "'redis' is not installed: pip install 'telex[redis]'"
    assert "telex[testing]" in str(MissingDependencyException("httpx", "testing"))
    assert WebSocketException(detail="a").reason == WebSocketException(reason="a").detail == "a"
    assert WebSocketDisconnect().code == 1000


async def test_a_handler_that_raises_before_accept_is_answered_by_what_it_raises() -> None:
    def worse(socket: WebSocket, exc: KeyError) -> None:
        raise PermissionDeniedException("worse")

    async with serving(raising(KeyError(), accepted=False, exception_handlers={KeyError: worse})) as running:
        denial = await denied(running)
    assert (denial.status, denial.json()["detail"]) == (403, "worse")


async def test_a_low_level_handlers_exception_is_answered_and_then_closes() -> None:
    def sorry(socket: WebSocket, exc: KeyError) -> dict[str, bool]:
        return {"sorry": True}

    async with talking(raising(KeyError(), accepted=True, exception_handlers={KeyError: sorry})) as client:
        assert await heard(client) == '{"sorry":true}'
        assert await ending(client) == (1011, "internal error")


async def test_a_handler_that_meets_the_clients_end_ends_quietly(caplog: pytest.LogCaptureFixture) -> None:
    async def waiting(socket: WebSocket, exc: KeyError) -> None:
        await socket.receive_text()

    peer = Peer()
    peer.leave()
    app = raising(KeyError(), accepted=True, exception_handlers={KeyError: waiting})
    await app(scope(), peer.receive, peer.send)
    assert peer.kinds == ["websocket.accept"]
    assert not [record for record in caplog.records if record.name == "telex"]


async def test_the_test_client_raises_unexpected_exceptions() -> None:
    async with AsyncTestClient(raising(KeyError("told"), accepted=True)) as client:
        with pytest.raises(KeyError, match="told"):
            async with client.websocket_connect("/") as session:
                await session.receive()
    client = AsyncTestClient(raising(ServiceUnavailableException(), accepted=True))
    async with client, client.websocket_connect("/") as session:
        assert (await session.expect(WebSocketDisconnect)).code == 4503


# -- cancellations that Telex did not request


async def awaits_what_was_cancelled() -> None:
    other = asyncio.create_task(asyncio.sleep(60))
    other.cancel()
    await other


@websocket_listener("/listener")
async def cancelled_listener(data: str) -> None:
    await awaits_what_was_cancelled()


@websocket_listener("/sync")
def cancelled_sync(data: str) -> None:
    raise asyncio.CancelledError


@websocket_listener("/concurrent", max_concurrency=2)
async def cancelled_concurrent(data: str) -> None:
    await awaits_what_was_cancelled()


@websocket("/raw")
async def cancelled_raw(socket: WebSocket) -> None:
    await socket.receive_text()
    await awaits_what_was_cancelled()


@websocket_stream("/stream")
async def cancelled_stream(socket: WebSocket) -> AsyncGenerator[str, None]:
    await socket.receive_text()
    await awaits_what_was_cancelled()
    yield "never"


@websocket_listener("/started")
async def cancelled_started(data: str, socket: WebSocket) -> None:
    async def values() -> AsyncGenerator[str, None]:
        await awaits_what_was_cancelled()
        yield "never"

    socket.start_stream(values())


@websocket_listener("/message", dependencies={"each": Provide(awaits_what_was_cancelled, scope="message")})
async def cancelled_dependency(data: str, each: None) -> None: ...


async def cancelled_guard(socket: WebSocket, _: object) -> None:
    await awaits_what_was_cancelled()


@websocket_listener("/guard", guards=[cancelled_guard])
async def behind_cancelled_guard(data: str) -> None: ...


@websocket_listener("/connection", dependencies={"it": Provide(awaits_what_was_cancelled)})
async def behind_cancelled_dependency(data: str, it: None) -> None: ...


CANCELLED = Telex(
    [
        cancelled_listener,
        cancelled_sync,
        cancelled_concurrent,
        cancelled_raw,
        cancelled_stream,
        cancelled_started,
        cancelled_dependency,
        behind_cancelled_guard,
        behind_cancelled_dependency,
    ]
)
BOTH = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.name in {"uvicorn-websockets", "telex"}], ids=lambda kind: kind.name
)


@BOTH
@pytest.mark.parametrize("path", ["listener", "sync", "concurrent", "raw", "stream", "started", "message"])
async def test_a_cancellation_of_the_handlers_own_is_its_error(
    kind: ServerKind, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with talking(CANCELLED, f"/{path}", kind) as client:
        await client.send("x")
        assert await ending(client) == (1011, "internal error")
    [record] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "failed" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], UnexpectedCancellation)


@BOTH
@pytest.mark.parametrize("path", ["guard", "connection"])
async def test_before_accept_it_is_a_500(kind: ServerKind, path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(CANCELLED, kind) as running:
        assert (await denied(running, f"/{path}")).status == 500
    assert any(each.exc_info and isinstance(each.exc_info[1], UnexpectedCancellation) for each in caplog.records)


async def test_it_is_raised_to_the_test() -> None:
    async def ask() -> None:
        async with AsyncTestClient(CANCELLED) as client, client.websocket_connect("/listener") as session:
            await session.send_text("x")
            await session.receive_text()

    with pytest.raises(UnexpectedCancellation):
        await ask()


# -- groups, and 500


class Mine(Exception):
    pass


async def raise_mine() -> None:
    raise Mine


async def fails_in_a_group(data: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(raise_mine())


@BOTH
@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}])
async def test_the_handler_for_what_a_task_group_raises_answers(kind: ServerKind, options: dict[str, Any]) -> None:
    def answer(socket: WebSocket, exc: Exception) -> str:
        return type(exc).__name__

    listen = websocket_listener("/", exception_handlers={Mine: answer}, **options)(fails_in_a_group)
    async with talking(Telex([listen]), kind=kind) as client:
        assert [await asked(client, "a"), await asked(client, "b")] == ["Mine", "Mine"]


async def test_a_handler_for_groups_gets_the_group() -> None:
    def answer(socket: WebSocket, exc: Exception) -> str:
        return type(exc).__name__

    listen = websocket_listener("/", exception_handlers={ExceptionGroup: answer, Mine: answer})(fails_in_a_group)
    async with talking(Telex([listen])) as client:
        assert await asked(client, "a") == "ExceptionGroup"


@BOTH
async def test_500_handles_what_names_no_status(kind: ServerKind) -> None:
    def answer(socket: WebSocket, exc: Exception) -> str:
        return type(exc).__name__

    @websocket_listener("/", exception_handlers={500: answer, ZeroDivisionError: lambda socket, exc: "nearer"})
    async def listen(data: str) -> None:
        match data:
            case "plain":
                raise Mine
            case "nearer":
                raise ZeroDivisionError
            case _:
                raise WebSocketException(4010, "deliberate")

    async with talking(Telex([listen]), kind=kind) as client:
        assert [await asked(client, "plain"), await asked(client, "nearer")] == ["Mine", "nearer"]
        await client.send("deliberate")
        assert await ending(client) == (4010, "deliberate")
