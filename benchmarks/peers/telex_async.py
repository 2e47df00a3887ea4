"""The same with async listeners."""

from __future__ import annotations

from benchmarks.messages import READY, Move, Moved, moved
from telex import Telex, WebSocket, websocket, websocket_listener
from telex.channels import Channels, MemoryBackend
from telex.channels.delivery.encoding import as_text
from telex.channels.delivery.forward import forward
from telex.channels.delivery.subscriber import streams_of


def text() -> Telex:
    @websocket_listener("/")
    async def echo(data: str) -> str:
        return data

    return Telex([echo])


def typed() -> Telex:
    @websocket_listener("/")
    async def move(data: Move) -> Moved:
        return moved(data)

    return Telex([move])


def asks() -> Telex:
    @websocket_listener("/")
    async def ask(data: Move, socket: WebSocket) -> Moved:
        return moved(await socket.call(data, Move))

    return Telex([ask])


async def greet(socket: WebSocket) -> None:
    await socket.send_text(READY)


def fanout() -> Telex:
    @websocket_listener("/", on_accept=greet)
    async def ignore(data: str) -> None: ...

    @websocket_listener("/publish")
    async def publish(data: str, socket: WebSocket) -> None:
        for other in socket.app.connections:
            if other is not socket:
                await other.send_text(data)

    return Telex([ignore, publish])


def channels() -> Telex:
    @websocket("/")
    async def subscribe(socket: WebSocket, channels: Channels) -> None:
        async with channels.subscribe("news") as events:
            await socket.send_text(READY)
            # Beside the handler, as channel_listener does.
            streams_of(socket).start(forward(events, socket, as_text))
            await socket.receive()

    @websocket_listener("/publish")
    async def publish(data: str, channels: Channels) -> None:
        await channels.publish("news", data)

    return Telex([subscribe, publish], plugins=[Channels(MemoryBackend(), channels=["news"])])


APPS = {"text": text, "json": typed, "fanout": fanout, "channels": channels, "asks": asks}
