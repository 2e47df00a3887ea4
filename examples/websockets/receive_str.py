"""``data: str`` is the text unchanged."""

from telex import Telex, websocket_listener


@websocket_listener("/")
async def handler(data: str) -> str:
    return data.upper()


app = Telex([handler])
