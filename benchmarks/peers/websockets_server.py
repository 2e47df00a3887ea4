"""The websockets library's own server on uvloop, with msgspec by hand for the typed app."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import uvloop
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets

from benchmarks.messages import Move, moved


async def text(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def typed(connection: ServerConnection) -> None:
    decoder, encoder = msgspec.json.Decoder(Move), msgspec.json.Encoder()
    async for message in connection:
        await connection.send(encoder.encode(moved(decoder.decode(message))), text=True)


APPS = {"text": text, "json": typed}


def serve(app: str, listening: socket.socket) -> None:
    """Serves until the process is killed."""

    async def run() -> None:
        async with serve_websockets(APPS[app], sock=listening) as server:
            await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
