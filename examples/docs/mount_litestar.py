from litestar import Litestar, asgi, get
from litestar.types import Receive, Scope, Send

from telex import Telex, websocket_listener


@websocket_listener("/echo")
async def echo(data: str) -> str:
    return data


live = Telex([echo])


@asgi("/live", is_mount=True, copy_scope=True)
async def mount_live(scope: Scope, receive: Receive, send: Send) -> None:
    await live(scope, receive, send)  # type: ignore[arg-type]


@get("/")
async def home() -> str:
    return "the page"


app = Litestar([mount_live, home], lifespan=[lambda app: live.lifespan()], logging_config=None)
