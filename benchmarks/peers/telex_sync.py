"""Telex as its documentation shows it, with sync listeners."""

from __future__ import annotations

from functools import partial

from benchmarks.messages import Move, Moved, moved
from benchmarks.peers import ROUTE
from telex import Telex, websocket_listener


def text() -> Telex:
    @websocket_listener("/")
    def echo(data: str) -> str:
        return data

    return Telex([echo])


def typed() -> Telex:
    @websocket_listener("/")
    def move(data: Move) -> Moved:
        return moved(data)

    return Telex([move])


def routes(count: int) -> Telex:
    @websocket_listener([ROUTE.format(number, "{name:str}") for number in range(count)])
    def echo(data: str, name: str) -> str:
        return data

    return Telex([echo])


APPS = {"text": text, "json": typed, "routes-10": partial(routes, 10), "routes-1000": partial(routes, 1000)}
