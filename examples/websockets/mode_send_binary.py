"""``send_mode="binary"``: replies are binary frames, whatever their content."""

from telex import Telex, websocket_listener


@websocket_listener("/", send_mode="binary")
async def handler(data: str) -> str:
    return data


app = Telex([handler])
