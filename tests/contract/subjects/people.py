"""Connections whose users are named in the address, and a desk that tells, counts and closes them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any, Final

from telex import Authenticate, Identity, Router, WebSocket, websocket, websocket_listener, websocket_stream
from telex.routing import RouteHandler
from tests.contract.subjects.journal import journal

leaves: Final[dict[str, threading.Event]] = {}
"""Lets the thread of a user end."""
opens: Final[dict[str, asyncio.Event]] = {}
"""Lets the provider of a user answer."""


async def who(token: str) -> Identity[str]:
    if token.startswith("late"):
        opens[token] = asyncio.Event()
        journal.note("asked")
        await opens[token].wait()
        del opens[token]
    return Identity(token)


async def leave(socket: WebSocket) -> None:
    journal.note(f"left {socket.close_code} {socket.close_reason}")


@websocket_listener("/idle", on_disconnect=leave)
async def idle(data: str) -> str:
    return data


@websocket_listener("/busy", on_disconnect=leave)
async def busy(data: str) -> None:
    journal.note("busy")
    try:
        await asyncio.Event().wait()
    finally:
        journal.note("busy ended")


@websocket_listener("/thread", on_disconnect=leave, sync_to_thread=True)
def thread(data: str, socket: WebSocket) -> None:
    event = leaves[socket.user] = threading.Event()
    journal.note("busy")
    event.wait(20)
    del leaves[socket.user]
    journal.note("busy ended")


@websocket_stream("/stream")
async def stream() -> AsyncGenerator[str, None]:
    journal.note("busy")
    try:
        await asyncio.Event().wait()
        yield "never"
    finally:
        journal.note("busy ended")


@websocket("/raw")
async def raw(socket: WebSocket) -> None:
    await socket.accept()
    try:
        await socket.receive_text()
        journal.note("busy")
        await asyncio.Event().wait()
    finally:
        journal.note("busy ended")


@websocket_listener("/desk", authenticate=None)
async def desk(data: list[Any], socket: WebSocket) -> int:
    command, name, *rest = data
    users = socket.app.users
    match command:
        case "notify":
            await users.notify(name, *rest)
        case "close":
            await users.close(name, *rest)
        case "open":
            opens[name].set()
        case "let go":
            leaves[name].set()
        case "count":
            return await users.count(name)
    return len(users.connections(name))


route_handlers: list[RouteHandler] = [idle, busy, thread, stream, raw, desk]
people = Router("/people", route_handlers=route_handlers, authenticate=Authenticate(who, query="user"))
