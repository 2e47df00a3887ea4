"""Bad: a dependency lives as long as the stream, so the lock is held until the client leaves."""

import asyncio
import time
from collections.abc import AsyncGenerator

from telex import Provide, Telex, websocket_stream

RESOURCE_LOCK = asyncio.Lock()


async def hold_resource() -> AsyncGenerator[asyncio.Lock, None]:
    async with RESOURCE_LOCK:
        yield RESOURCE_LOCK


@websocket_stream("/", dependencies={"lock": Provide(hold_resource)})
async def clock(lock: asyncio.Lock) -> AsyncGenerator[float, None]:
    while True:
        yield time.time()
        await asyncio.sleep(0.5)


app = Telex([clock])
