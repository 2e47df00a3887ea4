"""The server that clients are tested against: each kind of route, on sockets of its own and on a shared one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from msgspec import Struct
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse
from starlette.routing import Route

from telex import Multiplex, Telex, WebSocket, channel_listener, websocket_listener
from telex.auth import Authenticate, Identity
from telex.channels import Channels, Heartbeat, Keep
from telex.exceptions import PermissionDeniedException, WebSocketException
from telex.handlers import Handler
from tests.clients.node import SERVED


class Add(Struct, tag="add"):
    a: int
    b: int


class Order(Struct, tag="order"):
    what: str


class Leave(Struct, tag="leave"):
    code: int
    reason: str = ""


class Sleep(Struct, tag="sleep"):
    pass


class Confirm(Struct, tag="confirm"):
    what: str


class Answer(Struct):
    yes: bool


class Ordered(Struct, tag="ordered"):
    what: str


class SoldOut(Exception):
    def __init__(self, what: str) -> None:
        super().__init__(f"no {what} is left")
        self.what = what


cancelled: list[str] = []


@websocket_listener("/desk", errors=[SoldOut], max_concurrency=8)
async def desk(data: Add | Order | Leave | Sleep, socket: WebSocket) -> int | bool | list[str]:
    match data:
        case Add(a, b):
            return a + b
        case Order("cake"):
            raise SoldOut("cake")
        case Order(what):
            answer = await socket.call(Confirm(what), Answer, timeout=5)
            await socket.notify(Ordered(what))
            return answer.yes
        case Leave(code, reason):
            raise WebSocketException(code=code, detail=reason)
        case Sleep():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append("sleep")
                raise
    return cancelled


@websocket_listener("/cancelled")
async def cancelled_calls(data: None) -> list[str]:
    return cancelled


@websocket_listener("/count")
async def count(data: int) -> AsyncIterator[int]:
    for number in range(data):
        yield number


@websocket_listener("/bytes")
async def reverse(data: bytes) -> bytes:
    return data[::-1]


def nobody(_: WebSocket, __: Handler) -> None:
    raise PermissionDeniedException("this is not yours")


@websocket_listener("/staff", guards=[nobody])
async def staff(data: str) -> str:
    return data


def who(token: str) -> Identity[str]:
    """The user of a token like ``ada.1``, which is good for two seconds."""
    return Identity(token.partition(".")[0], expires_in=2)


@websocket_listener("/me", authenticate=Authenticate(who, subprotocol=True))
async def me(data: None, socket: WebSocket) -> str:
    return str(socket.user)


@websocket_listener("/me-in-band", authenticate=Authenticate(who, in_band=True))
async def me_in_band(data: None, socket: WebSocket) -> str:
    return str(socket.user)


room = channel_listener("/rooms/{room:str}", channel="room:{room}", publish=str | int, presence=lambda: "someone")


@websocket_listener("/cut")
async def cut(data: str, socket: WebSocket) -> None:
    """Ends all connections of this process, as a server does that loses them."""
    asyncio.get_running_loop().call_later(0, lambda: asyncio.ensure_future(app.connections.drain(reason=data)))


async def page(_: Request) -> HTMLResponse:
    return HTMLResponse("<!doctype html><title>client</title>")


async def client(_: Request) -> FileResponse:
    return FileResponse(SERVED)


channels = Channels(
    os.environ.get("CHANNELS_URL", "memory://"),
    arbitrary_channels_allowed=True,
    history={"room:*": Keep(size=10_000, seconds=3600)},
    presence=Heartbeat(),
)
ROUTES = [desk, cancelled_calls, count, reverse, staff, room, cut]
app = Telex(
    [*ROUTES, me, me_in_band, Multiplex("/socket", routes=ROUTES)],
    plugins=[channels],
    http=Starlette(routes=[Route("/", page), Route("/telex.client.js", client)]),
)
