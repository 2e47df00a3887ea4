"""The websockets library's own server on uvloop, with msgspec by hand for the typed app."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast
from websockets.asyncio.server import serve as serve_websockets

from benchmarks.certificate import Certificate
from benchmarks.messages import READY, Move, moved

subscribers: set[ServerConnection] = set()


async def text(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def typed(connection: ServerConnection) -> None:
    decoder, encoder = msgspec.json.Decoder(Move), msgspec.json.Encoder()
    async for message in connection:
        await connection.send(encoder.encode(moved(decoder.decode(message))), text=True)


async def fanout(connection: ServerConnection) -> None:
    if connection.request is not None and connection.request.path == "/publish":
        async for message in connection:
            broadcast(subscribers, message)
        return
    subscribers.add(connection)
    try:
        await connection.send(READY)
        await connection.wait_closed()
    finally:
        subscribers.discard(connection)


APPS = {"text": text, "json": typed, "fanout": fanout}


def serve(app: str, listening: socket.socket, certificate: Certificate | None) -> None:
    """Serves until the process is killed."""

    async def run() -> None:
        context = certificate.for_server() if certificate else None
        async with serve_websockets(APPS[app], sock=listening, ssl=context) as server:
            await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
