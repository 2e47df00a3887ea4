"""An app whose routes stall, for servers that run as processes with little memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from telex import Multiplex, Telex, WebSocket, websocket, websocket_listener, websocket_stream

LARGE: Final = "x" * 1_000_000


@websocket_listener("/echo")
async def echo(data: str) -> str:
    return data


@websocket_listener("/stalled")
async def stalled(data: str) -> None:
    await asyncio.Event().wait()


@websocket("/raw")
async def raw(socket: WebSocket) -> None:
    await socket.accept()
    await socket.receive_text()
    await asyncio.Event().wait()


@websocket_stream("/large")
async def large() -> AsyncGenerator[str, None]:
    while True:
        yield LARGE


app = Telex([echo, stalled, raw, large, Multiplex("/socket", routes=Multiplex.ALL)])
