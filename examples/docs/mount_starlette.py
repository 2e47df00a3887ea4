from starlette.applications import Starlette
from starlette.routing import Mount

from telex import Telex, websocket_listener


@websocket_listener("/echo", name="echo")
async def echo(data: str) -> str:
    return data


live = Telex([echo])
app = Starlette(routes=[Mount("/live", live)], lifespan=lambda app: live.lifespan())
