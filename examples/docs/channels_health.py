import os

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from telex import Telex, channel_listener
from telex.channels import Channels


async def ready(_: Request) -> Response:
    """Send no new clients to a process that has lost the broker."""
    return Response(status_code=200 if channels.is_ready else 503)


async def statistics(_: Request) -> Response:
    return Response(msgspec.json.encode(channels.statistics()), media_type="application/json")


channels = Channels(os.environ.get("CHANNELS_URL", "memory://"), channels=["news"])
app = Telex(
    [channel_listener("/news", channel="news")],
    plugins=[channels],
    http=Starlette(routes=[Route("/ready", ready), Route("/channels", statistics)]),
)
