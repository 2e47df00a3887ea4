from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from telex import Telex, websocket_listener


@websocket_listener("/echo")
async def echo(data: str) -> str:
    return data


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse("the page")


app = Telex([echo], http=Starlette(routes=[Route("/", home)]))
