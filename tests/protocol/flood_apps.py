"""Handlers for clients that send much and read nothing, in server processes with little memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from telex import Multiplex, Telex, ValidationException, WebSocket, websocket_listener


@websocket_listener("/echo")
async def echo(data: str) -> str:
    return data


@websocket_listener("/sync")
def sync(data: str) -> str:
    return data


@websocket_listener("/stuck")
async def stuck(data: str) -> None:
    await asyncio.Event().wait()


@websocket_listener("/parts")
async def parts(data: str) -> AsyncIterator[str]:
    while True:
        yield data


@websocket_listener("/ask", max_concurrency=32)
async def ask(data: str, socket: WebSocket) -> str:
    return await socket.call(data, str, timeout=3600)


async def explain(socket: WebSocket, exc: Exception) -> Any:
    await asyncio.Event().wait()


@websocket_listener("/explained", exception_handlers={ValidationException: explain})
async def explained(data: int) -> int:
    return data


app = Telex([echo, sync, stuck, parts, ask, explained, Multiplex("/socket", routes=Multiplex.ALL)])
