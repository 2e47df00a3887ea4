"""Litestar's listeners. Only a DTO makes it decode and validate a message, so the typed app has one."""

from __future__ import annotations

from functools import partial
from typing import Any

from litestar import Litestar, WebSocket, websocket
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.dto import MsgspecDTO
from litestar.handlers.websocket_handlers import websocket_listener
from litestar.params import FromPath

from benchmarks.messages import READY, Move, Moved, moved
from benchmarks.peers import ROUTE, ROUTE_COUNTS

Socket = WebSocket[Any, Any, Any]


def text() -> Litestar:
    @websocket_listener("/")
    async def echo(data: str) -> str:
        return data

    return Litestar([echo], openapi_config=None, logging_config=None)


def typed() -> Litestar:
    @websocket_listener("/", dto=MsgspecDTO[Move], return_dto=None)
    async def move(data: Move) -> Moved:
        return moved(data)

    return Litestar([move], openapi_config=None, logging_config=None)


def fanout() -> Litestar:
    subscribers: set[Socket] = set()

    async def subscribe(socket: Socket) -> None:
        subscribers.add(socket)
        await socket.send_text(READY)

    async def unsubscribe(socket: Socket) -> None:
        subscribers.discard(socket)

    @websocket_listener("/", on_accept=subscribe, on_disconnect=unsubscribe)
    async def ignore(data: str) -> None: ...

    @websocket_listener("/publish")
    async def publish(data: str) -> None:
        for subscriber in tuple(subscribers):
            await subscriber.send_text(data)

    return Litestar([ignore, publish], openapi_config=None, logging_config=None)


def channels() -> Litestar:
    @websocket("/")
    async def subscribe(socket: Socket, channels: ChannelsPlugin) -> None:
        await socket.accept()
        async with channels.start_subscription("news") as events, events.run_in_background(socket.send_text):
            await socket.send_text(READY)
            async for _ in socket.iter_data("text"):
                pass

    @websocket_listener("/publish")
    async def publish(data: str, channels: ChannelsPlugin) -> None:
        channels.publish(data.encode(), "news")

    plugin = ChannelsPlugin(MemoryChannelsBackend(), channels=["news"])
    return Litestar([subscribe, publish], plugins=[plugin], openapi_config=None, logging_config=None)


def routes(count: int) -> Litestar:
    @websocket_listener([ROUTE.format(number, "{name:str}") for number in range(count)])
    async def echo(data: str, name: FromPath[str]) -> str:
        return data

    return Litestar([echo], openapi_config=None, logging_config=None)


APPS = {
    "text": text,
    "json": typed,
    "fanout": fanout,
    "channels": channels,
    **{f"routes-{count}": partial(routes, count) for count in ROUTE_COUNTS},
}
