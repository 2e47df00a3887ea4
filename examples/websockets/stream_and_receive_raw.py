"""A low-level handler that streams and receives at once, with anyio's task group."""

import time
from collections.abc import AsyncGenerator

import anyio

from telex import Telex, WebSocket, send_websocket_stream, websocket


@websocket("/")
async def handler(socket: WebSocket) -> None:
    await socket.accept()
    client_left = anyio.Event()

    async def clock() -> AsyncGenerator[float, None]:
        while not client_left.is_set():
            yield time.time()
            with anyio.move_on_after(0.5):
                await client_left.wait()

    async def answer() -> None:
        async for message in socket.iter_json():
            await socket.send_json({"received": message})
        client_left.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send_websocket_stream, socket, clock())
        tasks.start_soon(answer)


app = Telex([handler])
