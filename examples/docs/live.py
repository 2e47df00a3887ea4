from collections.abc import AsyncGenerator

from telex import Telex, WebSocket, websocket_listener, websocket_stream
from telex.health import Health
from telex.server import ServerStatus


@websocket_listener("/echo", max_message_size=64 * 1024, max_queued_messages=8)
async def echo(data: str) -> str:
    return data


@websocket_stream("/last-words")
async def last_words(socket: WebSocket) -> AsyncGenerator[str, None]:
    status: ServerStatus = socket.state["telex.server"]
    yield "working"
    await status.draining.wait()
    yield "done, goodbye"


app = Telex(
    [echo, last_words],
    plugins=[Health()],
    allowed_origins=["https://app.example.com"],
)
