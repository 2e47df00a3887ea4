"""Telex as its documentation shows it, with sync listeners."""

from __future__ import annotations

from functools import partial

from benchmarks.messages import READY, Move, Moved, moved
from benchmarks.peers import ROUTE, ROUTE_COUNTS
from telex import Telex, WebSocket, websocket, websocket_listener
from telex.channels import Channels, MemoryBackend
from telex.channels.delivery.encoding import as_text
from telex.channels.delivery.forward import forward
from telex.channels.delivery.subscriber import streams_of


def text() -> Telex:
    @websocket_listener("/")
    def echo(data: str) -> str:
        return data

    return Telex([echo])


def typed() -> Telex:
    @websocket_listener("/")
    def move(data: Move) -> Moved:
        return moved(data)

    return Telex([move])


def channels() -> Telex:
    @websocket("/")
    async def subscribe(socket: WebSocket, channels: Channels) -> None:
        async with channels.subscribe("news") as events:
            await socket.send_text(READY)
            # Beside the handler, as channel_listener does.
            streams_of(socket).start(forward(events, socket, as_text))
            await socket.receive()

    @websocket_listener("/publish")
    def publish(data: str, channels: Channels) -> None:
        channels.publish_nowait("news", data)

    return Telex([subscribe, publish], plugins=[Channels(MemoryBackend(), channels=["news"])])


def routes(count: int) -> Telex:
    @websocket_listener([ROUTE.format(number, "{name:str}") for number in range(count)])
    def echo(data: str, name: str) -> str:
        return data

    return Telex([echo])


APPS = {
    "text": text,
    "json": typed,
    "channels": channels,
    **{f"routes-{count}": partial(routes, count) for count in ROUTE_COUNTS},
}
