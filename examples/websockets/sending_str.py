"""A returned ``str`` is sent unchanged."""

from telex import Telex, websocket_listener


@websocket_listener("/")
async def handler(data: str) -> str:
    return f"you said {data!r}"


app = Telex([handler])
