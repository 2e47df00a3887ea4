"""Handshakes that are refused, each in another way; and what must not run then."""

from __future__ import annotations

from typing import Any, Final

from telex import (
    NotFoundException,
    PermissionDeniedException,
    Provide,
    Router,
    WebSocket,
    WebSocketException,
    websocket,
    websocket_listener,
)
from telex.exceptions import HTTPException, ServiceUnavailableException, TooManyRequestsException
from telex.types import ASGIApp, Receive, Scope, Send
from tests.contract.subjects.journal import journal

Socket = WebSocket[Any, Any, Any]


def told() -> None:
    journal.note("a hook ran")


def refused_at(path: str, **options: Any) -> Any:
    @websocket_listener(path, on_accept=told, on_disconnect=told, **options)
    async def handler(data: str) -> str:
        journal.note("the handler ran")
        return data

    return handler


def no(_: Socket) -> bool:
    return False


def forbidden(_: Socket) -> None:
    raise PermissionDeniedException("members only", extra={"room": 7})


def too_many(_: Socket) -> None:
    raise TooManyRequestsException("slow down", headers={"retry-after": "3"})


async def missing() -> None:
    raise NotFoundException("no such room")


def broken() -> None:
    raise KeyError("secret")


def by_events(*events: dict[str, Any]) -> Any:
    """A middleware that answers the handshake itself."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            for event in events:
                await send(event)

        return middleware

    return wrap


def response(status: int, *chunks: bytes, **headers: str) -> tuple[dict[str, Any], ...]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    last = len(chunks) - 1
    return (
        {"type": "websocket.http.response.start", "status": status, "headers": pairs},
        *(
            {"type": "websocket.http.response.body", "body": chunk, "more_body": number < last}
            for number, chunk in enumerate(chunks)
        ),
    )


def failing(app: ASGIApp) -> ASGIApp:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        raise ServiceUnavailableException("later", headers={"retry-after": "1.5"})

    return middleware


@websocket("/own-body")
async def own_body(socket: Socket) -> None:
    await socket.deny(409, {"detail": "taken"})


@websocket("/closed")
async def closed(socket: Socket) -> None:
    await socket.close(4321, "mine")


@websocket("/closed-with-status")
async def closed_with_status(socket: Socket) -> None:
    await socket.close(4410, "gone")


@websocket("/returned")
async def returned(socket: Socket) -> None: ...


@websocket("/raised", exception_handlers={KeyError: lambda *_: {"detail": "handled"}})
async def raised(socket: Socket) -> None:
    raise KeyError("secret")


def needs(name: str, provider: Any) -> dict[str, Any]:
    return {"dependencies": {name: Provide(provider)}}


@websocket_listener("/dependency", on_accept=told, on_disconnect=told, **needs("it", missing))
async def dependency(data: str, it: None) -> None: ...


@websocket_listener("/parameter", on_accept=told, on_disconnect=told)
async def parameter(data: str, since: int) -> None: ...


@websocket_listener("/broken", on_accept=told, on_disconnect=told, **needs("it", broken))
async def failing_dependency(data: str, it: None) -> None: ...


def teapot(_: Socket) -> None:
    raise HTTPException("short and stout", status_code=418)


def own_code(_: Socket) -> None:
    raise WebSocketException(4242, "mine")


LONG: Final = b"x" * 10_000

refusals = Router(
    path="/refusals",
    route_handlers=[
        refused_at("/false", guards=[no]),
        refused_at("/guard", guards=[forbidden]),
        refused_at("/later", guards=[too_many]),
        refused_at("/teapot", guards=[teapot]),
        refused_at("/code", guards=[own_code]),
        refused_at("/http", guards=[no], denials="http"),
        refused_at("/socket", guards=[no], denials="socket"),
        refused_at("/guard-behind", guards=[forbidden], middleware=[lambda app: app]),
        refused_at("/text", middleware=[by_events(*response(403, b"not ", b"you", content_type="text/plain"))]),
        refused_at("/long", middleware=[by_events(*response(403, LONG, LONG, content_type="text/plain"))]),
        refused_at("/html", middleware=[by_events(*response(401, b"<p>no</p>", content_type="text/html"))]),
        refused_at("/close", middleware=[by_events({"type": "websocket.close", "code": 4401, "reason": "log in"})]),
        refused_at("/plain-close", middleware=[by_events({"type": "websocket.close"})]),
        refused_at("/failing", middleware=[failing]),
        own_body,
        closed,
        closed_with_status,
        returned,
        raised,
        dependency,
        parameter,
        failing_dependency,
    ],
)
