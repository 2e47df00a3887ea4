"""A handler of each kind, and what it notes: for the tests of limits of messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import msgspec

from telex import (
    NamedDependency,
    WebSocket,
    WebSocketDisconnect,
    WebsocketListener,
    channel_listener,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.limits import Limit
from telex.types import ASGIApp, Receive, Scope, Send
from tests.support.live import soon

THREE: Any = {"message_limit": Limit(1, per=3600, burst=3)}
"""Three messages; the fourth would wait for an hour."""


class Word(msgspec.Struct):
    text: str


class Journal:
    """What handlers have got, and how their connections ended."""

    def __init__(self) -> None:
        self.got: list[object] = []
        self.ends: list[int] = []
        self.changed = asyncio.Event()

    def note(self, value: object) -> None:
        self.got.append(value)
        self.changed.set()

    def note_end(self, code: int) -> None:
        self.ends.append(code)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await soon(self.changed.wait())


def all_kinds(journal: Journal) -> dict[str, Any]:
    """A handler of each kind; each notes what it takes, and the end of its connection."""
    return listeners(journal) | others(journal)


def listeners(journal: Journal) -> dict[str, Any]:
    """Listeners of both forms, through each of the message loops."""

    def on_disconnect(close_code: int) -> None:
        journal.note_end(close_code)

    def sync(data: str) -> str:
        journal.note(data)
        return data

    async def listen(data: str) -> str:
        return sync(data)

    def typed(data: Word) -> Word:
        return Word(sync(data.text))

    class Listening(WebsocketListener):
        path = "/class"

        async def on_receive(self, data: str) -> str:
            return sync(data)

        def on_disconnect(self, close_code: int) -> None:
            journal.note_end(close_code)

    class Own(WebSocket):
        async def receive_data(self, mode: Any) -> Any:
            return await super().receive_data(mode)

    ends: Any = {"on_disconnect": on_disconnect}
    return {
        "/sync": websocket_listener("/sync", **ends)(sync),
        "/async": websocket_listener("/async", **ends)(listen),
        "/typed": websocket_listener("/typed", **ends)(typed),
        "/beside": websocket_listener("/beside", max_concurrency=4, **ends)(listen),
        "/own-class": websocket_listener("/own-class", websocket_class=Own, **ends)(listen),
        "/wrapped": websocket_listener("/wrapped", middleware=[_passes_on], **ends)(listen),
        "/class": Listening,
    }


def others(journal: Journal) -> dict[str, Any]:
    """Handlers that read themselves, and one that publishes."""

    @websocket("/raw")
    async def raw(socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                data = await socket.receive_text()
                journal.note(data)
                await socket.send_text(data)
        except WebSocketDisconnect as left:
            journal.note_end(left.code)

    @websocket_stream("/stream")
    async def stream(socket: WebSocket) -> AsyncGenerator[str, None]:
        try:
            while True:
                data = await socket.receive_text()
                journal.note(data)
                yield data
        except WebSocketDisconnect as left:
            journal.note_end(left.code)

    def on_publish(data: str) -> str:
        journal.note(data)
        return data

    def noting(socket: WebSocket) -> Iterator[None]:
        try:
            yield
        finally:
            journal.note_end(socket.close_code or 0)

    def channel_name(noting: NamedDependency[None]) -> str:
        return "channel"

    channel = channel_listener(
        "/channel", channel=channel_name, publish=str, on_publish=on_publish, dependencies={"noting": noting}
    )
    return {"/raw": raw, "/stream": stream, "/channel": channel}


def _passes_on(app: ASGIApp) -> ASGIApp:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return middleware


PATHS = (
    "/sync",
    "/async",
    "/typed",
    "/beside",
    "/own-class",
    "/wrapped",
    "/class",
    "/raw",
    "/stream",
    "/channel",
)


def message(path: str, text: str) -> str:
    return json.dumps({"text": text}) if path == "/typed" else text
