from collections.abc import AsyncGenerator

from msgspec import Struct
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from telex import Channels, Telex, websocket_listener, websocket_stream


class Goal(Struct):
    team: str
    minute: int


@websocket_listener("/score")
async def score(data: Goal, channels: Channels) -> None:
    """Encoded once for all subscribers."""
    await channels.publish("goals", data)


async def score_by_http(request: Request) -> Response:
    """The HTTP app beside it publishes to the same channels."""
    await channels.publish("goals", await request.body())
    return Response(status_code=204)


@websocket_stream("/goals")
async def goals(channels: Channels) -> AsyncGenerator[bytes, None]:
    async with channels.subscribe("goals") as events:
        async for goal in events.iter_events():
            yield goal


channels = Channels("memory://", channels=["goals"])
app = Telex(
    [score, goals],
    plugins=[channels],
    http=Starlette(routes=[Route("/score", score_by_http, methods=["POST"])]),
)
