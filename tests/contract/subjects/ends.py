"""What may be running when a connection ends: each notes how it begins, how it ends, and what is told afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Generator
from typing import Annotated, Any, Final

import msgspec

from telex import Provide, Router, WebSocket, WebSocketException, websocket, websocket_listener, websocket_stream
from telex.registry import Registry
from telex.routing import RouteHandler
from tests.contract.subjects.journal import journal

Socket = WebSocket[Any, Any, Any]
LONGEST_DATA: Final = 20
LONGEST_MESSAGE: Final = 1000
Data = Annotated[str, msgspec.Meta(max_length=LONGEST_DATA)]

subject: Socket | None = None
"""The connection that a test is about."""
trigger = asyncio.Event()
"""What running handlers wait for; then they do what ``order`` says."""
order: str = ""
may_end = threading.Event()
"""What a handler in a thread waits for."""


@contextlib.contextmanager
def over() -> Generator[None, None, None]:
    """Notes that something has begun, and how it was over."""
    journal.note("begun")
    try:
        yield
    except asyncio.CancelledError:
        journal.note("cancelled")
        raise
    except GeneratorExit:
        journal.note("cancelled")  # a generator that waited at its yield
        raise
    except Exception as exc:
        journal.note(f"raised {type(exc).__name__}")
        raise
    journal.note("finished")


async def run() -> None:
    """Wait for the test's order, and follow it."""
    with over():
        await trigger.wait()
        await follow()


async def follow() -> None:
    assert subject is not None
    match order:
        case "raise":
            raise KeyError("broken")
        case "refuse":
            raise WebSocketException(4200, "refused")
        case "close":
            await subject.close(4100, "inside")


async def connection(socket: Socket) -> AsyncGenerator[None, None]:
    global subject, trigger, order
    subject, trigger, order = socket, asyncio.Event(), ""
    socket.state.loop = asyncio.get_running_loop()
    may_end.clear()
    try:
        yield
    finally:
        await asyncio.sleep(0)
        journal.note("closed")


async def told(close_code: int, close_reason: str) -> None:
    await asyncio.sleep(0)
    journal.note(f"told {close_code} {close_reason}".strip())


async def each() -> AsyncGenerator[None, None]:
    """A dependency of a message whose cleanup is at work once the reply is sent."""
    yield
    await run()


OPTIONS: Final[dict[str, Any]] = {
    "dependencies": {"it": Provide(connection)},
    "on_disconnect": told,
    "max_invalid_messages": 1,
}


@websocket_listener("/nothing", **OPTIONS)
async def nothing(data: Data, it: None) -> None:
    journal.note("begun")
    if data != "go":
        await follow_message(data)


@websocket_listener("/sync", **OPTIONS)
def sync(data: Data, it: None) -> None:
    journal.note("begun")
    if data == "raise":
        raise KeyError("broken")
    if data == "refuse":
        raise WebSocketException(4200, "refused")


async def follow_message(data: str) -> None:
    global order
    order = data
    await follow()


@websocket_listener("/async", **OPTIONS)
async def listener(data: Data, it: None) -> None:
    await run()


@websocket_listener("/concurrent", max_concurrency=4, **OPTIONS)
async def concurrent(data: Data, it: None) -> None:
    await run()


@websocket_listener("/thread", sync_to_thread=True, **OPTIONS)
def threaded(data: Data, it: None) -> None:
    assert subject is not None
    loop = subject.state.loop
    loop.call_soon_threadsafe(journal.note, "begun")
    assert may_end.wait(10)
    loop.call_soon_threadsafe(journal.note, "finished")


@websocket_listener(
    "/cleanup", **{**OPTIONS, "dependencies": {"it": Provide(connection), "each": Provide(each, scope="message")}}
)
async def cleanup(data: Data, it: None, each: None) -> str:
    return "answered"


@websocket_listener("/started", **OPTIONS)
async def started(data: Data, socket: Socket, it: None) -> None:
    async def values() -> AsyncGenerator[str, None]:
        await run()
        yield "never"

    socket.start_stream(values())


@websocket_listener("/hook", on_accept=run, **OPTIONS)
async def hook(data: Data, it: None) -> None: ...


@websocket_stream("/stream", dependencies={"it": Provide(connection)})
async def stream(it: None) -> AsyncGenerator[str, None]:
    await run()
    yield "last"


@websocket("/raw", dependencies={"it": Provide(connection)})
async def raw(socket: Socket, it: None) -> None:
    await socket.accept()
    await run()


@websocket_listener("/control")
async def control(data: str, socket: Socket) -> str:
    """What a test does to the connection from elsewhere."""
    global order
    assert subject is not None
    match data:
        case "kick":
            await subject.close(4101, "kicked")
        case "drain":
            for other in tuple(socket.app.connections):
                if other is subject:
                    await drained(other)
        case "end thread":
            may_end.set()
        case _:
            order = data
            trigger.set()
    return data


async def drained(socket: Socket) -> None:
    """What ``app.connections.drain()`` does, to one connection alone."""
    registry = Registry()
    registry.add(socket)
    await registry.drain()


route_handlers: list[RouteHandler] = [
    nothing,
    sync,
    listener,
    concurrent,
    threaded,
    cleanup,
    started,
    hook,
    stream,
    raw,
    control,
]
ends = Router(path="/ends", route_handlers=route_handlers, max_message_size=LONGEST_MESSAGE)
