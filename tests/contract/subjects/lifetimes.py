"""Handlers that are busy when their client leaves, and dependencies that have to be cleaned up whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import ContextVar
from typing import Any, Final

from telex import Provide, Router, WebSocket, websocket, websocket_listener, websocket_stream
from telex.routing import RouteHandler
from tests.contract.subjects.journal import journal

Socket = WebSocket[Any, Any, Any]
who: ContextVar[str] = ContextVar("who", default="nobody")


@contextlib.contextmanager
def noting(name: str) -> Generator[None, None, None]:
    """Notes when a handler is busy, how that ended, and that its context has not changed."""
    who.set(name)
    journal.note("in")
    try:
        yield
    except BaseException as exc:
        journal.note(f"out by {type(exc).__name__} as {who.get()}")
        raise
    journal.note(f"out as {who.get()}")


async def in_child_tasks() -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(asyncio.sleep(60))


async def in_a_lock() -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    await lock.acquire()


async def in_a_loop() -> None:
    async for _ in ticks():
        pass


async def ticks() -> AsyncGenerator[int, None]:
    while True:
        await asyncio.sleep(0.01)
        yield 1


async def in_a_timeout() -> None:
    async with asyncio.timeout(60):
        await asyncio.Event().wait()


BUSY: Final[dict[str, Callable[[], Awaitable[object]]]] = {
    "sleep": lambda: asyncio.sleep(60),
    "event": lambda: asyncio.Event().wait(),
    "gather": lambda: asyncio.gather(asyncio.sleep(60), asyncio.sleep(60)),
    "child-tasks": in_child_tasks,
    "lock": in_a_lock,
    "loop": in_a_loop,
    "timeout": in_a_timeout,
    "shield": lambda: asyncio.shield(asyncio.sleep(0.5)),
}


@websocket("/busy/raw/{case:str}")
async def busy_raw(socket: Socket, case: str) -> None:
    """Push-only: it never receives."""
    await socket.accept()
    with noting(case):
        await BUSY[case]()


@websocket_listener("/busy/listener/{case:str}")
async def busy_listener(data: str, case: str) -> None:
    with noting(case):
        await BUSY[case]()


@websocket_listener("/busy/concurrent/{case:str}", max_concurrency=3)
async def busy_concurrent(data: str, case: str) -> None:
    with noting(case):
        await BUSY[case]()


@websocket_stream("/busy/stream/{case:str}")
async def busy_stream(case: str) -> AsyncGenerator[str, None]:
    with noting(case):
        yield "first"
        await BUSY[case]()


@websocket("/busy/started/{case:str}")
async def busy_started(socket: Socket, case: str) -> None:
    async def stream() -> AsyncGenerator[str, None]:
        with noting(case):
            await BUSY[case]()
            yield "never"

    await socket.accept()
    socket.start_stream(stream())
    async for _ in socket.iter_text():
        pass


# -- dependencies


def note_exit(name: str, exc: BaseException | None) -> None:
    journal.note(f"exit {name} {type(exc).__name__ if exc else 'quietly'}")


async def outer() -> AsyncGenerator[str, None]:
    journal.note("enter outer")
    failure = None
    try:
        yield "outer"
    except BaseException as exc:
        failure = exc
        raise
    finally:
        await asyncio.sleep(0.001)
        note_exit("outer", failure)


def inner(outer: str) -> Generator[str, None, None]:
    journal.note("enter inner")
    failure = None
    try:
        yield outer
    except BaseException as exc:
        failure = exc
        raise
    finally:
        note_exit("inner", failure)


async def each(inner: str) -> AsyncGenerator[str, None]:
    journal.note("enter each")
    failure = None
    try:
        yield inner
    except BaseException as exc:
        failure = exc
        raise
    finally:
        await asyncio.sleep(0.001)
        note_exit("each", failure)


async def breaks_at_exit(outer: str) -> AsyncGenerator[str, None]:
    journal.note("enter breaks")
    try:
        yield outer
    finally:
        journal.note("exit breaks")
        raise ValueError("broken")


async def breaks_at_enter(outer: str) -> AsyncGenerator[str, None]:
    break_down()
    yield outer


def break_down() -> None:
    raise ValueError("broken")


CONNECTION: Final = {"outer": Provide(outer), "inner": Provide(inner)}
MESSAGE: Final = {**CONNECTION, "each": Provide(each, scope="message")}


@websocket("/cleanup/raw", dependencies=CONNECTION)
async def cleanup_raw(socket: Socket, inner: str) -> None:
    """Does what the message says."""
    await socket.accept()
    journal.note("ready")
    match await socket.receive_text():
        case "raise":
            raise KeyError
        case "cancel":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        case "close":
            await socket.close(4000)
        case "sleep":
            journal.note("busy")
            await asyncio.sleep(60)


@websocket_listener("/cleanup/listener", dependencies=MESSAGE, on_accept=lambda: journal.note("ready"))
async def cleanup_listener(data: str, each: str) -> str:
    if data == "raise":
        raise KeyError
    if data == "sleep":
        journal.note("busy")
        await asyncio.sleep(60)
    return data


@websocket_stream("/cleanup/stream", dependencies=CONNECTION)
async def cleanup_stream(inner: str) -> AsyncGenerator[str, None]:
    failure = None
    journal.note("ready")
    try:
        while True:
            yield inner
            await asyncio.sleep(0.005)
    except BaseException as exc:
        failure = exc
        raise
    finally:
        await asyncio.sleep(0.001)
        note_exit("stream", failure)


@websocket("/cleanup/breaks", dependencies={**CONNECTION, "breaks": Provide(breaks_at_exit)})
async def cleanup_breaks(socket: Socket, inner: str, breaks: str) -> None:
    await socket.accept()


@websocket("/cleanup/half", dependencies={**CONNECTION, "breaks": Provide(breaks_at_enter)})
async def cleanup_half(socket: Socket, inner: str, breaks: str) -> None:
    await socket.accept()


async def slow_to_enter(outer: str) -> AsyncGenerator[str, None]:
    await asyncio.sleep(0.01)
    journal.note("enter slow")
    try:
        yield outer
    finally:
        journal.note("exit slow")


@websocket_listener("/cleanup/join", dependencies={"outer": Provide(outer), "slow": Provide(slow_to_enter)})
async def join(data: str, slow: str) -> str:
    return data


async def told_on_stderr() -> AsyncGenerator[None, None]:
    """The journal ends with the process; its output does not."""
    try:
        yield
    finally:
        await asyncio.sleep(0.001)
        print("cleaned up", file=sys.stderr, flush=True)  # noqa: T201


@websocket("/shutdown", dependencies={"told": Provide(told_on_stderr)})
async def until_shutdown(socket: Socket, told: None) -> None:
    await socket.accept()
    match await socket.receive_text():
        case "sleep":
            await socket.send_text("sleeps")
            await asyncio.sleep(60)
        case "receive":
            await socket.send_text("receives")
            await socket.receive_text()
        case "send":
            while True:
                await socket.send_text("sends")
                await asyncio.sleep(0.005)


route_handlers: list[RouteHandler] = [
    busy_raw,
    busy_listener,
    busy_concurrent,
    busy_stream,
    busy_started,
    cleanup_raw,
    cleanup_listener,
    cleanup_stream,
    cleanup_breaks,
    cleanup_half,
    join,
    until_shutdown,
]
lifetimes = Router(path="/lifetimes", route_handlers=route_handlers)
