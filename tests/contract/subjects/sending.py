"""Handlers that send much, in order, and to clients that do not read."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from telex import Router, WebSocket, websocket, websocket_listener
from telex.exceptions import ConcurrencyError
from telex.routing import RouteHandler
from tests.contract.subjects.journal import journal

Socket = WebSocket[Any, Any, Any]
GATHERED: Final = 500
FILLING: Final = "x" * 5000
CHUNK: Final = b"x" * 65536


@websocket("/gathered")
async def gathered(socket: Socket) -> None:
    """Many sends at once, from as many tasks."""
    await socket.receive_text()
    await asyncio.gather(*(socket.send_text(f"{number:04} {FILLING}") for number in range(GATHERED)))


@websocket("/received-twice")
async def received_twice(socket: Socket) -> None:
    await socket.accept()

    async def receive(name: str) -> None:
        try:
            text = await socket.receive_text()
        except ConcurrencyError:
            journal.note(f"{name} refused")
        else:
            journal.note(f"{name} got {text}")

    async with asyncio.TaskGroup() as group:
        group.create_task(receive("first"))
        await asyncio.sleep(0)
        group.create_task(receive("second"))


@websocket_listener("/closes-after-work")
async def close_after_work(data: str, socket: Socket) -> None:
    """Works until the connection is read ahead on, then closes it."""
    while not socket.event_reader.reads_ahead:  # noqa: ASYNC110 - nothing tells when
        await asyncio.sleep(0.005)
    await socket.close(4001, data)


running = 0
most = 0


async def count_running(data: int) -> int:
    global running, most
    running += 1
    most = max(most, running)
    await asyncio.sleep(0.002 if data % 2 else 0)
    running -= 1
    return data


@websocket_listener("/one-after-another")
async def one_after_another(data: int) -> list[int]:
    return [await count_running(data), take_most()]


@websocket_listener("/four-at-once", max_concurrency=4)
async def four_at_once(data: int) -> int:
    return await count_running(data)


def take_most() -> int:
    global most
    taken, most = most, 0
    return taken


@websocket_listener("/most")
def most_at_once(data: str) -> int:
    return take_most()


sent = 0


@websocket("/for-ever")
async def for_ever(socket: Socket) -> None:
    """Sends as fast as it may, and counts."""
    global sent
    sent = 0
    await socket.accept()
    journal.note("begins")
    try:
        while True:
            await socket.send_bytes(CHUNK)
            sent += len(CHUNK)
    finally:
        journal.note("ends")


@websocket_listener("/sent")
def sent_so_far(data: str) -> int:
    return sent


released = asyncio.Event()


@websocket_listener("/busy")
async def busy(data: str) -> None:
    """Takes the first message, and no more before it is released."""
    await be_busy()


@websocket("/never-receives")
async def never_receives(socket: Socket) -> None:
    await socket.accept()
    await be_busy()


async def be_busy() -> None:
    released.clear()
    journal.note("busy")
    await released.wait()


@websocket_listener("/release")
def release(data: str) -> str:
    released.set()
    return data


route_handlers: list[RouteHandler] = [
    gathered,
    received_twice,
    close_after_work,
    one_after_another,
    four_at_once,
    most_at_once,
    for_ever,
    sent_so_far,
    busy,
    never_receives,
    release,
]
sending = Router(path="/sending", route_handlers=route_handlers)
