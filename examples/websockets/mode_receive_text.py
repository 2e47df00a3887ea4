"""``receive_mode="text"`` is the default: the listener does not respond to binary frames."""

from telex import Telex, websocket_listener


@websocket_listener("/", receive_mode="text")
async def handler(data: str) -> str:
    return data


app = Telex([handler])
