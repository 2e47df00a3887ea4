"""Handlers that are called in frames, and that ask their own clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

from telex import Provide, Router, WebSocket, websocket, websocket_listener, websocket_stream
from telex.routing import RouteHandler
from tests.contract.subjects.journal import journal

Socket = WebSocket[Any, Any, Any]
LIMITS: Final[dict[str, Any]] = {"max_calls": 4, "max_streams": 2}


class NoSuchRoom(Exception):
    """An error that callers may see."""

    def __init__(self, room: str) -> None:
        super().__init__(f"no room {room}")
        self.room = room


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def resource() -> AsyncGenerator[str, None]:
    journal.note("opened")
    try:
        yield "resource"
    finally:
        journal.note("released")


@websocket_listener("/ask/async", **LIMITS)
async def ask(data: str, socket: Socket) -> str:
    return f"{data} {await socket.call('why?', str, timeout=20)}"


@websocket_listener("/ask/concurrent", max_concurrency=4, **LIMITS)
async def ask_concurrently(data: str, socket: Socket) -> str:
    return f"{data} {await socket.call('why?', str, timeout=20)}"


@websocket_listener("/ask/thread", sync_to_thread=True, dependencies={"loop": Provide(running_loop)}, **LIMITS)
def ask_in_a_thread(data: str, socket: Socket, loop: asyncio.AbstractEventLoop) -> str:
    answer = asyncio.run_coroutine_threadsafe(socket.call("why?", str, timeout=20), loop).result()
    return f"{data} {answer}"


@websocket_listener("/ask/scoped", dependencies={"thing": Provide(resource, scope="message")}, **LIMITS)
async def ask_with_a_resource(data: str, socket: Socket, thing: str) -> str:
    return f"{data} {await socket.call('why?', str, timeout=20)}"


@websocket("/ask/raw", protocol="telex.v1", **LIMITS)
async def ask_raw(socket: Socket) -> None:
    async for message in socket.incoming(str):
        await message.reply(f"{message.data} {await socket.call('why?', str, timeout=20)}")


@websocket_listener("/sync", errors=[NoSuchRoom], **LIMITS)
def sync(data: str) -> str:
    if data == "error":
        raise NoSuchRoom("7")
    return data.upper()


@websocket_listener("/async", errors=[NoSuchRoom], call_timeout=30, **LIMITS)
async def asynchronous(data: str) -> str | None:
    if data == "error":
        raise NoSuchRoom("7")
    if data == "wait":
        journal.note("waits")
        try:
            await asyncio.Event().wait()
        finally:
            journal.note("ended")
    return data.upper()


@websocket_listener("/void", **LIMITS)
async def void(data: str) -> None:
    journal.note(data)


@websocket_listener("/bytes", **LIMITS)
async def binary(data: bytes) -> bytes:
    return data[::-1]


@websocket_listener("/parts", **LIMITS)
async def parts(data: int) -> AsyncIterator[int]:
    journal.note("begins")
    try:
        for number in range(data):
            yield number
    finally:
        journal.note("closed")


@websocket_stream("/stream")
async def stream() -> AsyncGenerator[int, None]:
    journal.note("begins")
    try:
        yield 1
        await asyncio.Event().wait()
    finally:
        journal.note("closed")


handlers: Final[list[RouteHandler]] = [
    ask,
    ask_concurrently,
    ask_in_a_thread,
    ask_with_a_resource,
    ask_raw,
    sync,
    asynchronous,
    void,
    binary,
    parts,
    stream,
]
calls: Final = Router("/calls", route_handlers=handlers)
