"""What happens before accept: origins, credentials, paths, parameters, and what an app may say in its accept."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncGenerator
from typing import Any, Final

from telex import (
    Controller,
    FromCookie,
    FromHeader,
    NotAuthorizedException,
    Provide,
    Router,
    Telex,
    WebSocket,
    WebsocketListener,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.routing import RouteHandler
from telex.types import ASGIApp, Receive, Scope, Send
from tests.contract.subjects.journal import journal

Socket = WebSocket[Any, Any, Any]


# -- origins


def noting_middleware(app: ASGIApp) -> ASGIApp:
    async def note_and_pass(scope: Scope, receive: Receive, send: Send) -> None:
        journal.note("middleware")
        await app(scope, receive, send)

    return note_and_pass


def noting_guard(_: Socket) -> None:
    journal.note("guard")


def noting_provider() -> str:
    journal.note("dependency")
    return "made"


def say_entered(data: str, made: str) -> str:
    journal.note("handler")
    return data


def entered_at(path: str, **options: Any) -> Any:
    return websocket_listener(path, guards=[noting_guard], dependencies={"made": Provide(noting_provider)}, **options)(
        say_entered
    )


LISTED: Final = ["https://good.com", "http://plain.test:8080", "*.example.com", "bare.test"]

origins = Router(
    path="/origin",
    route_handlers=[
        entered_at("/own"),
        entered_at("/own/behind", middleware=[noting_middleware]),
        entered_at("/listed", allowed_origins=LISTED),
        entered_at("/any", allowed_origins=["*"]),
    ],
)


# -- accept


INJECTIONS: Final[dict[str, dict[str, Any]]] = {
    "crlf-in-value": {"headers": {"x-note": "a\r\nset-cookie: evil=1"}},
    "lf-in-value": {"headers": {"x-note": "a\nset-cookie: evil=1"}},
    "nul-in-value": {"headers": {"x-note": "a\0b"}},
    "crlf-in-name": {"headers": {"x-note\r\nset-cookie": "evil=1"}},
    "space-in-name": {"headers": {"x note": "1"}},
    "colon-in-name": {"headers": {"set-cookie: evil=1; x": "1"}},
    "empty-name": {"headers": {"": "1"}},
    "not-latin-1": {"headers": {"x-note": "→"}},
    "bytes-with-crlf": {"headers": [(b"x-note", b"a\r\nset-cookie: evil=1")]},
    "accept-key": {"headers": {"Sec-WebSocket-Accept": "bogus"}},
    "extensions": {"headers": {"sec-websocket-extensions": "permessage-deflate"}},
    "protocol-as-header": {"headers": {"sec-websocket-protocol": "chat"}},
    "connection": {"headers": {"connection": "close"}},
    "upgrade": {"headers": {"upgrade": "h2c"}},
    "content-length": {"headers": {"content-length": "5"}},
    "transfer-encoding": {"headers": {"transfer-encoding": "chunked"}},
    "subprotocol-not-offered": {"subprotocols": "admin"},
    "subprotocol-with-crlf": {"subprotocols": "chat\r\nset-cookie: evil=1"},
}


@websocket("/accept/{case:str}")
async def accept_with(socket: Socket, case: str) -> None:
    await socket.accept(**INJECTIONS[case])


@websocket("/accept-event/{case:str}")
async def accept_with_event(socket: Socket, case: str) -> None:
    given = INJECTIONS[case]
    headers = given.get("headers", {})
    pairs = headers.items() if isinstance(headers, dict) else headers
    await socket.send(
        {"type": "websocket.accept", "subprotocol": given.get("subprotocols"), "headers": list(pairs)},
    )


@websocket("/accept-well")
async def accept_well(socket: Socket) -> None:
    await socket.accept(subprotocols=["v3", "v2", "v1"], headers={"x-note": "grüße", "set-cookie": "a=1"})


@websocket("/deny-with/{case:str}")
async def deny_with(socket: Socket, case: str) -> None:
    await socket.deny(403, {"detail": "no"}, **INJECTIONS[case])


@websocket("/never-accepts")
async def never_accepts(socket: Socket) -> None:
    journal.note("handler")


# -- paths and parameters


@websocket("/seen")
async def seen(socket: Socket) -> None:
    await socket.send_json({"path": socket.scope["path"], "url": str(socket.url), "url.path": socket.url.path})


@websocket("/typed/{number:int}/{day:date}")
async def typed(
    socket: Socket,
    number: int,
    day: dt.date,
    limit: int,
    x_token: FromHeader[int],
    session_id: FromCookie[int],
    page: int = 1,
) -> None:
    journal.note("handler")
    await socket.send_json([number, day, limit, x_token, session_id, page])


@websocket("/files/{name:str}")
async def files(socket: Socket, name: str) -> None:
    await socket.send_json(["files", name])


@websocket("/tree/{rest:path}")
async def tree(socket: Socket, rest: str) -> None:
    await socket.send_json(["tree", rest])


handshakes = Router(
    route_handlers=[
        origins,
        accept_with,
        accept_with_event,
        accept_well,
        deny_with,
        never_accepts,
        seen,
        typed,
        files,
        tree,
    ]
)


# -- an app that refuses clients without a token


def need_token(socket: Socket) -> None:
    if socket.headers.get("authorization") != "Bearer token":
        raise NotAuthorizedException("who are you?", headers={"www-authenticate": "Bearer"})


@websocket_listener("/listener")
def secret_listener(data: str) -> str:
    journal.note("handler")
    return data


@websocket("/raw")
async def secret_raw(socket: Socket) -> None:
    journal.note("handler")
    await socket.accept()


@websocket_stream("/stream")
async def secret_stream() -> AsyncGenerator[str, None]:
    journal.note("handler")
    yield "secret"


class SecretListener(WebsocketListener):
    path = "/class"

    def on_accept(self) -> None:
        journal.note("handler")

    def on_receive(self, data: str) -> str:
        return data


class SecretController(Controller):
    path = "/controller"

    @websocket_listener("/{name:str}")
    async def listen(self, data: str, name: str) -> str:
        journal.note("handler")
        return name


SECRETS: Final[list[RouteHandler]] = [secret_listener, secret_raw, secret_stream, SecretListener, SecretController]

guarded = Telex([*SECRETS, Router(path="/router", route_handlers=SECRETS)], guards=[need_token])

guarded_below = Telex(
    [
        Router(path="/router", route_handlers=SECRETS, guards=[need_token]),
        websocket_listener("/handler", guards=[need_token])(secret_listener.fn),
    ]
)
