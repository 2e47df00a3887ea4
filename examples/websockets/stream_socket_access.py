"""A stream may take ``socket`` too."""

import asyncio
import time
from collections.abc import AsyncGenerator

from telex import Telex, WebSocket, websocket_stream


@websocket_stream("/")
async def clock(socket: WebSocket) -> AsyncGenerator[dict[str, float | str], None]:
    host = socket.client.host if socket.client else "nobody"
    while True:
        yield {"time": time.time(), "client": host}
        await asyncio.sleep(0.5)


app = Telex([clock])
