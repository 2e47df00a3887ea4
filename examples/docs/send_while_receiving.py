import asyncio
from collections.abc import AsyncGenerator

from telex import Telex, WebSocket, websocket_listener


async def do_half() -> None:
    await asyncio.sleep(0.5)


async def progress(job: str) -> AsyncGenerator[str, None]:
    yield f"{job}: begun"
    await do_half()
    yield f"{job}: 50 %"
    await do_half()
    yield f"{job}: done"


@websocket_listener("/jobs")
async def start_job(data: str, socket: WebSocket) -> None:
    """Jobs run beside each other, and beside the listener."""
    socket.start_stream(progress(data))


@websocket_listener("/job")
async def one_job(data: str, socket: WebSocket) -> None:
    """Stop the job that runs, and start the next."""
    running: asyncio.Task[None] | None = socket.state.get("job")
    if running is not None:
        running.cancel()
    socket.state.job = socket.start_stream(progress(data))


app = Telex([start_job, one_job])
