"""Connections that are not accepted yet, or never, while others send to all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final

from telex import Provide, Router, WebSocket, websocket, websocket_listener, websocket_stream
from telex.exceptions import ConnectionStateError, NotAuthorizedException
from telex.routing import RouteHandler
from tests.contract.subjects.journal import journal

Socket = WebSocket[Any, Any, Any]
undecided: Final[dict[Socket, asyncio.Event]] = {}
"""The connections whose handshake waits, as an app might keep them, and what they wait for."""


async def decide(socket: Socket) -> None:
    """Wait for a send to all connections, then refuse."""
    undecided[socket] = asyncio.Event()
    journal.note("undecided")
    try:
        await undecided[socket].wait()
    finally:
        del undecided[socket]
    raise NotAuthorizedException("who are you?")


async def first_message(socket: Socket) -> None:
    """Accepts, to ask the client for its token."""
    await socket.receive_text()
    await decide(socket)


async def guard(socket: Socket, _: object) -> None:
    await decide(socket)


async def greeting_guard(socket: Socket, _: object) -> None:
    """Accepts by sending, and has not decided."""
    await socket.send_text("wait")


@websocket_listener("/guard", guards=[guard])
async def behind_guard(data: str) -> str:
    return data


@websocket_stream("/stream", guards=[guard])
async def stream_behind_guard() -> AsyncGenerator[str, None]:
    yield "never"


@websocket_listener("/dependency", dependencies={"user": Provide(decide)})
async def behind_dependency(data: str, user: None) -> str:
    return data


@websocket_listener("/accept-handler", connection_accept_handler=decide)
async def behind_accept_handler(data: str) -> str:
    return data


@websocket("/raw")
async def raw(socket: Socket) -> None:
    await decide(socket)


@websocket_listener("/accepted-guard", guards=[greeting_guard, guard])
async def behind_greeting_guard(data: str) -> str:
    return data


@websocket_listener("/accepted-dependency", dependencies={"user": Provide(first_message)})
async def behind_first_message(data: str, user: None) -> str:
    return data


@websocket_listener("/member")
async def member(data: str, socket: Socket) -> int:
    """Sends to all connections of the app, and to all that this module keeps; returns the number of the app's."""
    known = [each for each in socket.app.connections if each.scope["path"].startswith("/strangers/")]
    for each in known:
        await each.send_text(f"to all: {data}")
    for each, decided in tuple(undecided.items()):
        if not each.was_accepted:
            await refused_sends(each, data)
        decided.set()
    return len(known)


async def refused_sends(socket: Socket, data: str) -> None:
    """Every way to send to one connection."""

    async def values() -> AsyncGenerator[str, None]:
        yield data

    for sending in (socket.send_text(data), socket.send_bytes(data), socket.send_json(data), socket.send_msgpack(data)):
        try:
            await sending
        except ConnectionStateError:
            journal.note("refused")
    stream = values()
    try:
        socket.start_stream(stream)
    except ConnectionStateError:
        journal.note("refused")
        await stream.aclose()


@websocket("/own-tasks")
async def own_tasks(socket: Socket) -> None:
    """What the handler starts accepts by sending, as the handler itself does."""

    async def values() -> AsyncGenerator[str, None]:
        yield "from it"

    if socket.query_params["by"] == "stream":
        await socket.start_stream(values())
    else:
        await asyncio.create_task(socket.send_text("from it"))
    journal.note(f"accepted: {socket.was_accepted}")


route_handlers: list[RouteHandler] = [
    behind_guard,
    stream_behind_guard,
    behind_dependency,
    behind_accept_handler,
    raw,
    behind_greeting_guard,
    behind_first_message,
    member,
    own_tasks,
]
strangers = Router(path="/strangers", route_handlers=route_handlers)
