"""Sanic in one process, with msgspec by hand for the typed app."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from sanic import Request, Sanic, Websocket

from benchmarks.certificate import Certificate
from benchmarks.messages import READY, Move, moved
from benchmarks.peers import ROUTE, ROUTE_COUNTS

Handler = Callable[[Request, Websocket], Awaitable[None]]

subscribers: set[Websocket] = set()


async def text(request: Request, websocket: Websocket, name: str = "") -> None:
    async for message in websocket:
        await websocket.send(message)


async def typed(request: Request, websocket: Websocket) -> None:
    decoder, encoder = msgspec.json.Decoder(Move), msgspec.json.Encoder()
    async for message in websocket:
        await websocket.send(encoder.encode(moved(decoder.decode(message))).decode())


async def subscribe(request: Request, websocket: Websocket) -> None:
    subscribers.add(websocket)
    try:
        await websocket.send(READY)
        async for _ in websocket:
            pass
    finally:
        subscribers.discard(websocket)


async def publish(request: Request, websocket: Websocket) -> None:
    async for message in websocket:
        for subscriber in tuple(subscribers):
            await subscriber.send(message)


def app(handlers: dict[str, Handler]) -> Any:
    made: Any = Sanic("benchmarks", configure_logging=False)
    for number, (path, handler) in enumerate(handlers.items()):
        made.add_websocket_route(handler, path, name=f"route{number}")
    return made


def routes(count: int) -> Any:
    return app({ROUTE.format(number, "<name:str>"): text for number in range(count)})


APPS = {
    "text": partial(app, {"/": text}),
    "json": partial(app, {"/": typed}),
    "fanout": partial(app, {"/": subscribe, "/publish": publish}),
    **{f"routes-{count}": partial(routes, count) for count in ROUTE_COUNTS},
}


def serve(name: str, listening: socket.socket, certificate: Certificate | None) -> None:
    """Serves until the process is killed."""
    context = certificate.for_server() if certificate else None
    APPS[name]().run(sock=listening, ssl=context, single_process=True, access_log=False, motd=False, backlog=2048)
