"""Starlette's WebSocket endpoints. It validates nothing, so the typed app has msgspec by hand."""

from __future__ import annotations

from functools import partial

import msgspec
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from benchmarks.messages import READY, Move, moved
from benchmarks.peers import ROUTE, ROUTE_COUNTS


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for message in websocket.iter_text():
        await websocket.send_text(message)


async def move(websocket: WebSocket) -> None:
    await websocket.accept()
    decoder, encoder = msgspec.json.Decoder(Move), msgspec.json.Encoder()
    async for message in websocket.iter_text():
        await websocket.send_text(encoder.encode(moved(decoder.decode(message))).decode())


async def subscribe(websocket: WebSocket) -> None:
    await websocket.accept()
    websocket.app.state.subscribers.add(websocket)
    try:
        await websocket.send_text(READY)
        async for _ in websocket.iter_text():
            pass
    finally:
        websocket.app.state.subscribers.discard(websocket)


async def publish(websocket: WebSocket) -> None:
    await websocket.accept()
    async for message in websocket.iter_text():
        for subscriber in tuple(websocket.app.state.subscribers):
            await subscriber.send_text(message)


def text() -> Starlette:
    return Starlette(routes=[WebSocketRoute("/", echo)])


def typed() -> Starlette:
    return Starlette(routes=[WebSocketRoute("/", move)])


def fanout() -> Starlette:
    app = Starlette(routes=[WebSocketRoute("/", subscribe), WebSocketRoute("/publish", publish)])
    app.state.subscribers = set()
    return app


def routes(count: int) -> Starlette:
    return Starlette(routes=[WebSocketRoute(ROUTE.format(number, "{name}"), echo) for number in range(count)])


APPS = {
    "text": text,
    "json": typed,
    "fanout": fanout,
    **{f"routes-{count}": partial(routes, count) for count in ROUTE_COUNTS},
}
