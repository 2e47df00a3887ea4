"""A stream: each value that the generator yields is sent, until it ends or the client leaves."""

import asyncio
import time
from collections.abc import AsyncGenerator

from telex import Telex, websocket_stream


@websocket_stream("/")
async def clock() -> AsyncGenerator[float, None]:
    while True:
        yield time.time()
        await asyncio.sleep(0.5)


app = Telex([clock])
