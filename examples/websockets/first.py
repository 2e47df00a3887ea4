"""The smallest listener: it sends every message back."""

from telex import Telex
from telex.handlers.websocket_handlers import websocket_listener


@websocket_listener("/")
async def handler(data: str) -> str:
    return data


app = Telex([handler])
