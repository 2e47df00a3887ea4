"""Handlers that fail at every place there is, and close in every way there is. What they raise is a secret."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette import exceptions as starlette_exceptions

from telex import (
    NotFoundException,
    PermissionDeniedException,
    Provide,
    Router,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.exceptions import ConnectionStateError, HTTPException
from telex.routing import RouteHandler
from telex.types import ASGIApp, Mode, Receive, Scope, Send
from tests.contract.subjects.journal import journal

Socket = WebSocket[Any, Any, Any]


class Boom(Exception):
    """Nothing of its text may be seen by a client."""

    def __init__(self) -> None:
        super().__init__("SECRET of /etc/secret")


def fail() -> Any:
    raise Boom


async def fail_async() -> Any:
    raise Boom


def failing_guard(_: Socket) -> None:
    raise Boom


async def failing_async_guard(_: Socket, __: object) -> None:
    raise Boom


def failing_exception_handler(_: Socket, __: Exception) -> None:
    raise Boom


def failing_generator() -> Generator[int, None, None]:
    fail()
    yield 1


def failing_cleanup() -> Generator[int, None, None]:
    yield 1
    raise Boom


async def failing_async_cleanup() -> AsyncGenerator[int, None]:
    yield 1
    await asyncio.sleep(0)
    raise Boom


def failing_middleware(_: ASGIApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise Boom

    return app


def echo(data: str) -> str:
    return data


def echo_with(data: str, made: int) -> str:
    return data


def listener(path: str, fn: Callable[..., Any] = echo, **options: Any) -> Any:
    return websocket_listener(path, **options)(fn)


@websocket("/before/raw")
async def raw_before_accept(socket: Socket) -> None:
    raise Boom


BEFORE_ACCEPT: Final[list[Any]] = [
    raw_before_accept,
    listener("/before/guard", guards=[failing_guard]),
    listener("/before/guard-async", guards=[failing_async_guard]),
    listener("/before/middleware", middleware=[failing_middleware]),
    listener("/before/provider", echo_with, dependencies={"made": Provide(lambda: fail())}),
    listener(
        "/before/provider-in-thread", echo_with, dependencies={"made": Provide(lambda: fail(), sync_to_thread=True)}
    ),
    listener("/before/provider-generator", echo_with, dependencies={"made": Provide(failing_generator)}),
    listener("/before/accept-handler", connection_accept_handler=lambda socket: fail()),
    listener("/before/exception-handler", guards=[failing_guard], exception_handlers={Boom: failing_exception_handler}),
]


# -- after accept; each waits for one message, and fails at it or after it


def fail_at(data: str) -> str:
    raise Boom


async def fail_async_at(data: str) -> str:
    await asyncio.sleep(0)
    raise Boom


def not_encodable(data: str) -> dict[str, object]:
    return {"value": object()}


def half_a_pair(data: str) -> str:
    return "\ud800"


async def half_a_pair_in_json(data: str) -> dict[str, str]:
    return {"value": "\ud800"}


async def send_half_a_pair(data: str, socket: Socket) -> None:
    await socket.send_text("\ud800")


def not_what_it_says(data: str) -> str:
    return 5  # type: ignore[return-value]


@asynccontextmanager
async def failing_lifespan(socket: Socket) -> AsyncGenerator[None, None]:
    await socket.accept()
    await socket.receive_text()
    fail()
    yield


@websocket("/after/raw")
async def raw_after_accept(socket: Socket) -> None:
    await socket.receive_text()
    raise Boom


@websocket("/after/raw-cleanup", dependencies={"made": Provide(failing_async_cleanup)})
async def raw_fails_after_return(socket: Socket, made: int) -> None:
    await socket.receive_text()


@websocket("/after/raw-sending")
async def raw_fails_sending(socket: Socket) -> None:
    await socket.receive_text()
    await socket.send_text("so far")
    await socket.send_json({"value": object()})


@websocket("/after/group")
async def fails_in_a_group(socket: Socket) -> None:
    await socket.receive_text()
    async with asyncio.TaskGroup() as group:
        group.create_task(fail_async())
        await asyncio.sleep(60)


@websocket_stream("/after/stream", allow_data_discard=True)
async def failing_stream(socket: Socket) -> AsyncGenerator[str, None]:
    await socket.receive_text()
    yield "so far"
    raise Boom


@websocket_stream("/after/stream-not-encodable")
async def not_encodable_stream(socket: Socket) -> AsyncGenerator[object, None]:
    await socket.receive_text()
    yield "so far"
    yield object()


async def stream_that_fails() -> AsyncGenerator[str, None]:
    yield "so far"
    raise Boom


async def start_failing_stream(data: str, socket: Socket) -> None:
    socket.start_stream(stream_that_fails())


AFTER_ACCEPT: Final[list[Any]] = [
    raw_after_accept,
    raw_fails_after_return,
    raw_fails_sending,
    fails_in_a_group,
    failing_stream,
    not_encodable_stream,
    listener("/after/handler", fail_at),
    listener("/after/handler-async", fail_async_at),
    listener("/after/handler-in-thread", fail_at, sync_to_thread=True),
    listener("/after/handler-concurrent", fail_async_at, max_concurrency=3),
    listener("/after/not-encodable", not_encodable),
    listener("/after/not-what-it-says", not_what_it_says),
    listener("/after/half-a-pair", half_a_pair),
    listener("/after/half-a-pair-in-json", half_a_pair_in_json),
    listener("/after/half-a-pair-sent", send_half_a_pair),
    listener("/after/lifespan", connection_lifespan=failing_lifespan),
    listener("/after/exception-handler", fail_at, exception_handlers={Boom: failing_exception_handler}),
    listener("/after/message-provider", echo_with, dependencies={"made": Provide(lambda: fail(), scope="message")}),
    listener("/after/message-generator", echo_with, dependencies={"made": Provide(failing_generator, scope="message")}),
    listener("/after/message-cleanup", echo_with, dependencies={"made": Provide(failing_cleanup, scope="message")}),
    listener("/after/started-stream", start_failing_stream),
]


async def fail_on_accept() -> None:
    await asyncio.sleep(0)
    raise Boom


AT_ONCE: Final[list[Any]] = [
    listener("/at-once/on-accept", on_accept=lambda: fail()),
    listener("/at-once/on-accept-async", on_accept=fail_on_accept),
]

WHEN_GONE: Final[list[Any]] = [
    listener("/gone/on-disconnect", on_disconnect=lambda: fail()),
    listener("/gone/cleanup", echo_with, dependencies={"made": Provide(failing_cleanup)}),
    listener("/gone/cleanup-async", echo_with, dependencies={"made": Provide(failing_async_cleanup)}),
]


# -- exceptions that say how it ends


MEANT: Final[dict[str, Callable[[], Exception]]] = {
    "forbidden": lambda: PermissionDeniedException("members only"),
    "not-found": lambda: NotFoundException("no such room"),
    "teapot": lambda: HTTPException("short and stout", status_code=418),
    "starlette-http": lambda: starlette_exceptions.HTTPException(402, "pay first"),
    "starlette-websocket": lambda: starlette_exceptions.WebSocketException(4010, "from starlette"),
    "websocket": lambda: WebSocketException(4321, "bye"),
    "websocket-long": lambda: WebSocketException(4321, "é" * 100),
    "websocket-unsendable": lambda: WebSocketException(1006, "gone"),
    "websocket-nonsense": lambda: WebSocketException(70000, "far"),
    "http-long": lambda: PermissionDeniedException("é" * 100),
    "http-lines": lambda: PermissionDeniedException("one\r\nset-cookie: evil=1"),
    "http-nonsense": lambda: HTTPException("what?", status_code=1200),
    "disconnect": lambda: WebSocketDisconnect(1000, "as if it had left"),
    "grouped": lambda: ExceptionGroup("several", [WebSocketDisconnect(1001), PermissionDeniedException("inside")]),
}


@websocket("/meant/before/{case:str}")
async def meant_before(socket: Socket, case: str) -> None:
    raise MEANT[case]()


@websocket_listener("/meant/after/{case:str}")
async def meant_after(data: str, case: str) -> None:
    raise MEANT[case]()


# -- closing


@websocket_listener("/close")
async def close_with(data: list[Any], socket: Socket) -> None:
    """Closes with the code and the reason of the message."""
    await socket.close(*data)


@websocket("/close-event")
async def close_with_event(socket: Socket) -> None:
    code, reason = await socket.receive_json()
    await socket.send({"type": "websocket.close", "code": code, "reason": reason})


REASONS: Final[dict[str, str]] = {"half-a-pair": "a\ud800b", "nul": "a\0b", "lines": "a\r\nb"}


@websocket_listener("/close-because")
async def close_because(data: str, socket: Socket) -> None:
    await socket.close(4000, REASONS[data])


def left(close_code: int, close_reason: str) -> None:
    journal.note(f"left {close_code} {close_reason}")


async def close_itself(data: str, socket: Socket) -> str:
    """Closes twice, then tries everything that is over."""
    journal.note(f"got {data}")
    await socket.close(4001, "enough")
    await socket.close(4002, "too late")
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "send_text": lambda: socket.send_text("late"),
        "receive_text": socket.receive_text,
        "accept": socket.accept,
        "receive": socket.receive,
    }
    for name, call in calls.items():
        try:
            await call()
        except ConnectionStateError:
            journal.note(f"refused {name}")
    return "a reply that is dropped"


class OwnSocket(WebSocket[Any, Any, Any]):
    """One whose messages go through methods of its own."""

    async def receive_data(self, mode: Mode) -> str | bytes:
        return await super().receive_data(mode)


CLOSES_ITSELF: Final[list[Any]] = [
    listener("/closes-itself", close_itself, on_disconnect=left),
    listener("/closes-itself/concurrent", close_itself, on_disconnect=left, max_concurrency=2),
    listener("/closes-itself/own-class", close_itself, on_disconnect=left, websocket_class=OwnSocket),
]


@websocket_listener("/counted", on_disconnect=left)
def counted(data: str) -> str:
    journal.note(f"got {data}")
    return data


@websocket("/sends-on")
async def sends_on(socket: Socket) -> None:
    """Sends until a send raises, or it is cancelled, because the client has left; and once more."""
    await socket.accept()
    try:
        while True:
            await socket.send_text("on and on")
            await asyncio.sleep(0.001)
    finally:
        try:
            await socket.send_text("again")
        except WebSocketDisconnect as told:
            journal.note(f"told {told.code}")


@websocket_listener("/nan")
def nan(data: str) -> list[float]:
    return [float("nan"), float("inf"), -float("inf")]


route_handlers: list[RouteHandler] = [
    *BEFORE_ACCEPT,
    *AFTER_ACCEPT,
    *AT_ONCE,
    *WHEN_GONE,
    meant_before,
    meant_after,
    close_with,
    close_with_event,
    close_because,
    *CLOSES_ITSELF,
    counted,
    sends_on,
    nan,
]
errors = Router(path="/errors", route_handlers=route_handlers)
