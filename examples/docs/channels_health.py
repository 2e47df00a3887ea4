import os

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from telex import Telex, channel_listener
from telex.channels import Channels
from telex.health import Health


async def statistics(_: Request) -> Response:
    return Response(msgspec.json.encode(channels.statistics()), media_type="application/json")


channels = Channels(os.environ.get("CHANNELS_URL", "memory://"), channels=["news"])
app = Telex(
    [channel_listener("/news", channel="news")],
    plugins=[channels, Health()],
    http=Starlette(routes=[Route("/channels", statistics)]),
)
