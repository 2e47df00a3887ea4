"""A listener that streams meanwhile: its ``connection_lifespan`` runs the stream in a task group.

The listener reads, and so detects that the client leaves; the task group then ends the stream.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from telex import Telex, WebSocket, send_websocket_stream, websocket_listener


async def clock() -> AsyncGenerator[float, None]:
    while True:
        yield time.time()
        await asyncio.sleep(0.5)


@asynccontextmanager
async def stream_beside(socket: WebSocket) -> AsyncGenerator[None, None]:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send_websocket_stream(socket, clock()))
        yield


@websocket_listener("/", connection_lifespan=stream_beside)
def handler(data: str) -> str:
    return data


app = Telex([handler])
