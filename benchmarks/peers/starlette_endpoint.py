"""Starlette's WebSocket endpoints. It validates nothing, so the typed app has msgspec by hand."""

from __future__ import annotations

from functools import partial

import msgspec
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from benchmarks.messages import Move, moved
from benchmarks.peers import ROUTE


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for message in websocket.iter_text():
        await websocket.send_text(message)


async def move(websocket: WebSocket) -> None:
    await websocket.accept()
    decoder, encoder = msgspec.json.Decoder(Move), msgspec.json.Encoder()
    async for message in websocket.iter_text():
        await websocket.send_text(encoder.encode(moved(decoder.decode(message))).decode())


def text() -> Starlette:
    return Starlette(routes=[WebSocketRoute("/", echo)])


def typed() -> Starlette:
    return Starlette(routes=[WebSocketRoute("/", move)])


def routes(count: int) -> Starlette:
    return Starlette(routes=[WebSocketRoute(ROUTE.format(number, "{name}"), echo) for number in range(count)])


APPS = {"text": text, "json": typed, "routes-10": partial(routes, 10), "routes-1000": partial(routes, 1000)}
