"""The same with async listeners."""

from __future__ import annotations

from benchmarks.messages import Move, Moved, moved
from telex import Telex, websocket_listener


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


APPS = {"text": text, "json": typed}
