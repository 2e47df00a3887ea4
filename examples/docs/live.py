from collections.abc import AsyncGenerator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from telex import Telex, WebSocket, websocket_listener, websocket_stream
from telex.server import ServerStatus


async def ready(request: Request) -> PlainTextResponse:
    status: ServerStatus = request.scope["state"]["telex.server"]
    return PlainTextResponse("ready") if status.ready else PlainTextResponse("draining", status_code=503)


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
    http=Starlette(routes=[Route("/ready", ready)]),
    allowed_origins=["https://app.example.com"],
)
