"""Good: the lock is taken where it is needed, for as long as it is needed."""

import asyncio
import time
from collections.abc import AsyncGenerator

from telex import Telex, websocket_stream

RESOURCE_LOCK = asyncio.Lock()


@websocket_stream("/")
async def clock() -> AsyncGenerator[float, None]:
    while True:
        async with RESOURCE_LOCK:
            now = time.time()
        yield now
        await asyncio.sleep(0.5)


app = Telex([clock])
