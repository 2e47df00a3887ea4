import asyncio
import signal
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import FrameType

from telex import Telex, websocket_listener


@websocket_listener("/rooms/{room:int}")
async def room(data: str, room: int) -> str:
    return data


@asynccontextmanager
async def drained_first(app: Telex) -> AsyncGenerator[None, None]:
    """On SIGTERM, drain the app before the server stops."""
    server_stops = signal.getsignal(signal.SIGTERM)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not callable(server_stops) or not in_main_thread:
        yield
        return
    loop, draining = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    async def drain(number: int, frame: FrameType | None) -> None:
        await app.connections.drain()
        server_stops(number, frame)

    def begin(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(lambda: draining.add(loop.create_task(drain(number, frame))))

    signal.signal(signal.SIGTERM, begin)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, server_stops)


app = Telex([room], lifespan=[drained_first])
