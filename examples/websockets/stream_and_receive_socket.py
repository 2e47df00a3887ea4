"""The shortest way to stream and receive at once: ``socket.start_stream``. The connection owns the stream."""

import asyncio
import time
from collections.abc import AsyncGenerator

from telex import Telex, WebSocket, websocket_listener


async def clock() -> AsyncGenerator[float, None]:
    while True:
        yield time.time()
        await asyncio.sleep(0.5)


async def start_clock(socket: WebSocket) -> None:
    socket.start_stream(clock())


@websocket_listener("/", on_accept=start_clock)
def handler(data: str) -> str:
    return data


app = Telex([handler])
