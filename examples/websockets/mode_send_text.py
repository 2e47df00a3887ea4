"""``send_mode="text"`` is the default: replies are text frames."""

from telex import Telex, websocket_listener


@websocket_listener("/", send_mode="text")
async def handler(data: str) -> str:
    return data


app = Telex([handler])
