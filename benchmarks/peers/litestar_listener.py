"""Litestar's listeners. Only a DTO makes it decode and validate a message, so the typed app has one."""

from __future__ import annotations

from functools import partial

from litestar import Litestar
from litestar.dto import MsgspecDTO
from litestar.handlers.websocket_handlers import websocket_listener
from litestar.params import FromPath

from benchmarks.messages import Move, Moved, moved
from benchmarks.peers import ROUTE


def text() -> Litestar:
    @websocket_listener("/")
    async def echo(data: str) -> str:
        return data

    return Litestar([echo], openapi_config=None)


def typed() -> Litestar:
    @websocket_listener("/", dto=MsgspecDTO[Move], return_dto=None)
    async def move(data: Move) -> Moved:
        return moved(data)

    return Litestar([move], openapi_config=None)


def routes(count: int) -> Litestar:
    @websocket_listener([ROUTE.format(number, "{name:str}") for number in range(count)])
    async def echo(data: str, name: FromPath[str]) -> str:
        return data

    return Litestar([echo], openapi_config=None)


APPS = {"text": text, "json": typed, "routes-10": partial(routes, 10), "routes-1000": partial(routes, 1000)}
