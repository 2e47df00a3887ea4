"""aiohttp's own server on uvloop, with msgspec by hand for the typed app."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import msgspec
import uvloop
from aiohttp import WSMsgType, web

from benchmarks.messages import Move, moved


async def text(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    async for message in websocket:
        if message.type is WSMsgType.TEXT:
            await websocket.send_str(message.data)
    return websocket


async def typed(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    decoder, encoder = msgspec.json.Decoder(Move), msgspec.json.Encoder()
    async for message in websocket:
        if message.type is WSMsgType.TEXT:
            await websocket.send_str(encoder.encode(moved(decoder.decode(message.data))).decode())
    return websocket


def app(handler: Callable[[web.Request], object]) -> Callable[[], web.Application]:
    def make() -> web.Application:
        made = web.Application()
        made.router.add_get("/", handler)  # type: ignore[arg-type]
        return made

    return make


APPS = {"text": app(text), "json": app(typed)}


def serve(name: str, listening: socket.socket) -> None:
    """Serves until the process is killed."""

    async def run() -> None:
        runner = web.AppRunner(APPS[name](), access_log=None)
        await runner.setup()
        await web.SockSite(runner, listening, backlog=2048).start()
        await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(run())
