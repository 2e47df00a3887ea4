"""Handlers whose clients log in with a token of the header, or in the first frame: ``name/seconds``."""

from __future__ import annotations

from telex import Authenticate, Identity, NotAuthorizedException, Router, WebSocket, websocket, websocket_listener
from tests.contract.subjects.journal import journal


async def who(token: str) -> Identity[str]:
    name, _, seconds = token.partition("/")
    if name != "ada":
        raise NotAuthorizedException("log in first")
    return Identity(name, expires_in=float(seconds) if seconds else None)


def on_disconnect(close_code: int) -> None:
    journal.note(f"ended {close_code}")


def say(data: str, socket: WebSocket[str]) -> str:
    return f"{socket.user}: {data}"


async def say_later(data: str, socket: WebSocket[str]) -> str:
    return say(data, socket)


async def say_itself(socket: WebSocket[str]) -> None:
    await socket.accept()
    try:
        async for message in socket.incoming(str):
            await message.reply(say(message.data, socket))
    finally:
        on_disconnect(socket.close_code or 0)


def of(prefix: str, option: Authenticate) -> Router:
    return Router(
        prefix,
        route_handlers=[
            websocket_listener("/sync", on_disconnect=on_disconnect)(say),
            websocket_listener("/async", on_disconnect=on_disconnect)(say_later),
            websocket("/raw", protocol="telex.v1")(say_itself),
        ],
        authenticate=option,
    )


logins = Router(
    "/logins",
    route_handlers=[
        of("/header", Authenticate(who, bearer=True)),
        of("/in-band", Authenticate(who, in_band=True)),
    ],
)
