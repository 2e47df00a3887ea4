import asyncio
from collections.abc import AsyncGenerator

from telex import Telex, WebSocket, websocket_listener


async def progress(job: str) -> AsyncGenerator[str, None]:
    for percent in (0, 50, 100):
        yield f"{job}: {percent} %"
        await asyncio.sleep(0.01)


@websocket_listener("/jobs")
async def start_job(data: str, socket: WebSocket) -> None:
    socket.start_stream(progress(data))


@websocket_listener("/job")
async def one_job(data: str, socket: WebSocket) -> None:
    """Stop the job that runs, and start the next."""
    running: asyncio.Task[None] | None = getattr(socket.state, "job", None)
    if running is not None:
        running.cancel()
    socket.state.job = socket.start_stream(progress(data))


app = Telex([start_job, one_job])
