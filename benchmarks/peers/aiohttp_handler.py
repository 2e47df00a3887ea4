"""aiohttp's own server on uvloop, with msgspec by hand for the typed app."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import uvloop
from aiohttp import WSMsgType, web

from benchmarks.certificate import Certificate
from benchmarks.messages import READY, Move, moved
from benchmarks.peers import ROUTE, ROUTE_COUNTS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

subscribers: set[web.WebSocketResponse] = set()


async def accept(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    return websocket


async def text(request: web.Request) -> web.WebSocketResponse:
    websocket = await accept(request)
    async for message in websocket:
        if message.type is WSMsgType.TEXT:
            await websocket.send_str(message.data)
    return websocket


async def typed(request: web.Request) -> web.WebSocketResponse:
    websocket = await accept(request)
    decoder, encoder = msgspec.json.Decoder(Move), msgspec.json.Encoder()
    async for message in websocket:
        if message.type is WSMsgType.TEXT:
            await websocket.send_str(encoder.encode(moved(decoder.decode(message.data))).decode())
    return websocket


async def subscribe(request: web.Request) -> web.WebSocketResponse:
    websocket = await accept(request)
    subscribers.add(websocket)
    try:
        await websocket.send_str(READY)
        async for _ in websocket:
            pass
    finally:
        subscribers.discard(websocket)
    return websocket


async def publish(request: web.Request) -> web.WebSocketResponse:
    websocket = await accept(request)
    async for message in websocket:
        if message.type is WSMsgType.TEXT:
            for subscriber in tuple(subscribers):
                await subscriber.send_str(message.data)
    return websocket


def app(handlers: dict[str, Handler]) -> web.Application:
    made = web.Application()
    for path, handler in handlers.items():
        made.router.add_get(path, handler)
    return made


def routes(count: int) -> web.Application:
    return app({ROUTE.format(number, "{name}"): text for number in range(count)})


APPS = {
    "text": partial(app, {"/": text}),
    "json": partial(app, {"/": typed}),
    "fanout": partial(app, {"/": subscribe, "/publish": publish}),
    **{f"routes-{count}": partial(routes, count) for count in ROUTE_COUNTS},
}


def serve(name: str, listening: socket.socket, certificate: Certificate | None) -> None:
    """Serves until the process is killed."""

    async def run() -> None:
        runner = web.AppRunner(APPS[name](), access_log=None)
        await runner.setup()
        context = certificate.for_server() if certificate else None
        await web.SockSite(runner, listening, backlog=2048, ssl_context=context).start()
        await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(run())
