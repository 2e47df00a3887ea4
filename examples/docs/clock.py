import asyncio
import datetime as dt
from collections.abc import AsyncGenerator

from telex import Telex, websocket_stream


@websocket_stream("/clock")
async def clock() -> AsyncGenerator[dt.datetime, None]:
    while True:
        yield dt.datetime.now(dt.UTC)
        await asyncio.sleep(1)


app = Telex([clock])
